//! The command line: output, files and errors.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::*;

#[test]
fn a_run_writes_its_folder_and_repeats_byte_for_byte_at_any_number_of_threads() {
    let base = tempfile::tempdir().unwrap();
    let [one, two, other] = ["one", "two", "other"].map(|name| base.path().join(name));
    let printed = succeeds(&train(&one, &["--threads", "1", "--json"]));
    succeeds(&train(&two, &["--threads", "2"]));
    succeeds(&train(&other, &["--seed", "2"]));
    let bytes = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    assert_eq!(
        bytes(&one, "model.safetensors"),
        bytes(&two, "model.safetensors")
    );
    assert_eq!(
        bytes(&one, "state.safetensors"),
        bytes(&two, "state.safetensors")
    );
    assert_ne!(
        bytes(&one, "model.safetensors"),
        bytes(&other, "model.safetensors")
    );
    let mut summary: Value = serde_json::from_slice(&bytes(&one, "summary.json")).unwrap();
    summary.as_object_mut().unwrap().remove("checksum");
    summary["run"] = str(&one).into();
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), summary);
    for key in [
        "architecture",
        "data",
        "seed",
        "epochs",
        "seconds",
        "seconds_per_epoch",
        "peak_memory_mb",
        "test",
    ] {
        assert!(summary.get(key).is_some(), "no {key} in the summary");
    }
    assert!(summary["test"]["readouts"]["search"]["error"].is_number());
    let lines = text(&bytes(&one, "metrics.jsonl"));
    assert!(
        lines
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{lines}"
    );
    assert!(lines.contains("\"positive\""), "{lines}");
    // The written configuration repeats the run.
    let again = base.path().join("again");
    let config = one.join("config.toml");
    let arguments = [
        "train",
        "progressive",
        "--quiet",
        "--config",
        config.to_str().unwrap(),
        "--out",
        again.to_str().unwrap(),
    ];
    succeeds(&arguments);
    assert_eq!(bytes(&one, "config.toml"), bytes(&again, "config.toml"));
    assert_eq!(
        bytes(&one, "model.safetensors"),
        bytes(&again, "model.safetensors")
    );
    // `evaluate` reproduces the summary.
    let evaluation: Value =
        serde_json::from_str(&succeeds(&["evaluate", "--json", one.to_str().unwrap()])).unwrap();
    assert_eq!(evaluation, summary["test"]);
}

/// A terminal, a pipe or a file that is gone must not end a training.
#[test]
fn a_closed_or_full_stderr_loses_no_run() {
    let base = tempfile::tempdir().unwrap();
    let onward = env!("CARGO_BIN_EXE_onward");
    for (name, stderr) in [("closed", "2>&-"), ("full", "2>/dev/full")] {
        if name == "full" && !Path::new("/dev/full").exists() {
            continue;
        }
        let run = base.path().join(name);
        let train = format!(
            "exec {onward} train progressive --set 'hidden=[20]' --set data.size=200 --epochs 2 \
             --out {} {stderr}",
            run.display()
        );
        let status = Command::new("sh").args(["-c", &train]).status().unwrap();
        assert!(status.success(), "{name}: {status}");
        let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert!(run.join("summary.json").exists() && metrics.lines().count() > 2);
        let wrong = format!("exec {onward} train progressive --set nonsense=1 {stderr}");
        let status = Command::new("sh").args(["-c", &wrong]).status().unwrap();
        assert_eq!(status.code(), Some(2), "{name}");
    }
}

#[test]
fn a_quiet_training_still_warns() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let output = onward(&[
        "train",
        "progressive",
        "--data=digits",
        "--set=data.size=300",
        "--set=hidden=[1]",
        "--epochs=1",
        "--quiet",
        "--out",
        out.to_str().unwrap(),
    ]);
    let said = text(&output.stderr);
    assert!(
        said.starts_with("warning: the run learned nothing"),
        "{said}"
    );
}

/// Layers learn in parallel and products are split; both must not change the results.
#[test]
fn every_architecture_repeats_byte_for_byte_at_any_number_of_threads() {
    let fables = include_str!("../../plugins/data/fables.txt");
    let base = tempfile::tempdir().unwrap();
    let part = base.path().join("fables.txt");
    std::fs::write(&part, &fables[..8000]).unwrap();
    let data = format!("text:{}", str(&part));
    let cases: [&[&str]; 5] = [
        &[
            "recurrent",
            "--set",
            "data.size=600",
            "--set",
            "hidden=[400,400,400]",
            "--set",
            "label_units=50",
        ],
        &[
            "recurrent",
            "--set",
            "data.size=600",
            "--set",
            "hidden=[400,400]",
            "--set",
            "redraw=true",
        ],
        &[
            "progressive",
            "--preset",
            "unsupervised_local",
            "--set",
            "data.size=600",
            "--set",
            "probe_epochs=1",
        ],
        &[
            "nlp",
            "--data",
            &data,
            "--set",
            "hidden=[400,400]",
            "--set",
            "batch=256",
        ],
        &[
            "backprop",
            "--set",
            "hidden=[400,400]",
            "--set",
            "batch=256",
        ],
    ];
    for arguments in cases {
        let base = tempfile::tempdir().unwrap();
        let model = |threads: &str| {
            let run = base.path().join(threads);
            let rest = [
                "--quiet",
                "--epochs",
                "1",
                "--threads",
                threads,
                "--out",
                run.to_str().unwrap(),
            ];
            succeeds(&[&["train"], arguments, &rest].concat());
            std::fs::read(run.join("model.safetensors")).unwrap()
        };
        assert!(model("1") == model("3"), "{arguments:?}");
    }
}

#[test]
fn runs_without_a_folder_are_numbered_and_an_existing_run_is_never_overwritten() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let message = fails(1, &train(&run, &[]));
    assert!(message.contains("never overwritten"), "{message}");
    let file = base.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    fails(1, &train(&file, &[]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let name = "progressive-digits-hidden=20-data.size=100-1";
    for name in [name.to_string(), format!("{name}-2")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
        command.args([
            "train",
            "progressive",
            "--quiet",
            "--epochs",
            "1",
            "--set",
            "hidden=[20]",
        ]);
        let output = command
            .args(["--set", "data.size=100"])
            .current_dir(base.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            base.path()
                .join("runs")
                .join(&name)
                .join("summary.json")
                .is_file(),
            "{name}"
        );
    }
}

#[test]
fn an_epoch_without_learning_layers_reports_no_layer() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let settings = [
        "--epochs",
        "1",
        "--set",
        "hidden=[8]",
        "--set",
        "data.size=100",
        "--set",
        "probe_epochs=1",
    ];
    // A probe gives no prediction for hard negatives.
    let early = base.path().join("early");
    let message = fails(
        2,
        &[
            &[
                "train",
                "progressive",
                "--quiet",
                "--out",
                early.to_str().unwrap(),
            ],
            &settings[..],
        ]
        .concat(),
    );
    assert!(message.contains("`probe_epochs = 0`"), "{message}");
    let settings = [
        &settings[..],
        &["--set", "sampler=hybrid_images", "--set", "probe_epochs=2"],
    ]
    .concat();
    let output = onward(
        &[
            &["train", "progressive", "--out", run.to_str().unwrap()],
            &settings[..],
        ]
        .concat(),
    );
    let log = text(&output.stderr);
    let epochs: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("epoch "))
        .collect();
    let ends = |line: &str| line.ends_with("steps/s");
    assert!(
        matches!(epochs[..], [first, a, b] if first.contains("goodness") && ends(a) && ends(b)),
        "{log}"
    );
    // A probe is not evaluated before it has learned.
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let events = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evaluated: Vec<u64> = events
        .filter(|event| event["event"] == "evaluation")
        .map(|event| event["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(evaluated, [2, 3, 3], "{metrics}");
}

#[test]
fn settings_of_a_default_plugin_do_not_need_its_name() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let settings = [
        "--epochs",
        "1",
        "--set",
        "hidden=[8]",
        "--set",
        "layer.dropout=0.2",
        "--set",
        "goodness.positive=low",
    ];
    succeeds(
        &[
            &["train", "nlp", "--quiet", "--out", run.to_str().unwrap()],
            &settings[..],
        ]
        .concat(),
    );
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    for part in [
        "[layer]",
        "name = \"dense\"",
        "dropout = 0.2",
        "name = \"sum_squares\"",
        "positive = \"low\"",
    ] {
        assert!(config.contains(part), "{part} is missing from\n{config}");
    }
}

#[test]
fn a_setting_of_a_list_applies_to_every_entry() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let list = "layer=[{name=\"dense\",peer=0.1},\"dense\"]";
    let settings = [
        "--epochs",
        "1",
        "--set",
        "hidden=[8,8]",
        "--set",
        list,
        "--set",
        "layer.dropout=0.2",
    ];
    succeeds(
        &[
            &[
                "train",
                "progressive",
                "--quiet",
                "--out",
                run.to_str().unwrap(),
            ],
            &settings[..],
        ]
        .concat(),
    );
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert_eq!(config.matches("dropout = 0.2").count(), 2, "{config}");
    assert_eq!(config.matches("peer = 0.1").count(), 1, "{config}");
}

/// Trains presets that other tests omit, at a small size and on embedded data.
#[test]
fn presets_train_and_report_the_labels_they_used() {
    let cases = [
        (
            "progressive",
            "unsupervised",
            "digits",
            false,
            &["hidden=[60,60]", "probe_epochs=10"][..],
        ),
        (
            "progressive",
            "convolutional",
            "digits",
            true,
            &["hidden=[8,8,8,8]", "flip=false"],
        ),
        (
            "progressive",
            "unsupervised_local",
            "digits",
            false,
            &["hidden=[20,20,20]", "probe_epochs=10"],
        ),
        (
            "recurrent",
            "cifar",
            "digits",
            true,
            &[
                "hidden=[2,2]",
                "steps=3",
                "window=[2,3]",
                "layer.field=5",
                "layer.padding=2",
            ],
        ),
        ("nlp", "contrast", "fables", true, &["hidden=[40,40]"]),
        (
            "nlp",
            "corpus",
            "fables",
            true,
            &["hidden=[40]", "sampler.buckets=500"],
        ),
    ];
    for (architecture, preset, data, labels, settings) in cases {
        let base = tempfile::tempdir().unwrap();
        let out = base.path().join("run");
        let mut arguments = vec![
            "train",
            architecture,
            "--quiet",
            "--json",
            "--preset",
            preset,
            "--data",
            data,
            "--epochs",
            "2",
        ];
        arguments.extend(["--out", out.to_str().unwrap()]);
        if data == "digits" {
            arguments.extend(["--set", "data.size=500", "--set", "batch=50"]);
        }
        settings
            .iter()
            .for_each(|setting| arguments.extend(["--set", setting]));
        let summary: Value = serde_json::from_str(&succeeds(&arguments)).unwrap();
        assert_eq!(summary["labels"]["blocks"], labels, "{preset}: {summary}");
        assert!(
            summary["test"]["error"].as_f64().unwrap() < 0.8,
            "{preset}: {summary}"
        );
    }
}
