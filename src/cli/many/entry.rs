//! A run of many with its result.

use std::path::Path;

use serde::Serialize;
use serde_json::Value as Json;

use super::Cell;
use crate::cli::report::{Measure, Row};
use crate::error::Error;
use crate::run::folder::SUMMARY;
use crate::run::locality::Certificate;
use crate::run::observe::metrics;
use crate::run::summary;

/// A run with its result, or with the reason why it has no result.
#[derive(Clone, Serialize)]
pub(super) struct Entry {
    pub method: String,
    #[serde(flatten)]
    pub row: Row,
    #[serde(flatten)]
    pub cost: Cost,
    /// The number of blocks that a signal crosses on its way back, if it was measured;
    /// `all` if a block holds a whole network.
    pub crossed: Option<String>,
    /// The errors of a probe on each layer, if they were asked for.
    pub layers: Vec<f64>,
    /// What n-grams predict on the same text.
    pub baselines: Vec<Baseline>,
    /// Whether it was trained to its end, and not stopped before.
    pub is_whole: bool,
}

/// A prediction without a network, on the validation and the test part.
#[derive(Clone, PartialEq, Serialize)]
pub(super) struct Baseline {
    pub name: String,
    pub validation: Option<Measure>,
    pub test: Option<Measure>,
}

impl Baseline {
    fn all(summary: &Json) -> Vec<Self> {
        let of_test = summary["test"]["baselines"].as_object();
        let all = of_test.into_iter().flatten().map(|(name, score)| Self {
            name: name.clone(),
            validation: summary["validation"]["baselines"]
                .get(name)
                .map(Measure::of),
            test: Some(Measure::of(score)),
        });
        all.collect()
    }
}

/// What a run has cost, where it is known.
#[derive(Clone, Default, Serialize)]
pub(super) struct Cost {
    pub parameters: Option<f64>,
    /// The multiplications, each with an addition, of training for one example.
    pub multiply_adds_per_example: Option<f64>,
    pub seconds_per_epoch: Option<f64>,
    pub peak_memory_mb: Option<f64>,
    /// The energy of the processors and the GPU in an epoch.
    pub joules_per_epoch: Option<f64>,
}

impl Cost {
    fn of(summary: &Json) -> Self {
        let number = |key: &str| summary[key].as_f64();
        let joules = ["processor_joules_per_epoch", "gpu_joules_per_epoch"].map(number);
        Self {
            parameters: number("parameters"),
            multiply_adds_per_example: number("multiply_adds_per_example"),
            seconds_per_epoch: number("seconds_per_epoch"),
            peak_memory_mb: number("peak_memory_mb"),
            joules_per_epoch: joules.into_iter().flatten().reduce(|a, b| a + b),
        }
    }

    /// The means, each over the runs that have it.
    pub fn mean(runs: &[&Entry]) -> Self {
        let mean = |of: fn(&Self) -> Option<f64>| {
            let values: Vec<f64> = runs.iter().filter_map(|run| of(&run.cost)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Self {
            parameters: mean(|cost| cost.parameters),
            multiply_adds_per_example: mean(|cost| cost.multiply_adds_per_example),
            seconds_per_epoch: mean(|cost| cost.seconds_per_epoch),
            peak_memory_mb: mean(|cost| cost.peak_memory_mb),
            joules_per_epoch: mean(|cost| cost.joules_per_epoch),
        }
    }
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
        Self {
            method: cell.method.clone(),
            crossed: crossed(&summary),
            cost: match row.problem {
                None => Cost::of(&summary),
                Some(_) => Cost::default(),
            },
            layers: Vec::new(),
            baselines: match row.problem {
                None => Baseline::all(&summary),
                Some(_) => Vec::new(),
            },
            is_whole: true,
            row,
        }
    }

    /// Whether there is no result.
    pub fn has_failed(&self) -> bool {
        self.row.problem.is_some()
    }

    /// A run that was stopped after some epochs, with its last validation result.
    pub fn after(cell: &Cell, epochs: u32, failure: Option<Error>) -> Self {
        if failure.is_some() {
            return Self::of(cell, failure);
        }
        // Also of a run that has gone on since, so that a sweep that is continued decides
        // as it did before.
        let found = metrics::last_validation(&cell.folder, epochs.into());
        let wanted = cell.config().ok().and_then(|config| config.run.readout);
        let is_wanted = |name: &&String| wanted.as_ref().is_none_or(|wanted| wanted == *name);
        let best = found.as_ref().and_then(|evaluation| {
            let readouts = evaluation["result"]["readouts"].as_object()?;
            let measures = readouts.iter().filter(|(name, _)| is_wanted(name));
            let measures = measures.map(|(name, score)| (name, Measure::of(score)));
            measures.min_by(|a, b| a.1.value.total_cmp(&b.1.value))
        });
        let Some((readout, measure)) = best else {
            let what = wanted.map_or("nothing was".into(), |name| {
                format!("the readout `{name}` was not")
            });
            let problem = format!(
                "after epoch {epochs} {what} evaluated on the validation part; train longer, \
                 with a smaller `evaluate_every` (`evaluate_all_every` for the search), or without \
                 --halving"
            );
            return Self::of(cell, Some(Error::run(&cell.folder, problem)));
        };
        let mut row = Row::named(&cell.folder, Path::new(""));
        (row.data, row.seed) = (cell.data.clone(), Some(cell.seed.into()));
        row.epochs = Some(epochs.into());
        (row.readout, row.validation) = (readout.clone(), Some(measure));
        Self {
            method: cell.method.clone(),
            cost: Cost::default(),
            crossed: None,
            layers: Vec::new(),
            baselines: Vec::new(),
            is_whole: false,
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
            None => {
                let time = self.cost.seconds_per_epoch;
                let time = time.map_or(String::new(), |s| format!(", {s:.1} s per epoch"));
                format!("{test}validation {}{time}", word(row.validation))
            }
        }
    }
}

fn crossed(summary: &Json) -> Option<String> {
    let measured: Certificate = serde_json::from_value(summary["locality"].clone()).ok()?;
    let is_whole_net = measured.wide().next().is_some();
    Some(match is_whole_net {
        true => "all".into(),
        false => measured.crossed.to_string(),
    })
}
