//! The contract of a sampler: the source of positive and negative views.

use candle_core::Tensor;

use crate::contract::prediction::Prediction;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::examples::Examples;
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::Views;

/// Turns a batch into the views to learn from. It is the only source of negatives, and
/// of labels in the input.
///
/// ```
/// use onward_core::candle_core::{Device, Tensor};
/// use onward_core::{Batch, Input, NegativeSampler, Prediction, Result, Role, Step, Views};
///
/// /// The positive view is the example, the negative view the same numbers backwards.
/// struct Backwards;
///
/// impl NegativeSampler for Backwards {
///     fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
///         let both = Tensor::cat(&[batch.rows(), &batch.rows().flip(&[1])?], 0)?;
///         Views::new(Input::stacked(both, 2)?, vec![Role::Positive, Role::Negative])
///     }
///
///     fn uses_labels(&self) -> bool {
///         false
///     }
/// }
///
/// let batch = Batch::unlabelled(Tensor::new(&[[1f32, 2., 3.]], &Device::Cpu)?)?;
/// let no_prediction = Prediction::of(Tensor::new(&[[0f32]], &Device::Cpu)?);
/// let views = Backwards.views(&batch, &no_prediction, &Step::evaluation(1))?;
/// assert_eq!(views.input.join()?.to_vec2::<f32>()?, [[1., 2., 3.], [3., 2., 1.]]);
/// # Ok::<(), onward_core::Error>(())
/// ```
///
/// # For implementors
/// Only [`views`](Self::views) has to be written.
///
/// Guaranteed to you: a batch of at least [`smallest_batch`](Self::smallest_batch)
/// examples, with its labels if the data have any and [`uses_labels`](Self::uses_labels)
/// says so.
///
/// Expected of you: views as wide as [`neutral`](Self::neutral) and
/// [`hypotheses`](Self::hypotheses); negatives that differ from the positives;
/// everything random drawn from [`Step::stream`]; what has to survive a checkpoint kept
/// in [`BuildContext::vars`](crate::BuildContext::vars). A part that all views share
/// (see [`Input`]) is multiplied once. The part that holds a label is named
/// [`LABEL`](crate::flow::input::LABEL).
pub trait NegativeSampler: Send + Sync {
    /// The views to learn from.
    ///
    /// `prediction` is the network's own, from the weights before this step.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the batch lacks what the sampler needs.
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views>;

    /// Whether the views depend on the labels; by default they may. If not, the
    /// framework hides the labels from the sampler, and the run's summary says that no
    /// label was in the input of a block.
    fn uses_labels(&self) -> bool {
        true
    }

    /// The smallest batch that [`views`](Self::views) takes; by default 1. A sampler
    /// that mixes examples needs more. A run whose last batch would be smaller is
    /// refused before it begins.
    fn smallest_batch(&self) -> usize {
        1
    }

    /// The input without a hypothesised class; by default the examples as they are. It
    /// depends on the example alone: not on the rest of the batch, the epoch or
    /// [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// [`Error::Unfit`] or [`Error::Shape`] if the batch does not fit.
    fn neutral(&self, batch: &Batch) -> Result<Input> {
        Input::of(batch.examples().clone())
    }

    /// The input under hypothesised classes, one view for each row of `candidates`,
    /// `(K, B)`, `u32`: view `k` of example `b` has class `candidates[k, b]`. By
    /// default `None`: no label is in the input.
    ///
    /// # Errors
    /// [`Error::Unfit`] or [`Error::Shape`] if the batch does not fit.
    fn hypotheses(&self, _batch: &Batch, _candidates: &Tensor) -> Result<Option<Input>> {
        Ok(None)
    }

    /// Called before every epoch in which a block learns, for samplers that prepare
    /// something from the training part, such as roll-outs of the network; does nothing by
    /// default. Networks that are trained by backpropagation
    /// ([`Rule::Backpropagation`](crate::Rule::Backpropagation)) do not call it: they see
    /// the neutral view alone. The result belongs in variables:
    /// [`Vars::state`](crate::Vars::state).
    ///
    /// `predict` gives the network's own log-probabilities of the classes for any
    /// examples, `(B, C)`.
    ///
    /// # Errors
    /// [`Error::Unfit`] or [`Error::Shape`] if the examples do not fit.
    fn refresh(
        &self,
        _train: &dyn Examples,
        _predict: &dyn Fn(&Batch) -> Result<Tensor>,
        _step: &Step,
    ) -> Result<()> {
        Ok(())
    }
}

/// A boxed sampler forwards all calls.
impl<T: NegativeSampler + ?Sized> NegativeSampler for Box<T> {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        (**self).views(batch, prediction, step)
    }

    fn uses_labels(&self) -> bool {
        (**self).uses_labels()
    }

    fn smallest_batch(&self) -> usize {
        (**self).smallest_batch()
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        (**self).neutral(batch)
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        (**self).hypotheses(batch, candidates)
    }

    fn refresh(
        &self,
        train: &dyn Examples,
        predict: &dyn Fn(&Batch) -> Result<Tensor>,
        step: &Step,
    ) -> Result<()> {
        (**self).refresh(train, predict, step)
    }
}
