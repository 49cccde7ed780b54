//! Adds a layer built from candle's modules.
//!
//! The layer implements `forward` only. Autograd computes the gradient through this layer
//! alone.
//!
//! ```text
//! $ cargo run --release --example 04_a_new_layer
//! dense: test error 4.2%
//! gated: test error 5.7%
//! ```

use onward::candle_core::Tensor;
use onward::candle_nn::{self, ops::sigmoid, Linear, Module};
use onward::{BuildContext, Input, LocalLayer, Result, Run, Step};

onward::settings! {
    /// Rectified linear units, each with a trained gate.
    ///
    /// `a = max(0, x·W + b)·σ(x·V + c)`; `(V·B, …)`, flattened, to `(V·B, N)`.
    pub struct Gated {
        /// The number of units. Default: the width set by the architecture.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer {
    value: Linear,
    gate: Linear,
}

impl Layer {
    fn new(settings: &Gated, context: &BuildContext) -> Result<Self> {
        let (inputs, units) = (context.inputs(), context.units_or(settings.units)?);
        // The variables of this builder are seeded, saved and resumed automatically.
        let vars = context.vars.builder();
        let value = candle_nn::linear(inputs, units, vars.pp("value"))?;
        Ok(Self {
            value,
            gate: candle_nn::linear(inputs, units, vars.pp("gate"))?,
        })
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        let rows = input.join()?.flatten_from(1)?;
        Ok((self.value.forward(&rows)?.relu()? * sigmoid(&self.gate.forward(&rows)?)?)?)
    }
}

onward::register! {
    dyn LocalLayer, "gated", "rectified linear units with gates (an example; Dauphin et al. 2017)",
    |settings: Gated, context| Ok(Box::new(Layer::new(&settings, context)?))
}

fn main() -> Result<()> {
    for layer in ["dense", "gated"] {
        let builder = Run::builder("progressive")
            .set("layer", layer)
            .set("hidden", vec![300, 300]);
        let summary = builder.set("epochs", 5).build()?.fit(&mut ())?;
        println!("{layer}: test error {:.1}%", 100. * summary.test.error);
    }
    Ok(())
}
