//! Runs that are killed, stopped or started twice: no data are lost, and two processes
//! never write the same run.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::*;

const LONG: [&str; 10] = [
    "train",
    "progressive",
    "--quiet",
    "--epochs",
    "30",
    "--set",
    "hidden=[120,120]",
    "--set",
    "data.size=2000",
    "--out",
];

/// The arguments of a run that does not end by itself.
fn endless(run: &str) -> Vec<&str> {
    let mut arguments = [&LONG[..], &[run]].concat();
    arguments[4] = "100000";
    arguments
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the program")
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "no change within 120 seconds"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn model(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model.safetensors")).unwrap()
}

fn epochs(run: &Path) -> Vec<u64> {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a complete line of JSON"));
    lines
        .filter(|line| line["event"] == "epoch")
        .map(|line| line["epoch"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_killed_or_stopped_run_resumes_to_the_same_bytes() {
    let base = tempfile::tempdir().unwrap();
    let whole = base.path().join("whole");
    succeeds(&[&LONG[..], &[whole.to_str().unwrap()]].concat());
    for (name, signals) in [
        ("killed", ["-KILL"; 3]),
        ("stopped", ["-TERM"; 3]),
        ("both", ["-INT", "-KILL", "-TERM"]),
    ] {
        let run = base.path().join(name);
        let path = run.to_str().unwrap();
        for (count, signal) in signals.iter().enumerate() {
            let mut child = match count {
                0 => start(&[&LONG[..], &[path]].concat()),
                _ => start(&["resume", path, "--quiet"]),
            };
            let written = || {
                std::fs::metadata(run.join("state.safetensors"))
                    .and_then(|state| state.modified())
                    .ok()
            };
            let before = written();
            let mut ended = false;
            wait_for(|| {
                ended = child.try_wait().unwrap().is_some();
                ended || written() != before
            });
            std::thread::sleep(Duration::from_millis(7 * count as u64 + 3));
            if !ended {
                let kill = format!("kill {signal} {}", child.id());
                Command::new("sh").args(["-c", &kill]).status().unwrap();
            }
            let status = child.wait().unwrap();
            assert!(
                !status.success() || run.join("summary.json").exists(),
                "{name}: {status}"
            );
        }
        succeeds(&["resume", path, "--quiet"]);
        assert_eq!(model(&run), model(&whole), "{name}");
        assert_eq!(epochs(&run), (1..=30).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_run_without_a_checkpoint_restarts_and_a_finished_run_is_unchanged() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let (first, summary) = (
        model(&run),
        std::fs::read(run.join("summary.json")).unwrap(),
    );
    succeeds(&["resume", run.to_str().unwrap(), "--quiet"]);
    assert_eq!(std::fs::read(run.join("summary.json")).unwrap(), summary);
    // Without its state, the run cannot resume, and its files are not overwritten.
    std::fs::rename(run.join("state.safetensors"), base.path().join("aside")).unwrap();
    let message = fails(1, &["resume", run.to_str().unwrap()]);
    assert!(
        message.contains("no state.safetensors to resume from"),
        "{message}"
    );
    assert_eq!(
        (
            model(&run),
            std::fs::read(run.join("summary.json")).unwrap()
        ),
        (first.clone(), summary.clone())
    );
    for file in ["model.safetensors", "summary.json"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    succeeds(&["resume", run.to_str().unwrap(), "--quiet"]);
    assert_eq!(model(&run), first);
    let said = succeeds(&["resume", run.to_str().unwrap(), "--quiet", "--epochs", "3"]);
    assert!(said.contains("3 epochs, the last 1 in "), "{said}");
    assert_eq!(epochs(&run), [1, 2, 3]);
    // The summary of fewer epochs does not count as the summary of this run.
    std::fs::write(run.join("summary.json"), &summary).unwrap();
    let said = succeeds(&["resume", run.to_str().unwrap(), "--quiet"]);
    let is_said = said.contains("3 epochs, complete before, evaluated in ");
    assert!(is_said, "{said}");
    let written: Value =
        serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(written["epochs"], 3);
    let message = fails(2, &["resume", run.to_str().unwrap(), "--epochs", "x"]);
    assert!(message.contains("--epochs x"), "{message}");
}

/// Every line of an epoch has the reports of its layers, also after interruptions.
#[test]
fn a_run_stopped_at_the_end_of_an_epoch_completes_the_epoch() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    // One step per epoch.
    let small = [
        "--set",
        "hidden=[120,120]",
        "--set",
        "data.size=2000",
        "--set",
        "batch=100000",
    ];
    let out = ["--out", run.to_str().unwrap()];
    let mut child = start(
        &[
            &["train", "progressive", "--quiet", "--epochs", "200"],
            &small[..],
            &out,
        ]
        .concat(),
    );
    for count in 0..3 {
        let written = || {
            std::fs::metadata(run.join("state.safetensors"))
                .and_then(|state| state.modified())
                .ok()
        };
        let before = written();
        wait_for(|| written() != before || child.try_wait().unwrap().is_some());
        Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", child.id())])
            .status()
            .unwrap();
        child.wait().unwrap();
        if count < 2 {
            child = start(&["resume", run.to_str().unwrap(), "--quiet"]);
        }
    }
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a complete line of JSON"));
    let ended: Vec<Value> = lines.filter(|line| line["event"] == "epoch").collect();
    assert!(ended.len() >= 3, "{metrics}");
    assert!(
        ended.iter().all(|line| line["blocks"]
            .as_array()
            .is_some_and(|blocks| blocks.len() == 2)),
        "{metrics}"
    );
}

#[test]
fn two_processes_cannot_write_one_run() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let mut child = start(&endless(run.to_str().unwrap()));
    wait_for(|| run.join("metrics.jsonl").exists());
    let message = fails(1, &["resume", run.to_str().unwrap()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(message.contains("another process"), "{message}");
}

/// Sends a signal and waits for the end; `None` if that takes longer than two seconds.
fn end_by(child: &mut Child, signal: &str) -> Option<std::process::ExitStatus> {
    let kill = format!("kill {signal} {}", child.id());
    Command::new("sh").args(["-c", &kill]).status().unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

#[test]
fn a_signal_ends_the_reading_of_data_at_once() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    // A million digits take a minute to draw.
    let large = ["--set", "data.size=1000000", "--out", run.to_str().unwrap()];
    let mut child = start(&[&["train", "progressive", "--quiet"], &large[..]].concat());
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none());
    let status = end_by(&mut child, "-TERM").expect("it ends within two seconds");
    assert_eq!(status.code(), Some(128 + 15));
    assert!(!run.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn a_hang_up_that_is_ignored_does_not_end_a_run() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let path = run.to_str().unwrap();
    let arguments = endless(path);
    // As `nohup` does.
    let command = format!(
        "trap '' HUP; exec {} {}",
        env!("CARGO_BIN_EXE_onward"),
        arguments
            .iter()
            .map(|argument| format!("'{argument}'"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let mut child = Command::new("sh")
        .args(["-c", &command])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| run.join("state.safetensors").exists());
    assert!(end_by(&mut child, "-HUP").is_none(), "it ended");
}

#[test]
fn an_evaluation_says_that_a_run_is_not_finished() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &["--until", "1"]));
    let said = |arguments: &[&str]| text(&onward(arguments).stderr);
    let found = said(&["evaluate", str(&run)]);
    let resume = format!("continue with: onward resume {}", str(&run));
    let expected = format!("not finished: 1 of 2 epochs are complete; {resume}");
    assert!(found.contains(&expected), "{found}");
    // What a stop within the first epoch leaves.
    for name in ["state.safetensors", "model.safetensors"] {
        std::fs::remove_file(run.join(name)).unwrap();
    }
    let message = fails(1, &["evaluate", str(&run)]);
    assert!(
        message.contains("not finished: it has no checkpoint"),
        "{message}"
    );
    assert!(message.contains(&resume), "{message}");
    succeeds(&["resume", str(&run), "--quiet"]);
    let found = said(&["evaluate", str(&run)]);
    assert!(!found.contains("not finished"), "{found}");
}
