//! `onward report`: a Markdown table of runs, with the command that repeats each.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value as Json;

use super::command_line::{configuration, data_argument, shortest};
use super::output::print;
use crate::data::files::write_atomically;
use crate::error::{Error, Result};
use crate::run::folder::{CONFIG, SUMMARY};

#[derive(Args)]
pub(super) struct Report {
    /// Folders of runs; their config.toml and summary.json are enough.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Write the table into this file, between the lines `<!-- onward report: begin -->`
    /// and `<!-- onward report: end -->`.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self) -> Result<()> {
        let base = self.write.as_deref().and_then(Path::parent);
        let table = table(&self.runs, base.unwrap_or(Path::new("")))?;
        match &self.write {
            Some(file) => write(file, &table),
            None => print(&table),
        }
    }
}

/// The shortest command that gives the configuration in a file, except for settings that
/// change only the log.
///
/// # Errors
/// As [`Config::resolve`](crate::plugin::config::Config::resolve); [`Error::Run`] if the
/// file names no architecture.
pub fn command(config: &Path) -> Result<String> {
    shortest(&configuration(config)?, config)
}

/// The lines before and after the table in a file.
const MARKS: [&str; 2] = [
    "<!-- onward report: begin -->",
    "<!-- onward report: end -->",
];

/// A Markdown table of the runs in these folders, with links relative to `base`.
///
/// A row has the run, its data, epochs and seed, the test result of the preferred
/// readout, then of the others, and [`command`]. Results are errors in per cent or, for
/// text, bits per character, with those of the n-gram baselines. Runs that differ only in
/// their seed share a row: the mean of their results, the results, then the mean of every
/// other readout.
///
/// # Errors
/// [`Error::File`] and [`Error::Run`] for folders without the configuration and summary
/// of a finished run.
pub fn table(runs: &[PathBuf], base: &Path) -> Result<String> {
    let mut table =
        String::from("| run | data | epochs | seed | test | the command |\n|-|-|-|-|-|-|\n");
    let rows = runs
        .iter()
        .map(|run| Row::read(run, base))
        .collect::<Result<Vec<_>>>()?;
    // In the given order, except that runs that differ only in their seed share a row.
    let mut left: Vec<&Row> = rows.iter().collect();
    while let Some(first) = left.first().copied() {
        let (alike, others): (Vec<&Row>, Vec<&Row>) = left
            .into_iter()
            .partition(|row| row.without_seed() == first.without_seed());
        left = others;
        table += &line(first, &alike);
    }
    Ok(table)
}

/// The row of runs that differ only in their seed; `first` is one of them.
fn line(first: &Row, alike: &[&Row]) -> String {
    let joined = |words: &dyn Fn(&Row) -> String| {
        alike
            .iter()
            .map(|row| words(row))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let names = joined(&|row| format!("[{}]({})", row.name, row.link));
    let seeds = joined(&|row| row.seed.clone());
    let is_alone = alike.len() == 1;
    let result = mean(alike.iter().map(|row| row.result));
    let preferred = alike
        .iter()
        .all(|row| row.preferred == first.preferred)
        .then_some(&first.preferred);
    let results = (!is_alone).then(|| format!("mean of {}", joined(&|row| row.result.to_string())));
    let of = preferred
        .cloned()
        .into_iter()
        .chain(results)
        .collect::<Vec<_>>()
        .join("; ");
    // There is no mean for a readout that one of the runs lacks.
    let of_all = |name: &str| {
        alike
            .iter()
            .map(|row| row.score(name))
            .collect::<Option<Vec<_>>>()
    };
    let others = first
        .scores
        .iter()
        .filter(|(name, _)| preferred != Some(name));
    let others = others
        .filter_map(|(name, _)| Some(format!(", {} ({name})", mean(of_all(name)?.into_iter()))));
    let (others, command) = (others.collect::<String>(), &first.command);
    let Row { data, epochs, .. } = first;
    format!("| {names} | {data} | {epochs} | {seeds} | {result} ({of}){others} | `{command}` |\n")
}

fn mean(measures: impl ExactSizeIterator<Item = Measure> + Clone) -> Measure {
    let sum: f64 = measures.clone().map(|measure| measure.value).sum();
    Measure {
        value: sum / measures.len() as f64,
        bits: measures.clone().all(|measure| measure.bits),
    }
}

/// The entries of a run in the table.
struct Row {
    name: String,
    link: String,
    data: String,
    epochs: String,
    seed: String,
    /// The readout of `result`.
    preferred: String,
    result: Measure,
    /// The results of all readouts and n-gram baselines.
    scores: Vec<(String, Measure)>,
    command: String,
}

impl Row {
    fn read(run: &Path, base: &Path) -> Result<Self> {
        let path = run.join(SUMMARY);
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let missing = |what: &str| {
            Error::run(
                path.clone(),
                format!("expected the summary of a run, found no {what}"),
            )
        };
        let summary: Json = serde_json::from_str(&text).map_err(|_| missing("JSON"))?;
        let test = &summary["test"];
        let preferred = test["readout"].as_str().ok_or_else(|| missing("readout"))?;
        let readouts = test["readouts"]
            .as_object()
            .ok_or_else(|| missing("readouts"))?;
        let result = Measure::of(readouts.get(preferred).ok_or_else(|| missing(preferred))?);
        let scores = readouts
            .iter()
            .chain(test["baselines"].as_object().into_iter().flatten());
        let wanted = configuration(&run.join(CONFIG))?;
        Ok(Self {
            name: run
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            link: path
                .strip_prefix(base)
                .unwrap_or(&path)
                .display()
                .to_string(),
            data: data_argument(&wanted)?.unwrap_or_default(),
            epochs: summary["epochs"].to_string(),
            seed: summary["seed"].to_string(),
            preferred: preferred.into(),
            result,
            scores: scores
                .map(|(name, score)| (name.clone(), Measure::of(score)))
                .collect(),
            command: shortest(&wanted, &run.join(CONFIG))?,
        })
    }

    fn score(&self, name: &str) -> Option<Measure> {
        self.scores
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, score)| *score)
    }

    fn without_seed(&self) -> String {
        self.command.replace(&format!(" --seed {}", self.seed), "")
    }
}

/// An error rate, or bits per character.
#[derive(Clone, Copy)]
struct Measure {
    value: f64,
    bits: bool,
}

impl Measure {
    fn of(score: &Json) -> Self {
        match score["bits_per_char"].as_f64() {
            Some(value) => Self { value, bits: true },
            None => Self {
                value: score["error"].as_f64().unwrap_or(f64::NAN),
                bits: false,
            },
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits {
            return write!(f, "{:.3} bits/char", self.value);
        }
        write!(f, "{:.2}%", 100. * self.value)
    }
}

/// Replaces the table between the two marker lines of a file.
///
/// # Errors
/// [`Error::File`]; [`Error::Data`] if the marker lines are missing.
pub fn write(path: &Path, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let [begin, end] = MARKS;
    let parts = text
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.ok_or_else(|| {
        Error::data(
            path,
            format!("expected two lines around the table: {begin} and {end}"),
        )
    })?;
    write_atomically(
        path,
        format!("{before}{begin}\n{table}{end}{after}").as_bytes(),
    )
}
