//! Goodness `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train progressive --set goodness=my_plugin --epochs 5
//! ```

use onward::candle_core::Tensor;
use onward::{GoodnessFn, Result};

onward::settings! {
    /// Goodness of an example as the sum of its absolute activities.
    ///
    /// `g[b] = Σᵢ |a[b, i]|`, with `i` over every dimension but the first: `(B, …)` to
    /// `(B,)`.
    pub struct Goodness {
        /// The threshold per unit. A setting of `theta` replaces it.
        threshold: f64 = 0.5, in 0. ..;
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.flatten_from(1)?.abs()?.sum(1)?)
    }

    fn threshold(&self, units: usize) -> f64 {
        self.threshold * units as f64
    }
}

onward::register! {
    dyn GoodnessFn, "my_plugin", "sum of absolute activities (describe it here and cite the paper)",
    |settings: Goodness, _context| Ok(Box::new(settings))
}
