//! The native part of the Python package `onward`. It takes and returns plain values; the
//! Python files beside it turn them into arrays and objects.

mod arrays;
mod convert;
mod data;
mod plugins;
mod process;
mod run;
mod training;

use onward::kernels::Allocator;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{create_exception, exceptions::PyValueError};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

create_exception!(
    onward,
    OnwardError,
    PyValueError,
    "What went wrong, where, and what to do. `key`, `found` and `expected` are those of a setting, else None."
);

/// The exception for an error.
fn raised(error: onward::Error) -> PyErr {
    let mut inner = &error;
    while let onward::Error::At { source, .. } = inner {
        inner = source;
    }
    let cause = match inner {
        onward::Error::Plugin { cause, .. } => cause.as_ref(),
        _ => None,
    };
    let cause = cause.and_then(|cause| cause.downcast_ref::<PyErr>());
    let cause = cause.map(|cause| Python::attach(|py| cause.clone_ref(py)));
    if let Some(interrupted) = cause.as_ref().filter(|cause| is_ctrl_c(cause)) {
        return Python::attach(|py| interrupted.clone_ref(py));
    }
    let text = in_words(&error, inner);
    if error.is_file() {
        return PyOSError::new_err(text);
    }
    let exception = OnwardError::new_err(text);
    let [key, found, expected] = match inner {
        onward::Error::Setting {
            key,
            value,
            expected,
            ..
        } => [key.clone(), value.clone(), expected.clone()].map(Some),
        onward::Error::UnknownSetting { key, known, .. } => {
            [Some(key.clone()), None, Some(known.join(", "))]
        }
        onward::Error::UnknownPlugin { kind, name, known } => [
            Some(kind.to_string()),
            Some(name.clone()),
            Some(known.join(", ")),
        ],
        _ => [None, None, None],
    };
    Python::attach(|py| {
        exception.set_cause(py, cause);
        let value = exception.value(py);
        for (name, part) in [("key", key), ("found", found), ("expected", expected)] {
            let part = part.map(|part| PyString::new(py, &part));
            // An exception takes any attribute.
            let _ = value.setattr(name, part);
        }
    });
    exception
}

fn is_ctrl_c(cause: &PyErr) -> bool {
    Python::attach(|py| cause.is_instance_of::<PyKeyboardInterrupt>(py))
}

/// An error in words; how a plugin is linked is another matter in Python.
fn in_words(error: &onward::Error, inner: &onward::Error) -> String {
    let text = error.to_string();
    let end = "; a plugin of another crate";
    match (inner, text.split_once(end)) {
        (onward::Error::UnknownPlugin { .. }, Some((text, _))) => {
            format!("{text}; a plugin in Python has to be defined first: import its file")
        }
        _ => text,
    }
}

/// All plugins as JSON: a list with kind, name, summary, settings and presets.
#[pyfunction]
fn list() -> PyResult<String> {
    use onward::plugin::registry::{infos, KINDS};
    let mut found = Vec::new();
    for kind in KINDS {
        for info in infos(kind).map_err(raised)? {
            let settings: Vec<_> = (info.settings)()
                .iter()
                .map(|setting| {
                    serde_json::json!({
                        "key": setting.key,
                        "default": setting.default.as_ref().map(convert::to_json),
                        "allowed": setting.allowed,
                        "help": setting.help,
                    })
                })
                .collect();
            let presets: Vec<_> = info
                .presets()
                .iter()
                .map(|preset| serde_json::json!({"name": preset.name, "about": preset.about}))
                .collect();
            found.push(serde_json::json!({
                "kind": kind,
                "name": info.name,
                "about": info.about,
                "package": info.package,
                "settings": settings,
                "presets": presets,
            }));
        }
    }
    Ok(serde_json::Value::from(found).to_string())
}

/// The program `onward` with these arguments; the exit code. `again` are the words that
/// start it once more.
#[pyfunction]
fn program(
    py: Python<'_>,
    arguments: Vec<std::ffi::OsString>,
    again: Vec<std::ffi::OsString>,
) -> u8 {
    onward::cli::started_by(again);
    let code = py.detach(|| onward::cli::main_with(arguments));
    // A code cannot be read, only compared.
    (0..=u8::MAX)
        .find(|known| code == (*known).into())
        .unwrap_or(1)
}

#[pymodule]
fn _onward(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("OnwardError", module.py().get_type::<OnwardError>())?;
    module.add_class::<run::Run>()?;
    module.add_class::<data::Data>()?;
    module.add_function(wrap_pyfunction!(training::train, module)?)?;
    module.add_function(wrap_pyfunction!(training::resume, module)?)?;
    module.add_function(wrap_pyfunction!(run::open, module)?)?;
    module.add_function(wrap_pyfunction!(list, module)?)?;
    module.add_function(wrap_pyfunction!(program, module)?)?;
    module.add_function(wrap_pyfunction!(process::finish, module)?)?;
    module.add_function(wrap_pyfunction!(plugins::register, module)?)?;
    module.add_function(wrap_pyfunction!(plugins::conformance_of, module)?)?;
    Ok(())
}
