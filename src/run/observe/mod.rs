//! Watching a run.

pub mod metrics;

use std::path::Path;

use crate::contract::block::StepReport;
use crate::flow::examples::Split;
use crate::flow::step::Step;
use crate::plugin::config::Config;
use crate::run::summary::{Evaluation, Summary};

/// Something that happened in a run.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Training begins or goes on.
    Started {
        /// The complete configuration.
        config: &'a Config,
        /// The names of the blocks, from the input on.
        blocks: &'a [String],
        /// Epochs that are completed already.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
        /// Steps in an epoch.
        steps: usize,
    },
    /// A batch was learned from.
    Stepped {
        /// Which step it was.
        step: &'a Step,
        /// How many examples it had.
        examples: usize,
        /// What it came to, by the index of the block.
        reports: &'a [(usize, StepReport)],
    },
    /// An epoch is complete.
    EpochEnded {
        /// Which one, counted from 1.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
        /// How long its training took, evaluation not included.
        seconds: f64,
        /// Means over the epoch, by the index of the block.
        reports: &'a [(usize, StepReport)],
    },
    /// A part of the data was predicted.
    Evaluated {
        /// Epochs completed.
        epoch: usize,
        /// Which part.
        split: Split,
        /// How well.
        evaluation: &'a Evaluation,
    },
    /// Files were written.
    Saved {
        /// The folder of the run.
        folder: &'a Path,
    },
    /// The run is complete.
    Finished {
        /// What it came to.
        summary: &'a Summary,
    },
}

/// Watches a run; it cannot fail it, change it, or rely on being told everything.
///
/// A closure is an observer, `()` is one that does not look, and several in a vector are one.
///
/// ```
/// use onward::run::observe::{Event, Observer};
/// let mut epochs = 0;
/// let mut count = |event: &Event<'_>| epochs += usize::from(matches!(event, Event::EpochEnded { .. }));
/// # let summary = onward::run::observe::Event::Saved { folder: std::path::Path::new("r") };
/// count.on(&summary);
/// ```
pub trait Observer: Send {
    /// Something happened.
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
