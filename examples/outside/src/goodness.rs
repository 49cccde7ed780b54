//! Goodness `excess`.

use onward::candle_core::Tensor;
use onward::{GoodnessFn, Result};

onward::settings! {
    /// By how much the activities of an example exceed a margin: `g[b] = Σᵢ (|a[b, i]| − margin)`, `(B, …)` to `(B,)`.
    pub struct Excess {
        /// What an activity has to exceed to add to the goodness.
        margin: f64 = 0.7, in 0. ..;
    }
}

impl GoodnessFn for Excess {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok((activity.flatten_from(1)?.abs()? - self.margin)?.sum(1)?)
    }
}

onward::register! {
    dyn GoodnessFn, "excess", "by how much activities exceed a margin, summed (an example, 2026)",
    |settings: Excess, _context| Ok(Box::new(settings))
}
