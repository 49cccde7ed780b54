//! Flags that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{printable, Error, Result};
use crate::run::{Run, RunBuilder};

/// The device.
#[derive(Args)]
pub(super) struct Device {
    /// Device: auto (a GPU if there is one), cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub device: String,
}

/// The folder of data files.
#[derive(Args)]
pub(super) struct DataDir {
    /// Folder to search first for data files, as <DIR>/<data>/; before $ONWARD_DATA and
    /// the cache.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The builder with this folder of data, which is searched first.
    ///
    /// # Errors
    /// [`Error::Usage`] if the folder does not exist. The run would silently take the data
    /// of another place.
    pub fn add_to(&self, builder: RunBuilder) -> Result<RunBuilder> {
        match &self.data_dir {
            Some(folder) if !folder.is_dir() => {
                let found = printable(&folder.display().to_string());
                let problem = format!("expected a folder, found none at {found}");
                Err(Error::usage("--data-dir", problem))
            }
            Some(folder) => Ok(builder.data_dir(folder)),
            None => Ok(builder),
        }
    }
}

/// A readout by name.
#[derive(Args)]
pub(super) struct ReadoutName {
    /// Readout: search, head, …; by default the best one on the validation part.
    #[arg(long, value_name = "NAME")]
    pub readout: Option<String>,
}

/// Opens a run without its data, to predict.
pub(super) fn open_to_predict(folder: &Path, device: &Device) -> Result<Run> {
    Run::open(folder)?
        .without_data()
        .device(&device.device)
        .build()
}
