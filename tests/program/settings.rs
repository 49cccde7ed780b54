//! Settings: how they are written, and what they bring with them.

use serde_json::Value;

use crate::*;

#[test]
fn a_goodness_brings_what_it_needs() {
    let base = tempfile::tempdir().unwrap();
    let listed = succeeds(&["list", "goodness", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let infos = listed["goodness"].as_array().unwrap();
    let names: Vec<&str> = infos
        .iter()
        .filter_map(|info| info["name"].as_str())
        .collect();
    assert!(names.len() >= 3, "{listed}");
    for name in names {
        let out = base.path().join(name);
        let goodness = format!("goodness={name}");
        let arguments = [
            "train",
            "progressive",
            "--json",
            "--set",
            &goodness,
            "--set",
            "hidden=[100]",
            "--set",
            "data.size=2000",
            "--epochs",
            "8",
            "--out",
            str(&out),
        ];
        let summary: Value = serde_json::from_str(&succeeds(&arguments)).unwrap();
        let error = summary["test"]["error"].as_f64().unwrap();
        assert!(error < 0.5, "{name}: {error}");
    }

    // The preset has this goodness too, with settings of its own.
    let out = base.path().join("nebuly");
    let arguments = [
        "train",
        "progressive",
        "--quiet",
        "--preset",
        "nebuly",
        "--data",
        "digits",
        "--set",
        "data.size=100",
        "--set",
        "hidden=10",
        "--epochs",
        "1",
        "--out",
        str(&out),
    ];
    succeeds(&arguments);
    let config = std::fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(
        config.contains("theta = 2.0\n") && config.contains("lr = 0.03\n"),
        "{config}"
    );
}

#[test]
fn the_configuration_of_an_older_version_gets_no_suggestion() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let small = [
        "--set",
        "data.size=100",
        "--set",
        "hidden=[10,10]",
        "--epochs",
        "1",
    ];
    // Its goodness would bring a threshold of its own, which this architecture does not set.
    let train = ["train", "trifecta", "--quiet", "--out", str(&run)];
    succeeds(&[&train[..], &small].concat());
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let newer = [
        "log = ",
        "evaluate_all_every = ",
        "evaluate_training = ",
        "examples = ",
    ];
    let is_older = |line: &&str| newer.iter().all(|key| !line.starts_with(key));
    let older: Vec<&str> = config.lines().filter(is_older).collect();
    assert_eq!(older.len() + newer.len(), config.lines().count());
    std::fs::write(run.join("config.toml"), older.join("\n")).unwrap();
    let command = succeeds(&["report", str(&run)]);
    assert!(
        !command.contains("theta") && !command.contains("no result"),
        "{command}"
    );
    succeeds(&["resume", str(&run), "--epochs", "2", "--quiet"]);
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(!config.contains("theta"), "{config}");
}

#[test]
fn settings_are_taken_in_the_forms_that_people_write() {
    let base = tempfile::tempdir().unwrap();
    for (index, (given, written)) in [
        ("lr=.5", "lr = 0.5"),
        ("lr=5.", "lr = 5.0"),
        ("hidden=30", "hidden = [30]"),
        ("hidden=30,20", "hidden = [30, 20]"),
        ("hidden=(30,20)", "hidden = [30, 20]"),
        ("hidden=3e1", "hidden = [30]"),
        ("batch=1e2", "batch = 100"),
        ("validate=True", "validate = true"),
        ("learning_rate=0.02", "lr = 0.02"),
        ("theta=2", "theta = 2.0"),
        ("layer_lr=[1]", "layer_lr = [1.0]"),
        ("optimizer=adam", "optimiser = \"adam\""),
    ]
    .into_iter()
    .enumerate()
    {
        let out = base.path().join(index.to_string());
        let arguments = [
            "train",
            "progressive",
            "--quiet",
            "--set",
            "hidden=[10]",
            "--set",
            "data.size=100",
            "--epochs",
            "1",
            "--out",
            str(&out),
            "--set",
            given,
        ];
        succeeds(&arguments);
        let config = std::fs::read_to_string(out.join("config.toml")).unwrap();
        assert!(config.contains(written), "{given}: {config}");
    }
    for given in ["lr=0,01", "batch=1.5", "hidden=a,b", "validate=perhaps"] {
        let message = fails(2, &["train", "progressive", "--set", given]);
        assert!(message.contains("expected"), "{given}: {message}");
    }
    let message = fails(2, &["train", "progressive", "--learning-rate", "0.1"]);
    assert!(message.contains("--set learning_rate=VALUE"), "{message}");
}

/// It takes the place of ours in the preset.
#[test]
fn another_spelling_in_the_settings_of_a_plugin_wins_over_the_preset() {
    let scff = [
        "train",
        "progressive",
        "--preset",
        "scff",
        "--data",
        "digits",
    ];
    let set = ["--set", "sampler.standardize=false", "--dry-run"];
    let config = succeeds(&[&scff[..], &set].concat());
    assert!(config.contains("standardise = false"), "{config}");
    assert!(!config.contains("standardise = true"), "{config}");
    let both = "sampler={name=\"pairs\",standardise=true,standardize=false}";
    let message = fails(2, &[&scff[..], &["--set", both]].concat());
    let expected = ["`sampler.standardize`", "(from --set sampler={"];
    assert!(
        expected.iter().all(|text| message.contains(text)),
        "{message}"
    );
}

#[test]
fn what_learns_in_which_epochs_is_said() {
    let base = tempfile::tempdir().unwrap();
    let said = |name: &str, more: &[&str]| {
        let out = base.path().join(name);
        let small = [
            "--set",
            "data.size=100",
            "--epochs",
            "2",
            "--out",
            str(&out),
        ];
        let start = ["train", "progressive", "--set", "hidden=[5,5]"];
        text(&onward(&[&start[..], &small, more].concat()).stderr)
    };
    let greedy = said("greedy", &["--set", "order=greedy", "--set", "head=false"]);
    assert!(
        greedy.contains("epochs 1–2 layer 1, 3–4 layer 2"),
        "{greedy}"
    );
    let probe = [
        "--set",
        "probe_epochs=1",
        "--set",
        "sampler.negatives=uniform",
    ];
    let probe = said("probe", &probe);
    assert!(
        probe.contains("epochs 1–2 layer 1 to 2, 3 the head"),
        "{probe}"
    );
    assert!(!said("plain", &[]).contains("epochs 1–2"));
    let empty = base.path().join("empty.toml");
    std::fs::write(&empty, "").unwrap();
    let noted = said("empty", &["--config", str(&empty)]);
    assert!(noted.contains("empty.toml has no settings"), "{noted}");
}

#[test]
fn a_setting_is_given_by_its_flag_or_by_set() {
    let twice: [&[&str]; 3] = [
        &["--epochs", "0", "--set", "epochs=1"],
        &["--seed", "x", "--set", "seed = 1"],
        &["--data", "digits", "--set", "data=mnist"],
    ];
    for more in twice {
        let message = fails(2, &[&["train", "progressive"], more].concat());
        assert!(message.contains("only one of the two"), "{message}");
    }
}

#[test]
fn a_run_that_was_changed_on_the_way_is_not_repeated_by_its_file() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let small = ["--set", "data.size=100", "--set", "hidden=[5]", "--quiet"];
    let train = [
        "train",
        "progressive",
        "--epochs",
        "2",
        "--until",
        "1",
        "--out",
        str(&run),
    ];
    succeeds(&[&train[..], &small].concat());
    let again = onward(&["resume", str(&run), "--until", "1"]);
    let said = text(&again.stderr);
    assert!(said.contains("trains nothing: 1 of 2 epochs"), "{said}");
    // Given twice, one of the values would be ignored.
    for twice in [
        &["--epochs", "3", "--set", "epochs=4"][..],
        &["--replicas", "1", "--set", "replicas=2"],
    ] {
        let message = fails(2, &[&["resume", str(&run)], twice].concat());
        assert!(message.contains("only one of the two"), "{message}");
    }
    let logs = [
        "train",
        "progressive",
        "--log",
        "csv",
        "--set",
        "log=[tensorboard]",
    ];
    assert!(fails(2, &logs).contains("only one of the two"));
    let again = || {
        let file = run.join("config.toml");
        let output = onward(&["train", "progressive", "--dry-run", "--config", str(&file)]);
        assert!(output.status.success());
        text(&output.stderr).contains("changed on the way (lr from 0.01 to 0.5")
    };
    assert!(!again());
    succeeds(&["resume", str(&run), "--set", "lr=0.5", "--quiet"]);
    assert!(again());
}

#[test]
fn settings_and_presets_are_shown_by_the_names_that_the_command_line_takes() {
    for (name, expected) in [
        ("layer.dropout", "dropout, a setting of"),
        ("data.size", "size, a setting of"),
        (
            "progressive:hinton",
            "of architecture progressive:\npreset hinton",
        ),
    ] {
        let shown = succeeds(&["show", name]);
        assert!(shown.contains(expected), "{name}: {shown}");
    }
    assert!(!succeeds(&["show", "recurrent:hinton"]).contains("progressive"));
    let presets: serde_json::Value =
        serde_json::from_str(&succeeds(&["list", "presets", "--json"])).unwrap();
    assert_eq!(presets["architecture"]["recurrent"][0]["name"], "glom");
}

#[test]
fn a_preset_beside_a_complete_file_is_said_to_have_no_effect() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let said = |file: &Path| {
        let preset = ["--preset", "predsim", "--config", str(file)];
        let output = onward(&[&["train", "progressive", "--dry-run"], &preset[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let complete = run.join("config.toml");
    let expected = format!(
        "warning: --preset predsim has no effect: {} sets all settings",
        complete.display()
    );
    let found = said(&complete);
    assert!(found.contains(&expected), "{found}");
    let part = base.path().join("part.toml");
    std::fs::write(&part, "hidden = [20]\ndata = \"digits\"\n").unwrap();
    let found = said(&part);
    assert!(!found.contains("has no effect"), "{found}");
}
