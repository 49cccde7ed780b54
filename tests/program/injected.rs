//! Faults in every call that changes the folder of a run: kills before, after and within
//! the call, and errors of the system. Whatever happened, the run is resumed and ends
//! with the files of an undisturbed one.
//!
//! By default a part of the calls is tried; with `ONWARD_FAULTS=all` every call of a
//! longer run, and a table is printed: `ONWARD_FAULTS=all cargo test --test program
//! injected -- --nocapture`.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::shim::{shim, ERRORS, KILLS};

struct Fault<'a> {
    shim: &'a Path,
    /// The call, counted from 1.
    at: usize,
    kind: &'a str,
    sticky: bool,
}

fn onward(arguments: &[&str], folder: &Path, fault: Option<&Fault<'_>>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    command.args(arguments);
    if let Some(fault) = fault {
        command
            .env("LD_PRELOAD", fault.shim)
            .env("FAULT_DIR", folder)
            .env("FAULT_AT", fault.at.to_string())
            .env("FAULT_KIND", fault.kind);
        if fault.sticky {
            command.env("FAULT_STICKY", "1");
        }
    }
    command.output().expect("the program starts")
}

/// The calls of a command on a folder.
fn calls(arguments: &[&str], folder: &Path, shim: &Path, log: &Path) -> usize {
    let output = Command::new(env!("CARGO_BIN_EXE_onward"))
        .args(arguments)
        .env("LD_PRELOAD", shim)
        .env("FAULT_DIR", folder)
        .env("FAULT_LOG", log)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(log).unwrap().lines().count()
}

const TRAIN: [&str; 9] = [
    "train",
    "progressive",
    "--quiet",
    "--set",
    "hidden=[10,10]",
    "--set",
    "data.size=300",
    "--set",
    "checkpoint_every=2",
];

fn train<'a>(folder: &'a Path, epochs: &'a str) -> Vec<&'a str> {
    let out = ["--epochs", epochs, "--out", folder.to_str().unwrap()];
    [&TRAIN[..], &out[..]].concat()
}

/// The files of a run, without what times and memory put into them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (name, path) = {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.path())
        };
        let bytes = std::fs::read(&path).unwrap();
        let text = || String::from_utf8(bytes.clone()).unwrap();
        let bytes = match name.as_str() {
            "summary.json" => without_times(&text()).into_bytes(),
            "metrics.jsonl" => text()
                .lines()
                .map(|line| without_times(line) + "\n")
                .collect::<String>()
                .into_bytes(),
            _ => bytes,
        };
        files.insert(name, bytes);
    }
    files
}

fn without_times(json: &str) -> String {
    let mut value: Value = serde_json::from_str(json).expect("whole JSON");
    for key in [
        "seconds",
        "seconds_per_epoch",
        "multiply_adds_per_example",
        "peak_memory_mb",
        "checksum",
    ] {
        value.as_object_mut().unwrap().remove(key);
    }
    value.to_string()
}

fn assert_same(found: &Path, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    let found = files(found);
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in expected {
        let shown = |bytes: &[u8]| match name.ends_with("safetensors") {
            true => format!("{} bytes", bytes.len()),
            false => String::from_utf8_lossy(bytes).into_owned(),
        };
        assert!(
            found[name] == *bytes,
            "{what}: {name} is\n{}\ninstead of\n{}",
            shown(&found[name]),
            shown(bytes)
        );
    }
}

#[test]
fn a_fault_at_any_call_costs_nothing() {
    let base = tempfile::tempdir().unwrap();
    let Some(shim) = shim(base.path()) else {
        return;
    };
    let all = std::env::var("ONWARD_FAULTS").is_ok_and(|value| value == "all");
    let (epochs, every) = if all { ("3", 1) } else { ("2", 11) };
    let whole = base.path().join("whole");
    let count = calls(
        &train(&whole, epochs),
        &whole,
        &shim,
        &base.path().join("log"),
    );
    assert!(count > 30, "{count} calls");
    let expected = files(&whole);

    let kinds = KILLS.map(|kind| (kind, kind)).into_iter().chain(ERRORS);
    let mut kinds: Vec<(&str, &str, bool)> =
        kinds.map(|(name, kind)| (name, kind, false)).collect();
    kinds.push(("ENOSPC for ever", "28", true));
    for (place, (name, kind, sticky)) in kinds.into_iter().enumerate() {
        let (mut tried, mut ended) = (0, 0);
        // Another part of the calls for each kind.
        for at in (1 + place % every..=count).step_by(every) {
            let what = format!("{name} at call {at}");
            let run = base.path().join(format!("run-{place}-{at}"));
            let fault = Fault {
                shim: &shim,
                at,
                kind,
                sticky,
            };
            let output = onward(&train(&run, epochs), &run, Some(&fault));
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(!message.contains("panicked"), "{what}: {message}");
            tried += 1;
            ended += usize::from(!output.status.success());
            // Nothing was begun, or there is a run to go on with.
            match run.join("config.toml").exists() {
                true => {
                    let path = run.to_str().unwrap();
                    let output = onward(&["resume", path, "--quiet"], &run, None);
                    assert!(output.status.success(), "{what}: {output:?}");
                }
                false => {
                    let output = onward(&train(&run, epochs), &run, None);
                    assert!(output.status.success(), "{what}: {output:?}");
                }
            }
            assert_same(&run, &expected, &what);
            std::fs::remove_dir_all(&run).unwrap();
        }
        println!(
            "{name:16} {tried:4} tried, {ended:4} ended the run, all resumed to the same files"
        );
    }
}

#[test]
fn a_longer_run_that_is_killed_while_it_is_resumed_goes_on() {
    let base = tempfile::tempdir().unwrap();
    let Some(shim) = shim(base.path()) else {
        return;
    };
    let (whole, short) = (base.path().join("whole"), base.path().join("short"));
    for folder in [&whole, &short] {
        assert!(onward(&train(folder, "1"), folder, None).status.success());
    }
    let resume = |folder: &Path, fault: Option<&Fault<'_>>| {
        let path = folder.to_str().unwrap();
        onward(&["resume", path, "--epochs", "2", "--quiet"], folder, fault)
    };
    assert!(resume(&whole, None).status.success());
    let expected = files(&whole);
    for at in (1..24).step_by(4) {
        let run = base.path().join(format!("run-{at}"));
        std::fs::create_dir(&run).unwrap();
        for entry in std::fs::read_dir(&short).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), run.join(entry.file_name())).unwrap();
        }
        let fault = Fault {
            shim: &shim,
            at,
            kind: "kill_before",
            sticky: false,
        };
        assert!(!resume(&run, Some(&fault)).status.success());
        // What the report says is never the result of one run and the command of another.
        let report = onward(&["report", run.to_str().unwrap()], &run, None);
        let table = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(
            table.contains("no result") || table.contains("--epochs 1 "),
            "kill at {at}: {table}"
        );
        let output = resume(&run, None);
        assert!(output.status.success(), "kill at {at}: {output:?}");
        assert_same(&run, &expected, &format!("kill at {at}"));
    }
}

#[test]
fn a_tokenizer_or_a_crate_is_written_whole_or_not_at_all() {
    let base = tempfile::tempdir().unwrap();
    let Some(shim) = shim(base.path()) else {
        return;
    };
    let text = base.path().join("text.txt");
    std::fs::write(&text, "the fox and the grapes ".repeat(40)).unwrap();
    for at in 1..8 {
        for kind in KILLS {
            let folder = base.path().join(format!("{kind}-{at}"));
            std::fs::create_dir(&folder).unwrap();
            let fault = Fault {
                shim: &shim,
                at,
                kind,
                sticky: false,
            };
            let out = folder.join("tokenizer.json");
            let arguments = [
                "tokenize",
                text.to_str().unwrap(),
                "--kind",
                "char",
                "--out",
                out.to_str().unwrap(),
            ];
            onward(&arguments, &folder, Some(&fault));
            if out.exists() {
                let whole = std::fs::read_to_string(&out).unwrap();
                assert!(serde_json::from_str::<Value>(&whole).is_ok(), "{kind} {at}");
            } else {
                assert!(onward(&arguments, &folder, None).status.success());
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
            command
                .args(["new", "my-rule"])
                .current_dir(&folder)
                .env("LD_PRELOAD", &shim)
                .env("FAULT_DIR", &folder)
                .env("FAULT_AT", (2 * at).to_string())
                .env("FAULT_KIND", kind);
            command.output().unwrap();
            let made = folder.join("my-rule");
            assert!(
                !made.exists() || made.join("src/lib.rs").is_file(),
                "{kind} at call {}: half a crate",
                2 * at
            );
        }
    }
}

/// What a command writes for a user replaces an older file as a whole: killed or without
/// room, it leaves that file or the new one, and what was beside it.
#[test]
fn a_users_file_is_the_old_one_or_the_new_one() {
    let base = tempfile::tempdir().unwrap();
    let Some(shim) = shim(base.path()) else {
        return;
    };
    let run = base.path().join("run");
    assert!(onward(&train(&run, "1"), &run, None).status.success());
    let folder = base.path().join("folder");
    let file = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let (table, page, lib) = (file("RESULTS.md"), file("page.html"), file("src/lib.rs"));
    let run = run.to_str().unwrap();
    let crate_of = folder.to_str().unwrap();
    let old =
        "Our results.\n\n<!-- onward report: begin -->\n<!-- onward report: end -->\n\nMore.\n";
    let commands: [(&[&str], &str, &str); 3] = [
        (&["report", run, "--write", &table], &table, old),
        (&["page", run, "--out", &page], &page, ""),
        (&["new", "my-rule", "--into", crate_of], &lib, "// mine\n"),
    ];
    for (arguments, path, old) in commands {
        let path = Path::new(path);
        let renew = || {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(folder.join("src")).unwrap();
            let manifest = "[package]\nname = \"mine\"\nversion = \"0.1.0\"\n";
            std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
            if !old.is_empty() {
                std::fs::write(path, old).unwrap();
            }
        };
        renew();
        let log = base.path().join("log");
        let _ = std::fs::remove_file(&log);
        let count = calls(arguments, &folder, &shim, &log);
        assert!(count > 0, "{arguments:?} changes nothing");
        let new = std::fs::read_to_string(path).unwrap();
        assert_ne!(new, old);
        for at in 1..=count {
            for kind in KILLS.into_iter().chain(["28", "5"]) {
                renew();
                let fault = Fault {
                    shim: &shim,
                    at,
                    kind,
                    sticky: false,
                };
                onward(arguments, &folder, Some(&fault));
                let found = std::fs::read_to_string(path).unwrap_or_default();
                let what = format!("{arguments:?}: {kind} at call {at} of {count}");
                assert!(found == old || found == new, "{what}: {found}");
                let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
                assert!(manifest.contains("mine"), "{what}");
                // The next try ends what an interrupted one began.
                if found == old {
                    let output = onward(arguments, &folder, None);
                    assert!(output.status.success(), "{what}: {output:?}");
                }
            }
        }
    }
}
