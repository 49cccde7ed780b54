//! A point in a run: seed, step and epoch.

use rand_chacha::ChaCha8Rng;

use super::random::keyed;

/// The position of a run: its seed, step and epoch.
///
/// Everything random in a step is drawn from `(seed, purpose, index)` with
/// [`Step::stream`]. No generator state has to be saved: a resumed run draws the same
/// numbers as an uninterrupted run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The seed of the run.
    pub seed: u64,
    /// The number of steps (batches) since the start of the run.
    pub index: u64,
    /// The number of completed epochs.
    pub epoch: usize,
    /// The total number of epochs of the run.
    pub epochs: usize,
    /// Whether this is a training pass. Dropout and augmentation are active only in
    /// training.
    pub train: bool,
    /// Whether this is the pass of the neutral view for the head, from which no layer
    /// learns.
    pub neutral: bool,
    /// The index of the forward pass within the step: each pass draws its own dropout
    /// masks.
    pub pass: u32,
}

impl Step {
    /// The first step of a training of one epoch.
    pub const fn first(seed: u64) -> Self {
        Self {
            train: true,
            ..Self::evaluation(seed)
        }
    }

    /// A step outside training, for evaluation and prediction.
    pub const fn evaluation(seed: u64) -> Self {
        Self {
            seed,
            index: 0,
            epoch: 0,
            epochs: 1,
            train: false,
            neutral: false,
            pass: 0,
        }
    }

    /// Whether a layer will learn from this pass, or observe it, so that it should keep
    /// what it needs for that.
    pub fn has_lesson(&self) -> bool {
        self.train && !self.neutral
    }

    /// The next step of the same epoch.
    pub(crate) fn next(self) -> Self {
        Self {
            index: self.index + 1,
            ..self
        }
    }

    /// The same step with this index of the forward pass.
    pub fn pass(self, pass: u32) -> Self {
        Self { pass, ..self }
    }

    /// The generator for `purpose` at this step and pass.
    pub fn stream(&self, purpose: &str) -> ChaCha8Rng {
        keyed(self.seed, purpose, self.index, self.pass)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn every_part_of_the_key_changes_the_numbers() {
        let step = Step {
            seed: 1,
            index: 7,
            epoch: 0,
            epochs: 1,
            train: true,
            neutral: false,
            pass: 0,
        };
        let first = step.stream("dropout").next_u64();
        assert_eq!(first, step.stream("dropout").next_u64());
        assert_ne!(first, step.stream("negatives").next_u64());
        assert_ne!(first, step.pass(1).stream("dropout").next_u64());
        assert_ne!(
            first,
            Step { index: 8, ..step }.stream("dropout").next_u64()
        );
        assert_ne!(first, Step { seed: 2, ..step }.stream("dropout").next_u64());
    }
}
