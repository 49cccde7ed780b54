//! Training, with calls back into Python.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use onward::run::observe::{Event, Observer};
use onward::RunBuilder;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::data::Data;
use crate::run::Run;
use crate::{convert, process, raised};

/// The time between two looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);

/// Tells Python of epochs and evaluations, and ends the training if Python raises.
struct Caller {
    callback: Py<PyAny>,
    /// The names of the blocks.
    blocks: Vec<String>,
    stop: Arc<AtomicBool>,
    raised: Option<PyErr>,
}

impl Observer for Caller {
    fn on(&mut self, event: &Event<'_>) {
        let told = match event {
            Event::Started { blocks, .. } => {
                self.blocks = blocks.to_vec();
                return;
            }
            Event::EpochEnded {
                epoch,
                epochs,
                seconds,
                reports,
                ..
            } => {
                let blocks: Vec<_> = reports
                    .iter()
                    .map(|(block, report)| {
                        serde_json::json!({
                            "block": self.blocks.get(*block),
                            "loss": report.loss,
                            "positive": report.positive,
                            "negative": report.negative,
                        })
                    })
                    .collect();
                serde_json::json!({
                    "event": "epoch", "epoch": epoch, "epochs": epochs, "seconds": seconds,
                    "blocks": blocks,
                })
            }
            Event::Evaluated {
                epoch,
                split,
                evaluation,
            } => serde_json::json!({
                "event": "evaluation", "epoch": epoch, "split": split.word(),
                "result": evaluation,
            }),
            Event::Finished { summary } => {
                serde_json::json!({ "event": "finished", "summary": summary })
            }
            _ => return,
        };
        if self.raised.is_some() {
            return;
        }
        let called = Python::attach(|py| self.callback.call1(py, (told.to_string(),)).map(|_| ()));
        if let Err(error) = called {
            self.stop.store(true, Ordering::Relaxed);
            self.raised = Some(error);
        }
    }
}

/// Builds and trains on a thread of its own, while this one, which alone may see Ctrl-C,
/// looks for it.
fn fit(
    py: Python<'_>,
    build: impl FnOnce(Arc<AtomicBool>) -> onward::Result<onward::Run> + Send,
    callback: Py<PyAny>,
) -> PyResult<(Run, String)> {
    let _active = process::enter()?;
    let stop = Arc::new(AtomicBool::new(false));
    process::remember(&stop);
    let mut caller = Caller {
        callback,
        blocks: Vec::new(),
        stop: stop.clone(),
        raised: None,
    };
    let mut interrupted = None;
    let fitted = std::thread::scope(|scope| {
        let (to_build, observer) = (stop.clone(), &mut caller);
        let training = scope.spawn(move || {
            let mut run = build(to_build)?;
            let summary = run.fit(observer)?;
            Ok((run, summary))
        });
        while !training.is_finished() {
            py.detach(|| std::thread::sleep(LOOK));
            if let Err(error) = py.check_signals() {
                stop.store(true, Ordering::Relaxed);
                interrupted.get_or_insert(error);
            }
        }
        training.join()
    });
    // What Python raised is why the run was stopped.
    if let Some(exception) = interrupted.or(caller.raised) {
        return Err(exception);
    }
    let fitted = fitted.map_err(|_| PyRuntimeError::new_err("the training panicked"))?;
    let (run, summary) = fitted.map_err(raised)?;
    Ok((Run(run), serde_json::json!(summary).to_string()))
}

/// Adds the settings of a dictionary.
fn with_settings(mut builder: RunBuilder, settings: &Bound<'_, PyDict>) -> PyResult<RunBuilder> {
    for (key, value) in settings {
        let key: String = key.extract()?;
        let value = convert::setting(&key, &value)?;
        builder = builder.set(&key, value);
    }
    Ok(builder)
}

/// Trains; returns the run and its summary as JSON.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn train(
    py: Python<'_>,
    architecture: &str,
    settings: &Bound<'_, PyDict>,
    data: Option<&Bound<'_, Data>>,
    preset: Option<String>,
    out: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    device: &str,
    callback: Py<PyAny>,
) -> PyResult<(Run, String)> {
    let mut builder = with_settings(onward::Run::builder(architecture), settings)?.device(device);
    if let Some(data) = data {
        builder = builder.data_set(data.get().0.clone());
    }
    if let Some(preset) = preset {
        builder = builder.preset(&preset);
    }
    if let Some(out) = out {
        builder = builder.out(out);
    }
    if let Some(folder) = data_dir {
        builder = builder.data_dir(folder);
    }
    fit(py, |stop| builder.stop_when(stop).build(), callback)
}

/// Continues the run of a folder; returns it and its summary as JSON.
#[pyfunction]
pub fn resume(
    py: Python<'_>,
    folder: PathBuf,
    settings: &Bound<'_, PyDict>,
    data: Option<&Bound<'_, Data>>,
    data_dir: Option<PathBuf>,
    device: &str,
    callback: Py<PyAny>,
) -> PyResult<(Run, String)> {
    let builder = onward::Run::open(folder).map_err(raised)?;
    let mut builder = with_settings(builder, settings)?.device(device);
    if let Some(data) = data {
        builder = builder.data_set(data.get().0.clone());
    }
    if let Some(folder) = data_dir {
        builder = builder.data_dir(folder);
    }
    fit(py, |stop| builder.stop_when(stop).resume(), callback)
}
