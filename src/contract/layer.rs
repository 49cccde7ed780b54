//! The contract of a layer.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::Role;
use crate::optim::Optimiser;

/// One level of a network, that learns from its own input and output alone.
///
/// The activity of an input of `V` views of `B` examples is a tensor `(V·B, …)`, row `v·B + b` being that of view `v`
/// of example `b`. It is what comes out of the non-linearity, before any normalisation.
///
/// A layer made of candle's modules needs [`forward`](Self::forward) alone:
///
/// ```
/// use onward::candle_core::Tensor;
/// use onward::candle_nn::{self, Module};
/// use onward::{Input, LocalLayer, Result, BuildContext, Step};
///
/// struct Tanh(candle_nn::Linear);
///
/// impl Tanh {
///     fn new(context: &BuildContext) -> Result<Self> {
///         let inputs = context.input.iter().product();
///         Ok(Self(candle_nn::linear(inputs, context.units.unwrap_or(100), context.vars.builder())?))
///     }
/// }
///
/// impl LocalLayer for Tanh {
///     fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
///         Ok(self.0.forward(&input.join()?.flatten_from(1)?)?.tanh()?)
///     }
/// }
/// ```
///
/// # For implementors
/// You are guaranteed that [`learn`](Self::learn) gets the very activity that `forward` returned for that input, and
/// that no variable of the layer has changed in between. Other layers may learn at the same time, on other threads. You
/// guarantee that `forward` changes nothing, that the same input and step give the same bits, that everything random is
/// drawn from [`Step::stream`], and that every variable was made through [`BuildContext::vars`](crate::BuildContext::vars): then it is
/// saved, restored and seeded without your doing.
pub trait LocalLayer: Send {
    /// The activity of an input, `(V·B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input is not what the layer was built for.
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor>;

    /// One step of the layer's variables.
    ///
    /// The default follows the gradient through this layer alone with candle's autograd, so the activity must still
    /// be attached to the variables. Override it with a closed form, which is several times faster, or with a rule
    /// that follows no gradient; then `forward` may return a detached activity.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the lesson has no gradient, or the activity is detached.
    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let gradients = (lesson.activity * lesson.gradient()?.detach())?
            .sum_all()?
            .backward()?;
        optimiser.apply(&gradients, step)
    }

    /// What each unit responds to: its weights, `(N, …)`, for an input of the shape that the layer was built for or for a
    /// field `(C, H, W)` of it. Pictures show them; by default there is nothing to be shown.
    ///
    /// # Errors
    /// Whatever candle refuses.
    fn features(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// What a layer learns from in one step.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// What entered.
    pub input: &'a Input,
    /// What the layer made of it, `(V·B, …)`.
    pub activity: &'a Tensor,
    /// The gradient of the block's loss with respect to the activity, of the same shape; means over the batch are
    /// taken already. `None` if the block has no loss.
    pub gradient: Option<&'a Tensor>,
    /// What each view is.
    pub roles: &'a [Role],
}

impl<'a> Lesson<'a> {
    /// The gradient, for layers that cannot learn without one.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the block has no loss.
    pub fn gradient(&self) -> Result<&'a Tensor> {
        self.gradient.ok_or_else(|| Error::Mismatch {
            place: "layer".into(),
            problem: "it learns from a gradient, but its block has no loss; choose a `loss`".into(),
        })
    }
}
