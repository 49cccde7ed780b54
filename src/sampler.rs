//! The contract of a source of negative views.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use crate::error::Result;
use crate::input::Input;
use crate::seed::Step;
use crate::views::{Batch, Views};

/// Turns a batch into the passes to learn from: the only source of negatives, and of labels in the input.
///
/// # For implementors
/// Only [`views`](Self::views) has to be written. You are guaranteed a whole batch with its labels, unless the data
/// have none. You guarantee views of the same width as [`neutral`](Self::neutral) and [`hypotheses`](Self::hypotheses)
/// give, negatives that differ from the positives, and that everything random is drawn from [`Step::stream`]. Parts
/// that all views share (see [`Input`]) are multiplied once.
pub trait NegativeSampler: Send {
    /// The passes to learn from.
    ///
    /// `predict` gives the network's own log-probabilities of the classes on the neutral view, `(B, C)`, from the
    /// weights before this step; it runs that pass when it is first called, so who does not need it does not pay.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the batch lacks what the sampler needs.
    fn views(&mut self, batch: &Batch, predict: &mut dyn FnMut() -> Result<Tensor>, step: &Step) -> Result<Views>;

    /// The input under no hypothesised class; by default the examples as they are.
    ///
    /// # Errors
    /// Whatever the batch does not fit.
    fn neutral(&self, batch: &Batch) -> Result<Input> {
        Input::of(batch.examples().clone())
    }

    /// The input under every class in turn, `C` views, view `c` with class `c`; by default there is none, since no
    /// label is in the input.
    ///
    /// # Errors
    /// Whatever the batch does not fit.
    fn hypotheses(&self, _batch: &Batch) -> Result<Option<Input>> {
        Ok(None)
    }

    /// What the next step depends on besides seed and step, by name, such as a pool of roll-outs; by default nothing.
    fn save(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    /// Goes on from what [`save`](Self::save) gave.
    ///
    /// # Errors
    /// Whatever does not fit.
    fn restore(&mut self, _tensors: &HashMap<String, Tensor>) -> Result<()> {
        Ok(())
    }
}
