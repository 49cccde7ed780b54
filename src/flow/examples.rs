//! Examples: what a data set is asked for.

use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::step::Step;

crate::choices! {
    /// A part of a data set.
    pub enum Split {
        /// The part that is learned from.
        Train = "train",
        /// The part that choices are made by.
        Validation = "validation",
        /// The part that is looked at once.
        Test = "test",
    }
}

/// Labelled examples, by the batch.
///
/// # For implementors
/// Guaranteed to you: indices below [`len`](Self::len).
///
/// Expected of you: the same batch for the same indices and step.
pub trait Examples: Send + Sync {
    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The examples at `indices`, varied by `augment` if it is given. They are on the CPU: images as `f32` in `[0, 1]`,
    /// tokens as `u32`.
    ///
    /// # Errors
    /// Errors of candle.
    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch>;

    /// The text behind the examples, if they are windows of text; by default there is none.
    fn passages(&self) -> Option<Passages<'_>> {
        None
    }
}

/// How training examples are varied.
#[derive(Clone, Copy, Debug)]
pub struct Augment<'a> {
    /// Images are shifted by up to this many pixels in both directions; the border is filled with zeros.
    pub shift: usize,
    /// Half of the images, drawn at random, are mirrored left to right.
    pub flip: bool,
    /// The step that random numbers are drawn for.
    pub step: &'a Step,
}

/// The text behind examples that are windows of it.
#[derive(Clone, Debug)]
pub struct Passages<'a> {
    /// The tokens of each passage; the first `window` of them are never labels.
    pub documents: Vec<&'a [u32]>,
    /// The number of tokens of an example.
    pub window: usize,
    /// The number of characters that the labels of all examples stand for.
    pub characters: usize,
}
