//! `onward generate`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::Args;
use serde_json::json;

use super::flags::{open_to_predict, Device, ReadoutName};
use super::output::{print, print_json, stream};
use crate::data::text;
use crate::error::{notify, printable, Error, Result};
use crate::run::generate::{Generator, Sampling};

#[derive(Args)]
pub(super) struct Generate {
    /// Folder of a run on text.
    run: PathBuf,
    /// Beginning of the text, "" for none; or use --prompt-file.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompt_file"
    )]
    prompt: Option<String>,
    /// File with the beginning of the text, without its last line break; - for stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Number of texts; each takes the seed after that of the text before.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    samples: u64,
    /// End a text where this appears; can be repeated.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Number of tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 200)]
    tokens: usize,
    /// Temperature: below 1 probable tokens become more probable; 0 takes the most
    /// probable token.
    #[arg(
        long,
        value_name = "T",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    temperature: f64,
    /// Sample from the K most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample from the most probable tokens that together have the probability P.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    top_p: f64,
    /// Divide the probability of every token in the window and before it by R.
    #[arg(
        long,
        value_name = "R",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    repetition_penalty: f64,
    /// Print the N most probable next tokens with their probabilities instead of a text.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["samples", "tokens", "stop", "temperature", "top_k", "top_p",
                              "repetition_penalty", "seed"]
    )]
    next: Option<u64>,
    /// Print the next tokens as JSON.
    #[arg(long)]
    json: bool,
    /// Seed of the sampling.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    readout: ReadoutName,
    #[command(flatten)]
    device: Device,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampling.check()?;
        if self.json && self.next.is_none() {
            let problem = "is for the next tokens; add --next N, or leave it out for a text";
            return Err(Error::usage("--json", problem));
        }
        let run = open_to_predict(&self.run, &self.device)?;
        let has_probabilities = |name: &String| {
            run.readout(name)
                .is_ok_and(|readout| readout.log_probabilities)
        };
        let preferred = || Some(run.preferred_readout()).filter(has_probabilities);
        let readout = self.readout.readout.clone().or_else(preferred);
        let prompt = self.prompt()?;
        if let Some(count) = self.next {
            let generator = Generator::new(&run, &prompt, readout.as_deref(), sampling)?;
            for note in generator.notes() {
                notify(format_args!("note: {note}"));
            }
            return self.print_next(&generator.next_tokens(count as usize)?);
        }
        for sample in 0..self.samples {
            let sampling = Sampling {
                seed: self.seed.wrapping_add(sample),
                ..sampling
            };
            let generator = Generator::new(&run, &prompt, readout.as_deref(), sampling)?;
            if sample == 0 {
                for note in generator.notes() {
                    notify(format_args!("note: {note}"));
                }
            } else if !stream("---\n")? {
                return Ok(());
            }
            print(generator.prompt())?;
            if !self.write(generator)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn print_next(&self, tokens: &[(String, f64)]) -> Result<()> {
        if self.json {
            let tokens = tokens.iter();
            let tokens: Vec<_> = tokens
                .map(|(token, probability)| json!({ "token": token, "probability": probability }))
                .collect();
            return print_json(&tokens);
        }
        let lines = tokens.iter().map(|(token, probability)| {
            format!(
                "{:>6.2}%  {}\n",
                100. * probability,
                printable(&format!("{token:?}"))
            )
        });
        print(&lines.collect::<String>())
    }

    /// Writes the text of a generator; returns `false` if the pipe is closed.
    fn write(&self, mut generator: Generator<'_>) -> Result<bool> {
        let mut ending = Ending::new(&self.stop);
        for _ in 0..self.tokens {
            if !stream(&ending.push(&generator.step()?))? {
                return Ok(false);
            }
            if ending.is_reached {
                return stream("\n");
            }
        }
        let last = ending.push(&generator.finish()?);
        stream(&format!("{last}{}\n", ending.rest()))
    }

    fn prompt(&self) -> Result<String> {
        let Some(file) = &self.prompt_file else {
            let prompt = self.prompt.as_deref().unwrap_or_default();
            return Ok(text::normalised(prompt));
        };
        let text = text::read_or_stdin(file)?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_string())
    }
}

/// Ends a text before the first of some words. What may become one of them is held back.
struct Ending<'a> {
    words: Vec<&'a str>,
    held: String,
    is_reached: bool,
}

impl<'a> Ending<'a> {
    fn new(words: &'a [String]) -> Self {
        Self {
            words: words.iter().map(String::as_str).collect(),
            held: String::new(),
            is_reached: false,
        }
    }

    /// Takes the next piece of the text, and returns what can be printed.
    fn push(&mut self, piece: &str) -> String {
        self.held += piece;
        let found = self.words.iter().filter_map(|word| self.held.find(word));
        if let Some(at) = found.min() {
            self.is_reached = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let may_begin = |at: &usize| {
            let rest = &self.held[*at..];
            self.words.iter().any(|word| word.starts_with(rest))
        };
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let at = places.find(may_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back when the text is over.
    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_before_the_first_of_the_words() {
        let words = ["\n\n".to_string(), "END".into()];
        let told = |pieces: &[&str]| {
            let mut ending = Ending::new(&words);
            let mut text = String::new();
            for piece in pieces {
                text += &ending.push(piece);
                if ending.is_reached {
                    return (text, true);
                }
            }
            text += &ending.rest();
            (text, false)
        };
        assert_eq!(told(&["a\n", "b\n", "\nc"]), ("a\nb".into(), true));
        assert_eq!(told(&["the E", "N", "Ds"]), ("the ".into(), true));
        assert_eq!(told(&["the E", "NÉ", " E"]), ("the ENÉ E".into(), false));
        assert_eq!(told(&["xEND\n\n"]), ("x".into(), true));
    }
}
