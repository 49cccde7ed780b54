//! Values of Python as settings, and settings as JSON.

use onward::export::{Table, Value};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::OnwardError;

/// A setting from Python: a number, a word, a truth value, a list or a dictionary.
pub fn setting(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    // A truth value is a whole number too. NumPy has its own.
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(Value::Boolean(value.is_true()));
    }
    if ["bool", "bool_"].contains(&&*value.get_type().name()?.to_string()) {
        return Ok(Value::Boolean(value.is_truthy()?));
    }
    if value.cast::<PyInt>().is_ok() {
        let number = value.extract();
        let too_large = |_| OnwardError::new_err(format!("setting `{key}`: {value} is too large"));
        return Ok(Value::Integer(number.map_err(too_large)?));
    }
    if value.cast::<PyFloat>().is_ok() {
        return Ok(Value::Float(value.extract()?));
    }
    if let Ok(value) = value.cast::<PyString>() {
        return Ok(Value::String(value.to_string()));
    }
    if let Ok(value) = value.cast::<PyDict>() {
        let mut table = Table::new();
        for (inner, value) in value {
            let inner: String = inner.extract()?;
            let value = setting(&format!("{key}.{inner}"), &value)?;
            table.insert(inner, value);
        }
        return Ok(Value::Table(table));
    }
    if let Ok(items) = value.try_iter() {
        let items = items.map(|item| setting(key, &item?));
        return Ok(Value::Array(items.collect::<PyResult<_>>()?));
    }
    // Numbers of NumPy, paths.
    for method in ["__index__", "__float__", "__fspath__"] {
        if value.hasattr(method)? {
            return setting(key, &value.call_method0(method)?);
        }
    }
    let found = value.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "setting `{key}`: expected a number, a word, a truth value, a list or a dictionary, found {found}"
    )))
}

/// A setting for Python.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::String(text) => text.into_pyobject(py)?.into_any(),
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Float(number) => number.into_pyobject(py)?.into_any(),
        Value::Boolean(truth) => PyBool::new(py, *truth).to_owned().into_any(),
        Value::Array(values) => {
            let values = values.iter().map(|value| to_python(py, value));
            PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Value::Table(table) => {
            let entries = PyDict::new(py);
            for (key, value) in table {
                entries.set_item(key, to_python(py, value)?)?;
            }
            entries.into_any()
        }
        other => other.to_string().into_pyobject(py)?.into_any(),
    })
}

/// A setting as JSON.
pub fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Array(values) => values.iter().map(to_json).collect(),
        Value::Table(table) => {
            let entries = table
                .iter()
                .map(|(key, value)| (key.clone(), to_json(value)));
            serde_json::Value::Object(entries.collect())
        }
        other => other.to_string().into(),
    }
}
