//! Sampler `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train progressive --set sampler=my_plugin --epochs 5
//! ```

use onward::candle_core::{Device, Tensor};
use onward::flow::random::unit;
use onward::{Batch, Input, NegativeSampler, Prediction, Result, Role, Step, Views};

onward::settings! {
    /// The example as the positive view; as the negative one a mixture with the next
    /// example of the batch. No label is used.
    ///
    /// `x⁻[i] = m[i]·x[i] + (1 − m[i])·x′[i]`, `m[i]` being 1 with probability `keep`
    /// and else 0: `(B, …)` to `(B, …)`.
    pub struct Sampler {
        /// The probability that a number is the example's own.
        keep: f64 = 0.5, in 0. ..1.;
    }
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (rows, size) = (batch.rows(), batch.size());
        // Everything random in a step comes from here, so that a run repeats itself.
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

    // One example alone has no next one.
    fn smallest_batch(&self) -> usize {
        2
    }
}

onward::register! {
    dyn NegativeSampler, "my_plugin", "two examples mixed number by number (say here what it is, and the paper)",
    |settings: Sampler, _context| Ok(Box::new(settings))
}
