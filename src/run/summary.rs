//! The result of a run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::SUMMARY;
pub use crate::data::score::{Bits, Score};

/// The result of an evaluation on a part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The readout of `error` and `accuracy`: the best one on the validation part.
    pub readout: String,
    /// The fraction of wrong predictions.
    pub error: f64,
    /// The fraction of right predictions.
    pub accuracy: f64,
    /// The bits per token and character, for text and a readout with probabilities.
    #[serde(flatten)]
    pub bits: Option<Bits>,
    /// The number of examples.
    pub examples: usize,
    /// The scores of all readouts.
    pub readouts: BTreeMap<String, Score>,
    /// The scores of n-grams counted on the training part, for the test part of text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<String, Score>,
}

impl Evaluation {
    /// An evaluation without a chosen readout.
    pub(super) fn of(
        readouts: BTreeMap<String, Score>,
        examples: usize,
        baselines: BTreeMap<String, Score>,
    ) -> Self {
        Self {
            readout: String::new(),
            error: f64::NAN,
            accuracy: f64::NAN,
            bits: None,
            examples,
            readouts,
            baselines,
        }
    }

    /// The same, reported for another readout; unchanged if there is no such readout.
    pub(super) fn by(mut self, readout: &str) -> Self {
        let found = self.readouts.get_key_value(readout);
        let first = self
            .readouts
            .first_key_value()
            .filter(|_| self.readout.is_empty());
        if let Some((name, score)) = found.or(first) {
            self.readout = name.clone();
            (self.error, self.accuracy, self.bits) = (score.error, score.accuracy, score.bits);
        }
        self
    }

    /// The best readout: for text the one with the fewest bits, otherwise the one with
    /// the fewest errors.
    pub(super) fn best(&self) -> Option<String> {
        let bits = |score: &Score| score.bits.map_or(f64::INFINITY, |bits| bits.bits_per_token);
        let best = self
            .readouts
            .iter()
            .min_by(|(_, a), (_, b)| bits(a).total_cmp(&bits(b)).then(a.wrong.cmp(&b.wrong)));
        best.map(|(name, _)| name.clone())
    }
}

/// The summary in the folder of a run, if there is one that can be read.
pub(crate) fn of_folder(folder: &Path) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join(SUMMARY)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The use of labels in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Whether blocks learned from labels; false if they learned only from the examples.
    pub blocks: bool,
    /// Whether heads learned from labels.
    pub heads: bool,
}

/// The result of a run: `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The architecture's name.
    pub architecture: String,
    /// The data set's name.
    pub data: String,
    /// The seed.
    pub seed: u64,
    /// The number of complete epochs.
    pub epochs: usize,
    /// The number of parameters, those of frozen layers included.
    pub parameters: usize,
    /// Wall-clock time of training, evaluation and writing; for a resumed run, since it
    /// was resumed.
    pub seconds: f64,
    /// Mean wall-clock time of an epoch, without evaluation.
    pub seconds_per_epoch: f64,
    /// The peak memory of the process, where the system reports it (Linux).
    pub peak_memory_mb: Option<f64>,
    /// The number of threads.
    pub threads: usize,
    /// The use of the labels of the training part.
    pub labels: Labels,
    /// The validation part.
    pub validation: Option<Evaluation>,
    /// The test part.
    pub test: Evaluation,
    /// The version of this program.
    pub version: String,
}
