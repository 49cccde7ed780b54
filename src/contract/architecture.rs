//! The contract of an architecture.

use candle_core::Tensor;

use crate::contract::block::{Block, Report};
use crate::contract::head::Head;
use crate::contract::sampler::NegativeSampler;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::step::Step;

/// A way of reading a prediction off a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout {
    /// Its name in reports: `search`, `head`, `probe`.
    pub name: &'static str,
    /// Whether it costs little enough to be used after every epoch; the others are used at the end.
    pub cheap: bool,
    /// Whether its scores are log-probabilities, natural logarithms: they then count in bits and can be drawn from.
    pub log_probabilities: bool,
}

/// Who feeds whom, in what order and how often, and what is read out.
///
/// # For implementors
/// You are guaranteed that training batches carry their labels where the data have any, and that batches to be scored
/// never do. You guarantee that all variables were made through [`BuildContext::vars`](crate::BuildContext::vars), those of block `b`
/// below a place of its own that was also given to [`Block::new`]; that all views of a step see the weights from before
/// the step's updates; and that what one block computes reaches another only as an activity, detached.
pub trait Architecture: Send {
    /// One step of everything that learns in this epoch; a report for each block that did, with the block's index.
    ///
    /// # Errors
    /// [`Error::Diverged`](crate::Error::Diverged); whatever a part refuses.
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>>;

    /// How good each class is for each example by one of the [`readouts`](Self::readouts), `(B, C)`: log-probabilities
    /// or goodness, higher being better.
    ///
    /// # Errors
    /// Whatever a part refuses.
    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &str,
        step: &Step,
    ) -> Result<Tensor>;

    /// The ways of reading out a prediction; at least one.
    fn readouts(&self) -> Vec<Readout>;

    /// Whether a readout has anything to say when so many epochs are complete; by default it always has. A probe has not
    /// before it learns, and is not evaluated until then.
    fn is_ready(&self, readout: &Readout, epochs: usize) -> bool {
        let _ = (readout, epochs);
        true
    }

    /// Whether blocks learn from labels that the sampler's views do not carry; by default they do not.
    fn is_supervised(&self) -> bool {
        false
    }

    /// The blocks, from the input on.
    fn blocks(&self) -> &[Block];

    /// The blocks, to restore their state.
    fn blocks_mut(&mut self) -> &mut [Block];

    /// The readouts that are trained; by default none.
    fn heads(&self) -> &[Head] {
        &[]
    }

    /// The heads, to restore their state.
    fn heads_mut(&mut self) -> &mut [Head] {
        &mut []
    }

    /// How many epochs there are in all: by default up to the end of the last block's span.
    fn epochs(&self) -> usize {
        self.blocks()
            .iter()
            .map(|block| block.span().end)
            .max()
            .unwrap_or(0)
    }
}
