//! `onward tokenize`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::print_json;
use crate::data::text::tokenizer::{Tokenizer, Units};
use crate::data::text::{distinct, files, read, Parts};
use crate::data::Room;
use crate::disk;
use crate::error::{nearest, notify, shell_word, Error, Result};

/// The kinds of tokens that are trained.
const KINDS: [&str; 3] = ["char", "word", "bpe"];

#[derive(Args)]
pub(super) struct Tokenize {
    /// Text files in UTF-8, or folders of them. What training holds out of them for
    /// validation and test is held out here too.
    #[arg(required = true)]
    corpus: Vec<PathBuf>,
    /// Kind of token: char, word or bpe (byte-pair encoding).
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// Vocabulary size: the number of words or byte-pair tokens. By default all words, or
    /// 1000 byte-pair tokens if the text gives as many.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    vocab: Option<String>,
    /// File to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Tokenize {
    pub(super) fn run(self) -> Result<()> {
        let units = self.units()?;
        if self.out.exists() {
            return Err(self.exists());
        }
        let named = self.corpus.iter().map(files).collect::<Result<Vec<_>>>()?;
        let (texts, room) = (distinct(named.concat()).into_iter(), Room::default());
        let texts = texts
            .map(|file| read(&file, &room))
            .collect::<Result<Vec<_>>>()?;
        let parts = Parts::new(texts, None, None);
        let train = parts.to_train();
        let held_out = parts.validation.iter().chain(&parts.test);
        let held_out: Vec<&str> = held_out.map(|text| &**text).collect();
        let tokenizer = Tokenizer::train(units, &train)?;
        // Count first: on an error nothing is written.
        let (seen, unseen) = (counts(&tokenizer, &train)?, counts(&tokenizer, &held_out)?);
        self.write(&tokenizer)?;
        print_json(&json!({
            "out": self.out.to_string_lossy(),
            "vocabulary": tokenizer.vocabulary().len(),
            "train": seen,
            "held_out": unseen,
        }))?;
        notify(format_args!("next: {}", self.next()));
        Ok(())
    }

    /// The command that trains on the same files.
    fn next(&self) -> String {
        let mut files = self.corpus.iter().map(|path| path.display().to_string());
        let first = files.next().unwrap_or_default();
        let mut words = vec!["--data".into(), format!("text:{first}")];
        let more: Vec<String> = files.collect();
        if !more.is_empty() {
            let more = toml::Value::from(more);
            words.extend(["--set".into(), format!("data.more={more}")]);
        }
        words.extend(["--set".into(), format!("tokenizer={}", self.out.display())]);
        let words = words.iter().map(|word| shell_word(word));
        format!("onward train nlp {}", words.collect::<Vec<_>>().join(" "))
    }

    fn units(&self) -> Result<Units> {
        let kind = self.kind.to_lowercase();
        let size = self.vocab.iter().map(|size| format!(":{size}"));
        let units = format!("{kind}{}", size.collect::<String>()).parse();
        units.map_err(|error| match (error, &self.vocab) {
            (Error::Setting { .. }, Some(vocab)) if KINDS.contains(&&*kind) => {
                let expected = match &*kind {
                    "word" => "N from 2 to 1000000 for words",
                    "bpe" => "N from 256 to 1000000 for byte pairs",
                    _ => "no N, since all characters are tokens",
                };
                Error::setting("vocab", vocab, format!("--vocab {vocab}"), expected)
            }
            (Error::Setting { .. }, _) => {
                let known = KINDS.map(String::from);
                let expected = format!("char, word or bpe{}", nearest(&kind, &known));
                let origin = format!("--kind {}", self.kind);
                Error::setting("kind", format!("{:?}", self.kind), origin, expected)
            }
            (other, _) => other,
        })
    }

    fn exists(&self) -> Error {
        Error::run(
            &self.out,
            "exists; a tokenizer is never overwritten, choose another file",
        )
    }

    fn write(&self, tokenizer: &Tokenizer) -> Result<()> {
        let written = disk::create(&self.out, tokenizer.to_json().as_bytes())?;
        written.ok_or_else(|| self.exists())
    }
}

/// Counts the characters and tokens of texts.
fn counts(tokenizer: &Tokenizer, texts: &[&str]) -> Result<serde_json::Value> {
    let (mut characters, mut tokens, mut unknown) = (0, 0, 0);
    for text in texts {
        let of_text = tokenizer.count(text)?;
        characters += of_text[0];
        tokens += of_text[1];
        unknown += of_text[2];
    }
    // The held-out part of a very short text is empty.
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    Ok(json!({
        "characters": characters,
        "tokens": tokens,
        "tokens_per_char": share(tokens, characters),
        "unknown": share(unknown, tokens),
    }))
}
