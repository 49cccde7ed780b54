//! `metrics.jsonl`: one JSON object per epoch and evaluation.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{json, Value};

use crate::contract::block::StepReport;
use crate::disk;
use crate::error::{notify, Result};
use crate::flow::examples::Split;
use crate::run::folder::METRICS;
use crate::run::observe::{Event, Observer};

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 30;

/// The whole lines of `metrics.jsonl` in a folder; none if there is no such file.
///
/// # Errors
/// [`Error::File`](crate::Error::File) if it cannot be read.
pub(crate) fn lines(folder: &Path) -> Result<Vec<Value>> {
    let line = |line: &str| serde_json::from_str(line).ok();
    Ok(text(folder)?.lines().filter_map(line).collect())
}

fn text(folder: &Path) -> Result<String> {
    let path = folder.join(METRICS);
    let bytes = match std::fs::symlink_metadata(&path) {
        Ok(about) if about.is_file() => disk::read(&path, LONGEST)?,
        _ => Vec::new(),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbers of a line: what each is, the block or readout that it is of, and its
/// value.
pub(super) fn numbers(line: &Value) -> Vec<(String, String, f64)> {
    let mut numbers = Vec::new();
    let mut put = |what: &str, of: &str, value: &Value| {
        let value = value.as_f64();
        numbers.extend(value.map(|value| (what.to_string(), of.to_string(), value)));
    };
    put("seconds", "", &line["seconds"]);
    for block in line["blocks"].as_array().into_iter().flatten() {
        let name = block["block"].as_str().unwrap_or("?");
        for key in ["loss", "positive", "negative", "rate"] {
            put(key, name, &block[key]);
        }
    }
    let split = line["split"].as_str().unwrap_or_default();
    let readouts = line["result"]["readouts"].as_object();
    for (readout, score) in readouts.into_iter().flatten() {
        for key in ["error", "bits_per_char"] {
            put(&format!("{split} {key}"), readout, &score[key]);
        }
    }
    numbers
}

/// The last evaluation on the validation part that is not after `epoch`.
#[cfg(feature = "cli")]
pub(crate) fn last_validation(folder: &Path, epoch: u64) -> Option<Value> {
    let is_wanted = |line: &Value| {
        let is_of_part = line["event"] == "evaluation" && line["split"] == "validation";
        is_of_part && line["epoch"].as_u64().is_some_and(|of| of <= epoch)
    };
    lines(folder).ok()?.into_iter().rev().find(is_wanted)
}

/// Appends metrics to a file. Lines that cannot be written are written later, before the
/// next one; if that never succeeds, a warning says so and the run continues.
pub struct Metrics {
    file: File,
    /// The bytes of whole lines in the file.
    length: u64,
    /// Lines that are not in the file yet.
    waiting: String,
    has_warned: bool,
    blocks: Vec<String>,
    /// The epochs that have a line, and those with an evaluation.
    epochs: BTreeSet<u64>,
    evaluations: BTreeSet<u64>,
}

impl Metrics {
    /// Opens `metrics.jsonl` in a folder, for a run that has completed `epoch` of
    /// `epochs` epochs.
    ///
    /// Lines that an interrupted run left and that are written again are removed: those
    /// about later epochs, and the evaluations after the last epoch or of the test
    /// part. So are damaged lines.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if it cannot be read or written.
    pub fn after(
        folder: &Path,
        (epoch, epochs): (usize, usize),
        blocks: &[String],
    ) -> Result<Self> {
        let path = folder.join(METRICS);
        // Damaged lines are dropped; they do not prevent the run from resuming.
        let old = text(folder)?;
        let (mut kept, mut of_epochs, mut evaluations) =
            (String::new(), BTreeSet::new(), BTreeSet::new());
        let mut others = BTreeSet::new();
        let values = || {
            old.lines()
                .map(|line| serde_json::from_str(line).unwrap_or_default())
        };
        let of_last = |value: Value| {
            let is_last = [Split::Validation, Split::Test].map(Split::word);
            let is_last = is_last.iter().any(|word| value["split"] == *word);
            is_last.then(|| value["epoch"].as_u64()).flatten()
        };
        // Examples of the training part come before these. An evaluation without them was
        // cut off, and is repeated.
        let complete: BTreeSet<u64> = values().filter_map(of_last).collect();
        for (line, value) in old.lines().zip(values()) {
            let (event, Some(of)) = (value["event"].as_str(), value["epoch"].as_u64()) else {
                continue;
            };
            let is_new = match event {
                _ if of > epoch as u64 => false,
                Some("epoch") => of_epochs.insert(of),
                // The test part is evaluated once, at the end.
                Some("evaluation") if value["split"] == Split::Test.word() => false,
                Some("evaluation") if of >= epochs as u64 => false,
                Some("evaluation") if !complete.contains(&of) => false,
                Some("evaluation") if value["split"] == Split::Validation.word() => {
                    evaluations.insert(of)
                }
                Some("evaluation") => others.insert((of, value["split"].to_string())),
                _ => false,
            };
            if is_new {
                kept += &format!("{line}\n");
            }
        }
        if kept != old {
            disk::replace(&path, kept.as_bytes())?;
        }
        Ok(Self {
            file: disk::open_to_write(&path, OpenOptions::new().append(true))?,
            length: kept.len() as u64,
            waiting: String::new(),
            has_warned: false,
            blocks: blocks.to_vec(),
            epochs: of_epochs,
            evaluations,
        })
    }

    /// Whether there is a line of this epoch.
    pub fn has_epoch(&self, epoch: usize) -> bool {
        self.epochs.contains(&(epoch as u64))
    }

    /// Whether there is an evaluation of the validation part after this epoch.
    pub fn has_evaluation(&self, epoch: usize) -> bool {
        self.evaluations.contains(&(epoch as u64))
    }

    fn write(&mut self, value: &Value) {
        self.waiting += &format!("{value}\n");
        self.write_waiting();
    }

    fn write_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        // One call for all of it, so that an interruption leaves no incomplete line.
        match self.file.write_all(self.waiting.as_bytes()) {
            Ok(()) => {
                self.length += self.waiting.len() as u64;
                self.waiting.clear();
            }
            Err(error) => {
                // Without the half line that may have been written.
                let _ = self.file.set_len(self.length);
                if !self.has_warned {
                    notify(format_args!(
                        "warning: cannot write metrics.jsonl, trying again later: {error}"
                    ));
                }
                self.has_warned = true;
            }
        }
    }

    fn synchronise(&mut self) {
        self.write_waiting();
        // What is not on the disk after a power failure is written again by a resumed
        // run.
        let _ = self.file.sync_data();
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            let lines = self.waiting.lines().count();
            notify(format_args!(
                "warning: metrics.jsonl lacks {lines} lines that could not be written"
            ));
        }
    }
}

/// The line about an event, if there is one. `blocks` are the names of the blocks.
pub(super) fn line(event: &Event<'_>, blocks: &[String]) -> Option<Value> {
    match event {
        Event::EpochEnded {
            epoch,
            seconds,
            reports,
            rates,
            ..
        } => {
            let rate = |block: &usize| {
                let found = rates.iter().find(|(of, _)| of == block);
                found.map(|(_, rate)| rate)
            };
            let block = |(block, report): &(usize, StepReport<f64>)| {
                json!({
                    "block": blocks.get(*block),
                    "loss": report.loss,
                    "positive": report.positive,
                    "negative": report.negative,
                    "rate": rate(block),
                })
            };
            Some(json!({
                "event": "epoch",
                "epoch": epoch,
                "seconds": seconds,
                "blocks": reports.iter().map(block).collect::<Vec<_>>(),
            }))
        }
        Event::Evaluated {
            epoch,
            split,
            evaluation,
        } => Some(json!({
            "event": "evaluation",
            "epoch": epoch,
            "split": split,
            "result": evaluation,
        })),
        _ => None,
    }
}

impl Observer for Metrics {
    fn on(&mut self, event: &Event<'_>) {
        if let Some(line) = line(event, &self.blocks) {
            self.write(&line);
        }
        if let Event::Saved { .. } | Event::Finished { .. } = event {
            self.synchronise();
        }
    }
}
