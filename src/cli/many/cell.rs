//! One run of many, in a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::cli::command_line::configuration;
use crate::cli::program;
use crate::cli::stop::STOPPING;
use crate::cli::subject::Subject;
use crate::error::{notify, printable, shell_word, Error, Located, Result};
use crate::plugin::config::Config;
use crate::run::folder::{CONFIG, SUMMARY};
use crate::run::places::located;
use crate::run::{settings, summary};

/// A run of many.
#[derive(Clone)]
pub(super) struct Cell {
    pub method: String,
    pub data: String,
    pub seed: u32,
    pub folder: PathBuf,
    /// Whether it is measured what its updates depend on.
    pub is_certified: bool,
    /// The folder of the run that measures what an epoch costs.
    pub pilot: PathBuf,
    /// The arguments of `onward train`, without the seed and the folder.
    pub words: Vec<String>,
    /// The device, the folder of data and the threads, as arguments of all commands.
    pub place: Vec<OsString>,
}

/// The flag of the number of threads.
pub(super) const THREADS: &str = "--threads";

/// What is in the folder of a run.
pub(super) enum Found {
    Nothing,
    Unfinished,
    Finished,
}

/// What an epoch costs: with layers that learn one after the other, one of each.
pub(super) struct Price {
    pub seconds: f64,
    pub multiply_adds: Option<f64>,
}

impl Cell {
    /// Trains, or continues, unless the run is finished; with `until` only so many
    /// epochs.
    pub fn train(&self, until: Option<u32>, stop: &AtomicBool) -> Result<()> {
        // The name of a folder need not be UTF-8.
        let folder = OsString::from(&self.folder);
        let mut words: Vec<OsString> = match self.found()? {
            Found::Finished => return Ok(()),
            Found::Unfinished => vec!["resume".into(), folder],
            Found::Nothing => {
                let words = self.arguments().into_iter().map(OsString::from);
                let train = std::iter::once("train".into()).chain(words);
                train.chain(["--out".into(), folder]).collect()
            }
        };
        if self.is_certified && words[0] == "train" {
            words.push("--certify".into());
        }
        words.extend(
            until
                .iter()
                .flat_map(|epochs| ["--until".into(), epochs.to_string().into()]),
        );
        run_program(&[words, self.place.clone()].concat(), stop)
    }

    /// The arguments of `onward train`, without the folder.
    fn arguments(&self) -> Vec<String> {
        [&self.words[..], &["--seed".into(), self.seed.to_string()]].concat()
    }

    /// The same run with this number of epochs.
    pub fn with_epochs(&self, epochs: u32) -> Self {
        let epochs = ["--epochs".into(), epochs.to_string()];
        Self {
            words: [&self.words[..], &epochs].concat(),
            ..self.clone()
        }
    }

    /// The run that measures what an epoch costs.
    fn pilot(&self) -> Self {
        Self {
            folder: self.pilot.clone(),
            seed: 1,
            is_certified: false,
            ..self.with_epochs(1)
        }
    }

    /// The price of an epoch, measured once for all seeds.
    pub fn price(&self, stop: &AtomicBool) -> Result<Price> {
        let pilot = self.pilot();
        // One that was interrupted would not know the time of its first part.
        if pilot.folder.join(CONFIG).is_file() && !pilot.has_summary() {
            let removed = std::fs::remove_dir_all(&pilot.folder);
            removed.map_err(Error::file("remove", &pilot.folder))?;
        }
        pilot.train(None, stop)?;
        pilot.measured()
    }

    /// The price of an epoch, if it was measured before.
    ///
    /// # Errors
    /// If it was measured with other settings.
    pub fn known_price(&self) -> Result<Option<Price>> {
        let pilot = self.pilot();
        if !pilot.has_summary() {
            return Ok(None);
        }
        pilot.found()?;
        pilot.measured().map(Some)
    }

    /// What an epoch of this run has cost.
    fn measured(&self) -> Result<Price> {
        let summary = summary::read(&self.folder.join(SUMMARY))?;
        let number = |key: &str| summary[key].as_f64();
        let missing = || {
            let problem = "has no time of an epoch; remove it, and it is measured again";
            Error::run(&self.folder, problem)
        };
        let epochs = number("epochs").ok_or_else(missing)?;
        let seconds = number("seconds_per_epoch").filter(|seconds| *seconds > 0.);
        let per_epoch = number("multiply_adds_per_example").zip(number("training_examples"));
        Ok(Price {
            seconds: epochs * seconds.ok_or_else(missing)?,
            multiply_adds: per_epoch.map(|(count, examples)| epochs * count * examples),
        })
    }

    /// The run in words.
    pub fn in_words(&self) -> String {
        format!("{} on {}, seed {}", self.method, self.data, self.seed)
    }

    /// The number of epochs; with layers that learn one after the other, of all of them.
    /// Builds the network.
    pub fn epochs(&self) -> Result<u32> {
        let place = self.place.chunks(2).filter(|words| words[0] != THREADS);
        let words = self.arguments().into_iter().map(OsString::from);
        let words: Vec<OsString> = words.chain(place.flatten().cloned()).collect();
        let epochs = Subject::of(&words)?.builder()?.build()?.epochs();
        Ok(u32::try_from(epochs).unwrap_or(u32::MAX))
    }

    /// Whether its folder has a summary that can be read.
    fn has_summary(&self) -> bool {
        summary::read(&self.folder.join(SUMMARY)).is_ok()
    }

    /// Whether its folder has a result.
    pub fn has_result(&self) -> bool {
        self.folder.join(SUMMARY).is_file()
    }

    /// The errors of a probe on each layer: on the validation part or, without one, on
    /// the test part. Empty if the network does not show its layers.
    pub fn layers(&self) -> Vec<f64> {
        let errors = |part: &str| -> Option<Vec<f64>> {
            let mut evaluate = program::again().ok()?;
            evaluate.arg("evaluate").arg(&self.folder);
            evaluate.args(["--layers", "--json", "--split", part]);
            evaluate.args(&self.place);
            let output = evaluate.stdin(Stdio::null()).output().ok()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let problem = said.lines().find_map(|line| line.strip_prefix("error: "));
                notify(format_args!(
                    "  no probes of {}: {}",
                    printable(&self.folder.display().to_string()),
                    printable(problem.unwrap_or("the process ended without a message"))
                ));
            }
            let layers: Vec<Json> = serde_json::from_slice(&output.stdout).ok()?;
            layers
                .iter()
                .map(|layer| layer["score"]["error"].as_f64())
                .collect()
        };
        let summary = summary::read(&self.folder.join(SUMMARY)).unwrap_or_default();
        let part = match summary["validation"].is_null() {
            true => "test",
            false => "validation",
        };
        errors(part).unwrap_or_default()
    }

    /// The settings that are wanted.
    pub fn config(&self) -> Result<Config> {
        let words: Vec<OsString> = self.arguments().into_iter().map(OsString::from).collect();
        let config = Subject::of(&words)?.builder()?.config();
        config.at(|| format!("{} on {}", self.method, self.data))
    }

    /// What is in the folder; an error if it is a run of other settings.
    pub fn found(&self) -> Result<Found> {
        let config = self.folder.join(CONFIG);
        if !config.is_file() {
            return Ok(Found::Nothing);
        }
        let (there, wanted) = (configuration(&config)?, located(self.config()?));
        let is_other = settings::of(&there) != settings::of(&wanted);
        if is_other || there.run.data != wanted.run.data {
            let problem = format!(
                "is a run of other settings; choose another folder with --out, or remove it: rm -r {}",
                shell_word(&self.folder.display().to_string())
            );
            return Err(Error::run(&self.folder, problem));
        }
        Ok(match self.has_summary() {
            true => Found::Finished,
            false => Found::Unfinished,
        })
    }
}

/// Runs this program with other arguments to its end. Its own process: a method that
/// fails or runs out of memory takes nothing with it, and its memory is measured alone.
fn run_program(words: &[OsString], stop: &AtomicBool) -> Result<()> {
    let fault = |problem: String| Error::usage("run", problem);
    let mut command = program::again().map_err(|error| fault(error.to_string()))?;
    command.args(words).arg("--quiet");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // Ctrl-C then reaches this process alone, which asks the child once.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| fault(error.to_string()))?;
    let errors = child.stderr.take();
    let listener = std::thread::spawn(move || {
        let lines = errors
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufRead::lines);
        let mut last = String::new();
        for line in lines.map_while(Result::ok) {
            if let Some(error) = line.strip_prefix("error: ") {
                last = error.into();
            } else if last.is_empty() && line != STOPPING {
                notify(format_args!("  {}", printable(&line)));
            }
        }
        last
    });
    let mut asked: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| fault(error.to_string()))? {
            break status;
        }
        if stop.load(Ordering::Relaxed) && asked.is_none() {
            ask_to_stop(&mut child);
            asked = Some(Instant::now());
        }
        if asked.is_some_and(|asked| asked.elapsed() > PATIENCE) {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let last = listener.join().unwrap_or_default();
    match status.success() {
        true => Ok(()),
        false if last.is_empty() => Err(fault(format!("the process ended with {status}"))),
        // The message as the run has printed it.
        false => Err(match last.split_once(": ") {
            Some((place, problem)) => Error::usage(place, problem),
            None => fault(last),
        }),
    }
}

/// Asks a run to save itself and stop.
fn ask_to_stop(child: &mut Child) {
    let id = child.id().to_string();
    let asked = match cfg!(unix) {
        true => Command::new("kill").args(["-TERM", &id]).status().is_ok(),
        false => false,
    };
    if !asked {
        // Nothing is lost but what was learned since the last checkpoint.
        let _ = child.kill();
    }
}

/// How long a run may take to save itself.
const PATIENCE: Duration = Duration::from_secs(60);
