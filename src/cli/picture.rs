//! `onward picture`.

use std::io::Cursor;
use std::path::PathBuf;

use clap::Args;
use image::ImageFormat;

use super::flags::DataDir;
use super::output::print;
use crate::disk;
use crate::error::{printable, Error, Result};
use crate::run::{picture, Run};

#[derive(Args)]
pub(super) struct Picture {
    /// Folder of a run.
    run: PathBuf,
    /// File to write, in the format of its ending (PNG without one); it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Number of images in a row.
    #[arg(
        long,
        default_value_t = 12,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=100)
    )]
    count: u16,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Picture {
    pub(super) fn run(self) -> Result<()> {
        let exists = || {
            let problem = "exists; a picture is never overwritten, choose another file";
            Error::run(&self.out, problem)
        };
        if self.out.exists() {
            return Err(exists());
        }
        let format = self.format()?;
        let run = self.data_dir.add_to(Run::open(&self.run)?)?.build()?;
        let sheet = picture::sheet(&run, self.count.into())?;
        let mut bytes = Cursor::new(Vec::new());
        let written = sheet.write_to(&mut bytes, format);
        written.map_err(|error| Error::run(&self.out, format!("cannot be drawn: {error}")))?;
        disk::create(&self.out, &bytes.into_inner())?.ok_or_else(exists)?;
        let written = printable(&self.out.display().to_string());
        print(&format!("written: {written}\n"))
    }

    fn format(&self) -> Result<ImageFormat> {
        let Some(ending) = self.out.extension() else {
            return Ok(ImageFormat::Png);
        };
        let format = ImageFormat::from_extension(ending);
        format.filter(ImageFormat::writing_enabled).ok_or_else(|| {
            let name = self.out.display();
            let problem =
                format!("{name}: expected a name that ends in .png, .jpg, .webp or .tiff");
            Error::usage("--out", problem)
        })
    }
}
