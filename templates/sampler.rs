//! Sampler `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train progressive --set sampler=my_plugin --epochs 5
//! ```

use onward::candle_core::{Device, Tensor};
use onward::flow::random::unit;
use onward::{Batch, Input, NegativeSampler, Prediction, Result, Role, Step, Views};

onward::settings! {
    /// Negative views: a mixture of the example and the next example of the batch.
    ///
    /// `x⁻[i] = m[i]·x[i] + (1 − m[i])·x′[i]`; `m[i]` is 1 with probability `keep` and 0
    /// otherwise: `(B, …)` to `(B, …)`. The positive view is the example itself. No label
    /// is used.
    pub struct Sampler {
        /// The probability of keeping a value of the example.
        keep: f64 = 0.5, in 0. ..1.;
    }
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (rows, size) = (batch.rows(), batch.size());
        // Draw all random numbers from `Step::stream`, so that a run can be repeated.
        let mut rng = step.stream("my_plugin");
        let mask =
            (0..rows.elem_count()).map(|_| if unit(&mut rng) < self.keep { 1f32 } else { 0. });
        let mask = Tensor::from_iter(mask, &Device::Cpu)?.reshape(rows.shape())?;
        let mask = mask.to_dtype(rows.dtype())?.to_device(rows.device())?;
        let next = Tensor::cat(&[rows.narrow(0, 1, size - 1)?, rows.narrow(0, 0, 1)?], 0)?;
        let negative = (&next + ((rows - &next)? * mask)?)?;
        let both =
            Tensor::cat(&[rows, &negative], 0)?.reshape([&[2 * size], batch.shape()].concat())?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn uses_labels(&self) -> bool {
        false
    }

    // A single example has no next example.
    fn smallest_batch(&self) -> usize {
        2
    }
}

onward::register! {
    dyn NegativeSampler, "my_plugin", "a mixture of two examples (describe it here and cite the paper)",
    |settings: Sampler, _context| Ok(Box::new(settings))
}
