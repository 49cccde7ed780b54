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
    /// How well text was predicted by a readout that gives probabilities.
    #[serde(flatten)]
    pub bits: Option<Bits>,
}

impl Score {
    pub(crate) fn new(wrong: usize, examples: usize, bits: Option<Bits>) -> Self {
        let error = wrong as f64 / examples as f64;
        Self {
            error,
            accuracy: 1. - error,
            wrong,
            bits,
        }
    }
}

/// How many bits the labels of some text take if they are coded by the probabilities they were predicted with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bits {
    /// Per character of the labels that are known: comparable between tokenizers. What is unknown costs its bits and
    /// stands for no character.
    pub bits_per_char: f64,
    /// Per token: `−Σ log₂ p / n`.
    pub bits_per_token: f64,
    /// Between how many equally probable tokens the prediction is as uncertain as it was: 2 to the power of
    /// `bits_per_token`.
    pub perplexity: f64,
}

impl Bits {
    /// Of so many tokens, which stand for so many characters, from `−Σ ln p`.
    pub fn new(nats: f64, tokens: usize, characters: usize) -> Self {
        let bits = nats / std::f64::consts::LN_2;
        let bits_per_token = bits / tokens as f64;
        Self {
            bits_per_char: bits / characters as f64,
            bits_per_token,
            perplexity: bits_per_token.exp2(),
        }
    }
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
    /// Of text, what that readout came to in bits, if it gives probabilities.
    #[serde(flatten)]
    pub bits: Option<Bits>,
    /// How many examples there were.
    pub examples: usize,
    /// All readouts that were used.
    pub readouts: BTreeMap<String, Score>,
    /// Of text, what counting on the training part of the same data comes to on the test part.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<String, Score>,
}

/// The summary in the folder of a run, if there is one that can be read.
pub(crate) fn of_folder(folder: &std::path::Path) -> Option<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(crate::run::folder::SUMMARY)).ok()?)
        .ok()
}

/// Who has learned from labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Labels {
    /// The blocks: false if they have learned from the examples alone.
    pub blocks: bool,
    /// Readouts that are trained.
    pub heads: bool,
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
    /// How many numbers can learn, those of frozen layers as well.
    pub parameters: usize,
    /// Wall-clock time of the training, evaluation and writing included; of a resumed run, since it was resumed.
    pub seconds: f64,
    /// Mean wall-clock time of an epoch's training alone.
    pub seconds_per_epoch: f64,
    /// The most memory that the process has held, where the system tells (Linux).
    pub peak_memory_mb: Option<f64>,
    /// Threads that the arithmetic may use.
    pub threads: usize,
    /// What the labels of the training part were used for.
    pub labels: Labels,
    /// The validation part.
    pub validation: Option<Evaluation>,
    /// The test part.
    pub test: Evaluation,
    /// The version of this program.
    pub version: String,
}
