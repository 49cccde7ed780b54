//! `onward compare`: methods × data sets × seeds, each run by a process of its own.

mod method;
mod table;

use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser};

use self::method::Method;
use self::table::Entry;
use super::command_line::configuration;
use super::flags::{DataDir, Device};
use super::output::{print, print_json};
use super::stop::Stop;
use super::subject::Subject;
use crate::disk;
use crate::error::{notify, printable, shell_word, Error, Located, Result};
use crate::plugin::config::Config;
use crate::run::folder::{CONFIG, STATE, SUMMARY};
use crate::run::{settings, summary};

#[derive(Args)]
pub(super) struct Compare {
    /// Methods: an architecture, `architecture:preset`, or a file of settings; settings of
    /// their own follow after commas, as in progressive:hinton,layer.dropout=0.1.
    #[arg(required = true, value_name = "METHOD")]
    methods: Vec<Method>,
    /// Data set, as for `onward train`; can be repeated.
    #[arg(long, value_name = "NAME", required = true)]
    data: Vec<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Seeds: 1..3 for 1, 2 and 3; or 1,4,7.
    #[arg(long, value_name = "SEEDS", default_value = "1")]
    seeds: Seeds,
    /// Passes over the training part, the same for all methods.
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// A setting for all methods; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Leave out the baselines: backpropagation, and random layers with a trained head.
    #[arg(long)]
    no_baselines: bool,
    #[command(flatten)]
    device: Device,
    /// Folder of the runs and of the tables compare.md, compare.csv and compare.json. With
    /// the same folder an interrupted comparison goes on, and runs that are there are kept.
    #[arg(long, value_name = "DIR", default_value = "runs/compare")]
    out: PathBuf,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

/// Seeds in the order in which they are used.
#[derive(Clone, Debug, PartialEq)]
struct Seeds(Vec<u32>);

/// The most seeds of a comparison.
const MOST_SEEDS: usize = 1000;

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("expected 1..3 or 1,4,7 with at most {MOST_SEEDS} seeds");
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| problem());
        let seeds: Vec<u32> = match text.split_once("..") {
            Some((first, last)) => {
                let last = last.trim_start_matches('=');
                let range: RangeInclusive<u32> = number(first)?..=number(last)?;
                range.take(MOST_SEEDS + 1).collect()
            }
            None => text.split(',').map(number).collect::<Result<_, _>>()?,
        };
        match (1..=MOST_SEEDS).contains(&seeds.len()) {
            true => Ok(Self(seeds)),
            false => Err(problem()),
        }
    }
}

/// A run of the comparison.
struct Cell {
    method: String,
    data: String,
    seed: u32,
    folder: PathBuf,
    /// The arguments of `onward train`, without the folder.
    words: Vec<String>,
}

/// What is in the folder of a run.
enum Found {
    Nothing,
    Unfinished,
    Finished,
}

impl Compare {
    pub(super) fn run(self) -> Result<()> {
        let stop = Stop::on_signals();
        stop.training_begins();
        let cells = self.cells()?;
        // A name that is wrong is found before anything is trained.
        for cell in &cells {
            cell.config()?;
        }
        let made = std::fs::create_dir_all(&self.out);
        made.map_err(Error::file("create", &self.out))?;
        let mut entries = Vec::new();
        for (index, cell) in cells.iter().enumerate() {
            let place = format!(
                "[{}/{}] {} on {}, seed {}",
                index + 1,
                cells.len(),
                cell.method,
                cell.data,
                cell.seed
            );
            notify(&place);
            let failure = cell.train(&stop.flag()).err();
            if stop.flag().load(Ordering::Relaxed) {
                let problem = "stopped; the same command goes on where it was";
                return Err(Error::run(&self.out, problem));
            }
            let entry = Entry::of(cell, failure);
            notify(format_args!("  {}", entry.in_words()));
            entries.push(entry);
            // What is there so far, for whoever looks.
            self.write(&entries)?;
        }
        match self.json {
            true => print_json(&table::rows(&entries)),
            false => print(&format!(
                "{}written: {}\n",
                table::plain(&entries),
                self.out.join(TABLES[0]).display()
            )),
        }
    }

    fn write(&self, entries: &[Entry]) -> Result<()> {
        let rows = table::rows(entries);
        let json = serde_json::to_string_pretty(&rows).expect("plain values can be written");
        let texts = [table::markdown(entries), table::csv(entries), json + "\n"];
        for (name, text) in TABLES.iter().zip(texts) {
            disk::replace(&self.out.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// All runs: the data sets in their order, of each the methods, of each the seeds.
    fn cells(&self) -> Result<Vec<Cell>> {
        let mut methods = self.methods.clone();
        if !self.no_baselines {
            methods.extend(Method::baselines(&self.methods));
        }
        let mut cells: Vec<Cell> = Vec::new();
        for data in &self.data {
            for method in &methods {
                for &seed in &self.seeds.0 {
                    let mut words = method.words();
                    words.extend(["--data".into(), data.clone()]);
                    words.extend(
                        self.set
                            .iter()
                            .flat_map(|set| ["--set".into(), set.clone()]),
                    );
                    words.extend(["--seed".into(), seed.to_string()]);
                    if let Some(epochs) = self.epochs {
                        words.extend(["--epochs".into(), epochs.to_string()]);
                    }
                    words.extend(["--device".into(), self.device.device.clone()]);
                    if let Some(folder) = &self.data_dir.data_dir {
                        words.extend(["--data-dir".into(), folder.display().to_string()]);
                    }
                    let name = format!(
                        "{}-{}-{seed}",
                        method.name(),
                        super::train::for_a_name(data)
                    );
                    let folder = self.out.join(name);
                    if cells.iter().any(|cell| cell.folder == folder) {
                        let problem = format!("{} is given twice", printable(method.label()));
                        return Err(Error::usage("compare", problem));
                    }
                    cells.push(Cell {
                        method: method.label().into(),
                        data: data.clone(),
                        seed,
                        folder,
                        words,
                    });
                }
            }
        }
        Ok(cells)
    }
}

/// The tables in the folder of a comparison.
const TABLES: [&str; 3] = ["compare.md", "compare.csv", "compare.json"];

/// The arguments of a run alone.
#[derive(Parser)]
struct Only {
    #[command(flatten)]
    subject: Subject,
}

impl Cell {
    /// Trains, or goes on, unless the run is finished.
    fn train(&self, stop: &AtomicBool) -> Result<()> {
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
        run_program(&words, stop)
    }

    /// The settings that are wanted.
    fn config(&self) -> Result<Config> {
        let words = [String::from("onward")].into_iter();
        let only = Only::try_parse_from(words.chain(self.words.iter().cloned()));
        let only = only.map_err(|error| Error::usage("compare", error.to_string()))?;
        only.subject.builder()?.config().at(|| self.method.clone())
    }

    /// What is in the folder; an error if it is a run of other settings.
    fn found(&self) -> Result<Found> {
        let config = self.folder.join(CONFIG);
        if !config.is_file() {
            return Ok(Found::Nothing);
        }
        if settings::of(&configuration(&config)?) != settings::of(&self.config()?) {
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

/// Runs this program with other arguments to its end. Its own process: a method that fails
/// or runs out of memory takes nothing with it, and its memory is measured alone.
fn run_program(words: &[String], stop: &AtomicBool) -> Result<()> {
    let fault = |problem: String| Error::usage("run", problem);
    let program = std::env::current_exe().map_err(|error| fault(error.to_string()))?;
    let child = Command::new(program)
        .args(words)
        .arg("--quiet")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| fault(error.to_string()))?;
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
        if stop.load(Ordering::Relaxed) {
            // Ctrl-C reaches the child too, which saves itself; another signal does not.
            if asked.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                let _ = child.kill();
            }
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

/// How long a run may take to save itself after Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a folder has a result.
fn has_result(folder: &Path) -> bool {
    folder.join(SUMMARY).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_a_list() {
        let seeds = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.0);
        assert_eq!(seeds("1..3").unwrap(), [1, 2, 3]);
        assert_eq!(seeds("1..=3").unwrap(), [1, 2, 3]);
        assert_eq!(seeds("4, 1").unwrap(), [4, 1]);
        for wrong in ["", "3..1", "a", "1..4000000000", "-1"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
