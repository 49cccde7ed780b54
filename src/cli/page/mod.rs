//! `onward page`: runs as one page for a browser.

mod charts;
mod html;
mod look;

use std::path::PathBuf;

use clap::Args;

use self::look::Look;
use super::flags::{DataDir, Device};
use super::output::print;
use crate::disk;
use crate::error::{notify, Error, Result};

#[derive(Args)]
pub(super) struct Page {
    /// Folders of runs; several are shown side by side.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// HTML file to write; it must not exist.
    #[arg(long, value_name = "FILE", default_value = "page.html")]
    out: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    device: Device,
}

impl Page {
    pub(super) fn run(self) -> Result<()> {
        let exists = || {
            let problem = "exists; a page is never overwritten, choose another file with --out";
            Error::run(&self.out, problem)
        };
        if self.out.exists() {
            return Err(exists());
        }
        let look = |run: &PathBuf| {
            let look = Look::at(run, &self.data_dir, &self.device);
            for gap in &look.gaps {
                notify(format_args!("{}: {gap}", run.display()));
            }
            look
        };
        let looks: Vec<Look> = self.runs.iter().map(look).collect();
        if looks.iter().all(Look::is_empty) {
            let problem = "none of these folders has a run; start one with `onward train`";
            return Err(Error::usage("page", problem));
        }
        let page = html::page(&looks)?;
        disk::create(&self.out, page.as_bytes())?.ok_or_else(exists)?;
        print(&format!(
            "{} KB written: {}\n",
            page.len().div_ceil(1024),
            self.out.display()
        ))
    }
}
