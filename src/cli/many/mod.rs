//! Many runs and one table of them: `onward compare` and `onward sweep`.

mod budget;
mod cell;
pub(super) mod compare;
mod entry;
mod halving;
pub(super) mod sweep;
mod table;
mod workers;

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use serde_json::Value as Json;

use self::budget::Budget;
use self::cell::Cell;
use self::entry::Entry;
use super::flags::{DataDir, Device};
use super::method::{Method, FLAGS};
use super::train::for_a_name;
use crate::disk;
use crate::error::{notify, printable, Error, Result};
use crate::plugin::config::usual;
use crate::plugin::registry;

/// What all runs share.
#[derive(Args)]
struct Many {
    /// Data set, as for `onward train`; can be repeated.
    #[arg(long, value_name = "NAME", required = true)]
    data: Vec<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Seeds: 1..3 for 1, 2 and 3; or 1,4,7.
    #[arg(long, value_name = "SEEDS", default_value = "1")]
    seeds: Seeds,
    #[command(flatten)]
    budget: Budget,
    /// Runs that are trained at the same time, each with its part of the threads. Small
    /// networks are trained faster so, but the seconds per epoch then say little.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,
    /// A setting for all runs; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: Device,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

/// Seeds in the order in which they are used.
#[derive(Clone, Debug, PartialEq)]
struct Seeds(Vec<u32>);

/// The folder of the runs that measure what an epoch costs.
const PILOTS: &str = "pilots";

/// The most runs of a table.
const MOST_RUNS: usize = 100_000;

/// The most seeds.
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
        let mut once = Vec::new();
        for seed in &seeds {
            if !once.contains(seed) {
                once.push(*seed);
            }
        }
        match (1..=MOST_SEEDS).contains(&seeds.len()) {
            true => Ok(Self(once)),
            false => Err(problem()),
        }
    }
}

impl Many {
    /// The runs of these methods: the data sets in their order, of each the methods, of
    /// each the seeds.
    fn cells(&self, methods: &[Method], out: &Path) -> Result<Vec<Cell>> {
        for setting in &self.set {
            let key = setting.split('=').next().unwrap_or_default().trim();
            if FLAGS.contains(&usual(key)) {
                let problem =
                    format!("is given to all runs by its own flag; leave out --set {key}");
                return Err(Error::usage(usual(key), problem));
            }
        }
        let count = methods.len() * self.data.len() * self.seeds.0.len();
        if count > MOST_RUNS {
            let problem = format!("expected at most {MOST_RUNS} runs, found {count}");
            return Err(Error::usage("methods", problem));
        }
        let mut cells: Vec<Cell> = Vec::new();
        let (mut given, mut folders) = (HashSet::new(), HashSet::new());
        for data in &self.data {
            for method in methods {
                for &seed in &self.seeds.0 {
                    let label = method.label();
                    if !given.insert((label, data, seed)) {
                        let [label, data] = [label, data].map(printable);
                        let problem = format!("{label} on {data} is given twice");
                        return Err(Error::usage("methods", problem));
                    }
                    let name = format!("{}-{}", method.name(), for_a_name(data));
                    let mut pilot = out.join(PILOTS).join(&name);
                    let mut folder = out.join(format!("{name}-{seed}"));
                    if !folders.insert(folder.clone()) {
                        // Names differ in what a folder's name leaves out.
                        let mut crc = flate2::Crc::new();
                        crc.update(format!("{label} {data}").as_bytes());
                        folder = out.join(format!("{name}-{seed}-{:08x}", crc.sum()));
                        pilot = out.join(PILOTS).join(format!("{name}-{:08x}", crc.sum()));
                        folders.insert(folder.clone());
                    }
                    cells.push(Cell {
                        method: method.label().into(),
                        data: data.clone(),
                        seed,
                        folder,
                        is_certified: false,
                        pilot,
                        words: self.words(method, data),
                        place: self.place(),
                    });
                }
            }
        }
        Ok(cells)
    }

    /// The arguments of `onward train`, without the seed and a budget that is measured.
    fn words(&self, method: &Method, data: &str) -> Vec<String> {
        // The settings of a method win over those of all.
        let mut of_all = self.set.clone();
        if is_text(data) {
            // Counts are the same for all methods, and would hide what these have learned.
            of_all.insert(0, "mixture=false".into());
        }
        let mut words = method.words(&of_all);
        words.extend(["--data".into(), data.into()]);
        if let Some(epochs) = self.budget.epochs {
            words.extend(["--epochs".into(), epochs.to_string()]);
        }
        words
    }

    /// The device, the folder of data and the threads, as arguments.
    fn place(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--device".into(), self.device.device.clone().into()];
        if self.jobs > 1 {
            let threads = rayon::current_num_threads() / usize::from(self.jobs);
            words.extend([cell::THREADS.into(), threads.max(1).to_string().into()]);
        }
        if let Some(folder) = &self.data_dir.data_dir {
            words.extend(["--data-dir".into(), folder.into()]);
        }
        words
    }
}

/// Whether a data set has tokens.
fn is_text(data: &str) -> bool {
    let name = data.split(':').next().unwrap_or_default();
    let info = registry::info("data", name);
    info.is_ok_and(|info| {
        let mut settings = (info.settings)().into_iter();
        settings.any(|setting| setting.key == "tokenizer")
    })
}

/// Says which methods and seeds a table that is there has, and the new one will not have.
fn say_what_is_left_out(out: &Path, name: &str, methods: &[Method], seeds: &Seeds) {
    let there = std::fs::read_to_string(out.join(format!("{name}.json"))).unwrap_or_default();
    let there: Vec<Json> = serde_json::from_str(&there).unwrap_or_default();
    let mut others: Vec<&str> = Vec::new();
    for method in there.iter().filter_map(|row| row["method"].as_str()) {
        let is_known = methods.iter().any(|known| known.label() == method);
        if !is_known && !others.contains(&method) {
            others.push(method);
        }
    }
    let mut left_out: Vec<String> = others.into_iter().map(printable).collect();
    let of_row = |row: &Json| row["seeds"].as_array().cloned().unwrap_or_default();
    let known = there
        .iter()
        .flat_map(of_row)
        .filter_map(|seed| seed.as_u64());
    let known: BTreeSet<u64> = known.collect();
    let is_other = |seed: &u64| !seeds.0.iter().any(|wanted| u64::from(*wanted) == *seed);
    let known = known.into_iter().filter(is_other);
    left_out.extend(known.map(|seed| format!("seed {seed}")));
    if !left_out.is_empty() {
        notify(format_args!(
            "note: the new table leaves out {}, which the table there has; the runs are kept",
            left_out.join(", ")
        ));
    }
}

/// Writes the tables `NAME.md`, `NAME.csv` and `NAME.json`.
fn write(out: &Path, name: &str, entries: &[Entry]) -> Result<()> {
    let rows = table::rows(entries);
    let json = serde_json::to_string_pretty(&rows).expect("plain values can be written");
    let texts = [
        ("md", table::markdown(entries)),
        ("csv", table::csv(entries)),
        ("json", json + "\n"),
    ];
    for (ending, text) in texts {
        let path = out.join(format!("{name}.{ending}"));
        disk::replace(&path, text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_a_list() {
        let seeds = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.0);
        assert_eq!(seeds("1..3").unwrap(), [1, 2, 3]);
        assert_eq!(seeds("1..=3").unwrap(), [1, 2, 3]);
        assert_eq!(seeds("4, 1,4").unwrap(), [4, 1]);
        for wrong in ["", "3..1", "a", "1..4000000000", "-1"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
