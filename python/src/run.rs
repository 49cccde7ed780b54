//! A run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onward::candle_core::{DType, Device, Tensor};
use onward::data::Split;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::data::Data;
use crate::{convert, raised, OnwardError};

/// A trained or opened network, with its data and settings.
#[pyclass(frozen, module = "onward._onward")]
pub struct Run(Mutex<onward::Run>);

/// The bytes of an array of `f32`, and its shape.
type Array = (Py<PyBytes>, Vec<usize>);
/// The same before Python has them.
type Numbers = (Vec<u8>, Vec<usize>);

impl Run {
    pub fn of(run: onward::Run) -> Self {
        Self(Mutex::new(run))
    }

    fn lock(&self) -> MutexGuard<'_, onward::Run> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the run, while other threads of Python go on.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&onward::Run) -> onward::Result<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| f(&self.lock())).map_err(raised)
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
    Ok(Run::of(opened.map_err(raised)?))
}

fn tensor(array: &Bound<'_, PyAny>, shape: Vec<usize>) -> PyResult<Tensor> {
    let values = PyBuffer::<f32>::get(array)?.to_vec(array.py())?;
    Tensor::from_vec(values, shape, &Device::Cpu).map_err(|error| raised(error.into()))
}

/// Examples as the run reads them: tokens of text are whole numbers.
fn of(run: &onward::Run, examples: Tensor) -> onward::Result<Tensor> {
    Ok(match run.data().text {
        Some(_) => examples.to_dtype(DType::U32)?,
        None => examples,
    })
}

/// The numbers of a tensor as bytes in the order of the processor.
fn values(tensor: &Tensor) -> onward::Result<Numbers> {
    let flat = tensor
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?;
    let values = flat.to_vec1::<f32>()?;
    let bytes = values.into_iter().flat_map(f32::to_ne_bytes).collect();
    Ok((bytes, tensor.dims().to_vec()))
}

fn array(py: Python<'_>, (bytes, shape): Numbers) -> Array {
    (PyBytes::new(py, &bytes).unbind(), shape)
}

fn arrays(py: Python<'_>, found: Vec<(String, Numbers)>) -> Vec<(String, Array)> {
    let found = found.into_iter();
    found
        .map(|(name, values)| (name, array(py, values)))
        .collect()
}

#[pymethods]
impl Run {
    /// The settings as JSON.
    fn settings(&self) -> String {
        let table = self.lock().config().to_table();
        convert::to_json(&table.into()).to_string()
    }

    /// Name, epochs, readouts, classes and more as JSON.
    fn facts(&self) -> String {
        let run = self.lock();
        let readouts = &run.architecture().net().readouts;
        let readouts: Vec<_> = readouts
            .iter()
            .map(|readout| readout.name.to_string())
            .collect();
        serde_json::json!({
            "architecture": run.config().architecture,
            "epoch": run.epoch(),
            "epochs": run.epochs(),
            "readouts": readouts,
            "readout": run.preferred_readout(),
            "classes": run.data().spec.classes,
            "shape": run.data().spec.shape,
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
        shape: Vec<usize>,
        readout: String,
    ) -> PyResult<Array> {
        let examples = tensor(examples, shape)?;
        let found = self.with(py, |run| values(&run.scores(of(run, examples)?, &readout)?))?;
        Ok(array(py, found))
    }

    /// The activities of every layer.
    fn activities(
        &self,
        py: Python<'_>,
        examples: &Bound<'_, PyAny>,
        shape: Vec<usize>,
    ) -> PyResult<Vec<(String, Array)>> {
        let examples = tensor(examples, shape)?;
        let found = self.with(py, |run| {
            let activities = run.activities(of(run, examples)?)?.into_iter();
            activities
                .map(|(name, activity)| Ok((name, values(&activity)?)))
                .collect()
        })?;
        Ok(arrays(py, found))
    }

    /// The variables of the model.
    fn weights(&self, py: Python<'_>) -> PyResult<Vec<(String, Array)>> {
        let found = self.with(py, |run| {
            let model = run.vars().model().into_iter();
            model
                .map(|(name, var)| Ok((name, values(var.as_tensor())?)))
                .collect()
        })?;
        Ok(arrays(py, found))
    }

    /// Sets variables of the model.
    fn set_weights(&self, weights: Vec<(String, Bound<'_, PyAny>, Vec<usize>)>) -> PyResult<()> {
        let run = self.lock();
        let model: HashMap<_, _> = run.vars().model().into_iter().collect();
        let mut found = Vec::new();
        for (name, array, shape) in weights {
            let Some(var) = model.get(&name) else {
                let mut known: Vec<_> = model.keys().map(String::as_str).collect();
                known.sort_unstable();
                let known = known.join(", ");
                let problem = format!("there is no variable `{name}`; known: {known}");
                return Err(OnwardError::new_err(problem));
            };
            if var.dims() != shape {
                let problem = format!(
                    "variable `{name}`: expected shape {:?}, found {shape:?}",
                    var.dims()
                );
                return Err(OnwardError::new_err(problem));
            }
            found.push((var, tensor(&array, shape)?));
        }
        let set = || -> onward::Result<()> {
            for (var, value) in found {
                var.set(&value.to_dtype(var.dtype())?.to_device(var.device())?)?;
            }
            run.vars().changed();
            Ok(())
        };
        set().map_err(raised)
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
