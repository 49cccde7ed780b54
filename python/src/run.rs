//! A run.

use std::collections::HashMap;
use std::path::PathBuf;

use onward::candle_core::{DType, Tensor};
use onward::data::Split;
use onward::run::onnx;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::{to_python, to_tensor, Array};
use crate::data::Data;
use crate::{convert, process, raised, OnwardError};

/// A trained or opened network, with its data and settings.
#[pyclass(frozen, module = "onward._onward")]
pub struct Run(pub onward::Run);

impl Run {
    /// Calls `f` with the run, while other threads of Python go on.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&onward::Run) -> onward::Result<T> + Send,
    ) -> PyResult<T> {
        let _active = process::enter()?;
        py.detach(|| f(&self.0)).map_err(raised)
    }
}

/// Opens a run; without its data it can only predict.
#[pyfunction]
pub fn open(
    py: Python<'_>,
    folder: PathBuf,
    with_data: bool,
    data: Option<&Bound<'_, Data>>,
    data_dir: Option<PathBuf>,
    device: String,
) -> PyResult<Run> {
    let _active = process::enter()?;
    let data = data.map(|data| data.get().0.clone());
    let opened = py.detach(|| {
        let mut builder = onward::Run::open(folder)?.device(&device);
        builder = match data {
            Some(data) => builder.data_set(data),
            None if with_data => builder,
            None => builder.without_data(),
        };
        if let Some(folder) = data_dir {
            builder = builder.data_dir(folder);
        }
        builder.build()
    });
    Ok(Run(opened.map_err(raised)?))
}

/// Examples as the run reads them: tokens of text are whole numbers.
fn of(run: &onward::Run, examples: Tensor) -> onward::Result<Tensor> {
    Ok(match run.data().text {
        Some(_) => examples.to_dtype(DType::U32)?,
        None => examples,
    })
}

/// Named tensors for Python.
fn named(py: Python<'_>, tensors: Vec<(String, Tensor)>) -> PyResult<Vec<(String, Array)>> {
    let tensors = tensors.into_iter();
    tensors
        .map(|(name, tensor)| Ok((name, to_python(py, &tensor)?)))
        .collect()
}

#[pymethods]
impl Run {
    /// The settings as a dictionary.
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        convert::to_python(py, &self.0.config().to_table().into())
    }

    /// Name, epochs, readouts, classes and more as JSON.
    fn facts(&self) -> String {
        let run = &self.0;
        let readouts = &run.architecture().net().readouts;
        let readouts: Vec<_> = readouts.iter().map(|readout| readout.name).collect();
        serde_json::json!({
            "architecture": run.config().architecture,
            "epoch": run.epoch(),
            "epochs": run.epochs(),
            "readouts": readouts,
            "readout": run.preferred_readout(),
            "classes": run.data().spec.classes,
            "shape": run.data().spec.shape,
            "before": run.data().spec.before,
            "is_text": run.data().text.is_some(),
            "folder": run.folder(),
            "device": run.device(),
        })
        .to_string()
    }

    /// The scores of every class, `(B, C)`.
    fn scores(
        &self,
        py: Python<'_>,
        examples: &Bound<'_, PyAny>,
        readout: String,
    ) -> PyResult<Array> {
        let examples = to_tensor(examples)?;
        let found = self.with(py, |run| run.scores(of(run, examples)?, &readout))?;
        to_python(py, &found)
    }

    /// The activities of every layer.
    fn activities(
        &self,
        py: Python<'_>,
        examples: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<(String, Array)>> {
        let examples = to_tensor(examples)?;
        let found = self.with(py, |run| run.activities(of(run, examples)?))?;
        named(py, found)
    }

    /// The goodness of every layer, with these labels in the input or without a label.
    fn goodness(
        &self,
        py: Python<'_>,
        examples: &Bound<'_, PyAny>,
        labels: Option<Vec<u32>>,
    ) -> PyResult<Vec<(String, Array)>> {
        let examples = to_tensor(examples)?;
        let found = self.with(py, |run| {
            run.goodness(of(run, examples)?, labels.as_deref())
        })?;
        named(py, found)
    }

    /// The operations of a readout as JSON, and their constants.
    fn graph(&self, py: Python<'_>, readout: String) -> PyResult<(String, Vec<(String, Array)>)> {
        let graph = self.with(py, |run| run.graph(&readout))?;
        let entries = serde_json::json!(graph.entries()).to_string();
        Ok((entries, named(py, graph.constants().to_vec())?))
    }

    /// A readout in the format of ONNX.
    fn onnx<'py>(&self, py: Python<'py>, readout: String) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.with(py, |run| onnx::model(&run.graph(&readout)?))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The variables of the model.
    fn weights(&self, py: Python<'_>) -> PyResult<Vec<(String, Array)>> {
        let model = self.with(py, |run| Ok(run.vars().model()))?.into_iter();
        let tensors = model.map(|(name, var)| (name, var.as_tensor().clone()));
        named(py, tensors.collect())
    }

    /// Sets variables of the model.
    fn set_weights(
        &self,
        py: Python<'_>,
        weights: Vec<(String, Bound<'_, PyAny>)>,
    ) -> PyResult<()> {
        let weights = weights.into_iter();
        let weights = weights.map(|(name, array)| Ok((name, to_tensor(&array)?)));
        let weights = weights.collect::<PyResult<Vec<_>>>()?;
        let set = |run: &onward::Run| {
            let model: HashMap<_, _> = run.vars().model().into_iter().collect();
            let mut found = Vec::new();
            for (name, value) in &weights {
                let Some(var) = model.get(name) else {
                    let mut known: Vec<_> = model.keys().map(String::as_str).collect();
                    known.sort_unstable();
                    let known = known.join(", ");
                    return Ok(Some(format!(
                        "there is no variable `{name}`; known: {known}"
                    )));
                };
                if var.dims() != value.dims() {
                    let (expected, found) = (var.dims(), value.dims());
                    return Ok(Some(format!(
                        "variable `{name}`: expected shape {expected:?}, found {found:?}"
                    )));
                }
                found.push((var, value));
            }
            for (var, value) in found {
                var.set(&value.to_dtype(var.dtype())?.to_device(var.device())?)?;
            }
            run.vars().changed();
            Ok(None)
        };
        match self.with(py, set)? {
            Some(problem) => Err(OnwardError::new_err(problem)),
            None => Ok(()),
        }
    }

    /// The evaluation of a part of the data as JSON.
    fn evaluate(&self, py: Python<'_>, split: &str) -> PyResult<String> {
        let split = match split {
            "train" => Some(Split::Train),
            "validation" => Some(Split::Validation),
            "test" => Some(Split::Test),
            "all" => None,
            other => {
                let problem = format!("part `{other}`: expected train, validation, test or all");
                return Err(OnwardError::new_err(problem));
            }
        };
        let evaluation = self.with(py, |run| {
            let readout = run.preferred_readout();
            match split {
                Some(split) => run.evaluate(split, Some(&readout)),
                None => run.evaluate_all(Some(&readout)),
            }
        })?;
        Ok(serde_json::json!(evaluation).to_string())
    }

    /// The answers for pictures in files as JSON.
    fn classify(&self, py: Python<'_>, files: Vec<PathBuf>) -> PyResult<String> {
        let answers = self.with(py, |run| run.predict(&files, None))?;
        Ok(serde_json::json!(answers).to_string())
    }

    /// Writes the run to a folder.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        self.with(py, |run| run.save(folder))
    }
}
