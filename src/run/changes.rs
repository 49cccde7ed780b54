//! Settings that are changed on purpose when a run is resumed.

use std::path::Path;

use super::assemble::check_precision;
use super::checkpoint::Header;
use super::feed::{order, Feed};
use super::{settings, Run};
use crate::error::{Error, Result};

impl Run {
    /// Why a checkpoint does not fit the network: settings that were changed on purpose, or
    /// a file that does not belong to the configuration beside it.
    pub(super) fn not_restored(
        &self,
        path: &Path,
        header: &Header,
        error: &Error,
    ) -> Result<Error> {
        let changes = match &header.settings {
            Some(settings) => self.changes_since(settings)?,
            None => Vec::new(), // of an older version
        };
        // More epochs change no variable, and another plugin brings other settings with it.
        let changes = changes.iter().filter(|(key, ..)| key != "epochs");
        let first = changes.min_by_key(|(key, ..)| !key.ends_with(".name"));
        let Some((key, before, now)) = first else {
            return Ok(Error::run(path, error.to_string()));
        };
        let expected = format!(
            "{before}, since other variables were trained ({error}); to train a network with \
             {key} = {now}, start a new run"
        );
        Ok(Error::refused(key, now, expected))
    }

    /// The settings that differ from those of a checkpoint, with their values there and
    /// now.
    fn changes_since(&self, settings: &str) -> Result<Vec<settings::Difference>> {
        let before = settings::completed(&self.config.architecture, settings)?;
        Ok(self.differences_from(&before))
    }

    fn differences_from(&self, before: &str) -> Vec<settings::Difference> {
        settings::differences(before, &settings::of(&self.config))
    }

    /// Notes what was set on purpose since the checkpoint with these settings.
    pub(super) fn note_changes(&mut self, settings: Option<String>) -> Result<()> {
        let Some(settings) = settings else {
            return Ok(()); // of an older version
        };
        let before = settings::completed(&self.config.architecture, &settings)?;
        let changes = self.differences_from(&before);
        if changes.is_empty() {
            return Ok(());
        }
        let changes = changes.into_iter();
        let changes = changes.map(|(key, before, now)| format!("{key} from {before} to {now}"));
        let changes: Vec<String> = changes.collect();
        let change = format!("{} after epoch {}", changes.join(", "), self.epoch);
        self.changes.push(change);
        self.previous = Some(before);
        Ok(())
    }

    /// The step of a checkpoint, if epochs have another number of steps since `batch` was
    /// changed. Within an epoch that is refused: its batches would not fit together.
    pub(super) fn step_with_this_batch(&self, header: &Header) -> Result<u64> {
        let before = header.settings.as_deref();
        let before = before.and_then(|settings| settings::number(settings, "batch"));
        let (Some(before), Some(examples)) = (before, header.examples) else {
            return Ok(header.step);
        };
        let batch = self.config.run.batch;
        let steps = examples.div_ceil(before.min(examples).max(1)).max(1);
        match header.step == (header.epoch * steps) as u64 {
            _ if before.min(examples) == batch.min(examples) => Ok(header.step),
            true => Ok((header.epoch * self.steps_per_epoch()) as u64),
            false => {
                let expected = format!(
                    "{before}, since the run stopped within epoch {}; change it between epochs",
                    header.epoch + 1
                );
                Err(Error::refused("batch", batch, expected))
            }
        }
    }

    /// Refuses other settings for a run that would not train with them.
    pub(super) fn check_changes(&self) -> Result<()> {
        let Some(before) = &self.previous else {
            return Ok(());
        };
        let changes = self.differences_from(before);
        let changes_any = |wanted: &dyn Fn(&str) -> bool| {
            let mut keys = changes.iter().map(|(key, ..)| key.as_str());
            keys.any(wanted)
        };
        let (epoch, stalled) = (self.epoch, self.epochs_without_better());
        // With less patience a run may end now.
        let is_for_training = |key: &str| !["patience", "readout"].contains(&key);
        if self.has_stalled() && changes_any(&is_for_training) {
            let expected = format!(
                "a larger one, or 0, to train further: the last {stalled} of {epoch} epochs \
                 were no better on the validation part"
            );
            return Err(Error::refused(
                "patience",
                self.config.run.patience,
                expected,
            ));
        }
        if self.is_trained() && changes_any(&|key| key == "replicas") {
            let expected = format!("more `epochs` too, since all {epoch} are trained");
            return Err(Error::refused(
                "replicas",
                self.config.run.replicas,
                expected,
            ));
        }
        Ok(())
    }

    /// Whether the run trains on a single rank, with settings that were changed.
    pub(super) fn trains_otherwise(&self) -> bool {
        let changes = |before: &String| {
            let changes = self.differences_from(before);
            let lasts = |key: &str| ["epochs", "patience", "readout"].contains(&key);
            changes.iter().any(|(key, ..)| !lasts(key))
        };
        !self.is_trained() && self.team.is_none() && self.previous.as_ref().is_some_and(changes)
    }

    /// Takes the next step of a run that is then dropped: what refuses the changed settings
    /// is known before anything is written.
    pub(super) fn rehearse(mut self) -> Result<()> {
        check_precision(self.config.run.precision, &self.device)?;
        self.check_memory()?;
        self.check_ranks()?;
        rayon::scope(|_| {
            let _pass = self.pass()?;
            let (epoch, steps) = (self.epoch, self.steps_per_epoch());
            let done = self.done_in(epoch, steps)?;
            if done == 0 {
                self.refresh_sampler(epoch)?;
            }
            let examples = self.data.train.len();
            let order = order(self.config.run.seed, epoch, examples)?;
            let mut batches = order.chunks(self.config.run.batch.min(examples).max(1));
            let Some(indices) = batches.nth(done) else {
                return Ok(());
            };
            let step = self.step_of(epoch);
            let batch = Feed::of(&self).batch(indices, &step)?;
            let learned = self.architecture.learn(&batch, &*self.sampler, &step);
            learned.map(drop)
        })
    }
}
