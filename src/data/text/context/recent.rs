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

    /// The different tokens of each context with their weights, which have the length 1,
    /// and zeros after them: as many as the context has tokens.
    pub fn of<'a>(&self, contexts: impl Iterator<Item = &'a [u32]>) -> (Vec<u32>, Vec<f32>) {
        let (mut index, mut entries) = (Vec::new(), Vec::new());
        // All 0 between two contexts.
        let mut weights = vec![0f32; self.vocabulary];
        for context in contexts {
            let (first, end) = (index.len(), index.len() + context.len());
            let mut weight = 1.;
            for token in context.iter().rev() {
                if weight < LEAST {
                    break;
                }
                let known = &mut weights[*token as usize];
                if *known == 0. {
                    index.push(*token);
                }
                *known += weight;
                weight *= self.decay;
            }
            let found = index[first..].iter();
            entries.extend(found.map(|token| std::mem::take(&mut weights[*token as usize])));
            let found = &mut entries[first..];
            let length = found
                .iter()
                .map(|weight| weight * weight)
                .sum::<f32>()
                .sqrt();
            found.iter_mut().for_each(|weight| *weight /= length);
            index.resize(end, 0);
            entries.resize(end, 0.);
        }
        (index, entries)
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
        assert_eq!(index, [2, 1, 3, 0, 4, 0, 0, 0]);
        let expected = [
            0.829_561, 0.518_476, 0.207_390, 0., 0.752_577, 0.658_505, 0., 0.,
        ];
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
