//! What a run writes about itself while it trains.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::*;

fn train<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let small = [
        "train",
        "progressive",
        "--quiet",
        "--epochs",
        "4",
        "--set",
        "data.size=200",
        "--set",
        "hidden=[20]",
        "--out",
        str(out),
    ];
    [&small, more].concat()
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn events(run: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(run)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut found: Vec<_> = files
        .filter(|path| str(path).contains("events.out.tfevents."))
        .collect();
    found.sort();
    found
}

#[test]
fn training_examples_and_slow_readouts_are_evaluated_at_chosen_epochs() {
    let base = tempfile::tempdir().unwrap();
    let [plain, more] = ["plain", "more"].map(|name| base.path().join(name));
    succeeds(&train(&plain, &[]));
    let settings = [
        "--set",
        "evaluate_training=50",
        "--set",
        "evaluate_all_every=2",
    ];
    succeeds(&train(&more, &settings));
    let found: Vec<(u64, String, Vec<String>)> = metrics(&more)
        .iter()
        .filter(|line| line["event"] == "evaluation")
        .map(|line| {
            let readouts = line["result"]["readouts"].as_object().unwrap();
            let split = line["split"].as_str().unwrap().to_string();
            let epoch = line["epoch"].as_u64().unwrap();
            (epoch, split, readouts.keys().cloned().collect())
        })
        .collect();
    let head = || vec!["head".to_string()];
    let both = || vec!["head".to_string(), "search".into()];
    let expected = [
        (1, "train", head()),
        (1, "validation", head()),
        (2, "train", both()),
        (2, "validation", both()),
        (3, "train", head()),
        (3, "validation", head()),
        (4, "train", both()),
        (4, "validation", both()),
        (4, "test", both()),
    ];
    let expected = expected.map(|(epoch, split, names)| (epoch, split.to_string(), names));
    assert_eq!(found, expected);
    let of_training = metrics(&more)[1]["result"]["examples"].clone();
    assert_eq!(of_training, 50);
    // It changes nothing in the network.
    let model = |run: &Path| std::fs::read(run.join("model.safetensors")).unwrap();
    let tensors = |run: &Path| model(run)[model(run).len() - 10_000..].to_vec();
    assert!(tensors(&plain) == tensors(&more));
    let command = succeeds(&["report", str(&more)]);
    assert!(!command.contains("evaluate_"), "{command}");
}

#[test]
fn logs_are_written_beside_the_metrics_and_go_on_with_the_run() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    // One that is given twice is written once.
    let logs = ["--log", "csv", "--log", "tensorboard", "--log", "csv"];
    succeeds(&train(&run, &[&logs[..], &["--until", "2"]].concat()));
    let csv = || std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let lines: Vec<String> = csv().lines().map(String::from).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(
        lines[0],
        "epoch,seconds,loss 1,positive 1,negative 1,rate 1,validation error head"
    );
    succeeds(&["resume", str(&run), "--quiet"]);
    assert!(csv().starts_with(&lines[0]), "{}", csv());
    assert_eq!(csv().lines().count(), 5);
    // The lines of before are the same, beside the columns of the end.
    assert!(csv().lines().nth(1).unwrap().starts_with(&lines[1]));

    let files = events(&run);
    assert_eq!(files.len(), 2, "{files:?}");
    for (file, epochs) in files.iter().zip([1..=2, 3..=4]) {
        let bytes = std::fs::read(file).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("brain.Event:2"));
        let count = text.matches("rate/1").count();
        assert_eq!(count, epochs.count());
        assert!(text.contains("negative/1"));
        assert!(text.contains("validation error/head"));
        // Records: a length, a checksum, the data, a checksum.
        let mut at = 0;
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            at += 8 + 4 + length as usize + 4;
        }
        assert_eq!(at, bytes.len());
    }
    let message = fails(2, &train(&base.path().join("x"), &["--log", "excel"]));
    assert!(message.contains("csv, tensorboard"), "{message}");
}
