//! Trains many runs, one or several at a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use toml::Table;

use super::cell::Cell;
use super::entry::Entry;
use super::{is_text, Many};
use crate::cli::stop::Stop;
use crate::data::DataSet;
use crate::error::{notify, printable, Error, Result};
use crate::plugin::config::Config;
use crate::run::folder::{is_run, Folder};
use crate::settings::PluginKind;

/// Trains the runs of one table.
pub(super) struct Workers<'a> {
    many: &'a Many,
    out: &'a Path,
    /// Another command at this folder would replace the tables of this one.
    _lock: Folder,
    stop: Stop,
    /// One run at a time measures what an epoch costs.
    measuring: Mutex<()>,
}

/// How much longer than the writing of a table the time until the next one is.
const BREAK: u32 = 10;

/// What is wanted of every run.
pub(super) struct Task<'a> {
    /// The number of complete epochs after which it stops; `None` for the whole run.
    pub until: Option<u32>,
    /// Whether the result on the test part is said.
    pub with_test: bool,
    /// The errors of a probe on each layer, for a run that is finished.
    pub probe: &'a (dyn Fn(&Cell) -> Vec<f64> + Sync),
    /// Called now and then, and at the end, with the rows so far, in the order of the runs.
    pub so_far: &'a (dyn Fn(&[Entry]) -> Result<()> + Sync),
}

impl<'a> Workers<'a> {
    /// Makes the folder of the table.
    ///
    /// # Errors
    /// For settings that cannot be, before anything is trained; [`Error::File`].
    pub fn new(many: &'a Many, out: &'a Path, cells: &[Cell]) -> Result<Self> {
        refuse_run(out)?;
        let stop = Stop::on_signals();
        stop.training_begins();
        let mut of_data = OfData::default();
        for cell in cells {
            of_data.compare(cell, &cell.config()?);
            // Before the tables that are there are replaced.
            if let Some(cell) = many.budget.known_for(cell)? {
                cell.found()?;
            }
        }
        let made = std::fs::create_dir_all(out);
        made.map_err(Error::file("create", out))?;
        Ok(Self {
            many,
            out,
            _lock: Folder::lock(out)?,
            stop,
            measuring: Mutex::default(),
        })
    }

    /// Trains all runs that are not finished. Returns a row for each.
    ///
    /// # Errors
    /// If it was stopped; errors of `so_far`.
    pub fn train(&self, cells: &[&Cell], task: &Task<'_>) -> Result<Vec<Entry>> {
        let next = AtomicUsize::new(0);
        let none: Vec<Option<Entry>> = cells.iter().map(|_| None).collect();
        let done = Mutex::new((none, Instant::now()));
        let so_far = |rows: &[Option<Entry>]| {
            let rows: Vec<Entry> = rows.iter().flatten().cloned().collect();
            (task.so_far)(&rows)
        };
        let work = || -> Result<()> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(cell) = cells.get(index) else {
                    return Ok(());
                };
                self.refuse_if_stopped()?;
                let place = format!("[{}/{}]", index + 1, cells.len());
                notify(format_args!("{place} {}", cell.in_words()));
                let entry = self.entry(cell, task)?;
                let result = entry.in_words(task.with_test);
                match self.many.jobs {
                    1 => notify(format_args!("  {result}")),
                    _ => notify(format_args!("{place} {result}")),
                }
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                let (rows, next_table) = &mut *done;
                rows[index] = Some(entry);
                // Thousands of rows are written less often than short runs end.
                let now = Instant::now();
                if now >= *next_table {
                    so_far(rows)?;
                    *next_table = Instant::now() + BREAK * now.elapsed();
                }
            }
        };
        let ended = std::thread::scope(|scope| {
            let jobs = usize::from(self.many.jobs).min(cells.len().max(1));
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ends = threads.into_iter().map(|thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|_| {
                    Err(Error::usage("run", "the thread that waits for it panicked"))
                })
            });
            ends.collect::<Vec<_>>().into_iter().collect::<Result<()>>()
        });
        let (rows, _) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        // One that was stopped at once leaves the tables that are there.
        let written = match rows.iter().all(Option::is_none) {
            true => Ok(()),
            false => so_far(&rows),
        };
        ended.and(written)?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Trains one run. Its own failure is a row.
    fn entry(&self, cell: &Cell, task: &Task<'_>) -> Result<Entry> {
        let stop = self.stop.flag();
        let measured = {
            let _one = self
                .measuring
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.many.budget.applied_to(cell, &stop)
        };
        self.refuse_if_stopped()?;
        let cell = match measured {
            Ok(cell) => cell,
            Err(error) => return Ok(Entry::of(cell, Some(error))),
        };
        let failure = cell.train(task.until, &stop).err();
        self.refuse_if_stopped()?;
        let mut entry = match task.until {
            Some(epochs) => Entry::after(&cell, epochs, failure),
            None => Entry::of(&cell, failure),
        };
        if task.until.is_none() && !entry.has_failed() {
            entry.layers = (task.probe)(&cell);
        }
        if cell.is_certified && cell.has_result() && entry.crossed.is_none() {
            notify(format_args!(
                "  trained before without --certify; to measure it, remove {}",
                printable(&cell.folder.display().to_string())
            ));
        }
        self.refuse_if_stopped()?;
        Ok(entry)
    }

    fn refuse_if_stopped(&self) -> Result<()> {
        match self.stop.flag().load(Ordering::Relaxed) {
            true => Err(Error::run(
                self.out,
                "stopped; run the same command again to continue",
            )),
            false => Ok(()),
        }
    }
}

/// What the first method has of each data set.
#[derive(Default)]
struct OfData<'a>(HashMap<&'a str, (&'a str, Table)>);

impl<'a> OfData<'a> {
    /// Says once of a data set that a method has other examples of it, as one from a file of
    /// settings may have. Methods divide a text as they like.
    fn compare(&mut self, cell: &'a Cell, config: &Config) {
        if is_text(&cell.data) {
            return;
        }
        let mut all = config.to_table();
        let mut own = Table::new();
        for key in ["examples", "validate"] {
            own.extend(all.remove(key).map(|value| (key.into(), value)));
        }
        let of_data = all
            .remove(DataSet::KIND)
            .unwrap_or_else(|| Table::new().into());
        for (key, value) in of_data.as_table().into_iter().flatten() {
            own.insert(format!("{}.{key}", DataSet::KIND), value.clone());
        }
        let Some((first, known)) = self.0.get_mut(&*cell.data) else {
            self.0.insert(&cell.data, (&cell.method, own));
            return;
        };
        let differs = own
            .iter()
            .find(|(key, value)| known.get(*key).is_some_and(|of| of != *value));
        if let Some((key, value)) = differs {
            notify(format_args!(
                "note: on {} the rows have other examples: {} has {key} = {value}, {} has {}",
                printable(&cell.data),
                printable(&cell.method),
                printable(first),
                known[key]
            ));
            // Once is enough.
            known.clear();
        }
    }
}

/// Refuses a file, the folder of a run, and one within it.
fn refuse_run(out: &Path) -> Result<()> {
    if out.is_file() {
        return Err(Error::run(
            out,
            "is a file, expected a folder; choose another --out",
        ));
    }
    let whole = std::path::absolute(out).unwrap_or_else(|_| out.to_path_buf());
    let Some(run) = whole.ancestors().find(|folder| is_run(folder)) else {
        return Ok(());
    };
    let problem = "is the folder of one run, found where the folder of many runs and their \
                   tables was expected; choose another folder with --out";
    Err(Error::usage(printable(&run.display().to_string()), problem))
}
