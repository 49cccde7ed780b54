//! Goodness `excess`.

use onward::candle_core::Tensor;
use onward::{GoodnessFn, Result};

onward::settings! {
    /// Goodness of an example as the sum of its absolute activities minus a margin.
    ///
    /// `g[b] = Σᵢ (|a[b, i]| − margin)`, `(B, …)` to `(B,)`.
    pub struct Excess {
        /// The margin subtracted from each absolute activity.
        margin: f64 = 0.7, in 0. ..;
    }
}

impl GoodnessFn for Excess {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok((activity.flatten_from(1)?.abs()? - self.margin)?.sum(1)?)
    }
}

onward::register! {
    dyn GoodnessFn, "excess", "sum of absolute activities minus a margin (an example, 2026)",
    |settings: Excess, _context| Ok(Box::new(settings))
}
