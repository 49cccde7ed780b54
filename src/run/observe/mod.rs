//! Observers of a run.

mod csv;
pub mod metrics;
mod tensorboard;

use std::path::Path;

use self::csv::Csv;
use self::tensorboard::TensorBoard;
use crate::contract::block::StepReport;
use crate::error::Result;
use crate::flow::examples::Split;
use crate::flow::step::Step;
use crate::plugin::config::Config;
use crate::plugin::run_settings::Log;
use crate::run::summary::{Evaluation, Summary};

/// The observers that write these logs into the folder of a run that has completed
/// `epoch` epochs. `metrics.jsonl` has the lines of before.
///
/// # Errors
/// [`Error::File`](crate::Error::File) if a file cannot be written.
pub(super) fn logs(
    wanted: &[Log],
    folder: &Path,
    epoch: usize,
    blocks: &[String],
) -> Result<Vec<Box<dyn Observer>>> {
    let log = |log: &Log| -> Result<Box<dyn Observer>> {
        Ok(match log {
            Log::Csv => Box::new(Csv::after(folder, blocks)?),
            Log::Tensorboard => Box::new(TensorBoard::after(folder, epoch, blocks)?),
        })
    };
    let once = wanted.iter().enumerate();
    let once = once.filter(|(index, log)| !wanted[..*index].contains(log));
    once.map(|(_, wanted)| log(wanted)).collect()
}

/// An event in a run.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Training starts or resumes.
    Started {
        /// The complete configuration.
        config: &'a Config,
        /// The names of the blocks, starting at the input.
        blocks: &'a [String],
        /// The number of epochs already completed.
        epoch: usize,
        /// The total number of epochs.
        epochs: usize,
        /// The number of steps in an epoch.
        steps: usize,
        /// For text, the number of tokens that are predicted in an epoch.
        tokens: Option<usize>,
    },
    /// A training step was taken.
    Stepped {
        /// The step.
        step: &'a Step,
        /// The number of examples in its batch.
        examples: usize,
        /// The reports of the blocks that learned, with the index of each block.
        reports: &'a [(usize, StepReport)],
    },
    /// An epoch is complete.
    EpochEnded {
        /// The epoch, counted from 1.
        epoch: usize,
        /// The total number of epochs.
        epochs: usize,
        /// The duration of its training, without evaluation; of a resumed epoch, that of
        /// its rest.
        seconds: f64,
        /// The means over the epoch, with the index of each block.
        reports: &'a [(usize, StepReport<f64>)],
        /// The learning rates of its last step, with the index of each block that
        /// learned.
        rates: &'a [(usize, f64)],
    },
    /// A part of the data was evaluated.
    Evaluated {
        /// The number of completed epochs.
        epoch: usize,
        /// The part.
        split: Split,
        /// The result.
        evaluation: &'a Evaluation,
    },
    /// Training ends after this epoch, since `patience` has run out.
    EndsEarly {
        /// The number of completed epochs.
        epoch: usize,
        /// The total number of epochs that were asked for.
        epochs: usize,
        /// The number of epochs before the best evaluation.
        best: usize,
    },
    /// Files were written.
    Saved {
        /// The folder of the run.
        folder: &'a Path,
    },
    /// The run is complete.
    Finished {
        /// The result.
        summary: &'a Summary,
    },
}

/// Receives the events of a run. An observer cannot fail or change the run, and must not
/// rely on receiving every event.
///
/// A closure is an observer, `()` ignores all events, and a vector of observers passes
/// every event to each of them.
///
/// ```
/// use onward::run::observe::{Event, Observer};
/// let mut epochs = 0;
/// let mut count = |event: &Event<'_>| {
///     epochs += usize::from(matches!(event, Event::EpochEnded { .. }));
/// };
/// # let event = Event::Saved { folder: std::path::Path::new("r") };
/// count.on(&event);
/// ```
pub trait Observer: Send {
    /// Receives an event.
    fn on(&mut self, event: &Event<'_>);
}

impl Observer for () {
    fn on(&mut self, _: &Event<'_>) {}
}

impl<F: FnMut(&Event<'_>) + Send> Observer for F {
    fn on(&mut self, event: &Event<'_>) {
        self(event);
    }
}

impl Observer for Vec<Box<dyn Observer + '_>> {
    fn on(&mut self, event: &Event<'_>) {
        self.iter_mut().for_each(|observer| observer.on(event));
    }
}
