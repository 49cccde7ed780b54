//! Layer `softplus`.

use onward::candle_core::Tensor;
use onward::candle_nn::Init;
use onward::{kernels, Input, Lesson, Linear, LocalLayer, Optimiser, Result, BuildContext, Step};

onward::settings! {
    /// A dense layer with a smooth non-linearity, `a = log(1 + e^z)`, `z = x·W + b`: `(V·B, D)` to `(V·B, N)`.
    ///
    /// Learns in closed form: with `δ = ∂L/∂a·σ(z)` and `σ(z) = 1 − e^−a`, `∂W = xᵀ·δ` and `∂b = Σ δ`.
    pub struct Softplus {
        /// How many units; the architecture's width if it is not set here.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer(Linear);

impl Layer {
    fn new(settings: &Softplus, context: &BuildContext) -> Result<Self> {
        let inputs: usize = context.input.iter().product();
        let units = settings.units.or(context.units).unwrap_or(100);
        let init = Init::Randn { mean: 0., stdev: 1. / (inputs.max(1) as f64).sqrt() };
        Ok(Self(Linear::new(&context.vars, inputs, units, init, true)?))
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        kernels::softplus(&self.0.forward(input, false)?)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let slope = (1. - lesson.activity.neg()?.exp()?)?;
        self.0.learn(lesson.input, &(lesson.gradient()? * slope)?, optimiser, step)
    }
}

onward::register! {
    dyn LocalLayer, "softplus", "dense, log(1 + e^z) (Dugas and others 2000)",
    |settings: Softplus, context| Ok(Box::new(Layer::new(&settings, context)?))
}
