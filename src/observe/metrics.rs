//! `metrics.jsonl`: one JSON object per epoch and evaluation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{json, Value};

use crate::error::{Error, Result};
use crate::observe::{Event, Observer};

/// Appends to a file; should writing fail, it says so once and the run goes on.
pub struct Metrics {
    file: Option<File>,
    blocks: Vec<String>,
}

impl Metrics {
    /// Appends to `metrics.jsonl` in a folder.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be opened.
    pub fn append(folder: &Path) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("write", &path))?;
        Ok(Self { file: Some(file), blocks: Vec::new() })
    }

    fn write(&mut self, value: &Value) {
        let Some(file) = &mut self.file else { return };
        // One call for the whole line, so that an interruption leaves no half of one.
        if let Err(error) = file.write_all(format!("{value}\n").as_bytes()) {
            eprintln!("warning: cannot write metrics.jsonl any more: {error}");
            self.file = None;
        }
    }
}

impl Observer for Metrics {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { blocks, .. } => self.blocks = blocks.to_vec(),
            Event::EpochEnded { epoch, seconds, reports, .. } => {
                let blocks: Vec<Value> = reports
                    .iter()
                    .map(|(block, report)| {
                        json!({
                            "block": self.blocks.get(*block),
                            "loss": report.loss,
                            "positive": report.positive,
                            "negative": report.negative,
                        })
                    })
                    .collect();
                self.write(&json!({ "event": "epoch", "epoch": epoch, "seconds": seconds, "blocks": blocks }));
            }
            Event::Evaluated { epoch, split, evaluation } => {
                self.write(&json!({ "event": "evaluation", "epoch": epoch, "split": split, "result": evaluation }));
            }
            _ => {}
        }
    }
}
