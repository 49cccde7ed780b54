//! Training on several ranks from the command line: threads.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::*;

const NET: [&str; 9] = [
    "progressive",
    "--quiet",
    "--set",
    "hidden=[30,20,20]",
    "--set",
    "data.size=600",
    "--set",
    "sampler.negatives=uniform",
    "--epochs",
];

fn train<'a>(epochs: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let out = out.to_str().unwrap();
    [&["train"], &NET[..], &[epochs, "--out", out], more].concat()
}

fn state(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("state.safetensors")).unwrap()
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole", "part"].map(|name| folder.path().join(name));
    succeeds(&train("3", &whole, &[]));
    succeeds(&train("3", &part, &["--stages", "2", "--until", "1"]));
    let part_text = part.to_str().unwrap();
    succeeds(&[
        "resume", part_text, "--quiet", "--stages", "3", "--until", "2",
    ]);
    succeeds(&["resume", part_text, "--quiet"]);
    assert!(state(&part) == state(&whole));
    // It is finished now, on any number of ranks.
    let again = succeeds(&["resume", part_text, "--stages", "2"]);
    assert!(again.contains("head"), "{again}");
}

#[test]
fn a_run_that_was_killed_before_it_saved_begins_again_in_stages() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole", "part"].map(|name| folder.path().join(name));
    succeeds(&train("2", &whole, &[]));
    std::fs::create_dir(&part).unwrap();
    std::fs::copy(whole.join("config.toml"), part.join("config.toml")).unwrap();
    succeeds(&["resume", str(&part), "--quiet", "--stages", "2"]);
    assert!(state(&part) == state(&whole));
}

#[test]
fn a_run_in_stages_that_is_stopped_ends_with_the_bytes_of_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole", "part"].map(|name| folder.path().join(name));
    succeeds(&train("40", &whole, &[]));
    let child = Command::new(env!("CARGO_BIN_EXE_onward"))
        .args(train("40", &part, &["--stages", "3"]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !part.join("state.safetensors").exists() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "nothing is saved"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill")
        .args(["-TERM", &id])
        .status()
        .unwrap()
        .success());
    let stopped = child.wait_with_output().unwrap();
    let said = text(&stopped.stderr);
    assert!(
        !stopped.status.success() && said.contains("stopped after step"),
        "{said}"
    );
    assert!(!part.join("summary.json").exists());
    succeeds(&["resume", part.to_str().unwrap(), "--quiet", "--stages", "2"]);
    assert!(state(&part) == state(&whole));
}

#[test]
fn replicas_of_what_is_not_averaged_are_refused_with_the_reason() {
    let train = [
        "train",
        "progressive",
        "--data=digits",
        "--set=data.size=300",
    ];
    for (setting, reason) in [
        ("--set=head_rule=ridge", "a head that is solved for"),
        ("--preset=softhebb", "a rule of the class"),
    ] {
        let error = fails(
            2,
            &[&train[..], &[setting, "--replicas=2", "--epochs=1"]].concat(),
        );
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_plan_says_what_more_ranks_would_give() {
    let more = ["3", "--ranks", "4", "--link", "10Gbit"];
    let settings = &NET[2..]; // without --quiet
    let plan = succeeds(&[&["plan", "progressive"], settings, &more].concat());
    assert!(
        plan.contains("stages") && plan.contains("expected"),
        "{plan}"
    );
    let ways = succeeds(&[&["plan", "progressive", "--json"], settings, &more].concat());
    let ways: serde_json::Value = serde_json::from_str(&ways).unwrap();
    let ways = ways["ways"].as_array().unwrap_or_else(|| panic!("{ways}"));
    assert!(ways.len() > 1);
    for way in ways {
        let number = |key: &str| way[key].as_f64().unwrap_or_else(|| panic!("{way}"));
        assert!(number("stages") * number("replicas") == 4., "{way}");
        assert!(number("speed_up") > 0., "{way}");
    }
    let error = fails(
        2,
        &["plan", "progressive", "--ranks", "2", "--link", "fast"],
    );
    assert!(error.contains("10Gbit"), "{error}");
}
