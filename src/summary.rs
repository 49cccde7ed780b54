//! What a run came to.

use std::collections::BTreeMap;

use serde::Serialize;

/// How well a part of the data was predicted by one readout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The fraction that was predicted wrongly.
    pub error: f64,
    /// The fraction that was predicted rightly.
    pub accuracy: f64,
    /// How many were predicted wrongly.
    pub wrong: usize,
}

/// How well a part of the data was predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The readout that `error` and `accuracy` are of: the one that validation prefers.
    pub readout: String,
    /// The fraction that was predicted wrongly.
    pub error: f64,
    /// The fraction that was predicted rightly.
    pub accuracy: f64,
    /// How many examples there were.
    pub examples: usize,
    /// All readouts that were used.
    pub readouts: BTreeMap<String, Score>,
}

/// What a run came to; `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The architecture's name.
    pub architecture: String,
    /// The data set's name.
    pub data: String,
    /// The seed.
    pub seed: u64,
    /// Epochs completed.
    pub epochs: usize,
    /// How many numbers learn.
    pub parameters: usize,
    /// Wall-clock time of the training, evaluation and writing included; of a resumed run, since it was resumed.
    pub seconds: f64,
    /// Mean wall-clock time of an epoch's training alone.
    pub seconds_per_epoch: f64,
    /// The most memory that the process has held, where the system tells (Linux).
    pub peak_memory_mb: Option<f64>,
    /// Threads that the arithmetic may use.
    pub threads: usize,
    /// The validation part.
    pub validation: Option<Evaluation>,
    /// The test part.
    pub test: Evaluation,
    /// The version of this program.
    pub version: String,
}
