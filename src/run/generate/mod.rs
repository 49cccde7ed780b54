//! Text generation: tokens are sampled one by one from the predictions of a network.

mod sampling;

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};

pub use self::sampling::Sampling;
use crate::data::text::ngram::Reader;
use crate::data::text::tokenizer::{Stream, Tokenizer};
use crate::data::Content;
use crate::error::{Error, Result};
use crate::run::Run;

/// Generates text from a prompt.
///
/// A prompt that is shorter than an example is padded on the left, with line ends or else
/// with spaces. The readout `adaptive` counts in the prompt, and not in the text that it
/// generates, which it would soon repeat.
pub struct Generator<'a> {
    run: &'a Run,
    tokenizer: &'a Tokenizer,
    readout: &'static str,
    sampling: Sampling,
    prompt: String,
    notes: Vec<String>,
    /// The last tokens: at least an example.
    tokens: Vec<u32>,
    /// The number of tokens of padding before the prompt.
    padding: usize,
    drawn: u64,
    stream: Stream<'a>,
    reader: Option<Reader>,
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
        let window = data.spec.window();
        let (name, filler) = tokenizer.filler();
        if known.len() < window {
            notes.push(format!(
                "the prompt has {} tokens, the window {window}: {name} are added before it",
                known.len()
            ));
        }
        let padding = data.spec.shape[0].saturating_sub(known.len());
        let tokens = [vec![filler; padding], known.clone()].concat();
        // The text of a token may depend on the token before it.
        let (mut stream, mut reader) = (tokenizer.stream(), run.text_reader(found.name));
        for token in &known {
            stream.push(*token)?;
            if let Some(reader) = &mut reader {
                reader.read(*token);
            }
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
            padding,
            drawn: 0,
            stream,
            reader,
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
        let unknown = self.tokenizer.unknown().map(|unknown| unknown as usize);
        if let Some(score) = unknown.and_then(|unknown| scores.get_mut(unknown)) {
            *score = f64::NEG_INFINITY;
        }
        let window = self.run.data().spec.shape[0];
        let context = self.tokens.split_off(self.tokens.len() - window);
        // A token of padding leaves the example with each token that is drawn.
        let padding = self.padding.saturating_sub(self.drawn as usize);
        let written = context.iter().skip(padding);
        let repeated: BTreeSet<usize> = written.map(|token| *token as usize).collect();
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
        if let Some(reader) = &mut self.reader {
            reader.pass(token);
        }
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
            let text = self.tokenizer.text_of(token as u32)?;
            Ok((text, scores[token].exp()))
        })
        .collect()
    }

    /// The log-probability of each next token.
    fn log_probabilities(&self) -> Result<Vec<f64>> {
        let window = self.run.data().spec.shape[0];
        let context = &self.tokens[self.tokens.len() - window..];
        let context = Tensor::from_slice(context, (1, window), &Device::Cpu)?;
        let scores = match &self.reader {
            Some(reader) => self.run.scores_after(context, reader)?,
            None => self.run.scores(context, self.readout)?,
        };
        let mut scores = scores
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::text::tokenizer::Units;

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
            &Tokenizer::train(Units::Bpe(Some(256)), &["ab"])?,
            "aébZé",
            &mut notes,
        )?;
        assert!(notes.is_empty());
        Ok(())
    }
}
