//! The contract of a layer.

use candle_core::{Tensor, Var};

use crate::contract::rule::Rule;
use crate::error::{Error, Result};
use crate::flow::graph::{self, Graph, Node};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::Targets;
use crate::kernels;
use crate::optim::Optimiser;

/// One layer of a network. It learns from its own input and output alone.
///
/// The activity of an input of `V` views of `B` examples is a tensor `(V·B, …)`; row
/// `v·B + b` is that of view `v` of example `b`. It is the output of the non-linearity,
/// before any normalisation.
///
/// A layer made of candle's modules needs [`forward`](Self::forward) alone:
///
/// ```
/// use onward_core::candle_core::{Device, DType, Tensor};
/// use onward_core::candle_nn::{self, Module};
/// use onward_core::{BuildContext, Input, LocalLayer, Result, Step, Vars};
///
/// struct Tanh(candle_nn::Linear);
///
/// impl Tanh {
///     fn new(context: &BuildContext) -> Result<Self> {
///         let inputs = context.input.iter().product();
///         let units = context.units_or(None)?;
///         Ok(Self(candle_nn::linear(inputs, units, context.vars.builder())?))
///     }
/// }
///
/// impl LocalLayer for Tanh {
///     fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
///         Ok(self.0.forward(&input.join()?.flatten_from(1)?)?.tanh()?)
///     }
/// }
///
/// let vars = Vars::new(1, DType::F32, &Device::Cpu);
/// let context = BuildContext::new(vars.clone(), 1).with_input(&[2]).with_units(3);
/// let layer = Tanh::new(&context)?;
/// for (_, var) in vars.learned() {
///     var.set(&(var.ones_like()? * 0.5)?)?; // weights and biases ½
/// }
/// let input = Input::of(Tensor::new(&[[1f32, 2.]], &Device::Cpu)?)?;
/// let activity = layer.forward(&input, &Step::evaluation(1))?;
/// assert_eq!(activity.to_vec2::<f32>()?, [[2f32.tanh(); 3]]); // ½·1 + ½·2 + ½
/// # Ok::<(), onward_core::Error>(())
/// ```
///
/// # For implementors
/// Guaranteed to you: [`learn`](Self::learn) gets exactly the activity that `forward`
/// returned for that input, and no variable of the layer has changed in between. Other
/// layers may learn at the same time, on other threads.
///
/// Expected of you: `forward` changes nothing; the same input and step give the same
/// bits; everything random is drawn from [`Step::stream`]; every variable is made
/// through [`BuildContext::vars`](crate::BuildContext::vars). Variables are then saved,
/// restored and seeded for you.
pub trait LocalLayer: Send + Sync {
    /// The activity of an input, `(V·B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input is not what the layer was built for.
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor>;

    /// Updates the layer's variables.
    ///
    /// The default follows the gradient through this layer alone with candle's
    /// autograd, so the activity must still be attached to the variables. Override it
    /// with a closed form, which is several times faster, or with a rule that follows
    /// no gradient; `forward` may then return a detached activity.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the lesson has no gradient; [`Error::Usage`] if the activity
    /// is detached.
    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let gradients = kernels::backward(lesson.activity, lesson.gradient()?)?;
        optimiser.apply(&gradients, step)
    }

    /// Called instead of [`learn`](Self::learn) where the goodness gives no gradient, so
    /// that the layer stays as it is: updates running statistics that an evaluation
    /// needs, such as those of batch normalisation. Does nothing by default.
    ///
    /// # Errors
    /// Errors of candle.
    fn observe(&mut self, _lesson: &Lesson<'_>, _step: &Step) -> Result<()> {
        Ok(())
    }

    /// The gradient of the loss with respect to the joined input, `(V·B, …)`.
    ///
    /// Layers pass no gradient on, so this is not part of learning. Rules in which a
    /// gradient crosses a few layers ask for it, such as Trifecta's pairs of blocks.
    /// The default finds it with candle's autograd; override it if `forward` does not
    /// let a gradient pass.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the lesson has no gradient; [`Error::Usage`] if none reaches
    /// the input.
    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        let var = Var::from_tensor(&lesson.input.join()?.detach())?;
        let input = Input::stacked(var.as_tensor().clone(), lesson.input.views())?;
        let activity = self.forward(&input.shaped(lesson.input.shape())?, step)?;
        let found = kernels::backward(&activity, lesson.gradient()?)?.remove(&var);
        found.map(|gradient| gradient.detach()).ok_or_else(|| {
            let problem = "no gradient reaches the input through `forward`; a layer that detaches has to override \
                           `input_gradient`";
            Error::usage("layer", problem)
        })
    }

    /// What the next layer and a head see of an activity, before it is normalised,
    /// `(V·B, …)`; by default the activity.
    ///
    /// It is computed from each row of the activity alone. Override
    /// [`pass_on_gradient`](Self::pass_on_gradient) and
    /// [`pass_on_graph`](Self::pass_on_graph) with it.
    ///
    /// # Errors
    /// Errors of candle.
    fn pass_on(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.detach())
    }

    /// The gradient with respect to an activity, given that with respect to what
    /// [`pass_on`](Self::pass_on) made of it; for the rules that ask for
    /// [`input_gradient`](Self::input_gradient).
    ///
    /// # Errors
    /// [`Error::Unfit`] if no gradient can cross.
    fn pass_on_gradient(&self, _activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        Ok(gradient.clone())
    }

    /// Adds what is passed on to a graph, given the activity: see
    /// [`pass_on`](Self::pass_on) and [`graph`](Self::graph).
    ///
    /// # Errors
    /// [`Error::Unfit`] if it cannot be exported.
    fn pass_on_graph(&self, activity: Node, _graph: &mut Graph) -> Result<Node> {
        Ok(activity)
    }

    /// Whether [`learn`](Self::learn) looks at labels; by default it does not, and the
    /// framework hides them.
    fn uses_labels(&self) -> bool {
        false
    }

    /// The class of its rule, if it does not follow the gradient of a loss; by default it
    /// does. A layer with a rule of its own also learns where the goodness gives no
    /// gradient.
    fn rule(&self) -> Option<Rule> {
        None
    }

    /// Called once after the last step of every epoch in which the layer learns; does
    /// nothing by default.
    ///
    /// Rules in closed form solve here for what they have summed up in
    /// [`learn`](Self::learn). Sums belong in [`Vars::state`](crate::Vars::state), so
    /// that a run can be resumed.
    ///
    /// # Errors
    /// Errors of the closed-form solution.
    fn epoch_ended(&mut self, _step: &Step) -> Result<()> {
        Ok(())
    }

    /// Adds what [`forward`](Self::forward) computes in evaluation to a graph for other
    /// programs, given the input `x`, `(R, …)`. By default the layer cannot be exported.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it cannot.
    fn graph(&self, _x: Node, _graph: &mut Graph) -> Result<Node> {
        Err(Error::unfit("layer", graph::NOT_EXPORTED))
    }

    /// The weights of each unit, `(N, …)`, for an input of the shape that the layer was
    /// built for or for a field `(C, H, W)` of it. They are shown as pictures; by
    /// default `None`.
    ///
    /// # Errors
    /// Errors of candle.
    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// A boxed layer forwards all calls.
impl<T: LocalLayer + ?Sized> LocalLayer for Box<T> {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        (**self).forward(input, step)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        (**self).learn(lesson, optimiser, step)
    }

    fn observe(&mut self, lesson: &Lesson<'_>, step: &Step) -> Result<()> {
        (**self).observe(lesson, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        (**self).input_gradient(lesson, step)
    }

    fn pass_on(&self, activity: &Tensor) -> Result<Tensor> {
        (**self).pass_on(activity)
    }

    fn pass_on_gradient(&self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        (**self).pass_on_gradient(activity, gradient)
    }

    fn pass_on_graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        (**self).pass_on_graph(activity, graph)
    }

    fn uses_labels(&self) -> bool {
        (**self).uses_labels()
    }

    fn rule(&self) -> Option<Rule> {
        (**self).rule()
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        (**self).epoch_ended(step)
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        (**self).graph(x, graph)
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        (**self).weight_images()
    }
}

/// What a layer learns from in one step.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// The input.
    pub input: &'a Input,
    /// The layer's activity for it, `(V·B, …)`.
    pub activity: &'a Tensor,
    /// The gradient of the block's loss with respect to the activity, of the same
    /// shape. It is that of the mean over the batch. `None` if the block has no loss.
    pub gradient: Option<&'a Tensor>,
    /// The role of every view, and the labels for a layer that uses them.
    pub targets: &'a Targets,
}

impl<'a> Lesson<'a> {
    /// The number of rows of the positive views, which come first, and the number of
    /// examples.
    pub fn positive_rows(&self) -> [usize; 2] {
        let batch = self.input.batch();
        [self.targets.positive() * batch, batch]
    }

    /// The gradient, for layers that cannot learn without one.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the block has no loss.
    pub fn gradient(&self) -> Result<&'a Tensor> {
        self.gradient.ok_or_else(|| {
            let problem =
                "this layer learns from a gradient, but its block has no loss; choose a `loss`";
            Error::unfit("layer", problem)
        })
    }
}
