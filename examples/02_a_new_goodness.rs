//! Adds a goodness function and trains with it by name. No other code changes.
//!
//! ```text
//! $ cargo run --release --example 02_a_new_goodness
//! mean_squares: test error 12.6%
//! mean_power: test error 13.5%
//! ```

use onward::candle_core::Tensor;
use onward::{GoodnessFn, Result, Run};

onward::settings! {
    /// Goodness of an example as the mean `p`-th power of its absolute activities.
    ///
    /// `g[b] = (1/N)·Σᵢ |a[b, i]|^p`, `(B, …)` to `(B,)`.
    pub struct MeanPower {
        /// The power `p`; 2 gives the mean of squares.
        power: f64 = 1.5, in 1. ..=4.;
    }
}

impl GoodnessFn for MeanPower {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        // The offset keeps the derivative finite at 0. Autograd computes the gradient.
        Ok((activity.flatten_from(1)?.abs()? + 1e-6)?
            .powf(self.power)?
            .mean(1)?)
    }

    fn threshold(&self, _units: usize) -> f64 {
        1.
    }
}

onward::register! {
    dyn GoodnessFn, "mean_power", "mean of a power of the absolute activity (an example, 2026)",
    |settings: MeanPower, _context| Ok(Box::new(settings))
}

fn main() -> Result<()> {
    for goodness in ["mean_squares", "mean_power"] {
        let builder = Run::builder("progressive")
            .set("goodness", goodness)
            .set("theta", 1.);
        // The gradient of a mean is smaller than that of a sum, by a factor of the
        // number of units. Adam does not depend on the scale of the gradient.
        let builder = builder
            .set("temperature", 0.01)
            .set("optimiser", "adam")
            .set("lr", 0.0003);
        let summary = builder
            .set("hidden", vec![500, 500])
            .set("epochs", 4)
            .build()?
            .fit(&mut ())?;
        println!("{goodness}: test error {:.1}%", 100. * summary.test.error);
    }
    Ok(())
}
