//! Sampler `halves`.

use onward::candle_core::Tensor;
use onward::{Batch, Input, NegativeSampler, Result, Role, Step, Views};

onward::settings! {
    /// Negatives without labels: the upper rows of an image upon the lower rows of the next one of the batch.
    pub struct Halves {
        /// The share of the image that is its own.
        share: f64 = 0.5, in 0. ..1.;
    }
}

impl NegativeSampler for Halves {
    fn views(&mut self, batch: &Batch, _: &mut dyn FnMut() -> Result<Tensor>, _: &Step) -> Result<Views> {
        let (rows, size, width) = (batch.rows(), batch.size(), batch.rows().dim(1)?);
        let own = (self.share * width as f64) as usize;
        let next = Tensor::cat(&[rows.narrow(0, 1, size - 1)?, rows.narrow(0, 0, 1)?], 0)?;
        let negative = Tensor::cat(&[rows.narrow(1, 0, own)?, next.narrow(1, own, width - own)?], 1)?;
        let both = Tensor::cat(&[rows, &negative], 0)?.reshape([&[2 * size], batch.shape()].concat())?;
        Views::new(Input::stacked(both, 2)?, vec![Role::Positive, Role::Negative], None)
    }

    fn is_supervised(&self) -> bool {
        false
    }

    fn smallest_batch(&self) -> usize {
        2
    }
}

onward::register! {
    dyn NegativeSampler, "halves", "two images put together from their halves, no labels (an example, 2026)",
    |settings: Halves, _context| Ok(Box::new(settings))
}
