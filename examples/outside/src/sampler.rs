//! Sampler `halves`.

use onward::candle_core::Tensor;
use onward::{Batch, Input, NegativeSampler, Prediction, Result, Role, Step, Views};

onward::settings! {
    /// Negative views without labels: the top of an image above the bottom of the next.
    pub struct Halves {
        /// The share of the negative view that comes from the image itself.
        share: f64 = 0.5, in 0. ..1.;
    }
}

impl NegativeSampler for Halves {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let (rows, size, width) = (batch.rows(), batch.size(), batch.rows().dim(1)?);
        let own = (self.share * width as f64) as usize;
        let next = Tensor::cat(&[rows.narrow(0, 1, size - 1)?, rows.narrow(0, 0, 1)?], 0)?;
        let (upper, lower) = (rows.narrow(1, 0, own)?, next.narrow(1, own, width - own)?);
        let negative = Tensor::cat(&[upper, lower], 1)?;
        let shape = [&[2 * size], batch.shape()].concat();
        let both = Tensor::cat(&[rows, &negative], 0)?.reshape(shape)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn smallest_batch(&self) -> usize {
        2
    }
}

onward::register! {
    dyn NegativeSampler, "halves", "halves of two images, no labels (an example, 2026)",
    |settings: Halves, _context| Ok(Box::new(settings))
}
