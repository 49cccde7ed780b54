//! Text generation: tokens are sampled one by one from the predictions of a network.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};

use crate::data::text::tokenizer::{Stream, Tokenizer};
use crate::data::Content;
use crate::error::{Error, Result};
use crate::flow::random::{stream, unit};
use crate::run::Run;

/// The sampling of the next token from log-probabilities `log p`.
///
/// The `top_k` most probable tokens are kept, with probabilities
/// `∝ exp(log p / temperature)`. Of these, the fewest tokens that together have the
/// probability `top_p` are kept, and one of them is sampled. Temperature 0 takes the most
/// probable token. The unknown token is never sampled. Before all that, the
/// probability of every token in the window is divided by the repetition penalty.
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
    fn draw(&self, scores: &[f64], place: u64) -> Option<usize> {
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

/// Generates text from a prompt.
///
/// A prompt that is shorter than the window is padded on the left, with line ends or else
/// with spaces.
pub struct Generator<'a> {
    run: &'a Run,
    tokenizer: &'a Tokenizer,
    readout: &'static str,
    sampling: Sampling,
    prompt: String,
    notes: Vec<String>,
    /// The last tokens: at least a window.
    tokens: Vec<u32>,
    drawn: u64,
    stream: Stream<'a>,
}

impl<'a> Generator<'a> {
    /// A generator that starts from `prompt` and samples from `readout`, by default the
    /// first readout with probabilities.
    ///
    /// # Errors
    /// [`Error::Usage`] if the run is not on text, or if the readout gives no
    /// probabilities; as [`Sampling::check`].
    pub fn new(
        run: &'a Run,
        prompt: &str,
        readout: Option<&str>,
        sampling: Sampling,
    ) -> Result<Self> {
        sampling.check()?;
        let refused = |problem: String| Error::usage(&run.config().architecture, problem);
        let data = run.data();
        let (Content::Text, Some(text)) = (data.spec.content, &data.text) else {
            let problem = "expected a run on text, found one on images; \
                           classify an image with: onward predict";
            return Err(refused(problem.into()));
        };
        let mut able = run.readouts();
        able.retain(|known| known.log_probabilities);
        let is_wanted = |name: &str| readout.is_none_or(|wanted| wanted == name);
        let Some(found) = able.iter().find(|known| is_wanted(known.name)) else {
            let names: Vec<_> = able.iter().map(|readout| readout.name).collect();
            return Err(refused(match readout {
                Some(name) => {
                    format!(
                        "expected a readout with probabilities ({}), found {name}",
                        names.join(", ")
                    )
                }
                None => "expected a readout with probabilities, found none".into(),
            }));
        };
        let tokenizer = &*text.tokenizer;
        let mut notes = Vec::new();
        let known = known(tokenizer, prompt, &mut notes)?;
        let window = data.spec.shape[0];
        let mut tokens = known.clone();
        if tokens.len() < window {
            let (name, filler) = filler(tokenizer);
            notes.push(format!(
                "the prompt has {} tokens of {window}: {name} are added before it",
                tokens.len()
            ));
            tokens = [vec![filler; window - tokens.len()], tokens].concat();
        }
        // The text of a token may depend on the token before it.
        let mut stream = tokenizer.stream();
        for token in &known {
            stream.push(*token)?;
        }
        let prompt = tokenizer.decode(&known)?;
        Ok(Self {
            run,
            tokenizer,
            readout: found.name,
            sampling,
            prompt,
            notes,
            tokens,
            drawn: 0,
            stream,
        })
    }

    /// The prompt as it was tokenized.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Notes on the prompt: symbols that were replaced or left out, and padding.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Samples one token and returns the new text; empty while a character is incomplete.
    ///
    /// # Errors
    /// Errors of the network; [`Error::Usage`] if no token can be sampled.
    pub fn step(&mut self) -> Result<String> {
        let mut scores = self.log_probabilities()?;
        let window = self.run.data().spec.shape[0];
        let context = self.tokens.split_off(self.tokens.len() - window);
        let repeated: BTreeSet<usize> = context.iter().map(|token| *token as usize).collect();
        for token in repeated {
            scores[token] -= self.sampling.repetition_penalty.ln();
        }
        let token = self.sampling.draw(&scores, self.drawn).ok_or_else(|| {
            Error::usage(
                format!("readout {}", self.readout),
                "no token can be sampled, every probability is 0 or NaN",
            )
        })? as u32;
        self.drawn += 1;
        self.tokens = [context, vec![token]].concat();
        self.stream.push(token)
    }

    /// The most probable next tokens, at most `count`, with their probabilities by the
    /// readout, before the sampling changes them.
    ///
    /// # Errors
    /// Errors of the network.
    pub fn next_tokens(&self, count: usize) -> Result<Vec<(String, f64)>> {
        let scores = self.log_probabilities()?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let best = order.into_iter().take(count);
        best.map(|token| {
            let text = self.tokenizer.decode(&[token as u32])?;
            Ok((text, scores[token].exp()))
        })
        .collect()
    }

    /// The log-probability of each next token; of the unknown token it is `−∞`.
    fn log_probabilities(&self) -> Result<Vec<f64>> {
        let window = self.run.data().spec.shape[0];
        let context = &self.tokens[self.tokens.len() - window..];
        let scores = self.run.scores(
            Tensor::from_slice(context, (1, window), &Device::Cpu)?,
            self.readout,
        )?;
        let mut scores = scores
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()?;
        if let Some(unknown) = self
            .tokenizer
            .unknown()
            .and_then(|unknown| scores.get_mut(unknown as usize))
        {
            *unknown = f64::NEG_INFINITY;
        }
        scores
            .iter_mut()
            .filter(|score| score.is_nan())
            .for_each(|score| *score = f64::NEG_INFINITY);
        Ok(scores)
    }

    /// Returns the rest of the text: the bytes of an incomplete character.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        self.stream.finish()
    }
}

/// Generates `tokens` tokens of text from a prompt.
///
/// # Errors
/// As [`Generator::new`] and [`Generator::step`].
pub fn generate(run: &Run, prompt: &str, tokens: usize, sampling: Sampling) -> Result<String> {
    let mut generator = Generator::new(run, prompt, None, sampling)?;
    let text = (0..tokens)
        .map(|_| generator.step())
        .collect::<Result<String>>()?;
    Ok(text + &generator.finish()?)
}

/// The tokens of a prompt. Symbols that are not in the vocabulary are noted.
fn known(tokenizer: &Tokenizer, prompt: &str, notes: &mut Vec<String>) -> Result<Vec<u32>> {
    let quoted = |mut strange: Vec<String>| {
        strange.sort();
        strange.dedup();
        strange.join(" ")
    };
    let Some(unknown) = tokenizer.unknown() else {
        if let Ok(encoded) = tokenizer.encode(prompt) {
            return Ok(encoded.ids);
        }
        let (kept, left): (String, String) = prompt
            .chars()
            .partition(|symbol| tokenizer.encode(&symbol.to_string()).is_ok());
        let left = quoted(left.chars().map(|symbol| format!("{symbol:?}")).collect());
        notes.push(format!("not in the vocabulary, left out: {left}"));
        return Ok(tokenizer.encode(&kept)?.ids);
    };
    let encoded = tokenizer.encode(prompt)?;
    let symbols: Vec<char> = prompt.chars().collect();
    let ends = encoded
        .starts
        .iter()
        .skip(1)
        .map(|start| *start as usize)
        .chain([symbols.len()]);
    let pieces = encoded
        .ids
        .iter()
        .zip(encoded.starts.iter().zip(ends))
        .filter(|(id, _)| **id == unknown);
    let strange: Vec<String> = pieces
        .map(|(_, (start, end))| {
            format!(
                "{:?}",
                symbols[*start as usize..end].iter().collect::<String>()
            )
        })
        .collect();
    if !strange.is_empty() {
        let token = &tokenizer.vocabulary()[unknown as usize];
        notes.push(format!(
            "not in the vocabulary, replaced by {token}: {}",
            quoted(strange)
        ));
    }
    Ok(encoded.ids)
}

/// The name and the token of the padding before a short prompt.
fn filler(tokenizer: &Tokenizer) -> (String, u32) {
    let named = [("line ends", "\n"), ("spaces", " ")].into_iter();
    let mut found =
        named.filter_map(|(name, text)| Some((name.to_string(), tokenizer.token(text)?)));
    found.next().unwrap_or_else(|| {
        let token = (0..)
            .find(|token| Some(*token) != tokenizer.unknown())
            .unwrap_or(0);
        (
            format!("tokens {:?}", tokenizer.vocabulary()[token as usize]),
            token,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::text::tokenizer::Units;

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

    #[test]
    fn unknown_symbols_are_replaced_or_left_out_with_a_note() -> Result<()> {
        let mut notes = Vec::new();
        assert_eq!(
            known(
                &Tokenizer::train(Units::Char, &["ab"])?,
                "aébZé",
                &mut notes
            )?,
            [1, 0, 2, 0, 0]
        );
        assert_eq!(
            notes,
            ["not in the vocabulary, replaced by <unk>: \"Z\" \"é\""]
        );
        notes.clear();
        assert_eq!(
            known(&Tokenizer::characters("ab")?, "aébZé", &mut notes)?,
            [0, 1]
        );
        assert_eq!(notes, ["not in the vocabulary, left out: 'Z' 'é'"]);
        notes.clear();
        known(
            &Tokenizer::train(Units::Bpe(256), &["ab"])?,
            "aébZé",
            &mut notes,
        )?;
        assert!(notes.is_empty());
        Ok(())
    }

    #[test]
    fn a_short_prompt_is_padded_with_a_known_token() -> Result<()> {
        assert_eq!(
            filler(&Tokenizer::characters("ab\n ")?),
            ("line ends".into(), 2)
        );
        assert_eq!(filler(&Tokenizer::characters("ab ")?), ("spaces".into(), 2));
        assert_eq!(
            filler(&Tokenizer::train(Units::Char, &["ab"])?),
            ("tokens \"a\"".into(), 1)
        );
        Ok(())
    }
}
