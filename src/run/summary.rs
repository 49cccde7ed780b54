//! The result of a run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::locality::Certificate;
use super::mixture::is_mixture;
use super::settings;
use crate::contract::rule::Rule;
pub use crate::data::score::{Bits, Score};
use crate::disk;
use crate::error::{Error, Result};
use crate::plugin::config::Config;

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
    /// The scores of n-grams that were counted on the training part, for text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<String, Score>,
}

impl Evaluation {
    /// An evaluation without a chosen readout.
    pub(crate) fn of(readouts: BTreeMap<String, Score>, examples: usize) -> Self {
        Self {
            readout: String::new(),
            error: f64::NAN,
            accuracy: f64::NAN,
            bits: None,
            examples,
            readouts,
            baselines: BTreeMap::new(),
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

    /// The scores of the network alone, without its mixtures with counts.
    pub(crate) fn of_network(&self) -> impl Iterator<Item = &Score> {
        let readouts = self.readouts.iter();
        let own = readouts.filter(|(name, _)| !is_mixture(name));
        own.map(|(_, score)| score)
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

/// The text of `summary.json`: the summary and, as its last entry, the checksum (CRC-32)
/// of the text without that entry.
pub(crate) fn to_text(summary: &Summary) -> String {
    let text = serde_json::to_string_pretty(summary).expect("plain values can be written");
    let checksum = checksum(&text);
    let open = text.trim_end_matches('}').trim_end();
    format!("{open},\n  \"{CHECKSUM}\": \"{checksum}\"\n}}\n")
}

const CHECKSUM: &str = "checksum";

fn checksum(text: &str) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    format!("{:08x}", crc.sum())
}

/// Reads a `summary.json` and verifies its checksum.
///
/// # Errors
/// [`Error::File`]; [`Error::Run`] for a file that is damaged or was changed.
pub(crate) fn read(path: &Path) -> Result<Value> {
    // Some programs write other ends of lines.
    let text = disk::read_text(path)?.replace("\r\n", "\n");
    let last = format!(",\n  \"{CHECKSUM}\": \"");
    let parts = text.rsplit_once(&last);
    let whole = parts.and_then(|(open, found)| {
        let found = found.strip_suffix("\"\n}\n")?;
        (checksum(&format!("{open}\n}}")) == found).then_some(&text)
    });
    let value = whole.and_then(|text| serde_json::from_str(text).ok());
    value.ok_or_else(|| {
        let problem = "is damaged, was changed after it was written, or is of an older version; \
                       `onward resume` writes it again for a run with its checkpoint";
        Error::run(path, problem)
    })
}

/// The use of labels in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Whether blocks learned from labels; false if they learned only from the examples.
    pub blocks: bool,
    /// Whether heads learned from labels.
    pub heads: bool,
}

/// The rule by which the blocks learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleUsed {
    /// Its class.
    pub class: String,
    /// Whether blocks learned to reject negative views.
    pub negatives: bool,
    /// How far a gradient reached: not at all, within a block, through the network.
    pub gradient: String,
}

impl RuleUsed {
    pub(super) fn of(rule: Rule) -> Self {
        Self {
            class: rule.word().into(),
            negatives: rule.has_negatives(),
            gradient: rule.gradient().into(),
        }
    }
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
    /// The number of training examples. Runs of older versions do not have it.
    #[serde(default)]
    pub training_examples: usize,
    /// The number of parameters, those of frozen layers included.
    pub parameters: usize,
    /// Wall-clock time of training, evaluation and writing; for a resumed run, since it
    /// was resumed.
    pub seconds: f64,
    /// Mean wall-clock time of an epoch since the run was started or resumed, without
    /// evaluation; of all epochs if none was trained since.
    pub seconds_per_epoch: f64,
    /// The multiplications, each with an addition, of the matrix products of training,
    /// for one example, all its views included: the mean since the run was started or
    /// resumed. Those are counted that were made, on this device and in this precision:
    /// except in `f64`, rows of zeros are left out. `None` if nothing was trained
    /// since, or if another run of the process trained at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiply_adds_per_example: Option<u64>,
    /// The mean energy of the machine's processors in an epoch, in joules, without
    /// evaluation, where the machine tells it. That of other programs is included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_joules_per_epoch: Option<f64>,
    /// The same of the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_joules_per_epoch: Option<f64>,
    /// The peak memory of the process, where the system reports it (Linux).
    pub peak_memory_mb: Option<f64>,
    /// The number of threads.
    pub threads: usize,
    /// The device, as in `CPU, 2 threads` or `cuda:0, NVIDIA H200`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// The rule by which the blocks learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleUsed>,
    /// What the update of each block depends on, if it was measured before the training:
    /// [`RunBuilder::certified`](crate::RunBuilder::certified).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Certificate>,
    /// The use of the labels of the training part.
    pub labels: Labels,
    /// The validation part.
    pub validation: Option<Evaluation>,
    /// The test part.
    pub test: Evaluation,
    /// The version of this program.
    pub version: String,
    /// Settings that were changed on purpose on the way: no single command repeats the
    /// run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What it belongs to; of a run with a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Origin>,
}

/// What a summary belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The settings as TOML, without the data set.
    pub settings: String,
    /// The checksum of `model.safetensors`.
    pub model: String,
    /// The fingerprints of the training, validation and test part.
    pub data: [u32; 3],
}

impl Origin {
    /// Whether the settings are those of a configuration. Settings that are newer than
    /// the summary count as their defaults.
    pub(crate) fn is_of(&self, config: &Config) -> bool {
        let settings = settings::completed(&config.architecture, &self.settings);
        settings.is_ok_and(|settings| settings == settings::of(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_that_was_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        let summary = Summary {
            architecture: "a".into(),
            data: "b".into(),
            seed: 1,
            epochs: 2,
            training_examples: 7,
            parameters: 3,
            seconds: 0.1,
            seconds_per_epoch: 0.05,
            multiply_adds_per_example: Some(6),
            processor_joules_per_epoch: None,
            gpu_joules_per_epoch: Some(0.5),
            peak_memory_mb: None,
            threads: 2,
            device: "CPU, 2 threads".into(),
            rule: Some(RuleUsed::of(Rule::Contrast)),
            locality: None,
            labels: Labels {
                blocks: true,
                heads: false,
            },
            validation: None,
            test: Evaluation::of(BTreeMap::new(), 4).by("x"),
            version: "0".into(),
            changes: Vec::new(),
            of: Some(Origin {
                settings: "lr = 1.0".into(),
                model: "9abcdef0".into(),
                data: [1, 2, 3],
            }),
        };
        let text = to_text(&summary);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap()["epochs"], 2);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, bytes).unwrap();
                assert!(read(&path).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}
