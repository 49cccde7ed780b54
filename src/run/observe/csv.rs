//! `metrics.csv`: a line for each epoch, for spreadsheets.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::metrics;
use crate::disk;
use crate::error::{notify, Result};
use crate::run::folder::CSV;
use crate::run::observe::{Event, Observer};

/// Writes what `metrics.jsonl` has as a table. New columns change all lines, so the whole
/// file is written again. It stays open, so that a folder that was moved is still the one
/// that is written to.
pub(super) struct Csv {
    file: File,
    lines: Vec<Value>,
    blocks: Vec<String>,
    written: Option<Instant>,
    has_warned: bool,
}

/// The least time between two writings.
const PAUSE: Duration = Duration::from_secs(2);

impl Csv {
    /// Begins with the lines that `metrics.jsonl` has.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be read or written.
    pub fn after(folder: &Path, blocks: &[String]) -> Result<Self> {
        let path = folder.join(CSV);
        Ok(Self {
            file: disk::open_to_write(&path, OpenOptions::new().write(true))?,
            lines: metrics::lines(folder)?,
            blocks: blocks.to_vec(),
            written: None,
            has_warned: false,
        })
    }

    fn write(&mut self) {
        self.written = Some(Instant::now());
        let text = table(&self.lines);
        let mut replace = || -> io::Result<()> {
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())?;
            self.file.set_len(text.len() as u64)
        };
        if let Err(error) = replace() {
            if !std::mem::replace(&mut self.has_warned, true) {
                notify(format_args!("warning: cannot write {CSV}: {error}"));
            }
        }
    }
}

impl Observer for Csv {
    fn on(&mut self, event: &Event<'_>) {
        let Some(line) = metrics::line(event, &self.blocks) else {
            return;
        };
        self.lines.push(line);
        if self.written.is_none_or(|written| written.elapsed() > PAUSE) {
            self.write();
        }
    }
}

impl Drop for Csv {
    fn drop(&mut self) {
        self.write();
    }
}

/// The lines of `metrics.jsonl` as a table: the epochs and, in the order in which they
/// appear first, the columns of blocks and readouts. What is not known is empty.
fn table(lines: &[Value]) -> String {
    let mut columns: Vec<String> = Vec::new();
    let mut epochs: BTreeMap<u64, BTreeMap<usize, f64>> = BTreeMap::new();
    for line in lines {
        let Some(epoch) = line["epoch"].as_u64() else {
            continue;
        };
        let row = epochs.entry(epoch).or_default();
        for (what, of, value) in metrics::numbers(line) {
            let name = format!("{what} {of}").trim_end().to_string();
            let known = columns.iter().position(|column| *column == name);
            let column = known.unwrap_or_else(|| {
                columns.push(name);
                columns.len() - 1
            });
            row.insert(column, value);
        }
    }
    let quoted = |name: &String| match name.contains([',', '"', '\n', '\r']) {
        true => format!(",\"{}\"", name.replace('"', "\"\"")),
        false => format!(",{name}"),
    };
    let mut text = format!("epoch{}\n", columns.iter().map(quoted).collect::<String>());
    for (epoch, row) in epochs {
        let cell = |column: usize| {
            row.get(&column)
                .map_or(",".into(), |value| format!(",{value}"))
        };
        text += &format!(
            "{epoch}{}\n",
            (0..columns.len()).map(cell).collect::<String>()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_epoch_is_a_line_with_its_evaluations() {
        let blocks = json!([{"block": "1", "loss": 0.5, "positive": null, "rate": 0.1}]);
        let result = json!({"readouts": {"a,b": {"error": 0.25}}});
        let lines = [
            json!({"event": "epoch", "epoch": 1, "seconds": 2.0, "blocks": blocks}),
            json!({"event": "evaluation", "epoch": 1, "split": "validation", "result": result}),
            json!({"event": "epoch", "epoch": 2, "seconds": null, "blocks": []}),
        ];
        let expected =
            "epoch,seconds,loss 1,rate 1,\"validation error a,b\"\n1,2,0.5,0.1,0.25\n2,,,,\n";
        assert_eq!(table(&lines), expected);
    }
}
