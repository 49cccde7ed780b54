//! `metrics.jsonl`: one JSON object per epoch and evaluation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{json, Value};

use crate::error::{Error, Result};
use crate::run::observe::{Event, Observer};

/// Appends to a file; should writing fail, it says so once and the run goes on.
pub struct Metrics {
    file: Option<File>,
    blocks: Vec<String>,
}

impl Metrics {
    /// Appends to `metrics.jsonl` in a folder, for a run that has completed this many epochs: what an interrupted run
    /// had written about later ones, or only half, is dropped, and so are damaged lines.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read or written.
    pub fn after(folder: &Path, epoch: usize) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let old = match std::fs::read(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        // Lines that are damaged are dropped; they are no reason not to go on.
        let old = String::from_utf8_lossy(&old);
        let kept = |line: &&str| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value
                .and_then(|value| value["epoch"].as_u64())
                .is_some_and(|found| found <= epoch as u64)
        };
        let kept: String = old
            .lines()
            .filter(kept)
            .map(|line| format!("{line}\n"))
            .collect();
        if kept != old {
            crate::run::folder::write(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::file("write", &path))?;
        Ok(Self {
            file: Some(file),
            blocks: Vec::new(),
        })
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
            Event::EpochEnded {
                epoch,
                seconds,
                reports,
                ..
            } => {
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
            Event::Evaluated {
                epoch,
                split,
                evaluation,
            } => {
                self.write(&json!({ "event": "evaluation", "epoch": epoch, "split": split, "result": evaluation }));
            }
            _ => {}
        }
    }
}
