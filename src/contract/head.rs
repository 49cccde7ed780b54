//! A linear readout of activities. It is trained separately and never changes a block.

use candle_core::Tensor;
use candle_nn::Init;

use crate::contract::loss::cross_entropy;
use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::reading::Reading;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
use crate::modules::linear::Linear;
use crate::optim::{Algorithm, Optimiser, OptimiserSpec, Span};
use crate::settings::Positive;

crate::settings! {
    /// How a head learns.
    pub struct HeadSpec {
        /// The update rule of the head.
        head_optimiser: Algorithm = Algorithm::Sgd;
        /// Learning rate of the head.
        head_lr: f64 = 0.1, in Positive.up_to(1000.);
        /// Weight decay of the head.
        head_weight_decay: f64 = 0.003, in 0. ..=1.;
    }
}

impl HeadSpec {
    /// The specification of a head's optimiser; momentum and schedule are those of the
    /// layers.
    pub fn optimiser(&self, layers: &OptimiserSpec) -> OptimiserSpec {
        OptimiserSpec {
            optimiser: self.head_optimiser,
            lr: self.head_lr,
            weight_decay: self.head_weight_decay,
            ..layers.clone()
        }
    }
}

/// A softmax over a linear map of activities, `log softmax(x·W)`, that minimises the
/// cross-entropy with the labels.
///
/// `x` is an [`Input`], usually the normalised activities of several blocks side by
/// side. `W` is `(D, C)` and starts at zero, as in Hinton's program. No gradient
/// of it reaches a block.
pub struct Head {
    linear: Linear,
    optimiser: Optimiser,
}

impl Head {
    /// A head over `inputs` columns, with its variables at `vars`, that learns in `span`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(
        vars: &Vars,
        inputs: usize,
        classes: usize,
        spec: OptimiserSpec,
        span: Span,
    ) -> Result<Self> {
        let linear = Linear::new(vars, inputs, classes, Init::Const(0.), false)?;
        Ok(Self {
            linear,
            optimiser: Optimiser::new(vars.clone(), spec, span),
        })
    }

    /// Log-probabilities of the classes, `(V·B, C)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features are not as wide as the head.
    pub fn log_probabilities(&self, features: &Input) -> Result<Tensor> {
        kernels::log_softmax(&self.linear.forward(features, false)?)
    }

    /// One step, from what [`Head::log_probabilities`] returned for `features`; returns
    /// the cross-entropy in nats.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the labels do not fit; [`Error::Diverged`] if the loss is
    /// not finite.
    pub fn learn(
        &mut self,
        features: &Input,
        log: &Tensor,
        labels: &[u32],
        step: &Step,
    ) -> Result<Reading> {
        let (loss, delta) = cross_entropy(log, labels)?;
        if loss.is_broken() {
            return Err(Error::Diverged {
                block: "head".into(),
                what: "loss",
                value: loss.value()?,
                step: step.index,
            });
        }
        self.linear
            .update(features, &delta, &mut self.optimiser, step)?;
        Ok(loss)
    }

    /// Whether the head learns at this step.
    pub fn is_learning(&self, step: &Step) -> bool {
        self.optimiser.span().contains(step)
    }

    /// The optimiser, whose state is part of a checkpoint.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser, to restore its state.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }
}
