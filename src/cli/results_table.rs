//! `onward report`: a Markdown table of runs, with the command that repeats each.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value as Json;

use super::command_line::{configuration, data_argument, shortest};
use super::output::print;
use crate::disk;
use crate::error::{notify, printable, Error, Result};
use crate::run::folder::{CONFIG, SUMMARY};
use crate::run::summary::{self, Origin};

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
/// A run without a result, or with one that does not belong to its configuration, has a row
/// that says so.
///
/// # Errors
/// None so far.
pub fn table(runs: &[PathBuf], base: &Path) -> Result<String> {
    let mut table =
        String::from("| run | data | epochs | seed | test | the command |\n|-|-|-|-|-|-|\n");
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for run in runs {
        match Row::read(run, base) {
            Ok(row) => rows.push(row),
            Err(error) => broken.push((run, error)),
        }
    }
    // In the given order, except that runs that differ only in their seed share a row.
    let mut left: Vec<&Row> = rows.iter().collect();
    while let Some(first) = left.first().copied() {
        let (alike, others): (Vec<&Row>, Vec<&Row>) = left
            .into_iter()
            .partition(|row| row.without_seed() == first.without_seed());
        left = others;
        table += &line(first, &alike);
    }
    for (run, error) in broken {
        let error = error.to_string();
        notify(printable(&format!("warning: {error}")));
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        let (name, error) = (markdown(&name), markdown(&error));
        table += &format!("| {name} | – | – | – | no result: {error} | – |\n");
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
    let names = joined(&|row| format!("[{}]({})", markdown(&row.name), target(&row.link)));
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
    let (data, command) = (markdown(data), code(command));
    format!("| {names} | {data} | {epochs} | {seeds} | {result} ({of}){others} | {command} |\n")
}

/// Text in a cell of a table: nothing in it is a mark of Markdown or HTML.
fn markdown(text: &str) -> String {
    let escaped = |c: char| match c {
        '\\' | '|' | '`' | '*' | '[' | ']' => format!("\\{c}"),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        c => c.to_string(),
    };
    printable(text).chars().map(escaped).collect()
}

/// Code in a cell of a table.
fn code(text: &str) -> String {
    let text = printable(text).replace('|', r"\|");
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

/// The target of a link.
fn target(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escaped = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    path.bytes().map(escaped).collect()
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
        let missing = |what: &str| {
            Error::run(
                path.clone(),
                format!("expected the summary of a run, found no {what}"),
            )
        };
        let summary = summary::read(&path)?;
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
        // The run may have been continued since, or its configuration edited.
        let of = serde_json::from_value::<Origin>(summary["of"].clone()).ok();
        if of.is_some_and(|of| !of.is_of(&wanted)) {
            let problem = "is of other settings than those of config.toml; `onward resume RUN` \
                           finishes the run";
            return Err(Error::run(path, problem));
        }
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
    let text = disk::read_text(path)?;
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
    disk::rewrite(
        path,
        format!("{before}{begin}\n{table}{end}{after}").as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_marks_in_a_table() {
        assert_eq!(markdown("a|b <i>*"), r"a\|b &lt;i&gt;\*");
        assert_eq!(markdown("a\nb\u{1b}[31m"), r"a\\nb\\u{1b}\[31m");
        assert_eq!(code("a|b"), r"`a\|b`");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(target("runs/a b(c).json"), "runs/a%20b%28c%29.json");
    }
}
