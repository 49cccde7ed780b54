//! `onward sweep`: the settings of one method.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use toml::Table;

use super::cell::Cell;
use super::entry::Entry;
use super::halving;
use super::table::{self, Group};
use super::workers::{Task, Workers};
use super::{say_what_is_left_out, write, Many};
use crate::cli::method::{outer_parts, Method};
use crate::cli::output::{columns, print, print_json};
use crate::error::{notify, printable, Error, Result};
use crate::flow::random::{shuffle, stream, unit};
use crate::plugin::config::usual;

#[derive(Args)]
pub(in crate::cli) struct Sweep {
    /// The method: as for `onward compare`.
    method: String,
    /// The values of a setting; with several of them every combination is trained.
    #[arg(long, value_name = "KEY=V1,V2,…")]
    grid: Vec<Grid>,
    /// The range of a setting from which --random draws, evenly on a logarithmic scale.
    /// Whole numbers give whole numbers: 50..500; else 50.0..500.0.
    #[arg(long, value_name = "KEY=LOW..HIGH", requires = "random")]
    range: Vec<Span>,
    /// Train only N combinations, drawn at random, always the same ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    random: Option<u16>,
    /// Successive halving: train all combinations for a part of the epochs, then only the
    /// best one in FACTOR by validation, and so on; the last ones to the end. The bits of
    /// a run do not depend on where it was interrupted.
    #[arg(
        long,
        value_name = "FACTOR",
        num_args = 0..=1,
        default_missing_value = "3",
        value_parser = clap::value_parser!(u32).range(2..),
        conflicts_with_all = ["minutes", "multiply_adds"]
    )]
    halving: Option<u32>,
    #[command(flatten)]
    many: Many,
    /// Folder of the runs and of the tables sweep.md, sweep.csv and sweep.json. With the
    /// same folder an interrupted sweep is continued, and runs that are there are kept.
    #[arg(long, value_name = "DIR", default_value = "runs/sweep")]
    out: PathBuf,
}

/// A setting with its values.
#[derive(Clone, Debug, PartialEq)]
struct Grid {
    key: String,
    values: Vec<String>,
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').unwrap_or_default();
        let values: Vec<String> = outer_parts(values).into_iter().map(String::from).collect();
        if key.is_empty() || values.iter().any(String::is_empty) {
            return Err("expected KEY=V1,V2, as in lr=0.01,0.03 or hidden=[500],[1000]".into());
        }
        let key = key.into();
        Ok(Self { key, values })
    }
}

/// A setting with the range of its values.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    key: String,
    low: f64,
    high: f64,
    is_whole: bool,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || "expected KEY=LOW..HIGH with 0 < LOW < HIGH, as in lr=0.001..0.1";
        let (key, range) = text.split_once('=').ok_or_else(problem)?;
        let (low, high) = range.split_once("..").ok_or_else(problem)?;
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .map_err(|_| problem().to_string())
        };
        let is_whole = [low, high]
            .iter()
            .all(|text| text.trim().parse::<u64>().is_ok());
        let (low, high) = (number(low)?, number(high)?);
        match !key.is_empty() && 0. < low && low < high && high.is_finite() {
            true => Ok(Self {
                key: key.into(),
                low,
                high,
                is_whole,
            }),
            false => Err(problem().into()),
        }
    }
}

impl Span {
    /// A number from the range, whole or with three digits.
    fn draw(&self, part: f64) -> String {
        let value = self.low * (self.high / self.low).powf(part);
        if self.is_whole {
            return format!("{value:.0}");
        }
        let digits = (2. - value.log10().floor()).max(0.) as usize;
        format!("{value:.digits$}")
    }
}

/// The draws for each combination, since some come twice.
const TRIES: usize = 100;

/// The most combinations of a grid.
const MOST: usize = 10_000;

impl Sweep {
    pub(in crate::cli) fn run(self) -> Result<()> {
        let method: Method = self.method.parse().map_err(fault)?;
        self.refuse_twice(&method)?;
        let methods = self.methods()?;
        let cells = self.many.cells(&methods, &self.out)?;
        // All seeds have the same settings.
        let of_first_seed = |cell: &&Cell| cell.seed == cells[0].seed;
        for cell in cells.iter().filter(of_first_seed) {
            if !cell.config()?.run.validate {
                let problem = "needs a validation part to choose by, found `validate = false`";
                return Err(fault(problem.into()));
            }
        }
        let workers = Workers::new(&self.many, &self.out, &cells)?;
        say_what_is_left_out(&self.out, "sweep", &methods, &self.many.seeds);
        let entries = self.train(&workers, &cells, methods.len())?;
        let best = best(&entries);
        let entries = table::judged(entries, &best);
        write(&self.out, "sweep", &entries)?;
        if self.many.json {
            print_json(&table::rows(&entries))?;
        } else {
            let mut text = table::plain(&entries, columns());
            for (data, method) in &best {
                text += &format!("best on {data} by validation: {method}\n");
            }
            if best.is_empty() {
                text += "no combination has a result on the validation part\n";
            }
            let written = self.out.join("sweep.md");
            let written = printable(&written.display().to_string());
            print(&format!("{text}written: {written}\n"))?;
        }
        match entries.iter().all(Entry::has_failed) {
            true => Err(Error::run(&self.out, "no combination has a result")),
            false => Ok(()),
        }
    }

    /// Refuses a setting that is varied twice, or that has a fixed value too.
    fn refuse_twice(&self, method: &Method) -> Result<()> {
        let mut varied: Vec<&str> = Vec::new();
        let grids = self.grid.iter().map(|grid| &grid.key);
        for key in grids.chain(self.range.iter().map(|range| &range.key)) {
            let key = usual(key);
            let is_in = |given: &[String]| {
                let mut keys = given.iter().map(|setting| setting.split('='));
                keys.any(|mut parts| parts.next().is_some_and(|given| usual(given) == key))
            };
            let problem = match varied.contains(&key) {
                true => "is varied twice; give all its values at once, as in lr=0.01,0.03",
                false if is_in(&self.many.set) => {
                    "is varied, and has a value by --set; leave out one of them"
                }
                false if is_in(method.settings()) => {
                    "is varied, and has a value in the method; leave out one of them"
                }
                false => {
                    varied.push(key);
                    continue;
                }
            };
            return Err(Error::usage(printable(key), problem));
        }
        Ok(())
    }

    /// Trains all combinations; with halving the best ones for more epochs than the
    /// others.
    fn train(&self, workers: &Workers<'_>, cells: &[Cell], count: usize) -> Result<Vec<Entry>> {
        let (mut left, mut given_up): (Vec<&Cell>, Vec<Entry>) = (cells.iter().collect(), vec![]);
        let train = |left: &[&Cell], given_up: &[Entry], until| {
            workers.train(
                left,
                &Task {
                    until,
                    with_test: false,
                    probe: &|_| Vec::new(),
                    so_far: &|rows| {
                        // The test part is looked at once, at the end.
                        let rows = [rows, given_up].concat();
                        write(&self.out, "sweep", &table::judged(rows, &[]))
                    },
                },
            )
        };
        if let (Some(factor), Some(first)) = (self.halving, cells.first()) {
            let epochs = first.epochs()?;
            let mut known = HashSet::from([shape(first)?]);
            for cell in cells {
                if !known.insert(shape(cell)?) {
                    continue;
                }
                let other = cell.epochs()?;
                if other != epochs {
                    let problem = format!(
                        "needs runs of equally many epochs; {} has {epochs}, {} has {other}",
                        first.method, cell.method
                    );
                    return Err(Error::usage("--halving", problem));
                }
            }
            let mut many = count * self.many.data.len();
            let stages = halving::stages(epochs, count, factor);
            if stages.is_empty() {
                notify(format_args!(
                    "note: all are trained to the end: halving by {factor} needs at least \
                     {factor} epochs and {factor} combinations, found {epochs} and {count}"
                ));
            }
            for stage in stages {
                let entries = train(&left, &given_up, Some(stage))?;
                let kept = halving::kept(&entries, factor);
                let is_kept = |data: &str, method: &str| {
                    let mut kept = kept.iter();
                    kept.any(|(of, name)| (of.as_str(), name.as_str()) == (data, method))
                };
                left.retain(|cell| is_kept(&cell.data, &cell.method));
                given_up.extend(
                    entries
                        .into_iter()
                        .filter(|entry| !is_kept(&entry.row.data, &entry.method)),
                );
                notify(format_args!(
                    "after {stage} of {epochs} epochs {} of {many} are kept",
                    kept.len()
                ));
                many = kept.len();
                if left.is_empty() {
                    break;
                }
            }
        }
        Ok([train(&left, &given_up, None)?, given_up].concat())
    }

    /// A method for each combination.
    fn methods(&self) -> Result<Vec<Method>> {
        let mut combinations = vec![String::new()];
        for grid in &self.grid {
            let with = |value: &String| format!(",{}={value}", grid.key);
            let values: Vec<String> = grid.values.iter().map(with).collect();
            if combinations.len() * values.len() > MOST {
                return Err(fault(format!("expected at most {MOST} combinations")));
            }
            let each = combinations.iter();
            combinations = each
                .flat_map(|known| values.iter().map(move |v| format!("{known}{v}")))
                .collect();
        }
        if self.grid.is_empty() && self.range.is_empty() {
            return Err(fault("no setting to vary; add --grid KEY=V1,V2".into()));
        }
        if let Some(count) = self.random {
            let mut rng = stream(0, "sweep", 0);
            let mut order: Vec<usize> = (0..combinations.len()).collect();
            shuffle(&mut rng, &mut order);
            // Without a range no combination is drawn twice.
            let limit = if self.range.is_empty() {
                order.len()
            } else {
                usize::MAX
            };
            let (mut drawn, mut known): (Vec<String>, HashSet<String>) = Default::default();
            // A narrow range of whole numbers may have fewer than that.
            let wanted = usize::from(count).min(limit);
            for tried in 0..wanted * TRIES {
                let grid = &combinations[order[tried % order.len()]];
                let of_range = |span: &Span| format!(",{}={}", span.key, span.draw(unit(&mut rng)));
                let ranges: String = self.range.iter().map(of_range).collect();
                let combination = format!("{grid}{ranges}");
                if known.insert(combination.clone()) {
                    drawn.push(combination);
                }
                if drawn.len() == wanted {
                    break;
                }
            }
            if drawn.len() < usize::from(count) {
                let found = match drawn.len() {
                    1 => "is only one combination".to_string(),
                    found => format!("are only {found} different combinations"),
                };
                notify(format_args!("note: there {found}, not {count}"));
            }
            combinations = drawn;
        }
        let method = |settings: &String| {
            let method = format!("{}{settings}", self.method).parse();
            method.map_err(fault)
        };
        combinations.iter().map(method).collect()
    }
}

fn fault(problem: String) -> Error {
    Error::usage("sweep", problem)
}

/// The settings of a run that may decide its number of epochs: all but numbers with a
/// fraction, such as rates, and its seed. To count the epochs, its data have to be read.
fn shape(cell: &Cell) -> Result<String> {
    fn without_fractions(table: &mut Table) {
        table.retain(|_, value| !value.is_float());
        let below = table
            .iter_mut()
            .filter_map(|(_, value)| value.as_table_mut());
        below.for_each(without_fractions);
    }
    let mut table = cell.config()?.to_table();
    table.remove("seed");
    without_fractions(&mut table);
    Ok(table.to_string())
}

/// The data sets, each with the method that has the best validation result.
fn best(entries: &[Entry]) -> Vec<(String, String)> {
    let mut best: Vec<(String, String)> = Vec::new();
    let rows = table::rows(entries);
    let done = |row: &&Group<'_>| row.is_complete() && row.is_whole();
    for row in rows.iter().filter(done) {
        if best.iter().all(|(data, _)| data != row.data) {
            best.push((row.data.into(), row.method.into()));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_and_ranges_are_read() {
        let grid: Grid = "hidden=[5,6],[7]".parse().unwrap();
        assert_eq!(
            (&*grid.key, grid.values),
            ("hidden", vec!["[5,6]".to_string(), "[7]".into()])
        );
        for wrong in ["lr", "lr=", "=1", "lr=1,"] {
            assert!(wrong.parse::<Grid>().is_err(), "{wrong}");
        }
        let span: Span = "lr=0.001..0.1".parse().unwrap();
        assert_eq!(
            [0., 0.5, 1.].map(|part| span.draw(part)),
            ["0.00100", "0.0100", "0.100"]
        );
        let whole: Span = "batch=50..500".parse().unwrap();
        assert_eq!(
            [0., 0.6, 1.].map(|part| whole.draw(part)),
            ["50", "199", "500"]
        );
        for wrong in ["lr=1", "lr=0..1", "lr=2..1", "lr=1..inf", "lr=a..b"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
