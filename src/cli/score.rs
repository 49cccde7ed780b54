//! `onward score`.

use std::collections::BTreeSet;
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
    /// Print every token with its bits; of several texts also the text.
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
        let known = trained_on(&run);
        let is_known = |name: &str| {
            let file = Path::new(name).canonicalize();
            file.is_ok_and(|file| known.contains(&file))
        };
        for (name, _) in texts.iter().filter(|(name, _)| is_known(name)) {
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
        let (mut left, several) = (texts.len(), texts.len() > 1);
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
                    let of = match several {
                        true => format!("\t{}", printable(&name)),
                        false => String::new(),
                    };
                    for token in tokens {
                        let (bits, token) = (token.bits, printable(&token.token));
                        print(&format!("{bits:.3}\t{token}{of}\n"))?;
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
        let (mut files, mut faults) = (Vec::new(), Vec::new());
        for path in &self.texts {
            match is_stdin(path) {
                true => files.push(path.clone()),
                false => match text::files(path) {
                    Err(error) => faults.push((path.display().to_string(), Err(error))),
                    Ok(found) => files.extend(found),
                },
            }
        }
        let room = Room::default();
        for file in text::distinct(files) {
            match is_stdin(&file) {
                true => add("stdin".into(), text::read_or_stdin(&file)),
                false => add(file.display().to_string(), text::read(&file, &room)),
            }
        }
        for (name, fault) in faults {
            add(name, fault);
        }
        found
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// The files that a run was trained on.
fn trained_on(run: &Run) -> BTreeSet<PathBuf> {
    let Some(data) = &run.config().run.data else {
        return BTreeSet::new();
    };
    let files = |key: &str| -> BTreeSet<PathBuf> {
        let paths = match data.settings.get(key) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            value => value
                .and_then(Value::as_str)
                .into_iter()
                .collect::<Vec<_>>(),
        };
        let files = paths.into_iter().flat_map(text::files_if_any);
        files.filter_map(|file| file.canonicalize().ok()).collect()
    };
    let info = registry::info(DataSet::KIND, &data.name).ok();
    let named = info.and_then(|info| info.argument).into_iter();
    let held_out: BTreeSet<PathBuf> = HELD_OUT.into_iter().flat_map(files).collect();
    let all = named.chain([MORE]).flat_map(files);
    all.filter(|file| !held_out.contains(file)).collect()
}

/// The setting of a data set that names further training files.
const MORE: &str = "more";

/// The settings that name files of the other parts.
const HELD_OUT: [&str; 2] = ["validation", "test"];

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
