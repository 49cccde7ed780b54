//! A network's prediction of the next token, mixed with that of counts.

mod learning;
mod rows;

use std::sync::Arc;

use rayon::prelude::*;

pub use self::learning::Examples;
use self::rows::Mix;
use super::ngram::{Counted, KneserNey, Known};
use crate::kernels::Loop;

/// The log-linear mixture of a network and of n-grams that were counted on its training
/// part:
///
/// ```text
/// log p(w|h) = α·log p_net(w|h) + β·log p_KN(w|h) − log Z(h)
/// ```
///
/// Each class of contexts has weights `α` and `β` of its own. The class of `h` is the
/// number of its last tokens that the n-grams have seen before another token, and how
/// often they have seen them: once, up to 3, up to 15, or more times.
///
/// The weights minimise the bits of the validation part, which are convex in them, by
/// Newton's method. The weights of a class are drawn towards the weights that are best
/// for all contexts together, as if by 10 to 10⁹ more tokens. Cross-validation within
/// the validation part chooses this number. The weights for all contexts are drawn
/// towards ½ by `5·((α − ½)² + (β − ½)²)` nats, which matters for a validation part of
/// less than a hundred tokens.
///
/// Of a long validation part, a run uses tokens spread over it: at most `2²⁴/V` for a
/// vocabulary of `V` tokens, so that their log-probabilities fit into memory.
///
/// # Reference
/// Klakow, "Log-linear interpolation of language models", ICSLP 1998. The weights for
/// each context are as in Jelinek and Mercer, "Interpolated estimation of Markov source
/// parameters from sparse data", 1980.
pub struct Mixture {
    ngrams: Arc<KneserNey>,
    /// `α` and `β` for each class of contexts, by [`class_of`].
    weights: Vec<[f64; 2]>,
}

/// The classes of the number of times that a context was seen.
const TIMES: usize = 4;

/// The class of a context, which is the index of its weights.
fn class_of(known: Known) -> usize {
    let times = match known.sum {
        0 | 1 => 0,
        2 | 3 => 1,
        4..16 => 2,
        _ => 3,
    };
    known.tokens * TIMES + times
}

impl Mixture {
    /// A mixture with known weights; `None` if there are not as many as the n-grams need.
    pub fn new(ngrams: Arc<KneserNey>, weights: Vec<[f64; 2]>) -> Option<Self> {
        let fits = weights.len() == ngrams.order() * TIMES;
        let is_finite = weights
            .as_flattened()
            .iter()
            .all(|weight| weight.is_finite());
        (fits && is_finite).then_some(Self { ngrams, weights })
    }

    /// The n-grams.
    pub fn ngrams(&self) -> &Arc<KneserNey> {
        &self.ngrams
    }

    /// The weights `α` and `β` for each class of contexts.
    pub fn weights(&self) -> &[[f64; 2]] {
        &self.weights
    }

    /// Mixes the log-probabilities of a network, a row for each context, with those of
    /// the counts, in place.
    pub fn mix(&self, counted: &[Counted], log_probabilities: &mut [f32]) {
        let rows = log_probabilities.par_chunks_mut(self.ngrams.vocabulary().max(1));
        rows.zip(counted).for_each(|(row, counted)| {
            let weights = self.weights[class_of(counted.known)];
            let (p, mut logs) = (&counted.p, vec![0.; row.len()]);
            Mix {
                row,
                p,
                weights,
                logs: &mut logs,
            }
            .wide();
        });
    }
}
