//! `metrics.jsonl`: one JSON object per epoch and evaluation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{json, Value};

use crate::data::files::write_atomically;
use crate::error::{notify, Error, Result};
use crate::run::folder::METRICS;
use crate::run::observe::{Event, Observer};

/// Appends metrics to a file. If writing fails, one warning is printed and the run
/// continues.
pub struct Metrics {
    file: Option<File>,
    blocks: Vec<String>,
}

impl Metrics {
    /// Opens `metrics.jsonl` in a folder, for a run that has completed `epoch` epochs.
    /// Lines about later epochs, left by an interrupted run, are removed, and so are
    /// damaged lines.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read or written.
    pub fn after(folder: &Path, epoch: usize) -> Result<Self> {
        let path = folder.join(METRICS);
        let old = match std::fs::read(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        // Damaged lines are dropped; they do not prevent the run from resuming.
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
            write_atomically(&path, kept.as_bytes())?;
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
        // One call for the whole line, so that an interruption leaves no incomplete line.
        if let Err(error) = file.write_all(format!("{value}\n").as_bytes()) {
            notify(format_args!(
                "warning: cannot write metrics.jsonl, metrics are lost: {error}"
            ));
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
                self.write(&json!({
                    "event": "epoch",
                    "epoch": epoch,
                    "seconds": seconds,
                    "blocks": blocks,
                }));
            }
            Event::Evaluated {
                epoch,
                split,
                evaluation,
            } => {
                self.write(&json!({
                    "event": "evaluation",
                    "epoch": epoch,
                    "split": split,
                    "result": evaluation,
                }));
            }
            _ => {}
        }
    }
}
