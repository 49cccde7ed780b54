//! The trials that every plugin has to pass, this project's own and anybody else's.
//!
//! A crate of plugins holds itself to them with one line in a test:
//!
//! ```no_run
//! # mod my_plugins {}
//! # #[allow(unused_imports)]
//! use my_plugins as _; // links them
//!
//! onward::conformance::of_package(env!("CARGO_PKG_NAME")).assert_passed();
//! ```
//!
//! Everything that the package has registered is tried with its default settings, on random images of 4×4 pixels and on
//! a text of four letters ([`images`], [`text`]), alone and inside whole runs with whatever else is linked:
//!
//! | trial         | of                          | what is asked                                                         |
//! |---------------|-----------------------------|-----------------------------------------------------------------------|
//! | `description` | all                         | a name, a line about it, help for every setting                       |
//! | `settings`    | all                         | defaults that read back equal; unknown keys are refused               |
//! | `shapes`      | goodness, layer, sampler, data | what the trait says of the shapes, for one example and for several  |
//! | `rows`        | goodness, layer             | a row of the result is of its own row alone                           |
//! | `gradient`    | goodness                    | the gradient that differences along a direction give                  |
//! | `seed`        | layer, sampler, data        | same seed, same bits; and no randomness that the seed does not change |
//! | `locality`    | layer                       | a step changes variables of its own, and nothing else                 |
//! | `labels`      | sampler, architecture       | labels that are hidden, or of the test part, change nothing           |
//! | `trains`      | all but data                | in a run: finite losses and scores, every readout of the right shape  |
//! | `repeats`     | all but data                | two runs with one seed end with the same bits; with another, not      |
//! | `resumes`     | all but data                | so does a run that is stopped and goes on from its checkpoint         |
//! | `local run`   | all but data                | what a block learns does not depend on whether the others learn       |
//!
//! A plugin that needs what is not there (files, a network, another kind of data) is skipped where it needs them, and the
//! verdict says so. It also says how long a step takes; that is never a reason to fail.

mod parts;
mod runs;
mod toys;

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};

pub use toys::{images, text};

use crate::contract::architecture::Architecture;
use crate::contract::goodness::GoodnessFn;
use crate::contract::layer::LocalLayer;
use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::error::Error;
use crate::plugin::registry::{self, Info, Kind};

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was asked holds.
    Passed,
    /// It could not be held, and why.
    Skipped(String),
    /// What was found, and what was expected.
    Failed(String),
}

/// A trial of a plugin.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The kind of plugin, the word that `onward list` has for it.
    pub kind: &'static str,
    /// The plugin's name.
    pub plugin: &'static str,
    /// The package that registered it.
    pub package: &'static str,
    /// What was tried: the first column of [the table](self).
    pub trial: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format!("{} {}", self.kind, self.plugin);
        match &self.outcome {
            Outcome::Passed => write!(f, "{place:32} {:12} passed", self.trial),
            Outcome::Skipped(why) => write!(f, "{place:32} {:12} skipped: {why}", self.trial),
            Outcome::Failed(why) => write!(
                f,
                "{place:32} {:12} FAILED: {why} (package {})",
                self.trial, self.package
            ),
        }
    }
}

/// What came of all trials; printed with [`Display`](fmt::Display).
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The trials, plugin after plugin.
    pub trials: Vec<Trial>,
    /// How long things take, a line each.
    pub speeds: Vec<String>,
}

impl Verdict {
    /// The trials that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Trial> {
        self.trials
            .iter()
            .filter(|trial| matches!(trial.outcome, Outcome::Failed(_)))
    }

    /// Prints everything.
    ///
    /// # Panics
    /// If a trial failed, with all that did; or if there was none, since then nothing was linked.
    pub fn assert_passed(&self) {
        println!("{self}");
        let failed: Vec<String> = self.failures().map(Trial::to_string).collect();
        assert!(
            failed.is_empty(),
            "{} of {} trials failed:\n{}",
            failed.len(),
            self.trials.len(),
            failed.join("\n")
        );
        assert!(
            !self.trials.is_empty(),
            "nothing was tried: no plugin of this package is linked; a test links them with `use your_crate as _;`"
        );
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trials
            .iter()
            .try_for_each(|trial| writeln!(f, "{trial}"))?;
        self.speeds
            .iter()
            .try_for_each(|speed| writeln!(f, "{speed}"))
    }
}

/// Tries everything that a package has registered.
pub fn of_package(package: &str) -> Verdict {
    of(|_, info| info.package == package)
}

/// Tries one plugin: the kind is the word that `onward list` has for it.
pub fn of_plugin(kind: &str, name: &str) -> Verdict {
    of(|of_kind, info| (of_kind, info.name) == (kind, name))
}

/// Tries everything that is linked and that `wanted` says yes to, given its kind and what is known of it.
pub fn of(wanted: impl Fn(&str, &Info) -> bool) -> Verdict {
    let mut verdict = Verdict::default();
    tried::<dyn GoodnessFn>(&mut verdict, &wanted, parts::goodness);
    tried::<dyn LocalLayer>(&mut verdict, &wanted, parts::layer);
    tried::<dyn NegativeSampler>(&mut verdict, &wanted, parts::sampler);
    tried::<dyn Architecture>(&mut verdict, &wanted, |_, _| ());
    tried::<DataSet>(&mut verdict, &wanted, parts::data);
    verdict
}

fn tried<T: Kind + ?Sized>(
    verdict: &mut Verdict,
    wanted: &impl Fn(&str, &Info) -> bool,
    own: fn(&str, &mut Court<'_>),
) {
    let mut plugins = T::registered();
    plugins.sort_by_key(|plugin| (plugin.info.name, plugin.info.package));
    for plugin in plugins {
        let info = &plugin.info;
        if !wanted(T::KIND, info) {
            continue;
        }
        let mut court = Court {
            kind: T::KIND,
            info,
            verdict,
        };
        court.hold("description", || parts::description(info));
        court.hold("settings", || parts::settings(T::KIND, info));
        own(info.name, &mut court);
        if T::KIND != DataSet::KIND {
            runs::of(&mut court);
        }
    }
}

/// Where the trials of a plugin are held.
struct Court<'a> {
    kind: &'static str,
    info: &'static Info,
    verdict: &'a mut Verdict,
}

impl Court<'_> {
    /// Holds one trial, and says whether it was passed. A panic is a failure.
    fn hold(&mut self, trial: &'static str, work: impl FnOnce() -> Result<(), Complaint>) -> bool {
        let outcome = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Complaint::Skip(why))) => Outcome::Skipped(why),
            Ok(Err(Complaint::Fail(why))) => Outcome::Failed(why),
            Err(_) => Outcome::Failed("panicked; what it said is above".into()),
        };
        let passed = outcome == Outcome::Passed;
        let (kind, plugin, package) = (self.kind, self.info.name, self.info.package);
        self.verdict.trials.push(Trial {
            kind,
            plugin,
            package,
            trial,
            outcome,
        });
        passed
    }

    /// Notes how long something takes.
    fn note(&mut self, line: String) {
        self.verdict.speeds.push(format!(
            "{:32} {line}",
            format!("{} {}", self.kind, self.info.name)
        ));
    }
}

/// Why a trial was not passed.
enum Complaint {
    /// It could not be held.
    Skip(String),
    /// What was asked does not hold.
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

/// The names of all that is registered of a kind; nothing if two have one name, since then no name can be looked up.
fn names<T: Kind + ?Sized>() -> Vec<&'static str> {
    registry::all::<T>()
        .map(|all| all.iter().map(|plugin| plugin.info.name).collect())
        .unwrap_or_default()
}
