//! The tokens of a context without their places, the last ones with the most weight.

/// Weighs the tokens of a context: each counts `decay` times as much as the one after it,
/// and the weights of a token that occurs several times add up. So a topic, a speaker or a
/// name stays known for as long as the context.
pub struct Recent {
    decay: f32,
    vocabulary: usize,
}

/// The weight below which a token counts as forgotten.
const LEAST: f32 = 1e-6;

impl Recent {
    /// For a vocabulary of this size.
    pub fn new(decay: f64, vocabulary: usize) -> Self {
        Self {
            decay: decay as f32,
            vocabulary,
        }
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.vocabulary
    }

    /// The different tokens of each context with their weights, which have the length 1, and
    /// zeros after them: as many as the context with the most.
    pub fn of<'a>(&self, contexts: impl Iterator<Item = &'a [u32]>) -> (Vec<u32>, Vec<f32>) {
        let mut all = Vec::new();
        // All 0 between two contexts.
        let mut weights = vec![0f32; self.vocabulary];
        for context in contexts {
            let (mut found, mut weight) = (Vec::new(), 1.);
            for token in context.iter().rev() {
                if weight < LEAST {
                    break;
                }
                let known = &mut weights[*token as usize];
                if *known == 0. {
                    found.push((*token, 0.));
                }
                *known += weight;
                weight *= self.decay;
            }
            for (token, weight) in &mut found {
                *weight = std::mem::take(&mut weights[*token as usize]);
            }
            let squares = found.iter().map(|(_, weight)| weight * weight);
            let length = squares.sum::<f32>().sqrt();
            found.iter_mut().for_each(|(_, weight)| *weight /= length);
            all.push(found);
        }
        let most = all.iter().map(Vec::len).max().unwrap_or(0);
        let nothing = std::iter::repeat((0, 0.));
        let rows = all.into_iter();
        rows.flat_map(|found| found.into_iter().chain(nothing.clone()).take(most))
            .unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // from math import sqrt
    //
    // def weights(decay, context):
    //     w = {}
    //     for k, token in enumerate(reversed(context)):
    //         w[token] = w.get(token, 0) + decay ** k
    //     length = sqrt(sum(x * x for x in w.values()))
    //     return {token: round(x / length, 6) for token, x in w.items()}
    //
    // print(weights(0.5, [1, 3, 1, 2]), weights(0.5, [0, 0, 0, 4]))
    #[test]
    fn later_tokens_have_more_weight_and_each_token_has_one() {
        let recent = Recent::new(0.5, 5);
        let contexts = [[1, 3, 1, 2], [0, 0, 0, 4]];
        let (index, entries) = recent.of(contexts.iter().map(|context| &context[..]));
        assert_eq!(index, [2, 1, 3, 4, 0, 0]);
        let expected = [0.829_561, 0.518_476, 0.207_390, 0.752_577, 0.658_505, 0.];
        for (entry, expected) in entries.iter().zip(expected) {
            assert!((entry - expected).abs() < 2e-6, "{entries:?}");
        }
    }

    #[test]
    fn what_is_long_ago_is_forgotten_or_never() {
        let long: Vec<u32> = (0..100).collect();
        let count = |decay: f64| {
            let (_, entries) = Recent::new(decay, 100).of([&long[..]].into_iter());
            entries.iter().filter(|entry| **entry != 0.).count()
        };
        assert_eq!((count(0.5), count(1.)), (20, 100));
    }
}
