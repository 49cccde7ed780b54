//! The command line: output, files and errors.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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

#[test]
fn results_are_a_short_table_for_people() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let name = run.to_str().unwrap();
    let printed = succeeds(&train(&run, &[]));
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.len() <= 10, "{printed}");
    assert!(lines
        .iter()
        .all(|line| line.starts_with("run:") || line.len() <= 80 || line.starts_with("next:")));
    let words = |line: &str| -> Vec<String> { line.split_whitespace().map(Into::into).collect() };
    assert_eq!(words(lines[0]), ["test", "error", "validation", "error"]);
    let summary = std::fs::read(run.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    let preferred = summary["test"]["readout"].as_str().unwrap();
    let error = |part: &str| {
        let error = summary[part]["readouts"][preferred]["error"].as_f64();
        format!("{:.2}%", 100. * error.unwrap())
    };
    assert_eq!(
        words(lines[1]),
        [preferred, &error("test"), &error("validation")]
    );
    let next = format!("next: onward predict {name} IMAGE.png");
    assert_eq!(lines[lines.len() - 1], next);
    // A run that has ended prints the same table, and how to continue.
    let again = onward(&["resume", name]);
    assert_eq!(text(&again.stdout), printed);
    let said = text(&again.stderr);
    assert!(
        said.contains("all 2 epochs are trained") && said.contains("--epochs"),
        "{said}"
    );
    let evaluated = succeeds(&["evaluate", name]);
    let first: Vec<_> = evaluated.lines().take(2).map(words).collect();
    assert_eq!(first[1], [preferred, &error("test")]);
    // A summary that is gone or damaged is computed again.
    std::fs::write(run.join("summary.json"), "{}").unwrap();
    let repaired = succeeds(&["resume", name, "--quiet"]);
    let scores = |printed: &str| printed.lines().take(3).map(words).collect::<Vec<_>>();
    assert_eq!(scores(&repaired), scores(&printed));
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

/// Layers learn in parallel and products are split; both must not change the results.
#[test]
fn every_architecture_repeats_byte_for_byte_at_any_number_of_threads() {
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
        &["nlp", "--set", "hidden=[400,400]", "--set", "batch=256"],
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
fn plugins_are_listed_and_shown() {
    let listed: Value = serde_json::from_str(&succeeds(&["list", "--json"])).unwrap();
    let names = |kind: &str| -> Vec<&str> {
        listed[kind]
            .as_array()
            .unwrap()
            .iter()
            .map(|plugin| plugin["name"].as_str().unwrap())
            .collect()
    };
    assert!(names("architecture").contains(&"progressive"));
    let goodness = names("goodness");
    assert!(
        goodness.contains(&"mean_squares") && goodness.is_sorted(),
        "{goodness:?}"
    );
    assert!(names("data").contains(&"fashion-mnist"));
    let samplers = succeeds(&["list", "samplers"]);
    assert!(
        samplers.contains("label_overlay") && !samplers.contains("dense"),
        "{samplers}"
    );
    let shown = succeeds(&["show", "progressive"]);
    for part in [
        "hidden = [1000, 1000, 1000]",
        "preset nebuly",
        "arXiv 2212.13345",
        "batch (or batch_size)",
        "Allowed:",
    ] {
        assert!(shown.contains(part), "{part} is missing from\n{shown}");
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
fn generate_stops_when_its_output_is_closed() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let run = run.to_str().unwrap();
    succeeds(&[
        "train",
        "nlp",
        "--quiet",
        "--epochs",
        "1",
        "--set",
        "hidden=[8]",
        "--out",
        run,
    ]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    command.args([
        "generate",
        run,
        "--prompt",
        "The ",
        "--tokens",
        "1000000000",
    ]);
    let mut writer = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writer
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut [0; 8])
        .unwrap();
    for _ in 0..600 {
        if let Some(status) = writer.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    writer.kill().unwrap();
    panic!("still running a minute after its output was closed");
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
            &[
                "hidden=[8,8]",
                "flip=false",
                "goodness={name=\"projection\",grid=7}",
            ],
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
        ("nlp", "corpus", "fables", true, &["hidden=[40,40]"]),
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

#[test]
fn usage_errors_exit_with_code_2_and_name_valid_values() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("run");
    let deep = format!("{}a=1", "a.".repeat(60_000));
    let both = base.path().join("both.toml");
    std::fs::write(&both, "batch = 0\nbatch_size = 7\n").unwrap();
    let both = both.to_str().unwrap().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--set", "hiden=[10]"],
            &[
                "unknown setting `hiden`",
                "--set hiden=[10]",
                "did you mean `hidden`?",
            ],
        ),
        (
            &["--set", "sampler.strenght=1"],
            &["`sampler.strenght`", "did you mean `strength`?"],
        ),
        (&["--set", "hidden=[]"], &["`hidden` = []", "at least 1"]),
        (&["--set", "hidden=[0]"], &["`hidden` = [0]", "at least 1"]),
        (
            &["--preset", "convolutional", "--set", "hidden.x=1"],
            &["`hidden` = { x = 1 }", "a list"],
        ),
        (
            &["--set", "hidden=[1000000000000]"],
            &["`hidden`", "at most 1000000"],
        ),
        (
            &["--set", "n_layers=2", "--set", "hidden_size=-1"],
            &["`hidden_size` = -1"],
        ),
        (&["--set", "lr=nan"], &["`lr` = nan", "greater than 0"]),
        (&["--set", "lr=fast"], &["`lr` = \"fast\"", "a number"]),
        (
            &["--set", "lr=1e30"],
            &["`lr` = 1000000000", "at most 1000"],
        ),
        (&["--set", "batch=0"], &["`batch` = 0", "at least 1"]),
        (
            &["--set", "batch_size=0"],
            &["`batch` = 0", "--set batch_size=0"],
        ),
        (
            &["--set", "order=backwards"],
            &["one of interleaved, greedy"],
        ),
        (
            &["--set", "layer.dropout=1.5"],
            &["`layer.dropout` = 1.5", "at most 0.95"],
        ),
        (
            &["--set", "goodness=sum_square"],
            &[
                "unknown goodness `sum_square`",
                "did you mean `sum_squares`?",
            ],
        ),
        (&["--set", "lr"], &["key=value"]),
        (&["--epochs", "0"], &["`epochs` = 0", "--epochs 0"]),
        (&["--epochs", "many"], &["`epochs` = \"many\""]),
        (&["--seed", "-1"], &["`seed` = -1"]),
        (
            &["--data", "mnits"],
            &["unknown data `mnits`", "did you mean `mnist`?"],
        ),
        (
            &["--data", "digits:x"],
            &["takes no argument after a colon"],
        ),
        (&["--data", "idx"], &["--data idx:DIR"]),
        (&["--preset", "hintn"], &["one of hinton,", "nebuly"]),
        (&["--device", "cuda"], &["--features cuda"]),
        (&["--device", "tpu"], &["expected auto, cpu, cuda"]),
        (&["--threads", "0"], &["--threads"]),
        (&["--nonsense"], &["--nonsense"]),
        // A setting belongs to the named plugin, in any order of the arguments.
        (
            &["--set", "layer.nonsense=5", "--set", "layer=local"],
            &["`layer.nonsense`"],
        ),
        (&["--set", &deep], &["at most 16 parts"]),
        (
            &["--config", &both],
            &["`batch_size` = 7", "expected one of the two", "both.toml"],
        ),
    ];
    for (arguments, expected) in cases {
        let arguments = [
            &[
                "train",
                "progressive",
                "--quiet",
                "--out",
                out.to_str().unwrap(),
            ],
            *arguments,
        ]
        .concat();
        let message = fails(2, &arguments);
        for part in *expected {
            assert!(
                message.contains(part),
                "{arguments:?}: {part} is missing from\n{message}"
            );
        }
        assert!(!out.join("summary.json").exists(), "{arguments:?}");
    }
    let message = fails(2, &["train", "progresive"]);
    assert!(
        message.contains("did you mean `progressive`?") && message.contains("use your_crate as _;"),
        "{message}"
    );
    fails(2, &["show", "nothing"]);
    fails(2, &["list", "nothing"]);
    fails(2, &[]);
}

#[test]
fn other_errors_exit_with_code_1_and_name_the_place() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name).to_str().unwrap().to_string();
    let message = fails(
        1,
        &[
            "train",
            "progressive",
            "--data",
            "mnist",
            "--data-dir",
            &path("none"),
        ],
    );
    assert!(
        message.contains("none/mnist") && message.contains("$ONWARD_DATA"),
        "{message}"
    );
    let message = fails(
        1,
        &[
            "train",
            "progressive",
            "--data",
            &format!("idx:{}", path("none")),
        ],
    );
    assert!(message.contains("train-images-idx3-ubyte"), "{message}");
    let message = fails(1, &["evaluate", &path("none")]);
    assert!(message.contains("config.toml"), "{message}");
    std::fs::write(path("bad.toml"), "hidden = [").unwrap();
    let message = fails(1, &["train", "progressive", "--config", &path("bad.toml")]);
    assert!(message.contains("bad.toml"), "{message}");
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let state = std::fs::read(run.join("state.safetensors")).unwrap();
    std::fs::write(run.join("state.safetensors"), &state[..state.len() / 2]).unwrap();
    let message = fails(1, &["evaluate", run.to_str().unwrap()]);
    assert!(message.contains("state.safetensors"), "{message}");
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    std::fs::remove_file(run.join("state.safetensors")).unwrap();
    let path = run.join("model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        let message = fails(1, &["evaluate", run.to_str().unwrap()]);
        assert!(
            message.contains("model.safetensors") && message.contains(expected),
            "{expected}: {message}"
        );
    };
    let mut no_number = good.clone();
    let end = no_number.len();
    no_number[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    refused(&no_number, "not finite");
    refused(&good[..good.len() - 1], "truncated");
    refused(b"", "not a safetensors file");
    refused(b"\x02\0\0\0\0\0\0\0{}", "not written by onward");
    refused(&[0xff; 100], "not a safetensors file");
    // The shape in the configuration differs from that in the file.
    std::fs::write(&path, &good).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    std::fs::write(
        run.join("config.toml"),
        config.replace("[40, 40]", "[40, 41]"),
    )
    .unwrap();
    let message = fails(1, &["evaluate", run.to_str().unwrap()]);
    assert!(
        message.contains("`hidden` = [40, 41]") && message.contains("[40, 40]"),
        "{message}"
    );
    std::fs::write(run.join("config.toml"), "hidden = [40, 40]").unwrap();
    let message = fails(1, &["evaluate", run.to_str().unwrap()]);
    assert!(message.contains("has no `architecture`"), "{message}");
    #[cfg(target_os = "linux")]
    fails(1, &["train", "progressive", "--out", "/proc/nowhere/run"]);
}

#[test]
fn images_are_classified_without_the_training_data() {
    let base = tempfile::tempdir().unwrap();
    let pictures = base.path().join("pictures");
    // Horizontal and vertical bars at varying positions in images of several sizes.
    for (class, upright) in [("lying", false), ("standing", true)] {
        std::fs::create_dir_all(pictures.join(class)).unwrap();
        for index in 0..40u32 {
            let (side, at) = (20 + index % 7, 4 + index * 5 % 9);
            let inside = |x: u32, y: u32| {
                if upright {
                    x.abs_diff(at + 2) < 2
                } else {
                    y.abs_diff(at + 2) < 2
                }
            };
            let bar = |x, y| image::Luma([if inside(x, y) { 230 } else { 10 }]);
            let file = pictures.join(class).join(format!("{index}.png"));
            image::GrayImage::from_fn(side, side, bar)
                .save(file)
                .unwrap();
        }
    }
    let run = base.path().join("run");
    let data = format!("folder:{}", pictures.display());
    let arguments = [
        "train",
        "progressive",
        "--quiet",
        "--data",
        &data,
        "--epochs",
        "40",
        "--set",
        "hidden=[100,100]",
    ];
    let sizes = [
        "--set",
        "data.width=12",
        "--set",
        "data.height=12",
        "--set",
        "batch=10",
        "--json",
        "--out",
    ];
    let printed = succeeds(&[&arguments[..], &sizes, &[run.to_str().unwrap()]].concat());
    let summary: Value = serde_json::from_str(&printed).unwrap();
    assert!(
        summary["test"]["error"].as_f64().unwrap() < 0.2,
        "{printed}"
    );
    let moved = base.path().join("moved");
    std::fs::rename(&pictures, &moved).unwrap();
    let (lying, standing) = (
        moved.join("lying").join("3.png"),
        moved.join("standing").join("4.png"),
    );
    let (lying, standing) = (lying.to_str().unwrap(), standing.to_str().unwrap());
    let text = succeeds(&["predict", run.to_str().unwrap(), lying, standing]);
    assert!(
        text.contains("3.png: lying") && text.contains("4.png: standing"),
        "{text}"
    );
    let answers: Value = serde_json::from_str(&succeeds(&[
        "predict",
        run.to_str().unwrap(),
        "--json",
        standing,
    ]))
    .unwrap();
    assert_eq!(answers[0]["class"], "standing");
    assert!(answers[0]["scores"]["lying"].is_number(), "{answers}");
    let noise = base.path().join("noise.png");
    std::fs::write(&noise, "no picture").unwrap();
    let output = onward(&[
        "predict",
        run.to_str().unwrap(),
        noise.to_str().unwrap(),
        lying,
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        self::text(&output.stdout).contains("3.png: lying"),
        "the valid image is not classified"
    );
    assert!(self::text(&output.stderr).contains("noise.png: is no picture"));
    let message = fails(
        2,
        &[
            "predict",
            run.to_str().unwrap(),
            "--readout",
            "crystal",
            lying,
        ],
    );
    assert!(
        message.contains("expected one of search, head"),
        "{message}"
    );
}

#[test]
fn a_tokenizer_is_trained_reported_and_never_overwritten() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name).to_str().unwrap().to_string();
    let text =
        "The fox saw the crow, and the crow saw the fox.\n".repeat(40) + "A zebra, quite unseen.\n";
    std::fs::write(path("a.txt"), &text).unwrap();
    let report = |kind: &[&str], out: &str| -> Value {
        let (corpus, out) = (path("a.txt"), path(out));
        serde_json::from_str(&succeeds(
            &[&["tokenize", &corpus, "--out", &out], kind].concat(),
        ))
        .unwrap()
    };
    let found = report(&["--kind", "char"], "char.json");
    assert_eq!(
        (&found["vocabulary"], &found["train"]["tokens_per_char"]),
        (&Value::from(19), &Value::from(1.0))
    );
    assert!(
        found["held_out"]["unknown"].as_f64().unwrap() > 0.02,
        "{found}"
    );
    let words = report(&["--kind", "word", "--vocab", "4"], "word.json");
    assert_eq!(words["vocabulary"], 4);
    let pieces = report(&["--kind", "bpe", "--vocab", "270"], "bpe.json");
    assert_eq!(
        (&pieces["vocabulary"], &pieces["held_out"]["unknown"]),
        (&Value::from(270), &Value::from(0.0))
    );
    let before = std::fs::read(path("bpe.json")).unwrap();
    std::fs::remove_file(path("bpe.json")).unwrap();
    report(&["--kind", "bpe", "--vocab", "270"], "bpe.json");
    assert_eq!(std::fs::read(path("bpe.json")).unwrap(), before);
    let message = fails(
        1,
        &[
            "tokenize",
            &path("a.txt"),
            "--kind",
            "char",
            "--out",
            &path("bpe.json"),
        ],
    );
    assert!(message.contains("never overwritten"), "{message}");
    assert_eq!(std::fs::read(path("bpe.json")).unwrap(), before);
    let refused = |code: i32, file: &str, more: &[&str], expected: &str| {
        let out = path("new.json");
        let message = fails(
            code,
            &[&["tokenize", &path(file), "--out", &out], more].concat(),
        );
        assert!(
            message.contains(expected) && !Path::new(&out).exists(),
            "{more:?}: {message}"
        );
    };
    refused(2, "a.txt", &["--kind", "chars"], "--kind chars");
    refused(
        2,
        "a.txt",
        &["--kind", "bpe", "--vocab", "12"],
        "N at least 256",
    );
    refused(
        2,
        "a.txt",
        &["--kind", "bpe", "--vocab", "-3"],
        "--vocab -3",
    );
    refused(
        2,
        "a.txt",
        &["--kind", "bpe", "--vocab", "5000"],
        "or more text",
    );
    refused(1, "none.txt", &["--kind", "char"], "none.txt");
    std::fs::write(path("latin.txt"), b"caf\xe9").unwrap();
    refused(
        1,
        "latin.txt",
        &["--kind", "char"],
        "latin.txt: is not UTF-8 at byte 3",
    );
}

#[test]
fn text_and_images_are_not_interchangeable() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name).to_str().unwrap().to_string();
    succeeds(&train(&base.path().join("run"), &[]));
    let message = fails(2, &["generate", &path("run"), "--prompt", "a"]);
    assert!(message.contains("onward predict"), "{message}");
    let new = path("new");
    let concat = [
        "train",
        "progressive",
        "--quiet",
        "--set",
        "sampler=label_concat",
        "--out",
        &new,
    ];
    let refused = |code: i32, data: &str, more: &[&str], expected: &str| {
        let message = fails(code, &[&concat[..], &["--data", data], more].concat());
        assert!(message.contains(expected), "{data} {more:?}: {message}");
    };
    refused(2, "fables", &[], "choose a sampler for text");
    refused(
        2,
        "fables",
        &["--set", "data.tokenizer=chr"],
        "expected char, word",
    );
    refused(
        2,
        "fables",
        &["--set", "data.tokenizer=bpe:100000"],
        "or more text",
    );
    refused(2, "fables", &["--set", "data.window=0"], "at least 1");
    refused(2, "text", &[], "--data text:FILE");
    refused(1, &format!("text:{}", path("none.txt")), &[], "none.txt");
    std::fs::write(path("short.txt"), "A word. ").unwrap();
    let short = format!("text:{}", path("short.txt"));
    refused(2, &short, &[], "no passage of more than 10 tokens");
    refused(2, &short, &["--set", "data.prepare=hinton"], "248 fables");
    std::fs::write(path("bad.json"), "{}").unwrap();
    refused(
        1,
        "fables",
        &["--set", &format!("data.tokenizer={}", path("bad.json"))],
        "bad.json: ",
    );
}

#[test]
fn a_report_has_the_runs_sorted_and_says_which_have_no_result() {
    let base = tempfile::tempdir().unwrap();
    let [one, two, other, begun] =
        ["one", "two", "other", "begun"].map(|name| base.path().join(name));
    succeeds(&train(&one, &[]));
    succeeds(&train(&two, &["--seed", "2"]));
    succeeds(&train(&other, &["--set", "lr=0.0001"]));
    succeeds(&train(&begun, &[]));
    std::fs::remove_file(begun.join("summary.json")).unwrap();
    let all = [&other, &one, &begun, &two].map(|run| run.to_str().unwrap());
    let table = succeeds(&[&["report"], &all[..]].concat());
    let lines: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(lines.len(), 3, "{table}");
    // Two seeds in one row; the better validation result first; what has none, last.
    assert!(
        lines[0].contains("[one]") && lines[0].contains("[two]") && lines[0].contains(" ± "),
        "{table}"
    );
    assert!(lines[1].contains("[other]"), "{table}");
    assert!(
        lines[2].starts_with("| begun | – ") && lines[2].contains("is not finished"),
        "{table}"
    );
    let csv = succeeds(&[&["report", "--csv"], &all[..]].concat());
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(
        csv.starts_with("run,data,epochs,seed,readout,validation,test,"),
        "{csv}"
    );
    let json: Value =
        serde_json::from_str(&succeeds(&[&["report", "--json"], &all[..]].concat())).unwrap();
    assert_eq!(json[0]["run"], "other");
    assert!(
        json[1]["test"]["value"].is_number() && json[2]["test"].is_null(),
        "{json}"
    );
    // A command repeats its run.
    let command = json[1]["command"].as_str().unwrap();
    assert!(
        command.starts_with("onward train progressive "),
        "{command}"
    );
}

#[test]
fn a_dry_run_is_a_configuration_and_writes_nothing() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let printed = succeeds(&train(&run, &["--dry-run"]));
    assert!(!run.exists());
    for part in [
        "hidden = [40, 40]",
        "# variable    blocks.0.layer.weight [784, 40]",
        "# parameters  33",
        "# steps       2 epochs of ",
        "# time        about ",
    ] {
        assert!(printed.contains(part), "{part} is missing from\n{printed}");
    }
    // It repeats the run.
    let config = base.path().join("config.toml");
    std::fs::write(&config, &printed).unwrap();
    let other = base.path().join("other");
    succeeds(&[
        "train",
        "progressive",
        "--quiet",
        "--config",
        config.to_str().unwrap(),
        "--out",
        other.to_str().unwrap(),
    ]);
    succeeds(&train(&run, &[]));
    let model = |run: &Path| std::fs::read(run.join("model.safetensors")).unwrap();
    assert_eq!(model(&run), model(&other));
}

#[test]
fn the_name_of_a_run_says_what_was_set() {
    let base = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_onward"))
        .args([
            "train",
            "progressive",
            "--quiet",
            "--preset",
            "hinton",
            "--epochs",
            "1",
        ])
        .args([
            "--set",
            "hidden=[10,20]",
            "--set",
            "data.size=200",
            "--set",
            "lr=0.02",
        ])
        .current_dir(base.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let name = "progressive-hinton-digits-hidden=10x20-data.size=200-lr=0.02-1";
    assert!(base.path().join("runs").join(name).is_dir());
}
