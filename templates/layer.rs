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
    /// `a = z·σ(z)`, `z = x·Wᵀ + b`, `W` being `(N, D)`: `(V·B, …)`, flattened to `D`
    /// columns, to `(V·B, N)`.
    pub struct Settings {
        /// The number of units. Default: the width that the architecture asks for.
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
    // It learns by candle's autograd, through this layer alone. Once it is right, a
    // closed form in `learn` is faster.
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        Ok(self.0.forward(&input.join()?.flatten_from(1)?)?.silu()?)
    }
}

onward::register! {
    dyn LocalLayer, "my_plugin", "dense, smooth units (say here what it is, and the paper)",
    |settings: Settings, context| Ok(Box::new(Layer::new(&settings, context)?))
}
