//! Conformance trials for all plugins, of this project and of other crates.
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
//! Every plugin that the package has registered is tested with its default settings,
//! alone and in complete runs with the other linked plugins. The data are random images
//! of 4×4 pixels ([`images`]), a text of four letters ([`text`]), and images with a label
//! for each row ([`sequences`]).
//!
//! | trial | of | expected |
//! |---|---|---|
//! | `description` | all | a name, a description, help for every setting |
//! | `settings` | all | defaults that read back equal; unknown keys refused |
//! | `shapes` | goodness, layer, sampler, data | the documented shapes, for one example and for several |
//! | `rows` | goodness, layer, sampler | a row of the result depends only on the same row of the input; of a sampler, in the neutral view |
//! | `gradient` | goodness | the gradient of the goodness equals finite differences |
//! | `grade` | goodness | the gradient of the loss equals finite differences |
//! | `input gradient` | layer | the gradient with respect to the input equals finite differences |
//! | `seed` | layer, sampler, data | same seed, same bits; all randomness depends on the seed |
//! | `locality` | goodness, layer | a step changes its own variables, and no other |
//! | `labels` | sampler, architecture | labels change nothing, unless the use of labels is declared |
//! | `trains` | all but data | in a run: finite losses, and finite scores of the documented shape |
//! | `repeats` | all but data | same seed, same bits at the end of a run; other seed, other bits |
//! | `resumes` | all but data | a run that is stopped and resumed ends with the same bits |
//! | `local run` | all but data | a block's update does not depend on whether blocks above it learn |
//!
//! A trial that needs missing files, a network or another kind of data is skipped, and
//! the report says why. The report also contains the time of a step, which never fails a
//! trial.

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

pub use toys::{images, sequences, text};

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
    /// The plugin behaved as expected.
    Passed,
    /// The trial was not possible, for this reason.
    Skipped(String),
    /// The trial failed: found and expected results.
    Failed(String),
}

/// One trial of a plugin.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The kind of the plugin, as in `onward list`.
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
    /// The trials, ordered by plugin.
    pub trials: Vec<Trial>,
    /// The times of steps, one line per plugin and trial.
    pub speeds: Vec<String>,
}

impl Report {
    /// The trials that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Trial> {
        self.trials
            .iter()
            .filter(|trial| matches!(trial.outcome, Outcome::Failed(_)))
    }

    /// Prints the report.
    ///
    /// # Panics
    /// If a trial failed, with a list of the failures; or if there was no trial, since
    /// then no plugin was linked.
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
            "no trials: no plugin of this package is linked; link them in the test with \
             `use your_crate as _;`"
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

/// Runs the trials of every plugin of a package.
pub fn of_package(package: &str) -> Report {
    of(|_, info| info.package == package)
}

/// Runs the trials of one plugin; `kind` is as in `onward list`.
pub fn of_plugin(kind: &str, name: &str) -> Report {
    of(|of_kind, info| (of_kind, info.name) == (kind, name))
}

/// Runs the trials of every linked plugin that `wanted` selects by kind and description.
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

/// Runs the trials of one plugin and records the outcomes.
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
            Err(_) => Outcome::Failed("panicked; the message is above".into()),
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

    /// Records a time, if it could be measured.
    fn note(&mut self, line: Result<String>) {
        if let Ok(line) = line {
            let plugin = format!("{} {}", self.kind, self.info.name);
            self.report.speeds.push(format!("{plugin:32} {line}"));
        }
    }
}

/// The result of a trial.
type Checked = Result<(), Complaint>;

/// The reason why a trial did not pass.
enum Complaint {
    /// The trial was not possible.
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

/// Returns a failure unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err($crate::conformance::Complaint::Fail(format!($($words)+)));
        }
    }};
}
use ensure;

/// The names of all registered plugins of a kind; empty if two share a name, since then
/// no name can be looked up.
fn names<T: Registered + ?Sized>() -> Vec<&'static str> {
    let all = registry::all::<T>().unwrap_or_default();
    all.iter().map(|plugin| plugin.info.name).collect()
}

/// The time of `work` in milliseconds, the best of three.
fn milliseconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        work()?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(best)
}
