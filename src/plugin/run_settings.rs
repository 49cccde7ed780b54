//! The settings that the trainer reads.

use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::settings::Pick;

crate::choices! {
    /// The element type of a run's numbers.
    pub enum Precision {
        /// 32 bits; the fast paths are written for it.
        F32 = "f32",
        /// 64 bits, by candle's own operations: slow, for checking results.
        F64 = "f64",
    }
}

crate::settings! {
    /// Settings of the trainer; they are the same for every architecture.
    pub struct RunSettings {
        /// The data set: a registered name, or `idx:DIR`, `folder:DIR`, `text:FILE`. Default: that of the architecture's preset.
        data: Option<Pick<DataSet>> = None;
        /// The source of positive and negative views. Default: that of the architecture's preset.
        sampler: Option<Pick<dyn NegativeSampler>> = None;
        /// The seed of everything random in the run.
        seed: u64 = 1;
        /// Passes over the training part; for each layer where layers learn one after the other.
        epochs: usize = 100, in 1..;
        /// Examples in a step. A number larger than the training part means all of it.
        batch | batch_size: usize = 100, in 1..;
        /// Augmentation: training images are shifted by up to this many pixels in both directions.
        shift: usize = 0, in 0..=64;
        /// Augmentation: half of the training images, drawn at random, are mirrored left to right.
        flip: bool = false;
        /// Whether every channel of images is standardised: its mean over the training part is subtracted, and the result
        /// divided by its standard deviation.
        standardise: bool = false;
        /// Whether the validation part is kept apart to choose the readout; if not, it is trained on as well.
        validate: bool = true;
        /// The readout that the result is reported for. Default: the best one on the validation part.
        readout: Option<String> = None;
        /// Epochs between two evaluations on the validation part.
        evaluate_every: usize = 1, in 1..;
        /// Steps between two checkpoints, besides the one after every epoch; 0 for no others.
        checkpoint_every: usize = 0;
        /// The element type of all numbers.
        precision: Precision = Precision::F32;
    }
}
