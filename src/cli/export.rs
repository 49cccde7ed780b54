//! `onward export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::flags::{open_to_predict, Device, ReadoutName};
use super::output::print;
use crate::disk;
use crate::error::{printable, Error, Result};
use crate::run::onnx;

#[derive(Args)]
pub(super) struct Export {
    /// Folder of a run.
    run: PathBuf,
    /// Format of the file.
    #[arg(long, value_enum, default_value = "onnx")]
    format: Format,
    /// File to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    readout: ReadoutName,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// ONNX, operator set 17: input `examples`, output `scores`.
    Onnx,
}

impl Export {
    pub(super) fn run(self) -> Result<()> {
        let exists = || {
            let problem = "exists; a file is never overwritten, choose another one";
            Error::run(&self.out, problem)
        };
        if self.out.exists() {
            return Err(exists());
        }
        let device = Device {
            device: "cpu".into(),
        };
        let run = open_to_predict(&self.run, &device)?;
        let readout = self.readout.readout.clone();
        let readout = readout.unwrap_or_else(|| run.preferred_readout());
        let graph = run.graph(&readout)?;
        let bytes = match self.format {
            Format::Onnx => onnx::model(&graph)?,
        };
        disk::create(&self.out, &bytes)?.ok_or_else(exists)?;
        let shape = run.data().spec.shape.iter();
        let shape: Vec<String> = shape.map(ToString::to_string).collect();
        print(&format!(
            "written: {}, ONNX: input examples (N, {}), output scores (N, {}) of {readout}, {} \
             bytes\n",
            printable(&self.out.display().to_string()),
            shape.join(", "),
            run.data().spec.classes.len(),
            bytes.len()
        ))
    }
}
