//! The tables of a comparison.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::entry::{Baseline, Cost, Entry};
use crate::cli::output::{aligned, csv_line};
use crate::cli::report::{Measure, Row};
use crate::cli::results_table::{code, escaped, range, shown, statistics};

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
    /// The most of all seeds: with `patience` they may differ.
    epochs: Option<u64>,
    #[serde(flatten)]
    cost: Cost,
    crossed: Option<String>,
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
            entry.baselines.clear();
        }
    }
    entries
}

/// The groups, sorted by data set and by validation result; those that were given up
/// come later, and those without a result last.
pub(super) fn rows(entries: &[Entry]) -> Vec<Group<'_>> {
    let mut groups: Vec<Vec<&Entry>> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut data: Vec<&str> = Vec::new();
    for entry in entries {
        let of = (&*entry.method, &*entry.row.data);
        let place = *places.entry(of).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
        if !data.contains(&of.1) {
            data.push(of.1);
        }
    }
    let mut rows: Vec<Group<'_>> = groups.into_iter().map(group).collect();
    rows.sort_by(|a, b| {
        let place = |row: &Group<'_>| data.iter().position(|name| *name == row.data);
        let value = |row: &Group<'_>| {
            let spread = row.validation.as_ref().or(row.test.as_ref());
            spread.map_or(f64::INFINITY, |spread| spread.mean)
        };
        let given_up = |row: &Group<'_>| (!row.is_whole()).then_some(Reverse(row.epochs));
        let rank = |row: &Group<'_>| (place(row), value(row).is_infinite(), given_up(row));
        rank(a).cmp(&rank(b)).then(value(a).total_cmp(&value(b)))
    });
    rows
}

fn group<'a>(runs: Vec<&'a Entry>) -> Group<'a> {
    let done: Vec<&Entry> = runs
        .iter()
        .copied()
        .filter(|run| run.row.problem.is_none())
        .collect();
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
            let names: BTreeSet<&str> = done.iter().map(|run| &*run.row.readout).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        },
        epochs: done.iter().filter_map(|run| run.row.epochs).max(),
        cost: Cost::mean(&done),
        crossed: done.iter().find_map(|run| run.crossed.clone()),
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

/// The columns of a table. Those that are empty in all rows are left out.
const HEADINGS: [&str; 14] = [
    "method",
    "rule",
    "crossed",
    "seeds",
    "epochs",
    "validation",
    "test",
    "readout",
    "layers",
    "parameters",
    "MACs",
    "s/epoch",
    "J/epoch",
    "MB",
];

const EMPTY: &str = "–";

impl Group<'_> {
    /// Whether all seeds have a validation result.
    pub fn is_complete(&self) -> bool {
        self.validation.is_some() && self.problems.is_empty()
    }

    /// Whether all seeds were trained to the end.
    pub fn is_whole(&self) -> bool {
        self.runs.iter().all(|run| run.is_whole)
    }

    fn cells(&self) -> [String; HEADINGS.len()] {
        let shown =
            |number: Option<f64>, show: fn(f64) -> String| number.map_or(EMPTY.into(), show);
        let [validation, test] = self.cells.clone();
        let layers = self
            .layers
            .iter()
            .map(|error| format!("{:.1}%", 100. * error));
        let layers = layers.collect::<Vec<_>>().join(" ");
        let cost = &self.cost;
        [
            self.method.into(),
            self.rule.clone(),
            self.crossed.clone().unwrap_or(EMPTY.into()),
            self.seeds.len().to_string(),
            range(self.runs.iter().filter_map(|run| run.row.epochs)).unwrap_or(EMPTY.into()),
            validation,
            test,
            self.readout.clone(),
            if layers.is_empty() {
                EMPTY.into()
            } else {
                layers
            },
            shown(cost.parameters, |n| n.to_string()),
            shown(cost.multiply_adds_per_example, short),
            shown(cost.seconds_per_epoch, seconds),
            shown(cost.joules_per_epoch, short),
            shown(cost.peak_memory_mb, |mb| format!("{mb:.0}")),
        ]
    }
}

/// The rows of what n-grams predict, each once: methods that divide a text into other
/// tokens have baselines of their own.
fn of_baselines<'a>(groups: impl Iterator<Item = &'a Group<'a>>) -> Vec<[String; HEADINGS.len()]> {
    let mut found: Vec<(&str, &Baseline)> = Vec::new();
    for group in groups {
        for baseline in group.runs.iter().flat_map(|run| &run.baselines) {
            if !found.iter().any(|(_, known)| *known == baseline) {
                found.push((group.method, baseline));
            }
        }
    }
    let rows = found.iter().map(|(method, baseline)| {
        let same_name = found
            .iter()
            .filter(|(_, other)| other.name == baseline.name);
        let name = match same_name.count() {
            1 => baseline.name.clone(),
            _ => format!("{} beside {method}", baseline.name),
        };
        let shown = |measure: Option<Measure>| measure.map_or(EMPTY.into(), |m| m.to_string());
        let mut cells = [EMPTY; HEADINGS.len()].map(String::from);
        (cells[0], cells[1]) = (name, "n-grams".into());
        (cells[5], cells[6]) = (shown(baseline.validation), shown(baseline.test));
        cells
    });
    rows.collect()
}

fn seconds(seconds: f64) -> String {
    let digits = if seconds < 10. { 2 } else { 0 };
    format!("{seconds:.digits$}")
}

/// A number with three digits: `6.23M`.
fn short(number: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1., "")];
    let found = units.into_iter().find(|(unit, _)| number >= 0.9995 * unit);
    let (unit, name) = found.unwrap_or((1., ""));
    let value = number / unit;
    let digits = (2. - value.max(1e-9).log10().floor()).clamp(0., 2.) as usize;
    format!("{value:.digits$}{name}")
}

/// The rows of a table with its headings, without columns that are empty in all rows.
fn columns(cells: Vec<[String; HEADINGS.len()]>) -> Vec<Vec<String>> {
    let is_used = |column: &usize| cells.iter().any(|line| line[*column] != EMPTY);
    let used: Vec<usize> = (0..HEADINGS.len()).filter(is_used).collect();
    let of = |line: &[String; HEADINGS.len()]| used.iter().map(|&at| line[at].clone()).collect();
    let headings = HEADINGS.map(String::from);
    std::iter::once(&headings).chain(&cells).map(of).collect()
}

/// The table for a terminal of so many columns, or for a file, and the reasons of runs
/// without a result.
pub(super) fn plain(entries: &[Entry], width: Option<usize>) -> String {
    let mut text = String::new();
    let groups = rows(entries);
    let mut data: Vec<&str> = groups.iter().map(|group| group.data).collect();
    data.dedup();
    for data in data {
        let of_data = groups.iter().filter(|group| group.data == data);
        let mut cells: Vec<_> = of_data.clone().map(Group::cells).collect();
        cells.extend(of_baselines(of_data.clone()));
        let lines = columns(cells);
        text += &format!("{data}\n");
        text += &aligned(&lines, width.unwrap_or(usize::MAX));
        for group in of_data {
            let problems: BTreeSet<&str> = group.problems.iter().copied().collect();
            for problem in problems {
                text += &format!("  {}: no result: {problem}\n", group.method);
            }
        }
    }
    text
}

/// The table in Markdown.
pub(super) fn markdown(entries: &[Entry]) -> String {
    let groups = rows(entries);
    // The baselines of a data set follow its methods.
    let (mut cells, mut owners) = (Vec::new(), Vec::new());
    for of_data in groups.chunk_by(|a, b| a.data == b.data) {
        let baselines = of_baselines(of_data.iter());
        owners.extend(of_data.iter().map(|group| (group.data, Some(group))));
        owners.extend(baselines.iter().map(|_| (of_data[0].data, None)));
        cells.extend(of_data.iter().map(Group::cells).chain(baselines));
    }
    let lines = columns(cells);
    let mut text = format!("| data | {} | command |\n", lines[0].join(" | "));
    text += &format!("|{}\n", "-|".repeat(lines[0].len() + 2));
    for ((data, group), line) in owners.into_iter().zip(&lines[1..]) {
        let cells: Vec<String> = line.iter().map(|cell| escaped(cell)).collect();
        let command = group.map_or(EMPTY.into(), |group| match group.problems.first() {
            Some(problem) => format!("no result: {}", escaped(problem)),
            None => code(&group.runs[0].row.command),
        });
        text += &format!(
            "| {} | {} | {command} |\n",
            escaped(data),
            cells.join(" | ")
        );
    }
    text
}

/// A line of CSV for each run; errors are fractions, text has bits per character.
pub(super) fn csv(entries: &[Entry]) -> String {
    let names = [
        "method",
        "data",
        "seed",
        "epochs",
        "rule",
        "crossed",
        "readout",
        "validation",
        "test",
        "unit",
        "layers",
        "parameters",
        "multiply_adds_per_example",
        "seconds_per_epoch",
        "joules_per_epoch",
        "peak_memory_mb",
        "command",
        "problem",
    ];
    let mut text = csv_line(&names.map(String::from));
    for entry in entries {
        let (row, cost) = (&entry.row, &entry.cost);
        let number = |number: Option<f64>| number.map_or(String::new(), |n| n.to_string());
        let value = |measure: Option<Measure>| number(measure.map(|measure| measure.value));
        text += &csv_line(&[
            entry.method.clone(),
            row.data.clone(),
            number(row.seed.map(|seed| seed as f64)),
            number(row.epochs.map(|epochs| epochs as f64)),
            row.rule_in_words(),
            entry.crossed.clone().unwrap_or_default(),
            row.readout.clone(),
            value(row.validation),
            value(row.test),
            row.unit().into(),
            entry
                .layers
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            number(cost.parameters),
            number(cost.multiply_adds_per_example),
            number(cost.seconds_per_epoch),
            number(cost.joules_per_epoch),
            number(cost.peak_memory_mb),
            row.command.clone(),
            row.problem.clone().unwrap_or_default(),
        ]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_short() {
        let shown = [0., 0.5, 12.34, 999.6, 6_234_000., 2.5e9, 7e13].map(short);
        assert_eq!(
            shown,
            ["0.00", "0.50", "12.3", "1.00k", "6.23M", "2.50G", "70.0T"]
        );
    }
}
