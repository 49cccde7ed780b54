//! Scores of predictions: error rates, and bits for text.

use serde::{Deserialize, Serialize};

/// The score of one readout on a part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The fraction of wrong predictions.
    pub error: f64,
    /// The fraction of right predictions.
    pub accuracy: f64,
    /// The number of wrong predictions.
    pub wrong: usize,
    /// The bits, for text and readouts that give probabilities.
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

/// Counts of predictions, from which a [`Score`] follows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// The number of wrong predictions.
    pub wrong: usize,
    /// The number of labels.
    pub labels: usize,
    /// `−Σ ln p` of the labels, for text and probabilities.
    pub nats: Option<f64>,
    /// The number of characters that the labels cover.
    pub characters: usize,
}

impl Counts {
    /// Adds the counts of other examples.
    pub(crate) fn add(&mut self, other: &Self) {
        self.wrong += other.wrong;
        self.labels += other.labels;
        self.characters += other.characters;
        if let Some(nats) = other.nats {
            self.nats = Some(self.nats.unwrap_or(0.) + nats);
        }
    }

    pub(crate) fn score(&self) -> Score {
        let bits = |nats| Bits::new(nats, self.labels, self.characters);
        Score::new(self.wrong, self.labels, self.nats.map(bits))
    }
}

/// The bits needed to encode the labels of a text with the predicted probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bits {
    /// Bits per character of the known labels; comparable between tokenizers. An unknown
    /// token costs its bits and counts as no character.
    pub bits_per_char: f64,
    /// Bits per token: `−Σ log₂ p / n`.
    pub bits_per_token: f64,
    /// The perplexity, `2^bits_per_token`: the number of equally likely tokens with the
    /// same uncertainty.
    pub perplexity: f64,
}

impl Bits {
    /// The bits of `tokens` tokens that cover `characters` characters, from
    /// `nats = −Σ ln p`.
    pub fn new(nats: f64, tokens: usize, characters: usize) -> Self {
        let bits = nats / std::f64::consts::LN_2;
        let bits_per_token = bits / tokens as f64;
        let bits_per_char = bits / characters as f64;
        Self {
            bits_per_char,
            bits_per_token,
            perplexity: bits_per_token.exp2(),
        }
    }
}
