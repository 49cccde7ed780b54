//! The tables of a comparison.

use std::path::Path;

use serde::Serialize;

use super::Cell;
use crate::cli::output::csv_line;
use crate::cli::report::{Measure, Row};
use crate::cli::results_table::{escaped, shown, statistics};
use crate::error::Error;
use crate::run::folder::SUMMARY;
use crate::run::summary;

/// A run with its result, or with the reason why it has no result.
#[derive(Clone, Serialize)]
pub(super) struct Entry {
    pub method: String,
    #[serde(flatten)]
    row: Row,
    parameters: Option<u64>,
    seconds_per_epoch: Option<f64>,
    peak_memory_mb: Option<f64>,
    /// The errors of a probe on each layer, if they were asked for.
    pub layers: Vec<f64>,
}

impl Entry {
    pub fn of(cell: &Cell, failure: Option<Error>) -> Self {
        let mut row = match failure.is_none() || cell.has_result() {
            true => Row::all(std::slice::from_ref(&cell.folder), Path::new("")).remove(0),
            false => Row::named(&cell.folder, Path::new("")),
        };
        if let Some(failure) = failure {
            row.problem = Some(failure.to_string());
        }
        row.data = cell.data.clone();
        row.seed = Some(cell.seed.into());
        let summary = summary::read(&cell.folder.join(SUMMARY)).unwrap_or_default();
        let number = |key: &str| summary[key].as_f64().filter(|_| row.problem.is_none());
        Self {
            method: cell.method.clone(),
            parameters: summary["parameters"].as_u64(),
            seconds_per_epoch: number("seconds_per_epoch"),
            peak_memory_mb: number("peak_memory_mb"),
            layers: Vec::new(),
            row,
        }
    }

    /// The result of this run, in one line.
    pub fn in_words(&self, with_test: bool) -> String {
        let word = |measure: Option<Measure>| measure.map_or("–".into(), |m| m.to_string());
        let row = &self.row;
        let test = match with_test {
            true => format!("test {} ({}), ", word(row.test), row.readout),
            false => String::new(),
        };
        match &self.row.problem {
            Some(problem) => format!("no result: {problem}"),
            None => format!(
                "{test}validation {}, {:.1} s per epoch",
                word(row.validation),
                self.seconds_per_epoch.unwrap_or(f64::NAN)
            ),
        }
    }
}

/// A row of the table: all seeds of a method on a data set.
#[derive(Serialize)]
pub(super) struct Group<'a> {
    pub method: &'a str,
    pub data: &'a str,
    rule: String,
    seeds: Vec<u64>,
    validation: Option<Spread>,
    test: Option<Spread>,
    /// Validation may have chosen another readout for another seed.
    readout: String,
    parameters: Option<u64>,
    seconds_per_epoch: Option<f64>,
    peak_memory_mb: Option<f64>,
    /// The mean errors of a probe on each layer.
    layers: Vec<f64>,
    /// Of the runs without a result.
    problems: Vec<&'a str>,
    runs: Vec<&'a Entry>,
    #[serde(skip)]
    cells: [String; 2],
}

/// The mean, and of several seeds the standard deviation.
#[derive(Serialize)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

/// The same without the test results, but for these methods on these data sets.
pub(super) fn judged(mut entries: Vec<Entry>, best: &[(String, String)]) -> Vec<Entry> {
    for entry in &mut entries {
        let is_best =
            |(data, method): &(String, String)| (data, method) == (&entry.row.data, &entry.method);
        if !best.iter().any(is_best) {
            entry.row.test = None;
            entry.row.scores.clear();
        }
    }
    entries
}

/// The groups, sorted by data set and by validation result; those without one last.
pub(super) fn rows(entries: &[Entry]) -> Vec<Group<'_>> {
    let mut groups: Vec<Vec<&Entry>> = Vec::new();
    for entry in entries {
        let of = |entry: &Entry| (entry.method.clone(), entry.row.data.clone());
        match groups.iter_mut().find(|group| of(group[0]) == of(entry)) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    let data: Vec<&str> = entries.iter().map(|entry| &*entry.row.data).collect();
    let mut rows: Vec<Group<'_>> = groups.into_iter().map(group).collect();
    rows.sort_by(|a, b| {
        let place = |row: &Group<'_>| data.iter().position(|name| *name == row.data);
        let value = |row: &Group<'_>| {
            let spread = row.validation.as_ref().or(row.test.as_ref());
            spread.map_or(f64::INFINITY, |spread| spread.mean)
        };
        place(a).cmp(&place(b)).then(value(a).total_cmp(&value(b)))
    });
    rows
}

fn group<'a>(runs: Vec<&'a Entry>) -> Group<'a> {
    let done: Vec<&Entry> = runs
        .iter()
        .copied()
        .filter(|run| run.row.problem.is_none())
        .collect();
    let mean = |of: &dyn Fn(&Entry) -> Option<f64>| {
        let values: Vec<f64> = done.iter().filter_map(|run| of(run)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let spread = |of: &dyn Fn(&Row) -> Option<Measure>| {
        let measures: Vec<_> = done.iter().map(|run| of(&run.row)).collect();
        statistics(measures.into_iter())
    };
    let (validation, test) = (spread(&|row| row.validation), spread(&|row| row.test));
    let as_numbers = |found: &Option<(Measure, Option<Measure>)>| {
        found.as_ref().map(|(mean, deviation)| Spread {
            mean: mean.value,
            deviation: deviation.map(|deviation| deviation.value),
        })
    };
    let first = runs[0];
    Group {
        method: &first.method,
        data: &first.row.data,
        rule: done
            .first()
            .map_or("–".into(), |run| run.row.rule_in_words()),
        seeds: done.iter().filter_map(|run| run.row.seed).collect(),
        validation: as_numbers(&validation),
        test: as_numbers(&test),
        readout: {
            let mut names: Vec<&str> = done.iter().map(|run| &*run.row.readout).collect();
            names.dedup();
            names.join(", ")
        },
        parameters: done.first().and_then(|run| run.parameters),
        seconds_per_epoch: mean(&|run| run.seconds_per_epoch),
        peak_memory_mb: mean(&|run| run.peak_memory_mb),
        layers: mean_of_layers(&done),
        problems: runs
            .iter()
            .filter_map(|run| run.row.problem.as_deref())
            .collect(),
        cells: [shown(validation), shown(test)],
        runs,
    }
}

/// The mean over runs, layer by layer.
fn mean_of_layers(runs: &[&Entry]) -> Vec<f64> {
    let layers = runs.iter().map(|run| run.layers.len()).min().unwrap_or(0);
    let of_layer = |layer: usize| runs.iter().map(|run| run.layers[layer]).sum::<f64>();
    (0..layers)
        .map(|layer| of_layer(layer) / runs.len() as f64)
        .collect()
}

const HEADINGS: [&str; 10] = [
    "method",
    "rule",
    "seeds",
    "validation",
    "test",
    "readout",
    "layers",
    "parameters",
    "s/epoch",
    "MB",
];

impl Group<'_> {
    /// Whether all seeds have a validation result.
    pub fn is_complete(&self) -> bool {
        self.validation.is_some() && self.problems.is_empty()
    }

    fn cells(&self) -> [String; 10] {
        let rounded = |number: Option<f64>, digits: usize| {
            number.map_or("–".into(), |number| format!("{number:.digits$}"))
        };
        let seconds = self.seconds_per_epoch;
        let [validation, test] = self.cells.clone();
        [
            self.method.into(),
            self.rule.clone(),
            self.seeds.len().to_string(),
            validation,
            test,
            self.readout.clone(),
            match self.layers.is_empty() {
                true => "–".into(),
                false => {
                    let percent = self
                        .layers
                        .iter()
                        .map(|error| format!("{:.1}%", 100. * error));
                    percent.collect::<Vec<_>>().join(" ")
                }
            },
            self.parameters
                .map_or("–".into(), |count| count.to_string()),
            rounded(
                seconds,
                if seconds.is_some_and(|s| s < 10.) {
                    2
                } else {
                    0
                },
            ),
            rounded(self.peak_memory_mb, 0),
        ]
    }
}

/// The table for a terminal, and the reasons of runs without a result.
pub(super) fn plain(entries: &[Entry]) -> String {
    let mut text = String::new();
    let groups = rows(entries);
    let mut data: Vec<&str> = groups.iter().map(|group| group.data).collect();
    data.dedup();
    for data in data {
        let of_data = groups.iter().filter(|group| group.data == data);
        let cells = of_data.clone().map(Group::cells);
        let lines: Vec<[String; 10]> = [HEADINGS.map(String::from)]
            .into_iter()
            .chain(cells)
            .collect();
        let width = |column: usize| {
            let widths = lines.iter().map(|line| line[column].chars().count());
            widths.max().unwrap_or(0)
        };
        text += &format!("{data}\n");
        for line in &lines {
            let cells = line.iter().enumerate();
            let cells =
                cells.map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
            let line = cells.collect::<Vec<_>>().join("  ");
            text += &format!("  {}\n", line.trim_end());
        }
        for group in of_data {
            let mut problems = group.problems.clone();
            problems.dedup();
            for problem in problems {
                text += &format!("  {}: no result: {problem}\n", group.method);
            }
        }
    }
    text
}

/// The table in Markdown.
pub(super) fn markdown(entries: &[Entry]) -> String {
    let mut text = format!("| data | {} | command |\n", HEADINGS.join(" | "));
    text += &format!("|{}\n", "-|".repeat(HEADINGS.len() + 2));
    for group in rows(entries) {
        let cells = group.cells().map(|cell| escaped(&cell));
        let command = match group.problems.first() {
            Some(problem) => format!("no result: {}", escaped(problem)),
            None => format!("`{}`", group.runs[0].row.command.replace('|', r"\|")),
        };
        text += &format!(
            "| {} | {} | {command} |\n",
            escaped(group.data),
            cells.join(" | ")
        );
    }
    text
}

/// A line of CSV for each run; errors are fractions.
pub(super) fn csv(entries: &[Entry]) -> String {
    let names = [
        "method",
        "data",
        "seed",
        "rule",
        "readout",
        "validation",
        "test",
        "layers",
        "parameters",
        "seconds_per_epoch",
        "peak_memory_mb",
        "command",
        "problem",
    ];
    let mut text = csv_line(&names.map(String::from));
    for entry in entries {
        let row = &entry.row;
        let number = |number: Option<f64>| number.map_or(String::new(), |n| n.to_string());
        let value = |measure: Option<Measure>| number(measure.map(|measure| measure.value));
        text += &csv_line(&[
            entry.method.clone(),
            row.data.clone(),
            row.seed.map_or(String::new(), |seed| seed.to_string()),
            row.rule_in_words(),
            row.readout.clone(),
            value(row.validation),
            value(row.test),
            entry
                .layers
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            entry.parameters.map_or(String::new(), |n| n.to_string()),
            number(entry.seconds_per_epoch),
            number(entry.peak_memory_mb),
            row.command.clone(),
            row.problem.clone().unwrap_or_default(),
        ]);
    }
    text
}
