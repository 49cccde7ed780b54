//! Adds a layer made of candle's modules. It only says what its activity is, and learns
//! by the gradient through itself alone.
//!
//! ```text
//! $ cargo run --release --example 04_a_new_layer
//! dense: 4.7% of the test part wrong
//! gated: 5.7% of the test part wrong
//! ```

use onward::candle_core::Tensor;
use onward::candle_nn::{self, ops::sigmoid, Linear, Module};
use onward::{BuildContext, Input, LocalLayer, Result, Run, Step};

onward::settings! {
    /// Rectified units, each with a gate of its own.
    ///
    /// `a = max(0, x·W + b)·σ(x·V + c)`; `(V·B, …)`, flattened, to `(V·B, N)`.
    pub struct Gated {
        /// How many units; the architecture's `hidden` if it is not set here.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer {
    value: Linear,
    gate: Linear,
}

impl Layer {
    fn new(settings: &Gated, context: &BuildContext) -> Result<Self> {
        let inputs = context.input.iter().product();
        let units = settings.units.or(context.units).unwrap_or(100);
        // What is made by this builder is seeded, saved and resumed without further ado.
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
    dyn LocalLayer, "gated", "rectified units with gates (an example; Dauphin and others 2017)",
    |settings: Gated, context| Ok(Box::new(Layer::new(&settings, context)?))
}

fn main() -> Result<()> {
    for layer in ["dense", "gated"] {
        let builder = Run::builder("progressive")
            .set("layer", layer)
            .set("hidden", vec![300, 300]);
        let summary = builder.set("epochs", 5).build()?.fit(&mut ())?;
        println!(
            "{layer}: {:.1}% of the test part wrong",
            100. * summary.test.error
        );
    }
    Ok(())
}
