//! `onward report`: the results of runs, with the command that repeats each.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value as Json;

use super::command_line::{configuration, data_argument, shortest};
use super::output::{csv_line, print, print_csv, print_json};
use super::results_table;
use crate::contract::rule::Rule;
use crate::error::{notify, shell_word, Error, Result};
use crate::run::folder::{denied, to_go_on, CONFIG, SUMMARY};
use crate::run::summary::{self, Origin, RuleUsed};

#[derive(Args)]
pub(super) struct Report {
    /// Folders of runs; their config.toml and summary.json are enough.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Write the table into this file, between the lines `<!-- onward report: begin -->`
    /// and `<!-- onward report: end -->`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "json"])]
    write: Option<PathBuf>,
    /// Print a line of CSV for each run.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(super) fn run(self) -> Result<()> {
        let is_missing = |run: &&PathBuf| !run.exists() && denied(run).is_none();
        if let Some(missing) = self.runs.iter().find(is_missing) {
            let problem = "expected the folder of a run, found nothing there";
            return Err(Error::run(missing, problem));
        }
        let base = self.write.as_deref().and_then(Path::parent);
        let mut rows = Row::all(&self.runs, base.unwrap_or(Path::new("")));
        for problem in rows.iter().filter_map(|row| row.problem.as_ref()) {
            notify(format_args!("warning: {problem}"));
        }
        // `runs/*` has tables and folders of many runs too.
        let mut is_run = self.runs.iter().map(|run| run.join(CONFIG).exists());
        rows.retain(|row| is_run.next() == Some(true) || row.problem.is_none());
        let has_result = rows.iter().any(|row| row.problem.is_none());
        // A table that is there is worth more than one without a result.
        if has_result || self.write.is_none() {
            self.show(&rows)?;
        }
        match has_result {
            true => Ok(()),
            false => Err(Error::run(
                &self.runs[0],
                "expected at least one run with a result, found none",
            )),
        }
    }

    fn show(&self, rows: &[Row]) -> Result<()> {
        if self.csv {
            return print_csv(&csv(rows));
        }
        if self.json {
            return print_json(&rows);
        }
        let table = results_table::of(rows);
        match &self.write {
            Some(file) => results_table::write(file, &table),
            None => print(&table),
        }
    }
}

/// A run and its results.
#[derive(Clone, Serialize)]
pub(super) struct Row {
    /// The name of its folder.
    pub run: String,
    #[serde(skip)]
    pub link: String,
    /// The argument of `--data`.
    pub data: String,
    /// The rule by which the blocks learned; of runs before it was recorded, none.
    pub rule: Option<RuleUsed>,
    /// Whether blocks learned from labels.
    pub labels: Option<bool>,
    pub epochs: Option<u64>,
    pub seed: Option<u64>,
    /// The readout that validation chose.
    pub readout: String,
    pub validation: Option<Measure>,
    pub test: Option<Measure>,
    /// The test results of all readouts and n-gram baselines.
    pub scores: Vec<(String, Measure)>,
    /// The command that repeats it, unless there are changes.
    pub command: String,
    /// Settings that were changed on the way.
    pub changes: Vec<String>,
    /// Why there is no result.
    pub problem: Option<String>,
}

impl Row {
    /// The rows of all runs; those without a result say why.
    pub fn all(runs: &[PathBuf], base: &Path) -> Vec<Self> {
        let row = |run: &PathBuf| {
            Self::read(run, base).unwrap_or_else(|error| Self {
                problem: Some(error.to_string()),
                ..Self::named(run, base)
            })
        };
        runs.iter().map(row).collect()
    }

    pub fn named(run: &Path, base: &Path) -> Self {
        let path = run.join(SUMMARY);
        let name = run.file_name().unwrap_or_default();
        Self {
            run: name.to_string_lossy().into_owned(),
            link: relative(&path, base).display().to_string(),
            data: String::new(),
            rule: None,
            labels: None,
            epochs: None,
            seed: None,
            readout: String::new(),
            validation: None,
            test: None,
            scores: Vec::new(),
            command: String::new(),
            changes: Vec::new(),
            problem: None,
        }
    }

    fn read(run: &Path, base: &Path) -> Result<Self> {
        let path = run.join(SUMMARY);
        if let Some(error) = denied(&path) {
            return Err(error);
        }
        if !path.is_file() {
            let problem = match run.join(CONFIG).is_file() {
                true => unfinished(run),
                false => no_run(run),
            };
            return Err(Error::run(run, problem));
        }
        let missing = |what: &str| {
            let problem = format!("expected the summary of a run, found no {what}");
            Error::run(path.clone(), problem)
        };
        let summary = summary::read(&path)?;
        let test = &summary["test"];
        let readout = test["readout"].as_str().ok_or_else(|| missing("readout"))?;
        let readouts = test["readouts"]
            .as_object()
            .ok_or_else(|| missing("readouts"))?;
        let result = readouts.get(readout).ok_or_else(|| missing(readout))?;
        let baselines = test["baselines"].as_object().into_iter().flatten();
        let scores = readouts.iter().chain(baselines);
        let validation = summary["validation"]["readouts"].get(readout);
        let wanted = configuration(&run.join(CONFIG))?;
        // The run may have been continued since, or its configuration edited.
        let of = serde_json::from_value::<Origin>(summary["of"].clone()).ok();
        let data = wanted.run.data.as_ref().map(|data| data.name.as_str());
        let is_of_data = summary["data"]
            .as_str()
            .is_none_or(|of| data.unwrap_or_default() == of);
        if !is_of_data || of.is_some_and(|of| !of.is_of(&wanted)) {
            let problem = format!(
                "is of other settings than those of config.toml; put those back, or finish the \
                 run: onward resume {}",
                shell_word(&run.display().to_string())
            );
            return Err(Error::run(path, problem));
        }
        Ok(Self {
            data: data_argument(&wanted)?.unwrap_or_default(),
            rule: serde_json::from_value(summary["rule"].clone()).ok(),
            labels: summary["labels"]["blocks"].as_bool(),
            epochs: summary["epochs"].as_u64(),
            seed: summary["seed"].as_u64(),
            readout: readout.into(),
            validation: validation.map(Measure::of),
            test: Some(Measure::of(result)),
            scores: scores
                .map(|(name, score)| (name.clone(), Measure::of(score)))
                .collect(),
            command: shortest(&wanted, &run.join(CONFIG))?
                + &on_device(summary["device"].as_str().unwrap_or_default()),
            changes: serde_json::from_value(summary["changes"].clone()).unwrap_or_default(),
            ..Self::named(run, base)
        })
    }

    /// The class of the rule, and whether it needs labels.
    pub fn rule_in_words(&self) -> String {
        let class = self.rule.as_ref().map_or("–", |rule| &rule.class);
        let without = self.labels == Some(false) && class != Rule::Frozen.word();
        format!("{class}{}", if without { ", no labels" } else { "" })
    }

    /// The unit of the results; empty without any.
    pub fn unit(&self) -> &'static str {
        let measure = self.test.or(self.validation);
        measure.map_or("", |measure| measure.unit.word())
    }

    /// The test result of a readout or baseline.
    pub fn score(&self, name: &str) -> Option<Measure> {
        let found = self.scores.iter().find(|(known, _)| known == name);
        found.map(|(_, score)| *score)
    }

    /// The command without its seed: runs with the same one belong together.
    pub fn without_seed(&self) -> String {
        let seed = self
            .seed
            .map_or(String::new(), |seed| format!(" --seed {seed}"));
        self.command.replace(&seed, "")
    }
}

/// A path as a file in the folder `base` has to name it.
fn relative(path: &Path, base: &Path) -> PathBuf {
    if base.as_os_str().is_empty() {
        return path.into();
    }
    let (Ok(whole), Ok(base)) = (std::path::absolute(path), std::path::absolute(base)) else {
        return path.into();
    };
    let both = whole.components().zip(base.components());
    let shared = both.take_while(|(a, b)| a == b).count();
    let up = base.components().skip(shared).map(|_| "..");
    let down = whole.components().skip(shared);
    up.map(PathBuf::from)
        .chain(down.map(|part| PathBuf::from(part.as_os_str())))
        .collect()
}

/// Why a run has no result.
pub(super) fn unfinished(run: &Path) -> String {
    format!("is not finished; {}", to_go_on(run))
}

/// Why a folder is no run; one with runs in it is a mistake that is easily made.
pub(super) fn no_run(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_run = |entry: &std::fs::DirEntry| entry.path().join(CONFIG).is_file();
    match entries.filter(is_run).count() {
        0 => "is not the folder of a run".into(),
        count => format!("is not the folder of a run, but has {count} of them: name those"),
    }
}

/// The flag that repeats a run on a device of the same kind.
pub(super) fn on_device(device: &str) -> String {
    let gpu = ["cuda", "metal"]
        .into_iter()
        .find(|kind| device.starts_with(kind));
    gpu.map_or(String::new(), |kind| format!(" --device {kind}"))
}

/// The rows as CSV; errors are fractions, text has bits per character.
fn csv(rows: &[Row]) -> String {
    let names = [
        "run",
        "data",
        "rule",
        "labels",
        "negatives",
        "gradient",
        "epochs",
        "seed",
        "readout",
        "validation",
        "test",
        "unit",
        "command",
        "changes",
        "problem",
    ];
    let mut lines = csv_line(&names.map(String::from));
    for row in rows {
        let number = |number: Option<u64>| number.map_or(String::new(), |n| n.to_string());
        let value = |measure: Option<Measure>| {
            measure.map_or(String::new(), |measure| measure.value.to_string())
        };
        let of_rule =
            |word: &dyn Fn(&RuleUsed) -> String| row.rule.as_ref().map_or(String::new(), word);
        lines += &csv_line(&[
            row.run.clone(),
            row.data.clone(),
            of_rule(&|rule| rule.class.clone()),
            row.labels
                .map_or(String::new(), |labels| labels.to_string()),
            of_rule(&|rule| rule.negatives.to_string()),
            of_rule(&|rule| rule.gradient.clone()),
            number(row.epochs),
            number(row.seed),
            row.readout.clone(),
            value(row.validation),
            value(row.test),
            row.unit().into(),
            row.command.clone(),
            row.changes.join("; "),
            row.problem.clone().unwrap_or_default(),
        ]);
    }
    lines
}

/// The unit of a result.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    /// The fraction of wrong answers.
    Error,
    /// For text.
    BitsPerChar,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::BitsPerChar => "bits_per_char",
        }
    }
}

/// A result.
#[derive(Clone, Copy, PartialEq, Serialize)]
pub(super) struct Measure {
    pub value: f64,
    pub unit: Unit,
}

impl Measure {
    pub fn of(score: &Json) -> Self {
        match score["bits_per_char"].as_f64() {
            Some(value) => Self {
                value,
                unit: Unit::BitsPerChar,
            },
            None => Self {
                value: score["error"].as_f64().unwrap_or(f64::NAN),
                unit: Unit::Error,
            },
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Error => write!(f, "{:.2}%", 100. * self.value),
            Unit::BitsPerChar => write!(f, "{:.3} bits/char", self.value),
        }
    }
}
