//! A linear readout of activities, trained apart: it never touches a block.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::Init;

use crate::contract::loss::cross_entropy;
use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
use crate::modules::linear::Linear;
use crate::optim::{Optimiser, OptimiserSpec};

/// A softmax over a linear map of activities, `log softmax(x·W)`, that minimises the cross-entropy with the labels.
///
/// `x` is an [`Input`], usually the normalised activities of several blocks side by side; `W` is `(D, C)` and starts
/// at zero, as in Hinton's program. What it learns reaches no block.
pub struct Head {
    linear: Linear,
    optimiser: Optimiser,
}

impl Head {
    /// A head over `inputs` columns, its variables at `vars`, learning in the epochs of `span`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(
        vars: &Vars,
        inputs: usize,
        classes: usize,
        descent: OptimiserSpec,
        span: Range<usize>,
    ) -> Result<Self> {
        let linear = Linear::new(vars, inputs, classes, Init::Const(0.), false)?;
        Ok(Self {
            linear,
            optimiser: Optimiser::new(vars.clone(), descent, span),
        })
    }

    /// Log-probabilities of the classes, `(V·B, C)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features are not as wide as the head was made for.
    pub fn log_probabilities(&self, features: &Input) -> Result<Tensor> {
        kernels::log_softmax(&self.linear.forward(features, false)?)
    }

    /// One step, from what [`Head::log_probabilities`] gave for `features`; returns the cross-entropy in nats.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the labels do not fit; [`Error::Diverged`] if the loss is not finite.
    pub fn learn(
        &mut self,
        features: &Input,
        log: &Tensor,
        labels: &[u32],
        step: &Step,
    ) -> Result<f64> {
        let (loss, delta) = cross_entropy(log, labels, self.linear.units())?;
        if !loss.is_finite() {
            return Err(Error::Diverged {
                block: "head".into(),
                what: "loss",
                value: loss,
                step: step.index,
            });
        }
        self.linear
            .learn(features, &delta, &mut self.optimiser, step)?;
        Ok(loss)
    }

    /// The optimiser, whose state a checkpoint holds.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser, to restore its state.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }
}
