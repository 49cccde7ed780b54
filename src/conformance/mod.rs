//! Trials that every plugin has to pass: this project's own, and those of other crates.
//!
//! A crate of plugins runs them with one line in a test:
//!
//! ```no_run
//! # mod my_plugins {}
//! # #[allow(unused_imports)]
//! use my_plugins as _; // links them
//!
//! onward_core::conformance::of_package(env!("CARGO_PKG_NAME")).assert_passed();
//! ```
//!
//! Every plugin that the package has registered is tried with its default settings, on random images of 4×4 pixels and on
//! a text of four letters ([`images`], [`text`]): alone, and inside whole runs with the other plugins that are linked.
//!
//! | trial            | of                            | expected                                                          |
//! |------------------|-------------------------------|-------------------------------------------------------------------|
//! | `description`    | all                           | a name, a line about it, help for every setting                   |
//! | `settings`       | all                           | defaults that read back equal; unknown keys refused               |
//! | `shapes`         | goodness, layer, sampler, data | the documented shapes, for one example and for several           |
//! | `rows`           | goodness, layer               | a row of the result depends on its own row alone                  |
//! | `gradient`       | goodness                      | the gradient of the goodness equals differences                   |
//! | `grade`          | goodness                      | the gradient of the loss equals differences                       |
//! | `input gradient` | layer                         | the gradient with respect to the input equals differences         |
//! | `seed`           | layer, sampler, data          | same seed, same bits; no randomness that the seed does not change |
//! | `locality`       | goodness, layer               | a step changes its own variables, and no other                    |
//! | `labels`         | sampler, architecture         | labels change nothing, unless it is declared that they do         |
//! | `trains`         | all but data                  | in a run: finite losses and scores, every readout of its shape    |
//! | `repeats`        | all but data                  | two runs with one seed end with the same bits; another seed, other bits |
//! | `resumes`        | all but data                  | a run that is stopped and resumed ends with the same bits         |
//! | `local run`      | all but data                  | a block's update does not depend on whether other blocks learn    |
//!
//! A plugin that needs what is missing (files, a network, another kind of data) is skipped there, and the report says so.
//! The report also has the time of a step; that is never a reason to fail.

mod data;
mod description;
mod goodness;
mod layer;
mod runs;
mod sampler;
mod toys;

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

pub use toys::{images, text};

use crate::contract::architecture::Architecture;
use crate::contract::goodness::GoodnessFn;
use crate::contract::layer::LocalLayer;
use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::plugin::registry::{self, Info, Registered};
use crate::settings::PluginKind;

/// The outcome of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as expected.
    Passed,
    /// The trial was not possible, and why.
    Skipped(String),
    /// What was found, and what was expected.
    Failed(String),
}

/// One trial of a plugin.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The kind of the plugin, the word of `onward list`.
    pub kind: &'static str,
    /// The plugin's name.
    pub plugin: &'static str,
    /// The package that registered it.
    pub package: &'static str,
    /// The first column of [the table](self).
    pub trial: &'static str,
    /// The outcome.
    pub outcome: Outcome,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:32} {:14} ",
            format!("{} {}", self.kind, self.plugin),
            self.trial
        )?;
        match &self.outcome {
            Outcome::Passed => write!(f, "passed"),
            Outcome::Skipped(why) => write!(f, "skipped: {why}"),
            Outcome::Failed(why) => write!(f, "FAILED: {why} (package {})", self.package),
        }
    }
}

/// The outcomes of all trials; print it with [`Display`](fmt::Display).
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The trials, plugin after plugin.
    pub trials: Vec<Trial>,
    /// Times of steps, a line each.
    pub speeds: Vec<String>,
}

impl Report {
    /// The trials that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Trial> {
        self.trials
            .iter()
            .filter(|trial| matches!(trial.outcome, Outcome::Failed(_)))
    }

    /// Prints everything.
    ///
    /// # Panics
    /// If a trial failed, with all that did; or if there was no trial, since then nothing was linked.
    pub fn assert_passed(&self) {
        println!("{self}");
        let failed: Vec<String> = self.failures().map(Trial::to_string).collect();
        let (failures, all) = (failed.len(), self.trials.len());
        assert!(
            failed.is_empty(),
            "{failures} of {all} trials failed:\n{}",
            failed.join("\n")
        );
        assert!(
            all > 0,
            "nothing was tried: no plugin of this package is linked; link them in the test with `use your_crate as _;`"
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trials
            .iter()
            .try_for_each(|trial| writeln!(f, "{trial}"))?;
        self.speeds
            .iter()
            .try_for_each(|speed| writeln!(f, "{speed}"))
    }
}

/// Tries every plugin that a package has registered.
pub fn of_package(package: &str) -> Report {
    of(|_, info| info.package == package)
}

/// Tries one plugin; the kind is the word of `onward list`.
pub fn of_plugin(kind: &str, name: &str) -> Report {
    of(|of_kind, info| (of_kind, info.name) == (kind, name))
}

/// Tries every linked plugin that `wanted` selects by its kind and its description.
pub fn of(wanted: impl Fn(&str, &Info) -> bool) -> Report {
    let mut report = Report::default();
    try_kind::<dyn GoodnessFn>(&mut report, &wanted, goodness::trials);
    try_kind::<dyn LocalLayer>(&mut report, &wanted, layer::trials);
    try_kind::<dyn NegativeSampler>(&mut report, &wanted, sampler::trials);
    try_kind::<dyn Architecture>(&mut report, &wanted, |_, _| ());
    try_kind::<DataSet>(&mut report, &wanted, data::trials);
    report
}

fn try_kind<T: Registered + ?Sized>(
    report: &mut Report,
    wanted: &impl Fn(&str, &Info) -> bool,
    own_trials: fn(&str, &mut Examiner<'_>),
) {
    let mut plugins = T::registered();
    plugins.sort_by_key(|plugin| (plugin.info.name, plugin.info.package));
    for plugin in plugins {
        let info = &plugin.info;
        if !wanted(T::KIND, info) {
            continue;
        }
        let mut examiner = Examiner {
            kind: T::KIND,
            info,
            report,
        };
        examiner.check("description", || description::description(info));
        examiner.check("settings", || description::settings(T::KIND, info));
        own_trials(info.name, &mut examiner);
        if T::KIND != DataSet::KIND {
            runs::trials(&mut examiner);
        }
    }
}

/// Runs the trials of one plugin and writes them down.
struct Examiner<'a> {
    kind: &'static str,
    info: &'static Info,
    report: &'a mut Report,
}

impl Examiner<'_> {
    /// Runs one trial. A panic is a failure.
    fn check(&mut self, trial: &'static str, work: impl FnOnce() -> Checked) {
        let outcome = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Complaint::Skip(why))) => Outcome::Skipped(why),
            Ok(Err(Complaint::Fail(why))) => Outcome::Failed(why),
            Err(_) => Outcome::Failed("panicked; its message is above".into()),
        };
        let (kind, plugin, package) = (self.kind, self.info.name, self.info.package);
        self.report.trials.push(Trial {
            kind,
            plugin,
            package,
            trial,
            outcome,
        });
    }

    /// Writes down a time, unless it could not be measured.
    fn note(&mut self, line: Result<String>) {
        if let Ok(line) = line {
            let plugin = format!("{} {}", self.kind, self.info.name);
            self.report.speeds.push(format!("{plugin:32} {line}"));
        }
    }
}

/// The result of a trial.
type Checked = Result<(), Complaint>;

/// Why a trial was not passed.
enum Complaint {
    /// It was not possible.
    Skip(String),
    /// Something was not as expected.
    Fail(String),
}

impl From<Error> for Complaint {
    fn from(error: Error) -> Self {
        Self::Fail(error.to_string())
    }
}

impl From<candle_core::Error> for Complaint {
    fn from(error: candle_core::Error) -> Self {
        Self::Fail(error.to_string())
    }
}

/// Complains unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err($crate::conformance::Complaint::Fail(format!($($words)+)));
        }
    }};
}
use ensure;

/// The names of all registered plugins of a kind; none if two have one name, since then no name can be looked up.
fn names<T: Registered + ?Sized>() -> Vec<&'static str> {
    let all = registry::all::<T>().unwrap_or_default();
    all.iter().map(|plugin| plugin.info.name).collect()
}

/// The time of `work` in milliseconds, the best of a few.
fn milliseconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        work()?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(best)
}
