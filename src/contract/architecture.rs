//! The contract of an architecture.

use candle_core::Tensor;

use crate::contract::block::StepReport;
use crate::contract::net::{Net, Readout};
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::contract::staged::Staged;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::graph::{self, Graph, Inputs, Node};
use crate::flow::step::Step;

/// The wiring of a network: which block feeds which, in what order and how often, and
/// what is read out.
///
/// A stack of blocks needs no wiring of its own:
/// [`Stack`](crate::wiring::stack::Stack) is an architecture.
///
/// ```
/// use onward::candle_core::{DType, Device, Tensor};
/// use onward::{Architecture, Batch, Input, Net, NegativeSampler, Prediction};
/// use onward::{Readout, Result, Role, Step, StepReport, Views};
///
/// /// No block: every class is as good as any other.
/// struct Nothing(Net);
///
/// impl Architecture for Nothing {
///     fn learn(
///         &mut self,
///         _batch: &Batch,
///         _sampler: &dyn NegativeSampler,
///         _step: &Step,
///     ) -> Result<Vec<(usize, StepReport)>> {
///         Ok(Vec::new())
///     }
///
///     fn scores(
///         &self,
///         batch: &Batch,
///         _sampler: &dyn NegativeSampler,
///         _readout: &Readout,
///         _step: &Step,
///     ) -> Result<Tensor> {
///         Ok(Tensor::zeros((batch.size(), 10), DType::F32, batch.device())?)
///     }
///
///     fn net(&self) -> &Net {
///         &self.0
///     }
///
///     fn net_mut(&mut self) -> &mut Net {
///         &mut self.0
///     }
/// }
///
/// let readouts = vec![Readout::new("nothing").cheap()];
/// let net = Nothing(Net { readouts, ..Net::default() });
/// assert_eq!(net.net().epochs(500), 0); // nothing learns
/// # struct Plain;
/// # impl NegativeSampler for Plain {
/// #     fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
/// #         Views::new(Input::of(batch.examples().clone())?, vec![Role::Positive])
/// #     }
/// # }
/// # let batch = Batch::unlabelled(Tensor::zeros((3, 4), DType::F32, &Device::Cpu)?)?;
/// # let scores = net.scores(&batch, &Plain, &net.net().readouts[0], &Step::evaluation(1))?;
/// # assert_eq!(scores.dims(), [3, 10]);
/// # Ok::<(), onward::Error>(())
/// ```
///
/// # For implementors
/// Guaranteed to you: training batches have their labels where the data have any;
/// batches to be scored never do.
///
/// Expected of you: all variables are made through
/// [`BuildContext::vars`](crate::BuildContext::vars), those of each block below a place
/// of its own that was also given to its [`Optimiser`](crate::Optimiser); all views of a
/// step see the weights from before the step's updates; the computation of one block
/// reaches another only as an activity, detached. A rule in which a gradient crosses a
/// block asks for it with [`Block::input_gradient`](crate::Block::input_gradient).
pub trait Architecture: Send + Sync {
    /// Trains all blocks that learn at this step, and returns a report for each of them,
    /// with the block's index.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss is not finite; errors of
    /// the parts.
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>>;

    /// The score of each class for each example, `(B, C)`, or at each position, `(B, P,
    /// C)`; higher is better.
    ///
    /// # Errors
    /// Errors of the parts.
    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor>;

    /// The parts: blocks, heads, readouts.
    fn net(&self) -> &Net;

    /// The parts, to restore their state.
    fn net_mut(&mut self) -> &mut Net;

    /// The activity of every layer for the examples without a label in the input, from
    /// the input on, each `(B, …)`; by default none. Probes and other programs look at
    /// them.
    ///
    /// # Errors
    /// Errors of the parts.
    fn activities(
        &self,
        _batch: &Batch,
        _sampler: &dyn NegativeSampler,
        _step: &Step,
    ) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// Adds what [`scores`](Self::scores) computes to a graph for other programs, given
    /// the views of the examples: `(R, C)`. By default the network cannot be exported.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it cannot.
    fn graph(&self, _views: Inputs, _readout: &Readout, _graph: &mut Graph) -> Result<Node> {
        Err(Error::unfit("architecture", graph::NOT_EXPORTED))
    }

    /// The class of the rule by which the network learns; by default that of the first
    /// block that learns.
    fn rule(&self) -> Rule {
        self.net().rule()
    }

    /// The network as levels that can be on several ranks; by default it cannot be
    /// divided. An architecture whose `learn` is that of a
    /// [`Stack`](crate::wiring::stack::Stack) returns the stack.
    fn staged(&mut self) -> Option<&mut dyn Staged> {
        None
    }

    /// Called once after the last step of every epoch; by default it tells the blocks
    /// that learned in it.
    ///
    /// # Errors
    /// Errors of the parts.
    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        self.net_mut().epoch_ended(step)
    }
}

/// A boxed architecture forwards all calls.
impl<T: Architecture + ?Sized> Architecture for Box<T> {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        (**self).learn(batch, sampler, step)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        (**self).scores(batch, sampler, readout, step)
    }

    fn net(&self) -> &Net {
        (**self).net()
    }

    fn net_mut(&mut self) -> &mut Net {
        (**self).net_mut()
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        (**self).activities(batch, sampler, step)
    }

    fn graph(&self, views: Inputs, readout: &Readout, graph: &mut Graph) -> Result<Node> {
        (**self).graph(views, readout, graph)
    }

    fn rule(&self) -> Rule {
        (**self).rule()
    }

    fn staged(&mut self) -> Option<&mut dyn Staged> {
        (**self).staged()
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        (**self).epoch_ended(step)
    }
}
