//! Layer `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train progressive --set layer=my_plugin --epochs 5
//! ```

use onward::candle_core::Tensor;
use onward::candle_nn::{linear, Linear, Module};
use onward::{BuildContext, Input, LocalLayer, Result, Step};

onward::settings! {
    /// A dense layer of smooth units.
    ///
    /// `a = z·σ(z)`, `z = x·Wᵀ + b` with `W` of shape `(N, D)`: `(V·B, …)`, flattened to
    /// `D` columns, to `(V·B, N)`.
    pub struct Settings {
        /// The number of units. Default: the width set by the architecture.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer(Linear);

impl Layer {
    fn new(settings: &Settings, context: &BuildContext) -> Result<Self> {
        let units = context.units_or(settings.units)?;
        Ok(Self(linear(
            context.inputs(),
            units,
            context.vars.builder(),
        )?))
    }
}

impl LocalLayer for Layer {
    // Autograd computes the gradient through this layer alone. A closed form in `learn`
    // is faster; add it when this version is correct.
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        Ok(self.0.forward(&input.join()?.flatten_from(1)?)?.silu()?)
    }
}

onward::register! {
    dyn LocalLayer, "my_plugin", "dense, smooth units (describe it here and cite the paper)",
    |settings: Settings, context| Ok(Box::new(Layer::new(&settings, context)?))
}
