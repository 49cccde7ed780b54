//! The file that a run is loaded from, a model that is mended from the state beside it,
//! and data that have changed since the training.

use std::path::{Path, PathBuf};

use super::checkpoint::{self, Header, Saved};
use super::folder::{to_go_on, Folder, MODEL, STATE, SUMMARY};
use super::saving::PARTS;
use super::{mixture, summary, Run};
use crate::error::{notify, Error, Result};

/// The checkpoint to load, and what is wrong with the model.
pub(super) struct Chosen {
    path: PathBuf,
    fault: Option<&'static str>,
}

impl Chosen {
    /// The model if only the weights are needed and it is current, otherwise the training
    /// state.
    pub fn of(folder: &Path, with_state: bool) -> Self {
        let (state, model) = (folder.join(STATE), folder.join(MODEL));
        let header = checkpoint::header_of(&state);
        // To predict, the model is enough.
        let is_damaged = header.is_none() && checkpoint::header_of(&model).is_some();
        let is_current = header.is_some_and(|header| checkpoint::is_of(&model, &header));
        if !state.is_file() || (is_current || is_damaged) && !with_state {
            return Self {
                path: model,
                fault: None,
            };
        }
        let fault = match (model.is_file(), checkpoint::header_of(&model)) {
            _ if is_current => None,
            (false, _) => Some("was missing"),
            (true, None) => Some("was damaged"),
            (true, Some(_)) => Some("was not of the same moment as the state"),
        };
        Self { path: state, fault }
    }

    /// Reads the checkpoint; where a model is damaged, the state beside it. To use a run,
    /// as `resumes` is false for, its model is enough where the state is damaged.
    pub fn read(self, folder: &Path, resumes: bool) -> Result<(Saved, Option<&'static str>)> {
        let (state, model) = (folder.join(STATE), folder.join(MODEL));
        let is_state = self.path == state;
        // Of a damaged header that is not known.
        let is_other = self.fault.is_some() && checkpoint::header_of(&state).is_some();
        let files = [&state, &model, &folder.join(SUMMARY)];
        if !files.iter().any(|file| file.exists()) {
            return Err(without_checkpoint(folder));
        }
        match checkpoint::read(&self.path) {
            Err(_) if !is_state && state.is_file() => {
                Ok((checkpoint::read(&state)?, Some("was damaged")))
            }
            Err(error) if is_state && !resumes && !is_other => {
                let Ok(saved) = checkpoint::read(&model) else {
                    return Err(error);
                };
                notify(format_args!(
                    "warning: {error}. {MODEL} is used instead; without the state the run \
                     cannot be resumed"
                ));
                Ok((saved, None))
            }
            // Its header is that of the state, its weights may be damaged.
            Ok(saved) if is_state && !resumes && self.fault.is_none() => {
                let is_damaged = checkpoint::read(&model).is_err();
                Ok((saved, is_damaged.then_some("was damaged")))
            }
            read => Ok((read?, self.fault)),
        }
    }
}

/// Refuses a run that was stopped before its first checkpoint.
fn without_checkpoint(folder: &Path) -> Error {
    let problem = format!(
        "is not finished: it has no checkpoint yet, expected {MODEL} or {STATE}; {}",
        to_go_on(folder)
    );
    Error::run(folder, problem)
}

/// Writes the model again from the training state `saved`, if no other process is writing
/// there and the state is still the same.
pub(super) fn mend_model(folder: &Path, fault: &str, saved: &Saved) {
    let path = folder.join(MODEL);
    let write = || -> Result<()> {
        let _lock = Folder::lock(folder)?;
        if checkpoint::header_of(&folder.join(STATE)).as_ref() != Some(&saved.header) {
            return Err(Error::run(folder, "has changed"));
        }
        let model = saved.tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix("model.")?.to_string(), tensor.clone()))
        });
        checkpoint::set_aside(folder, &saved.header);
        let summary = summary::read(&folder.join(SUMMARY)).ok();
        // One of an earlier end says nothing about this state.
        let summary = summary.filter(|summary| summary["epochs"] == saved.header.epoch);
        let readout = summary.and_then(|summary| mixture::readout_of(&summary));
        checkpoint::write(&path, &model.collect(), &saved.header.with_readout(readout))
    };
    let outcome = match write() {
        Ok(()) => format!("it was written again from {STATE}"),
        Err(_) => format!("{STATE} is used instead"),
    };
    notify(format_args!(
        "warning: {}: {fault}; {outcome}",
        path.display()
    ));
}

impl Run {
    /// Warns if parts of the data are not those that the run was trained with.
    pub(super) fn warn_of_changed_data(&self, header: &Header) -> Result<()> {
        let Some(before) = header.data else {
            return Ok(()); // of an older version
        };
        let now = self.fingerprints()?;
        let parts = PARTS.iter().zip(before.iter().zip(&now));
        let changed = parts.filter(|(_, (before, now))| before != now);
        let changed: Vec<&str> = changed.map(|(part, _)| part.word()).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let count = self.data.train.len();
        let difference = match header.examples.filter(|before| *before != count) {
            Some(before) => format!("there were {before} training examples, and are {count} now"),
            None => "an example or a label changed".into(),
        };
        // Counts on other text would not be those of this run.
        let left_out = match self.data.text.is_some() && !self.has_own_data {
            true => "; no baseline is counted on that training part",
            false => "",
        };
        notify(format_args!(
            "warning: the data are not those that the run was trained on; different parts: {} \
             ({difference}); test examples may have been trained on{left_out}",
            changed.join(", ")
        ));
        Ok(())
    }
}
