//! One run of many, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::method::builder;
use crate::cli::command_line::configuration;
use crate::cli::program;
use crate::error::{notify, printable, shell_word, Error, Located, Result};
use crate::plugin::config::Config;
use crate::run::folder::{CONFIG, STATE, SUMMARY};
use crate::run::{located, settings, summary};

/// A run of many.
pub(super) struct Cell {
    pub method: String,
    pub data: String,
    pub seed: u32,
    pub folder: PathBuf,
    /// The arguments of `onward train`, without the folder.
    pub words: Vec<String>,
    /// The device and the folder of data, as arguments of all commands.
    pub place: Vec<String>,
}

/// What is in the folder of a run.
enum Found {
    Nothing,
    Unfinished,
    Finished,
}

impl Cell {
    /// Trains, or continues, unless the run is finished.
    pub fn train(&self, stop: &AtomicBool) -> Result<()> {
        let folder = self.folder.display().to_string();
        let words = match self.found()? {
            Found::Finished => return Ok(()),
            Found::Unfinished => vec!["resume".into(), folder],
            Found::Nothing => {
                let train = ["train".to_string()].into_iter();
                let out = ["--out".into(), folder];
                train.chain(self.words.iter().cloned()).chain(out).collect()
            }
        };
        run_program(&[words, self.place.clone()].concat(), stop)
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
        builder(&self.words)?.config().at(|| self.method.clone())
    }

    /// What is in the folder; an error if it is a run of other settings.
    fn found(&self) -> Result<Found> {
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
        let is_finished = summary::read(&self.folder.join(SUMMARY)).is_ok();
        Ok(match (is_finished, self.folder.join(STATE).is_file()) {
            (true, _) => Found::Finished,
            (false, _) => Found::Unfinished,
        })
    }
}

/// Runs this program with other arguments to its end. Its own process: a method that
/// fails or runs out of memory takes nothing with it, and its memory is measured alone.
fn run_program(words: &[String], stop: &AtomicBool) -> Result<()> {
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
            } else if last.is_empty() {
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
        false => Err(fault(last)),
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
