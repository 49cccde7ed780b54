//! Where a run stands.

use rand_chacha::ChaCha8Rng;

use super::random::keyed;

/// Where the run stands.
///
/// Everything random in a step is drawn from `(seed, purpose, index)` with [`Step::stream`]. There is no generator
/// whose state would have to be saved: a resumed run draws what an uninterrupted one would have drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The seed of the run.
    pub seed: u64,
    /// Steps (batches) taken since the start of the run.
    pub index: u64,
    /// Epochs completed, from 0.
    pub epoch: usize,
    /// Epochs that the run will have in all.
    pub epochs: usize,
    /// Whether the pass is one to learn from; dropout and augmentation happen only then.
    pub train: bool,
    /// Which forward pass of the step this is: several passes of one step draw different dropout masks.
    pub pass: u32,
}

impl Step {
    /// A step outside training: evaluation and prediction.
    pub fn evaluation(seed: u64) -> Self {
        Self {
            seed,
            index: 0,
            epoch: 0,
            epochs: 1,
            train: false,
            pass: 0,
        }
    }

    /// The same step, its forward passes told apart by `pass`.
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
