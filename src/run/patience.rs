//! Early stopping: a training ends when the validation part no longer gets better.

use serde::{Deserialize, Serialize};

use super::observe::{Event, Observer};
use super::summary::Evaluation;
use super::Run;
use crate::error::{Error, Result};

/// The best evaluation on the validation part so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// The error or, for text, the bits per token.
    pub score: f64,
    /// The number of epochs before it.
    pub epoch: usize,
    /// The number of epochs before the last evaluation.
    pub evaluated: usize,
}

impl Best {
    /// With the score of one more evaluation.
    fn or(best: Option<Self>, score: f64, epoch: usize) -> Self {
        match best {
            Some(best) if best.score <= score || score.is_nan() => Self {
                evaluated: epoch,
                ..best
            },
            _ => Self {
                score,
                epoch,
                evaluated: epoch,
            },
        }
    }
}

impl Run {
    /// Refuses `patience` where nothing is evaluated after an epoch.
    pub(super) fn check_patience(&self) -> Result<()> {
        let patience = self.config.run.patience;
        let has_cheap = self
            .architecture
            .net()
            .readouts
            .iter()
            .any(|readout| readout.cheap);
        let expected = if patience == 0 {
            return Ok(());
        } else if self.data.validation.is_empty() {
            "0 without a validation part: `validate = true` keeps one"
        } else if !has_cheap {
            "0 for a network without a head or another readout of one pass, since nothing is \
             evaluated before the end"
        } else {
            return Ok(());
        };
        Err(Error::refused("patience", patience, expected))
    }

    /// What to say of `patience` where no evaluation is due before the last epoch.
    pub(super) fn idle_patience(&self) -> Option<String> {
        let (every, epochs) = (self.config.run.evaluate_every, self.epochs());
        let is_idle = self.config.run.patience > 0 && every >= epochs;
        is_idle.then(|| {
            format!(
                "warning: `patience` has no effect: nothing is evaluated before the last of \
                 {epochs} epochs (`evaluate_every = {every}`)"
            )
        })
    }

    /// Whether nothing is left to train.
    pub(crate) fn is_trained(&self) -> bool {
        self.epoch >= self.epochs() || self.has_stalled()
    }

    /// Whether epochs are left to train, as far as its files tell: a model alone does not
    /// tell whether `patience` has run out, but it has the chosen readout then.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.is_trained() && self.chosen.is_none()
    }

    /// Whether `patience` epochs have passed without a better evaluation.
    pub(super) fn has_stalled(&self) -> bool {
        let patience = self.config.run.patience;
        patience > 0 && self.epochs_without_better() >= patience
    }

    /// The epochs since the best evaluation, up to the last one.
    pub(super) fn epochs_without_better(&self) -> usize {
        self.best.map_or(0, |best| best.evaluated - best.epoch)
    }

    /// Evaluates the validation part if that is due, and remembers the best result.
    pub(super) fn evaluate_epoch(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if let Some(evaluation) = self.evaluate_after(self.epoch, observer)? {
            self.remember(&evaluation);
            self.say_whether_stalled(observer);
        }
        Ok(())
    }

    fn say_whether_stalled(&self, observer: &mut dyn Observer) {
        let (epoch, epochs) = (self.epoch, self.epochs());
        if let Some(best) = self.best.filter(|_| self.has_stalled()) {
            observer.on(&Event::EndsEarly {
                epoch,
                epochs,
                best: best.epoch,
            });
        }
    }

    /// Repeats the evaluation that was lost when the run stopped after an epoch. Its
    /// line of the metrics has been written again by then.
    pub(super) fn catch_up(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let epoch = self.epoch;
        let is_between = self.step == (epoch * self.steps_per_epoch()) as u64;
        let is_known = self.best.is_some_and(|best| best.evaluated >= epoch);
        if self.config.run.patience == 0 || epoch == 0 || !is_between || is_known {
            return Ok(());
        }
        if let Some(evaluation) = self.evaluate_after(epoch, &mut ())? {
            self.remember(&evaluation);
            self.say_whether_stalled(observer);
        }
        Ok(())
    }

    /// Counts an evaluation, once every block and head has begun to learn.
    fn remember(&mut self, evaluation: &Evaluation) {
        let has_begun = self.epoch > self.architecture.net().all_begun(self.steps_per_epoch());
        // Not those of `evaluate_all_every` in between.
        let counts = has_begun && self.epoch.is_multiple_of(self.config.run.evaluate_every);
        // Those that are evaluated every time.
        let mut evaluation = evaluation.clone();
        let readouts = &self.architecture.net().readouts;
        let is_cheap = |name: &str| {
            readouts
                .iter()
                .any(|known| known.cheap && known.name == name)
        };
        evaluation.readouts.retain(|name, _| is_cheap(name));
        let best = evaluation
            .best()
            .and_then(|best| evaluation.readouts.get(&best));
        let Some(found) = best.filter(|_| counts && self.config.run.patience > 0) else {
            return;
        };
        let score = found.bits.map_or(found.error, |bits| bits.bits_per_token);
        self.best = Some(Best::or(self.best, score, self.epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_scores_is_the_best() {
        let scores = [0.5, 0.3, 0.4, f64::NAN, 0.3, 0.2];
        let mut best = None;
        let epochs = scores.into_iter().enumerate().map(|(index, score)| {
            best = Some(Best::or(best, score, index + 1));
            best.map(|best| (best.epoch, best.evaluated))
        });
        let found: Vec<_> = epochs.flatten().collect();
        assert_eq!(found, [(1, 1), (2, 2), (2, 3), (2, 4), (2, 5), (6, 6)]);
    }
}
