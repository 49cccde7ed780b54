//! `onward compare`: methods × data sets × seeds.

use std::path::PathBuf;

use clap::Args;

use super::cell::Cell;
use super::entry::Entry;
use super::table;
use super::workers::{Task, Workers};
use super::{say_what_is_left_out, write, Many};
use crate::cli::method::Method;
use crate::cli::output::{columns, print, print_json};
use crate::cli::subject::Subject;
use crate::error::{notify, printable, Error, Result};

#[derive(Args)]
pub(in crate::cli) struct Compare {
    /// Methods: an architecture, `architecture:preset`, or a file of settings; settings
    /// of their own follow after commas, as in progressive:hinton,layer.dropout=0.1.
    #[arg(required = true, value_name = "METHOD")]
    methods: Vec<Method>,
    #[command(flatten)]
    many: Many,
    /// Leave out the baselines: backpropagation with one classifier and with one for each
    /// layer, and random layers with a trained head, for methods with the setting `frozen`.
    #[arg(long)]
    no_baselines: bool,
    /// Also evaluate a probe on each layer: ridge regression from its activity, on the
    /// validation part.
    #[arg(long)]
    layers: bool,
    /// Also measure how many blocks a signal crosses on its way back, as `onward certify`
    /// does, once for each method.
    #[arg(long)]
    certify: bool,
    /// Folder of the runs and of the tables compare.md, compare.csv and compare.json.
    /// With the same folder an interrupted comparison is continued, and runs that are
    /// there are kept.
    #[arg(long, value_name = "DIR", default_value = "runs/compare")]
    out: PathBuf,
}

impl Compare {
    /// The setting for all runs that a baseline does not have.
    fn missing_setting(&self, baseline: &Method) -> Option<String> {
        let data = self.many.data.first().map(String::as_str);
        let subject = Subject::of_method(baseline, &self.many.set, data);
        let config = subject.and_then(|subject| subject.builder()?.config());
        match config {
            Err(Error::UnknownSetting { key, .. }) => Some(key),
            _ => None,
        }
    }

    pub(in crate::cli) fn run(self) -> Result<()> {
        let mut methods = self.methods.clone();
        if !self.no_baselines {
            let baselines = Method::baselines(&self.methods)?.into_iter();
            for baseline in baselines.filter(|baseline| !self.methods.contains(baseline)) {
                let Some(key) = self.missing_setting(&baseline) else {
                    methods.push(baseline);
                    continue;
                };
                let (label, key) = (printable(baseline.label()), printable(&key));
                notify(format_args!(
                    "note: the baseline {label} is left out, since it has no setting `{key}`; to \
                     keep it, give the setting to each method instead: METHOD,{key}=…"
                ));
            }
        }
        let mut cells = self.many.cells(&methods, &self.out)?;
        let mut known: Vec<(String, String)> = Vec::new();
        for cell in cells.iter_mut().filter(|_| self.certify) {
            let of = (cell.method.clone(), cell.data.clone());
            cell.is_certified = !known.contains(&of);
            known.push(of);
        }
        let probe = |cell: &Cell| match self.layers {
            true => cell.layers(),
            false => Vec::new(),
        };
        let workers = Workers::new(&self.many, &self.out, &cells)?;
        say_what_is_left_out(&self.out, "compare", &methods, &self.many.seeds);
        let task = Task {
            until: None,
            with_test: true,
            probe: &probe,
            so_far: &|rows| write(&self.out, "compare", rows),
        };
        let entries = workers.train(&cells.iter().collect::<Vec<_>>(), &task)?;
        if self.many.json {
            print_json(&table::rows(&entries))?;
        } else {
            let written = self.out.join("compare.md");
            print(&format!(
                "{}written: {}\n",
                table::plain(&entries, columns()),
                printable(&written.display().to_string())
            ))?;
        }
        // Baselines that were added have results of their own.
        let is_asked = |entry: &&Entry| {
            let mut asked = self.methods.iter();
            asked.any(|method| method.label() == entry.method)
        };
        match entries.iter().filter(is_asked).all(Entry::has_failed) {
            true => Err(Error::run(
                &self.out,
                "no method that was asked for has a result",
            )),
            false => Ok(()),
        }
    }
}
