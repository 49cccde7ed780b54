//! Scores of predictions: errors, and for text bits.

use serde::Serialize;

/// The result of predicting a part of the data by one readout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The fraction of wrong predictions.
    pub error: f64,
    /// The fraction of right predictions.
    pub accuracy: f64,
    /// The number of wrong predictions.
    pub wrong: usize,
    /// For text and a readout that gives probabilities: bits.
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

/// The bits that the labels of a text take if they are coded by the probabilities that were predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bits {
    /// Bits per character of the known labels; comparable between tokenizers. An unknown token costs its bits and stands
    /// for no character.
    pub bits_per_char: f64,
    /// Bits per token: `−Σ log₂ p / n`.
    pub bits_per_token: f64,
    /// The number of equally likely tokens with the same uncertainty: 2 to the power of `bits_per_token`.
    pub perplexity: f64,
}

impl Bits {
    /// The bits of `tokens` tokens that stand for `characters` characters, from `nats = −Σ ln p`.
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
