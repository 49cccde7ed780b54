//! Layer `softplus`.

use onward::candle_core::Tensor;
use onward::candle_nn::Init;
use onward::optim::Optimiser;
use onward::{kernels, BuildContext, Input, Lesson, Linear, LocalLayer, Result, Step};

onward::settings! {
    /// A dense layer with a smooth non-linearity.
    ///
    /// `a = log(1 + e^z)`, `z = x·W + b`: `(V·B, D)` to `(V·B, N)`. Learns in closed
    /// form: with `δ = ∂L/∂a·σ(z)` and `σ(z) = 1 − e^−a`, `∂W = xᵀ·δ` and `∂b = Σ δ`.
    pub struct Softplus {
        /// The number of units. Default: the width set by the architecture.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer(Linear);

impl Layer {
    fn new(settings: &Softplus, context: &BuildContext) -> Result<Self> {
        let (inputs, units) = (context.inputs(), context.units_or(settings.units)?);
        let stdev = 1. / (inputs.max(1) as f64).sqrt();
        let init = Init::Randn { mean: 0., stdev };
        Ok(Self(Linear::new(&context.vars, inputs, units, init, true)?))
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        kernels::softplus(&self.0.forward(input, false)?)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let slope = (1. - lesson.activity.neg()?.exp()?)?;
        let gradient = (lesson.gradient()? * slope)?;
        self.0.update(lesson.input, &gradient, optimiser, step)
    }
}

onward::register! {
    dyn LocalLayer, "softplus", "dense, log(1 + e^z) (Dugas et al. 2000)",
    |settings: Softplus, context| Ok(Box::new(Layer::new(&settings, context)?))
}
