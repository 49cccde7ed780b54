//! The contract of examples: batches of a data set.

use std::sync::Arc;

use candle_core::{DType, Device};
use flate2::Crc;

use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::random::{below, stream};
use crate::flow::step::Step;

crate::choices! {
    /// A part of a data set.
    pub enum Split {
        /// The part for training.
        Train = "train",
        /// The part for choosing between settings.
        Validation = "validation",
        /// The part for the final evaluation, used once.
        Test = "test",
    }
}

/// At most `most` of `count` indices, in their order: one drawn from each of as many
/// stretches of about the same length. Examples may be sorted by class, or classes may
/// take turns, so evenly spaced ones could all be of one class. The same indices every
/// time.
pub(crate) fn spread(count: usize, most: usize) -> Vec<usize> {
    let stretches = most.min(count);
    let mut rng = stream(0, "spread", count as u64);
    let index = |stretch: usize| {
        let [first, end] = [stretch, stretch + 1]
            .map(|at| (at as u128 * count as u128 / stretches as u128) as usize);
        first + below(&mut rng, end - first)
    };
    (0..stretches).map(index).collect()
}

/// Labelled examples, read in batches.
///
/// # For implementors
/// Guaranteed to you: indices below [`len`](Self::len).
///
/// Expected of you: the same batch for the same indices and step.
pub trait Examples: Send + Sync {
    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The examples at `indices`, augmented if `augment` is given. They are on the CPU,
    /// but for those of [`on_device`](Self::on_device): images as `f32` in `[0, 1]`,
    /// tokens as `u32`. Without `augment`, as in a training without `shift` and `flip`,
    /// they are the same numbers every time.
    ///
    /// # Errors
    /// Errors of candle.
    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch>;

    /// The labels of the examples at `indices`; none if they have no labels. The default
    /// reads the examples for them.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    fn labels(&self, indices: &[usize]) -> Result<Vec<u32>> {
        let batch = self.batch(indices, None)?;
        Ok(batch.labels().map(<[u32]>::to_vec).unwrap_or_default())
    }

    /// The same examples, stored on a device: each batch is made there, with the same
    /// numbers. `None` if they are not stored there, which is the default; the trainer
    /// then copies each batch.
    ///
    /// # Errors
    /// Errors of candle.
    fn on_device(&self, _device: &Device) -> Result<Option<Arc<dyn Examples>>> {
        Ok(None)
    }

    /// A checksum (CRC-32) of all examples and labels: a run is not resumed with others.
    ///
    /// The default is computed from batches without augmentation.
    ///
    /// # Errors
    /// Errors of candle.
    fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc::new();
        let indices: Vec<usize> = (0..self.len()).collect();
        for indices in indices.chunks(1000) {
            let batch = self.batch(indices, None)?;
            let examples = batch.examples().flatten_all()?;
            match examples.dtype().is_float() {
                true => {
                    let values = examples.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                    values
                        .iter()
                        .for_each(|value| crc.update(&value.to_le_bytes()));
                }
                false => {
                    let values = examples.to_dtype(DType::U32)?.to_vec1::<u32>()?;
                    values
                        .iter()
                        .for_each(|value| crc.update(&value.to_le_bytes()));
                }
            }
            let labels = batch.labels().unwrap_or_default();
            labels
                .iter()
                .for_each(|label| crc.update(&label.to_le_bytes()));
        }
        Ok(crc.sum())
    }

    /// The text behind the examples, if they are windows of text; `None` by default.
    fn passages(&self) -> Option<Passages<'_>> {
        None
    }
}

/// The augmentation of training examples.
#[derive(Clone, Copy, Debug)]
pub struct Augment<'a> {
    /// The largest shift of an image in pixels, in both directions. The border is filled
    /// with zeros.
    pub shift: usize,
    /// Whether to mirror half of the images, drawn at random, left to right.
    pub flip: bool,
    /// The step, from which the random numbers are drawn.
    pub step: &'a Step,
}

/// The text behind examples that are windows of text.
#[derive(Clone, Debug)]
pub struct Passages<'a> {
    /// The tokens of each passage; the first `window` of them are never labels.
    pub documents: Vec<&'a [u32]>,
    /// The number of tokens of the window of an example.
    pub window: usize,
    /// The number of characters that the labels of all examples cover.
    pub characters: usize,
}

impl Passages<'_> {
    /// The labels of all examples.
    pub fn labels(&self) -> impl Iterator<Item = u32> + '_ {
        let documents = self.documents.iter();
        documents.flat_map(|tokens| tokens.iter().skip(self.window).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_all_classes_are_spread_over_sorted_and_alternating_ones() {
        assert_eq!(spread(3, 5), [0, 1, 2]);
        assert!(spread(0, 5).is_empty() && spread(5, 0).is_empty());
        for (count, most) in [(20_000, 1000), (1990, 999), (11, 10)] {
            let indices = spread(count, most);
            assert_eq!(indices.len(), most);
            assert!(indices.is_sorted_by(|a, b| a < b) && indices[most - 1] < count);
        }
        let indices = spread(20_000, 1000);
        let of_class = |class: &dyn Fn(usize) -> usize, wanted: usize| {
            indices
                .iter()
                .filter(|&&index| class(index) == wanted)
                .count()
        };
        for class in 0..10 {
            assert_eq!(of_class(&|index| index / 2000, class), 100);
            let alternating = of_class(&|index| index % 10, class);
            assert!((60..140).contains(&alternating), "{class}: {alternating}");
        }
    }
}
