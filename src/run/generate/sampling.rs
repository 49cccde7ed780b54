//! The sampling of the next token.

use crate::error::{Error, Result};
use crate::flow::random::{stream, unit};

/// The sampling of the next token from log-probabilities `log p`.
///
/// The `top_k` most probable tokens are kept, with probabilities
/// `∝ exp(log p / temperature)`. Of these, the fewest tokens that together have the
/// probability `top_p` are kept, and one of them is sampled. Temperature 0 takes the most
/// probable token. The unknown token is never sampled. Before all that, the
/// probability of every token in the window and before it is divided by the repetition
/// penalty, without the padding before a short prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The temperature, at least 0; below 1 probable tokens become more probable.
    pub temperature: f64,
    /// The number of tokens to sample from, at least 1; all tokens if it is not set.
    pub top_k: Option<usize>,
    /// The total probability of the tokens to sample from, above 0 and at most 1.
    pub top_p: f64,
    /// The repetition penalty, at least 1; 1 for none.
    pub repetition_penalty: f64,
    /// The seed of the sampling.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.,
            top_k: None,
            top_p: 1.,
            repetition_penalty: 1.,
            seed: 1,
        }
    }
}

impl Sampling {
    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first number that is not.
    pub fn check(&self) -> Result<()> {
        let refused = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
            Err(Error::setting(key, value, format!("--{key}"), expected))
        };
        if !self.temperature.is_finite() || self.temperature < 0. {
            return refused("temperature", &self.temperature, "a number, at least 0");
        }
        if self.top_k == Some(0) {
            return refused("top-k", &0, "a whole number, at least 1");
        }
        if !(self.top_p > 0. && self.top_p <= 1.) {
            return refused(
                "top-p",
                &self.top_p,
                "a number, greater than 0 and at most 1",
            );
        }
        if !self.repetition_penalty.is_finite() || self.repetition_penalty < 1. {
            let penalty = &self.repetition_penalty;
            return refused("repetition-penalty", penalty, "a number, at least 1");
        }
        Ok(())
    }

    /// Samples a token from log-probabilities; `place` is the index of the draw.
    pub(super) fn draw(&self, scores: &[f64], place: u64) -> Option<usize> {
        let mut order: Vec<usize> = (0..scores.len())
            .filter(|&token| scores[token] > f64::NEG_INFINITY)
            .collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let &best = order.first()?;
        if self.temperature == 0. {
            return Some(best);
        }
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let weight = |&token: &usize| ((scores[token] - scores[best]) / self.temperature).exp();
        let all: f64 = order.iter().map(weight).sum();
        let mut kept = 0.;
        let enough = order.iter().position(|token| {
            kept += weight(token);
            kept >= self.top_p * all
        });
        order.truncate(enough.map_or(order.len(), |last| last + 1));
        let mut left =
            unit(&mut stream(self.seed, "generate", place)) * order.iter().map(weight).sum::<f64>();
        let drawn = order.iter().find(|token| {
            left -= weight(token);
            left < 0.
        });
        Some(*drawn.unwrap_or(&best))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sampling: Sampling) -> [usize; 4] {
        let scores = [0.1f64, 0.2, 0., 0.7].map(f64::ln);
        let mut counts = [0; 4];
        (0..4000).for_each(|place| counts[sampling.draw(&scores, place).unwrap()] += 1);
        counts
    }

    #[test]
    fn tokens_are_sampled_in_proportion_to_their_probability() {
        let near = |found: [usize; 4], expected: [f64; 4]| {
            let close = found
                .iter()
                .zip(expected)
                .all(|(found, p)| (*found as f64 - 4000. * p).abs() < 100.);
            assert!(close, "{found:?}, expected {expected:?}");
        };
        let all = Sampling::default();
        near(drawn(all), [0.1, 0.2, 0., 0.7]);
        near(
            drawn(Sampling {
                temperature: 0.5,
                ..all
            }),
            [0.01 / 0.54, 0.04 / 0.54, 0., 0.49 / 0.54],
        );
        near(
            drawn(Sampling {
                top_k: Some(2),
                ..all
            }),
            [0., 0.2 / 0.9, 0., 0.7 / 0.9],
        );
        near(
            drawn(Sampling { top_p: 0.75, ..all }),
            [0., 0.2 / 0.9, 0., 0.7 / 0.9],
        );
        assert_ne!(drawn(all), drawn(Sampling { seed: 2, ..all }));
        for sure in [
            Sampling {
                temperature: 0.,
                ..all
            },
            Sampling {
                temperature: 1e-300,
                ..all
            },
            Sampling {
                top_k: Some(1),
                ..all
            },
            Sampling { top_p: 0.01, ..all },
        ] {
            assert_eq!(drawn(sure), [0, 0, 0, 4000], "{sure:?}");
        }
        assert_eq!(all.draw(&[f64::NEG_INFINITY; 3], 0), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let all = Sampling::default();
        for (sampling, expected) in [
            (
                Sampling {
                    temperature: -1.,
                    ..all
                },
                "`temperature` = -1 (from --temperature)",
            ),
            (
                Sampling {
                    temperature: f64::NAN,
                    ..all
                },
                "at least 0",
            ),
            (
                Sampling {
                    top_k: Some(0),
                    ..all
                },
                "`top-k` = 0",
            ),
            (Sampling { top_p: 0., ..all }, "greater than 0"),
            (Sampling { top_p: 1.5, ..all }, "at most 1"),
            (
                Sampling {
                    repetition_penalty: 0.5,
                    ..all
                },
                "`repetition-penalty` = 0.5",
            ),
        ] {
            let error = sampling.check().unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains(expected),
                "{error}"
            );
        }
    }
}
