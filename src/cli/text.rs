//! The commands for text: `tokenize` and `generate`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{preferred_readout, print, print_json, stream};
use crate::data::text::tokenizer::{Tokenizer, Units};
use crate::data::text::{hold_out, read};
use crate::error::{Error, Result};
use crate::run::generate::{Generator, Sampling};
use crate::run::Run;

#[derive(Args)]
pub(super) struct Tokenize {
    /// Plain text in UTF-8. The last tenth of every file is held out.
    #[arg(required = true)]
    corpus: Vec<PathBuf>,
    /// What the text is cut into: char, word or bpe (pieces of bytes).
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// How many tokens: the most frequent words, or so many pieces.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    vocab: Option<String>,
    /// The file to write; it must not be there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Tokenize {
    pub(super) fn run(self) -> Result<()> {
        let (kind, size) = (
            self.kind.clone(),
            self.vocab
                .as_ref()
                .map_or(String::new(), |size| format!(":{size}")),
        );
        let units: Units = format!("{kind}{size}").parse().map_err(|error| match error {
            Error::Setting { .. } => Error::Setting {
                key: "kind".into(),
                value: format!("{kind:?}"),
                origin: format!("--kind {kind}{}", self.vocab.as_ref().map_or("".into(), |n| format!(" --vocab {n}"))),
                expected: "char; word, with or without --vocab N, N from 2 on; bpe with --vocab N, N from 256 on"
                    .into(),
            },
            other => other,
        })?;
        let taken = || Error::Run {
            path: self.out.clone(),
            problem: "exists; a tokenizer is never overwritten".into(),
        };
        if self.out.exists() {
            return Err(taken());
        }
        let texts = self
            .corpus
            .iter()
            .map(|file| read(file))
            .collect::<Result<Vec<_>>>()?;
        let (train, held_out) = hold_out(texts, false);
        let train: Vec<&str> = train.iter().map(String::as_str).collect();
        let held_out: Vec<&str> = held_out.iter().map(String::as_str).collect();
        let tokenizer = Tokenizer::train(units, &train)?;
        // All numbers are known before anything is written.
        let (seen, unseen) = (report(&tokenizer, &train)?, report(&tokenizer, &held_out)?);
        let mut file = File::create_new(&self.out).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => taken(),
            _ => Error::file("create", &self.out)(error),
        })?;
        let written = file
            .write_all(tokenizer.to_json().as_bytes())
            .and_then(|()| file.sync_all());
        written.map_err(|error| {
            // Half of one would be in the way of the next try.
            let _ = std::fs::remove_file(&self.out);
            Error::file("write", &self.out)(error)
        })?;
        let vocabulary = tokenizer.vocabulary().len();
        print_json(
            &json!({ "out": self.out.to_string_lossy(), "vocabulary": vocabulary, "train": seen, "held_out": unseen }),
        )
    }
}

/// How some texts are cut.
fn report(tokenizer: &Tokenizer, texts: &[&str]) -> Result<serde_json::Value> {
    let (mut characters, mut tokens, mut unknown) = (0, 0, 0);
    for text in texts {
        let ids = tokenizer.encode(text)?.ids;
        characters += text.chars().count();
        tokens += ids.len();
        unknown += ids
            .iter()
            .filter(|id| Some(**id) == tokenizer.unknown())
            .count();
    }
    // A text of a few characters has no last tenth.
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    Ok(json!({
        "characters": characters,
        "tokens": tokens,
        "tokens_per_char": share(tokens, characters),
        "unknown": share(unknown, tokens),
    }))
}

#[derive(Args)]
pub(super) struct Generate {
    /// The folder of a run on text.
    run: PathBuf,
    /// What the text begins with; may be empty.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// How many tokens to go on by.
    #[arg(long, value_name = "N", default_value_t = 200)]
    tokens: usize,
    /// Below 1 the probable becomes more so; 0 takes the most probable token every time.
    #[arg(
        long,
        value_name = "T",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    temperature: f64,
    /// Choose among so many of the most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the most probable tokens that together have so much of the probability.
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.,
        allow_hyphen_values = true
    )]
    top_p: f64,
    /// What is drawn is a function of it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How the prediction is read out; by default as validation preferred.
    #[arg(long, value_name = "NAME")]
    readout: Option<String>,
    /// cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
        };
        sampling.check()?;
        let run = Run::open(&self.run)?
            .without_data()
            .device(&self.device)
            .build()?;
        let drawable = |name: &String| {
            run.architecture()
                .readouts()
                .iter()
                .any(|readout| readout.name == name && readout.log_probabilities)
        };
        let readout = self
            .readout
            .or_else(|| preferred_readout(&self.run, &run).filter(drawable));
        let mut generator = Generator::new(&run, &self.prompt, readout.as_deref(), sampling)?;
        for note in generator.notes() {
            eprintln!("note: {note}");
        }
        print(generator.prompt())?;
        for _ in 0..self.tokens {
            if !stream(&generator.step()?)? {
                return Ok(());
            }
        }
        print(&format!("{}\n", generator.finish()?))
    }
}
