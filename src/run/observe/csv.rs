//! `metrics.csv`: a line for each epoch, for spreadsheets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::metrics;
use crate::disk;
use crate::error::{notify, Result};
use crate::run::observe::{Event, Observer};

/// Writes `metrics.csv` from `metrics.jsonl`, which is written first.
pub(super) struct Csv {
    folder: PathBuf,
    written: Instant,
    has_warned: bool,
}

/// The least time between two writings, of all epochs each.
const PAUSE: Duration = Duration::from_secs(2);

impl Csv {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            written: Instant::now(),
            has_warned: false,
        }
    }

    fn write(&mut self) {
        self.written = Instant::now();
        let written = metrics::lines(&self.folder).and_then(|lines| {
            disk::replace(&self.folder.join("metrics.csv"), table(&lines).as_bytes())
        });
        self.say(written);
    }

    fn say(&mut self, written: Result<()>) {
        if let Err(error) = written {
            if !std::mem::replace(&mut self.has_warned, true) {
                notify(format_args!("warning: cannot write metrics.csv: {error}"));
            }
        }
    }
}

impl Observer for Csv {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Evaluated { .. } | Event::EpochEnded { .. }
                if self.written.elapsed() > PAUSE =>
            {
                self.write()
            }
            Event::Finished { .. } => self.write(),
            _ => {}
        }
    }
}

impl Drop for Csv {
    fn drop(&mut self) {
        // Of a run that was stopped.
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
        let mut put = |name: String, value: &Value| {
            let Some(value) = value.as_f64() else { return };
            let known = columns.iter().position(|column| *column == name);
            let column = known.unwrap_or_else(|| {
                columns.push(name);
                columns.len() - 1
            });
            row.insert(column, value);
        };
        put("seconds".into(), &line["seconds"]);
        for block in line["blocks"].as_array().into_iter().flatten() {
            let name = block["block"].as_str().unwrap_or("?");
            for key in ["loss", "positive", "negative", "rate"] {
                put(format!("{key} {name}"), &block[key]);
            }
        }
        let split = line["split"].as_str().unwrap_or_default();
        let readouts = line["result"]["readouts"].as_object();
        for (readout, score) in readouts.into_iter().flatten() {
            for (key, word) in [("error", "error"), ("bits_per_char", "bits_per_char")] {
                put(format!("{split} {word} {readout}"), &score[key]);
            }
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
