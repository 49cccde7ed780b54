//! `onward page`: runs as one page for a browser.

mod html;

use std::path::PathBuf;

use clap::Args;

use super::figures::look::Look;
use super::flags::{DataDir, Device};
use super::output::print;
use crate::disk;
use crate::error::{printable, Error, Result};

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
        let looks = Look::at_all(&self.runs, &self.data_dir, &self.device)?;
        let page = html::page(&looks)?;
        disk::create(&self.out, page.as_bytes())?.ok_or_else(exists)?;
        print(&format!(
            "{} KB written: {}\n",
            page.len().div_ceil(1024),
            printable(&self.out.display().to_string())
        ))
    }
}
