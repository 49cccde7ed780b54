//! Text that goes on: token by token, each drawn from what a network predicts behind the window before it.

use candle_core::{DType, Device, Tensor};

use crate::data::text::tokenizer::{Stream, Tokenizer};
use crate::data::Content;
use crate::error::{Error, Result};
use crate::flow::random::{stream, unit};
use crate::run::Run;

/// How the next token is drawn from log-probabilities `log p`.
///
/// Of the tokens in the order of their probability the first `top_k` are kept, and of these the fewest that together
/// have `top_p` of the probability `∝ exp(log p / temperature)`, by which one of them is drawn. Temperature 0 takes
/// the most probable one. The unknown token is never drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// At least 0; below 1 the probable becomes more so.
    pub temperature: f64,
    /// How many tokens to choose among, at least 1; all of them if it is not set.
    pub top_k: Option<usize>,
    /// How much of the probability to choose among, above 0 and at most 1.
    pub top_p: f64,
    /// What is drawn is a function of it.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.,
            top_k: None,
            top_p: 1.,
            seed: 1,
        }
    }
}

impl Sampling {
    /// Whether every number is in its range.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first one that is not.
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
        Ok(())
    }

    /// A token by its log-probability; `place` tells the draws of one text apart.
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

/// Goes on with a text.
///
/// A prompt that is shorter than the window is filled up on the left, with line ends or else with spaces.
pub struct Generator<'a> {
    run: &'a Run,
    tokenizer: &'a Tokenizer,
    readout: &'static str,
    sampling: Sampling,
    prompt: String,
    notes: Vec<String>,
    /// The window, and what came before it.
    tokens: Vec<u32>,
    drawn: u64,
    stream: Stream<'a>,
}

impl<'a> Generator<'a> {
    /// Goes on from `prompt`, predicting by `readout`, or by the first one that gives probabilities.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the run is not one of text, or if the readout gives no probabilities; as
    /// [`Sampling::check`].
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
            let problem =
                "the examples are pictures, not text; classify a picture with: onward predict";
            return Err(refused(problem.into()));
        };
        let able = run.architecture().net().readouts.iter();
        let able: Vec<_> = able.filter(|known| known.log_probabilities).collect();
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
                None => "no readout gives probabilities, so no token can be sampled".into(),
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
                "the prompt has {} tokens of {window}: {name} stand before it",
                tokens.len()
            ));
            tokens = [vec![filler; window - tokens.len()], tokens].concat();
        }
        // What a token is written as may depend on the one before it.
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

    /// The prompt as it was understood.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// What had to be done to the prompt: symbols that were replaced or left out, tokens that were put before it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Draws one more token, and gives what the text goes on with: nothing while a character is not complete.
    ///
    /// # Errors
    /// Whatever the network refuses; [`Error::Unfit`] if it predicts nothing that can be drawn.
    pub fn step(&mut self) -> Result<String> {
        let window = self.run.data().spec.shape[0];
        let context = self.tokens.split_off(self.tokens.len() - window);
        let scores = self.run.scores(
            Tensor::from_slice(&context, (1, window), &Device::Cpu)?,
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
        let token = self.sampling.draw(&scores, self.drawn).ok_or_else(|| {
            Error::usage(
                format!("readout {}", self.readout),
                "no token has a probability that is a number",
            )
        })? as u32;
        self.drawn += 1;
        self.tokens = [context, vec![token]].concat();
        self.stream.push(token)
    }

    /// What is left at the end, of a character that was not completed.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        self.stream.finish()
    }
}

/// What `run` goes on with behind `prompt`, by so many tokens.
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

/// The tokens of a prompt, with a note of what is not in the vocabulary.
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

/// What stands before a prompt that is too short, and its name.
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
    fn tokens_are_drawn_as_often_as_they_are_probable() {
        let near = |found: [usize; 4], expected: [f64; 4]| {
            let close = found
                .iter()
                .zip(expected)
                .all(|(found, p)| (*found as f64 - 4000. * p).abs() < 100.);
            assert!(close, "{found:?}, not {expected:?}");
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
        ] {
            let error = sampling.check().unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_replaced_or_left_out_and_said() -> Result<()> {
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
    fn a_short_prompt_is_filled_with_what_there_is() -> Result<()> {
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
