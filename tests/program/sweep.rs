//! `onward sweep`: the settings of one method.

use std::path::Path;

use serde_json::Value;

use crate::compare::compare;
use crate::*;

/// The arguments of a small sweep for this number of epochs.
fn sweep<'a>(out: &'a Path, epochs: &'a str, vary: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut common = compare(out, &[], more);
    let at = common.iter().position(|word| *word == "--epochs").unwrap();
    common[at + 1] = epochs;
    [&["sweep", "progressive"], &common[1..], vary].concat()
}

#[test]
fn a_sweep_chooses_by_validation_and_shows_one_test_result() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let grid = ["--grid", "lr=0.001,0.05", "--grid", "batch=20,50"];
    let output = onward(&sweep(&out, "1", &grid, &["--seeds", "1..2"]));
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("test"), "{said}");
    let json = std::fs::read_to_string(out.join("sweep.json")).unwrap();
    let rows: Value = serde_json::from_str(&json).unwrap();
    let rows = rows.as_array().unwrap();
    let methods: Vec<&str> = rows
        .iter()
        .map(|row| row["method"].as_str().unwrap())
        .collect();
    assert_eq!(methods.len(), 4);
    let mean = |row: &Value, part: &str| row[part]["mean"].as_f64();
    let validation: Vec<f64> = rows
        .iter()
        .map(|row| mean(row, "validation").unwrap())
        .collect();
    assert!(validation.is_sorted(), "{validation:?}");
    let judged: Vec<bool> = rows.iter().map(|row| mean(row, "test").is_some()).collect();
    assert_eq!(judged, [true, false, false, false]);
    assert!(
        printed.contains(&format!("best on digits by validation: {}", methods[0])),
        "{printed}"
    );

    // Another sweep in the same folder.
    let output = onward(&sweep(&out, "1", &["--grid", "lr=0.001"], &[]));
    let said = text(&output.stderr);
    assert!(
        said.contains("leaves out ") && said.contains("lr=0.05"),
        "{said}"
    );

    let random = [
        "--random",
        "3",
        "--range",
        "lr=0.001..0.1",
        "--range",
        "batch=50..60",
    ];
    let other = base.path().join("other");
    let common = compare(&other, &[], &random);
    let arguments = [&["sweep", "progressive"], &common[1..]].concat();
    let printed = succeeds(&arguments);
    assert_eq!(printed.matches("progressive,lr=0.").count(), 4, "{printed}");
    assert_eq!(succeeds(&arguments), printed);
    let message = fails(2, &[&["sweep", "progressive"], &common[1..11]].concat());
    assert!(message.contains("--grid"), "{message}");
    let few = base.path().join("few");
    let more = ["--random", "9", "--grid", "lr=0.01,0.02"];
    let output = onward(&[&["sweep", "progressive"], &compare(&few, &[], &more)[1..]].concat());
    let note = "there are only 2 different combinations, not 9";
    assert!(text(&output.stderr).contains(note), "{output:?}");
}

#[test]
fn halving_gives_up_the_worse_half_and_decides_the_same_again() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let grid = ["--grid", "lr=0.00001,0.05,0.00002,0.04", "--halving", "2"];
    let arguments = sweep(&out, "4", &grid, &["--jobs", "2"]);
    let first = succeeds(&arguments);
    let json = std::fs::read_to_string(out.join("sweep.json")).unwrap();
    let rows: Value = serde_json::from_str(&json).unwrap();
    let of = |key: &str| -> Vec<u64> {
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row[key].as_u64().unwrap())
            .collect()
    };
    assert_eq!(of("epochs"), [4, 2, 1, 1], "{first}");
    let whole: Vec<bool> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| !row["test"].is_null())
        .collect();
    assert_eq!(whole, [true, false, false, false]);
    assert_eq!(succeeds(&arguments), first);
    let other = base.path().join("other");
    let common = compare(&other, &[], &["--set", "validate=false"]);
    let arguments = [&["sweep", "progressive"], &common[1..], &grid].concat();
    let message = fails(2, &arguments);
    assert!(message.contains("needs a validation part"), "{message}");

    // The best one is the run that was never stopped.
    let best = first
        .lines()
        .find_map(|line| line.strip_prefix("best on digits by validation: "));
    let rate = best.unwrap().split_once(',').unwrap().1;
    let alone = base.path().join("alone");
    let small = compare(&alone, &["progressive"], &["--set", rate, "--quiet"]);
    let mut train: Vec<&str> = [&["train"], &small[1..]].concat();
    let epochs = train.iter().position(|word| *word == "--epochs").unwrap();
    train[epochs + 1] = "4";
    succeeds(&train);
    let model = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    let name = format!("progressivex{rate}-digits-1");
    assert!(model(&alone) == model(&out.join(name)));
}

#[test]
fn a_sweep_varies_each_setting_once_and_chooses_by_the_validation_part() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    for (more, expected) in [
        (["--grid", "lr=0.5"], "lr: is varied twice"),
        (["--set", "lr=0.5"], "has a value by --set"),
        (["--set", "validate=false"], "needs a validation part"),
        (["--grid", "validate=true,false"], "needs a validation part"),
        (["--grid", "data.noise=0.1,0.2"], "belongs to the data"),
    ] {
        let message = fails(2, &sweep(&out, "1", &["--grid", "lr=0.01,0.1"], &more));
        assert!(message.contains(expected), "{message}");
    }
    let method = ["sweep", "progressive,lr=0.5", "--data", "digits"];
    let message = fails(2, &[&method[..], &["--grid", "lr=0.01,0.1"]].concat());
    assert!(message.contains("has a value in the method"), "{message}");
}

#[test]
fn halving_chooses_by_the_readout_that_is_set() {
    let base = tempfile::tempdir().unwrap();
    let halving = ["--grid", "lr=0.01,0.1", "--halving", "2", "--json"];
    let search = ["--set", "readout=search", "--set", "evaluate_all_every=1"];
    let printed = succeeds(&sweep(&base.path().join("a"), "2", &halving, &search));
    let rows: Value = serde_json::from_str(&printed).unwrap();
    for row in rows.as_array().unwrap() {
        assert_eq!(row["readout"], "search", "{row}");
    }
    // The head alone is evaluated after each epoch.
    let said = fails(
        1,
        &sweep(&base.path().join("b"), "2", &halving, &search[..2]),
    );
    assert!(
        said.contains("the readout `search` was not evaluated"),
        "{said}"
    );
}
