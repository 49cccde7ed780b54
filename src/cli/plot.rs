//! `onward plot`: the charts and pictures of runs, as files.

use std::path::{Path, PathBuf};

use clap::Args;

use super::figures::look::Look;
use super::figures::{self, Figure};
use super::flags::{DataDir, Device};
use super::output::print;
use crate::disk;
use crate::error::{notify, printable, Error, Result};

#[derive(Args)]
pub(super) struct Plot {
    /// Folders of runs; the errors of several are drawn side by side.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write into; files that exist are not overwritten.
    #[arg(long, value_name = "DIR", default_value = "plots")]
    out: PathBuf,
    /// Format of the charts; pictures of examples and weights are always PNG.
    #[arg(long, value_name = "KIND", default_value = "svg", value_parser = ["svg", "png", "both"])]
    format: String,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    device: Device,
}

impl Plot {
    pub(super) fn run(self) -> Result<()> {
        let looks = Look::at_all(&self.runs, &self.data_dir, &self.device)?;
        std::fs::create_dir_all(&self.out).map_err(Error::file("create", &self.out))?;
        let mut written = Vec::new();
        for figure in figures::evaluations(&looks) {
            self.write(&self.out, figure, &mut written)?;
        }
        for look in &looks {
            let folder = match looks.len() {
                1 => self.out.clone(),
                _ => self.out.join(&look.name),
            };
            std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
            for figure in figures::layers(look)
                .into_iter()
                .chain(figures::confusion(look))
            {
                self.write(&folder, figure, &mut written)?;
            }
            if let Some(sheet) = &look.sheet {
                create(&folder.join("views.png"), sheet, &mut written)?;
            }
        }
        if written.is_empty() {
            let problem = "nothing new to draw, so no file was written";
            return Err(Error::run(&self.out, problem));
        }
        let mut text = String::new();
        for path in &written {
            text += &format!("written: {}\n", printable(&path.display().to_string()));
        }
        print(&text)
    }

    /// Writes a chart, unless there is too little to draw.
    fn write(&self, folder: &Path, figure: Figure, written: &mut Vec<PathBuf>) -> Result<()> {
        let is_wanted = |format: &str| self.format == format || self.format == "both";
        let svg = is_wanted("svg").then(|| figure.chart.svg().map(String::into_bytes));
        let png = is_wanted("png").then(|| figure.chart.png());
        for (ending, bytes) in [("svg", svg), ("png", png)] {
            if let Some(bytes) = bytes.flatten() {
                create(
                    &folder.join(format!("{}.{ending}", figure.name)),
                    &bytes,
                    written,
                )?;
            }
        }
        Ok(())
    }
}

/// Writes a new file.
fn create(path: &Path, bytes: &[u8], written: &mut Vec<PathBuf>) -> Result<()> {
    match disk::create(path, bytes)? {
        Some(()) => written.push(path.into()),
        None => notify(format_args!(
            "{} exists and is kept; choose another folder with --out",
            printable(&path.display().to_string())
        )),
    }
    Ok(())
}
