//! `onward score`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use toml::Value;

use super::failures::Failures;
use super::flags::{open_to_predict, DataDir, Device};
use super::output::{aligned, columns, print, print_json};
use crate::data::score::Score;
use crate::data::text::{self, Passage};
use crate::data::{DataSet, Room};
use crate::error::{notify, printable, Error, Located, Result};
use crate::plugin::registry;
use crate::run::score_text::{TextScore, TextScorer};
use crate::run::Run;
use crate::settings::PluginKind;

#[derive(Args)]
pub(super) struct ScoreTexts {
    /// Folder of a run on text.
    run: PathBuf,
    /// Text files, folders of them, or patterns such as 'books/*.txt'; - for stdin.
    #[arg(required = true)]
    texts: Vec<PathBuf>,
    /// Print every token with its bits.
    #[arg(long)]
    tokens: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    device: Device,
}

impl ScoreTexts {
    pub(super) fn run(self) -> Result<()> {
        let mut failures = Failures::default();
        let texts = self.read(&mut failures);
        let all = texts.len() + failures.count;
        if texts.is_empty() {
            return failures.finish(all, "texts");
        }
        let run = self.open()?;
        let mut scorer = TextScorer::new(&run)?;
        for (name, _) in texts.iter().filter(|(name, _)| is_of_training(name, &run)) {
            notify(format_args!(
                "note: {}: the run was trained on this file, so its bits say little about \
                 other texts",
                printable(name)
            ));
        }
        let (mut rows, mut json) = (Vec::new(), Vec::new());
        if self.tokens && !self.json {
            notify(format_args!(
                "bits of each token by the readout {}",
                scorer.readout()
            ));
        }
        let mut left = texts.len();
        for (name, text) in texts {
            left -= 1;
            let score = match scorer.score(&text) {
                // A text without a token to predict, beside others.
                Err(error @ Error::Usage { .. }) if left + rows.len() > 0 => {
                    let name = printable(&name);
                    notify(format_args!("warning: {name} is left out: {error}"));
                    json.push(json!({ "text": name, "left_out": error.to_string() }));
                    continue;
                }
                score => score.at(|| name.clone())?,
            };
            if score.unknown > 0 {
                notify(format_args!(
                    "note: {}: {} tokens are unknown to the tokenizer; each costs bits and \
                     counts as no character",
                    printable(&name),
                    score.unknown
                ));
            }
            let mut entry = json!({ "text": name, "score": score });
            if self.tokens {
                let tokens = scorer.tokens(&text).at(|| name.clone())?;
                if self.json {
                    entry["tokens"] = json!(tokens);
                } else {
                    for token in tokens {
                        print(&format!("{:.3}\t{}\n", token.bits, printable(&token.token)))?;
                    }
                }
            }
            json.push(entry);
            rows.push((name, score));
        }
        if self.json {
            let total = scorer.all();
            print_json(&json!({ "readout": scorer.readout(), "texts": json, "all": total }))?;
        } else if !self.tokens {
            if rows.len() > 1 {
                rows.push(("all".into(), scorer.all()));
            }
            print(&table(scorer.readout(), &rows))?;
        }
        failures.finish(all, "texts")
    }

    /// The run with its training text, or without it if that cannot be read.
    fn open(&self) -> Result<Run> {
        let builder = Run::open(&self.run)?.device(&self.device.device);
        let with_data = self.data_dir.add_to(builder)?.build();
        with_data.or_else(|error| {
            let run = open_to_predict(&self.run, &self.device)?;
            notify(format_args!("note: the training text is not read: {error}"));
            Ok(run)
        })
    }

    /// The names and the contents of the texts that can be read.
    fn read(&self, failures: &mut Failures) -> Vec<(String, Passage)> {
        let mut found = Vec::new();
        let mut add = |name: String, text: Result<Passage>| match text {
            Ok(text) => found.push((name, text)),
            Err(error) => failures.add(error),
        };
        let room = Room::default();
        for path in &self.texts {
            let name = path.display().to_string();
            if path.as_path() == Path::new("-") {
                add("stdin".into(), text::read_or_stdin(path));
                continue;
            }
            match text::files(path) {
                Err(error) => add(name, Err(error)),
                Ok(files) => files
                    .iter()
                    .for_each(|file| add(file.display().to_string(), text::read(file, &room))),
            }
        }
        found
    }
}

/// Whether a file is a text of a run, or in the folder of its texts.
fn is_of_training(name: &str, run: &Run) -> bool {
    let (Some(data), Ok(file)) = (&run.config().run.data, Path::new(name).canonicalize()) else {
        return false;
    };
    let info = registry::info(DataSet::KIND, &data.name).ok();
    let keys = info
        .and_then(|info| info.argument)
        .into_iter()
        .chain([MORE]);
    let values = keys.filter_map(|key| data.settings.get(key));
    let paths = values.flat_map(|value| match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect::<Vec<_>>(),
    });
    let mut places = paths.filter_map(|path| Path::new(path).canonicalize().ok());
    places.any(|place| file.starts_with(place))
}

/// The setting of a data set that names further training files.
const MORE: &str = "more";

/// A row for each text: the bits per character by the readout, the other readouts and the
/// n-grams, and the perplexity of the first.
fn table(first: &str, rows: &[(String, TextScore)]) -> String {
    let Some((_, score)) = rows.first() else {
        return String::new();
    };
    let others = score.readouts.keys().map(String::as_str);
    let mut names = vec![first];
    names.extend(others.filter(|name| *name != first));
    names.extend(score.baselines.keys().map(String::as_str));
    let mut lines = vec![vec!["bits/char".to_string(), "tokens".into()]];
    lines[0].extend(names.iter().map(|name| name.to_string()));
    lines[0].push(format!("perplexity ({first})"));
    for (text, score) in rows {
        let bits = |name: &str| -> Option<&Score> {
            score
                .readouts
                .get(name)
                .or_else(|| score.baselines.get(name))
        };
        let cell = |name: &&str| {
            let bits = bits(name).and_then(|score| score.bits);
            bits.map_or(String::new(), |bits| format!("{:.3}", bits.bits_per_char))
        };
        let mut line = vec![printable(text), score.tokens.to_string()];
        line.extend(names.iter().map(cell));
        let perplexity = bits(first).and_then(|score| score.bits);
        line.push(perplexity.map_or(String::new(), |bits| format!("{:.2}", bits.perplexity)));
        lines.push(line);
    }
    aligned(&lines, columns().unwrap_or(usize::MAX))
}
