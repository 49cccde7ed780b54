//! The settings that the trainer reads.

use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::kernels::rounding::Rounding;
use crate::settings::{Idle, Pick};

crate::choices! {
    /// The element type of a run's numbers.
    pub enum Precision {
        /// 32 bits, with fast kernels.
        F32 = "f32",
        /// As `f32`, but the numbers of a product are rounded to 10 bits after the point
        /// (TensorFloat-32); its sums have 32 bits. Faster on a GPU; not for the CPU.
        Tf32 = "tf32",
        /// As `f32`, but the numbers of a product are rounded to 7 bits after the point
        /// (bfloat16); its sums, the weights and the updates have 32 bits. Faster than
        /// `f32` on a CPU with AMX, less so on one with AVX-512 BF16 alone. On a GPU
        /// faster than `tf32` for large batches, slower for small ones.
        Bf16 = "bf16",
        /// 64 bits, with candle's own operations: slow, for checking results.
        F64 = "f64",
    }
}

crate::choices! {
    /// What is written beside `metrics.jsonl` while a run trains.
    pub enum Log {
        /// `metrics.csv`: a line for each epoch.
        Csv = "csv",
        /// Event files for TensorBoard.
        Tensorboard = "tensorboard",
    }
}

impl Precision {
    /// How products round.
    pub(crate) fn rounding(self) -> Rounding {
        match self {
            Self::F32 | Self::F64 => Rounding::None,
            Self::Tf32 => Rounding::Tf32,
            Self::Bf16 => Rounding::Bf16,
        }
    }
}

crate::settings! {
    /// Settings of the trainer; they are the same for every architecture.
    pub struct RunSettings {
        /// The data set: a registered name, or `idx:DIR`, `folder:DIR`, `text:FILE`.
        /// Default: from the architecture's preset.
        data: Option<Pick<DataSet>> = None;
        /// The source of positive and negative views. Default: from the architecture's
        /// preset.
        sampler: Option<Pick<dyn NegativeSampler>> = None;
        /// The weights to start from: the folder of a run, or a file of safetensors with
        /// the names of a run's `model.safetensors`. Variables that it does not have are
        /// random. Default: all are random.
        init: Option<String> = None;
        /// The seed of all random numbers of the run.
        seed: u64 = 1, in 0..=i64::MAX as u64;
        /// Passes over the training part; per layer if layers learn one after the other.
        epochs: usize = 100, in 1..=1_000_000_000;
        /// Examples per step; at most the whole training part.
        batch | batch_size: usize = 100, in 1..;
        /// Augmentation: training images are shifted by up to this many pixels in both
        /// directions.
        shift: usize = 0, in 0..=64;
        /// Augmentation: half of the training images, drawn at random, are mirrored left
        /// to right.
        flip: bool = false;
        /// Whether every channel of images, or every column of rows of numbers, is
        /// standardised: its mean over the training part is subtracted, and the result
        /// divided by its standard deviation. With `init`, those of its file are taken,
        /// if it has them.
        standardise: bool = false;
        /// Whether the validation part is held out to choose the readout; otherwise it is
        /// added to the training part.
        validate: bool = true;
        /// Training examples that are learned from, drawn at random by the seed, of each
        /// class its share; the others are left out. 0: all. Not for text.
        examples: usize = 0;
        /// The readout of the reported result. Default: the best one on the validation
        /// part.
        readout: Option<String> = None;
        /// For text: whether the readouts `mixture` and `adaptive` are learned at the
        /// end, which mix the network with n-grams of up to `data.ngram` tokens,
        /// counted on the training part. Their weights are learned on the validation
        /// part; without one there is no mixture.
        mixture: bool = true;
        /// Epochs between two evaluations on the validation part.
        evaluate_every: usize = 1, in 1..;
        /// Epochs between two evaluations by all readouts on the validation part, also by
        /// those that need a pass for each class; 0: only at the end.
        evaluate_all_every: usize = 0;
        /// Training examples, spread over the training part and not augmented, that are
        /// evaluated beside the validation part, and at the end; 0: none.
        evaluate_training: usize = 0;
        /// Training ends when the validation part has not become better in this many
        /// epochs; the weights are those of the last epoch. 0: never. Counted from the
        /// epoch in which the last block or head begins to learn.
        patience: usize = 0;
        /// Steps between two additional checkpoints within an epoch; 0 to save only after
        /// every epoch.
        checkpoint_every: usize = 0;
        /// What is written beside `metrics.jsonl`: `csv` for `metrics.csv`, `tensorboard`
        /// for TensorBoard's event files.
        log: Vec<Log> = Vec::new();
        /// The parts of about one size into which every batch is divided among ranks,
        /// which average their gradients; 1: every batch is learned from as a whole.
        /// `onward train` and `mpirun` start the ranks for more than one: the guide
        /// `machines`.
        replicas: usize = 1, in 1..=1024;
        /// The type of all numbers, and how the factors of matrix products are rounded.
        precision: Precision = Precision::F32;
    }
}

impl RunSettings {
    /// The settings without an effect, for text or other data.
    pub(crate) fn idle(&self, is_text: bool) -> Vec<Idle> {
        let mut idle = Vec::new();
        if !is_text {
            idle.extend(Idle::all(&["mixture"], "the data are no text"));
        }
        if !self.validate {
            let because = "there is no validation part (`validate = false`)";
            let keys = [
                "mixture",
                "evaluate_every",
                "evaluate_all_every",
                "evaluate_training",
            ];
            idle.extend(Idle::all(&keys, because));
        }
        idle
    }
}
