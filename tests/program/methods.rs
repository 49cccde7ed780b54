//! What a command line means: methods, other spellings, the order of settings.

use crate::*;

/// Arguments of a training of a moment.
const SMALL: [&str; 5] = ["--data", "digits", "--epochs", "1", "--set=data.size=100"];

/// What a dry run prints.
fn dry(more: &[&str]) -> String {
    succeeds(&[&["train"], more, &SMALL, &["--dry-run"]].concat())
}

fn refused(more: &[&str], expected: &str) {
    let message = fails(2, &[&["train"], more, &SMALL].concat());
    assert!(message.contains(expected), "{more:?}: {message}");
}

#[test]
fn a_method_of_a_comparison_can_be_trained() {
    let base = tempfile::tempdir().unwrap();
    let method = "progressive:nebuly,hidden=[10],lr=0.5";
    let config = dry(&[method, "--set", "lr=0.25"]);
    for line in ["hidden = [10]", "lr = 0.25", "name = \"label_concat\""] {
        assert!(config.contains(line), "{line}: {config}");
    }
    let run = base.path().join("run");
    let quiet = ["--quiet", "--out", str(&run)];
    succeeds(&[&["train", method], &SMALL[..], &quiet].concat());
    let file = run.join("config.toml");
    let trained = std::fs::read_to_string(&file).unwrap();
    let again = succeeds(&["train", str(&file), "--dry-run"]);
    assert!(again.starts_with(&trained), "{again}");
    // A file of some settings takes the others from the preset.
    let part = base.path().join("part.toml");
    let some = "architecture = \"progressive\"\n[sampler]\nnegatives = \"uniform\"\n";
    std::fs::write(&part, some).unwrap();
    let config = dry(&[str(&part)]);
    assert!(config.contains("negatives = \"uniform\""), "{config}");
    assert!(config.contains("label_overlay"), "{config}");
    let config = dry(&[&format!("{}:nebuly", part.display())]);
    assert!(config.contains("negatives = \"uniform\""), "{config}");
    assert!(config.contains("label_concat"), "{config}");
    let empty = base.path().join("empty.toml");
    std::fs::write(&empty, "lr = 0.1\n").unwrap();
    refused(&[str(&empty)], "add a line such as architecture");
    refused(&[str(&run)], "is a folder; its settings: ");
    let nowhere = ["progressive", "--data-dir", "nowhere"];
    refused(&nowhere, "expected a folder, found none at nowhere");
    let certified = succeeds(&[&["certify", method], &SMALL[..4]].concat());
    assert!(certified.contains("No signal comes back"), "{certified}");

    refused(&[method, "--preset", "hinton"], "only one of the two");
    let both = ["train", str(&file), "--config", str(&file)];
    assert!(fails(2, &both).contains("expected one of the two"));
    refused(&["progressive:hintn"], "did you mean `hinton`?");
    refused(
        &["progressive,hinton"],
        "expected KEY=VALUE after the comma",
    );
    let several = "hinton is a preset of layer_collaboration, nlp, progressive, recurrent";
    refused(&["hinton"], several);
}

#[test]
fn other_spellings_are_the_same_setting() {
    for [flag, assignment] in [
        ["--epochs=3", "num_epochs=5"],
        ["--data=digits", "data.name=fables"],
    ] {
        let message = fails(2, &["train", "progressive", flag, "--set", assignment]);
        assert!(message.contains("only one of the two"), "{message}");
    }
    let of_all = ["compare", "progressive", "--set", "num_epochs=2"];
    let message = fails(2, &[&of_all[..], &SMALL[..4]].concat());
    assert!(
        message.contains("epochs: is given to all runs"),
        "{message}"
    );
    let grids = ["--grid", "lr=0.1", "--grid", "learning_rate=0.2"];
    let sweep = [&["sweep", "progressive"], &grids[..], &SMALL[..4]].concat();
    assert!(fails(2, &sweep).contains("lr: is varied twice"));
    let shown = succeeds(&["show", "learning_rate"]);
    assert!(shown.starts_with("lr, a setting of"), "{shown}");
    let shown = succeeds(&["show", "batch_size"]);
    assert!(
        shown.starts_with("batch, a setting of every run"),
        "{shown}"
    );
}

#[test]
fn the_last_of_several_assignments_wins() {
    let peer = |set: [&str; 2]| {
        let config = dry(&["progressive", "--set", set[0], "--set", set[1]]);
        let line = config.lines().find(|line| line.starts_with("peer = "));
        line.expect("a setting `peer`").to_string()
    };
    let table = "layer={name=\"dense\",peer=0.5}";
    assert_eq!(peer(["layer.peer=0.25", table]), "peer = 0.5");
    assert_eq!(peer([table, "layer.peer=0.25"]), "peer = 0.25");
    // A plugin that is chosen by its name keeps what is set of it.
    assert_eq!(peer(["layer.peer=0.25", "layer=dense"]), "peer = 0.25");
    // And so does what is set of each plugin of a list.
    let each = ["layer.peer=0.25", "layer=[dense,dense,dense]"];
    assert_eq!(peer(each), "peer = 0.25");
    assert_eq!(peer(["layer.peer=0.25", "layer.name=dense"]), "peer = 0.25");
}

#[test]
fn a_short_form_and_its_long_one_in_a_file_have_to_agree() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("c.toml");
    let nlp = ["train", "nlp", "--config", str(&file), "--dry-run"];
    std::fs::write(&file, "window = 5\n[data]\nwindow = 7\n").unwrap();
    let message = fails(2, &nlp);
    assert!(
        message.contains("expected 7, as `data.window`"),
        "{message}"
    );
    std::fs::write(&file, "window = 5\n[data]\nwindow = 5\n").unwrap();
    assert!(succeeds(&nlp).contains("window = 5"));
}

#[test]
fn a_refusal_names_what_was_written() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let quiet = ["--set=hidden=[10]", "--quiet", "--out", str(&run)];
    succeeds(&[&["train", "progressive"], &SMALL[..], &quiet].concat());
    // What a goodness needs wins over what the data suggest, as the guide says.
    let config = succeeds(&["train", "progressive,goodness=cafo", "--dry-run"]);
    assert!(config.contains("\nepochs = 1\n"), "{config}");
    for given in ["n_layers=2", "hidden_size=30"] {
        let message = fails(2, &["resume", str(&run), "--set", given]);
        let seed = ["resume", str(&run), "--epochs", "2", "--set", "seed=5"];
        assert!(fails(2, &seed).contains("which the run has kept"));
        assert!(
            message.contains(&format!("(from --set {given})")),
            "{message}"
        );
    }
    let method = "progressive:hinton,lr=abc";
    refused(&[method], &format!("(from {method})"));
    let elsewhere = ["evaluate", str(&run), "--data", "folder:nowhere"];
    let message = fails(1, &elsewhere);
    assert!(!message.contains("put them back"), "{message}");
    let config = base.path().join("c.toml");
    std::fs::write(&config, "layer = \"digits\"\n").unwrap();
    let from = format!("(from {})", config.display());
    refused(&["progressive", "--config", str(&config)], &from);
    std::fs::write(&config, "goodness = \"dense\"\n").unwrap();
    refused(&["progressive", "--config", str(&config)], &from);
    let data = fails(2, &["train", "progressive", "--data", "dense"]);
    assert!(data.contains("(from --data dense)"), "{data}");
    refused(
        &["progressive", "--set=architecture=5"],
        "expected progressive, the requested architecture",
    );
    let init = fails(2, &["train", "progressive", "--set", "init=2024"]);
    assert!(init.contains("with double quotes"), "{init}");
    refused(
        &["progressive", "--set", "layer={peer=0.1,name=3}"],
        "name = 3",
    );
    refused(
        &[
            "progressive",
            "--set",
            "hidden=[5]",
            "--set",
            "layer=[dense,dense]",
        ],
        "[\"dense\", \"dense\"]",
    );
    refused(
        &[
            "progressive",
            "--set",
            "evaluate_every=99999999999999999999",
        ],
        "the largest whole number is 9223372036854775807",
    );
    let wild = base.path().join("wild");
    let theta = ["train", "progressive", "--set", "theta=1e38"];
    let quiet = ["--set=hidden=[10]", "--quiet", "--out", str(&wild)];
    let message = fails(1, &[&theta[..], &SMALL, &quiet].concat());
    assert!(message.contains("before anything was learned"), "{message}");
}

#[test]
fn settings_that_others_overrule_are_named() {
    let warned = |set: &[&str], expected: &str| {
        let set: Vec<String> = set.iter().map(|set| format!("--set={set}")).collect();
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let arguments = [&["train", "progressive", "--dry-run"], &SMALL[..], &set].concat();
        let output = onward(&arguments);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains(expected), "{said}");
    };
    warned(
        &["layer.units=3", "hidden=[5,6]"],
        "`hidden` (from --set hidden=[5,6]) has no effect",
    );
    warned(
        &[
            "frozen=true",
            "hidden=[5]",
            "layer=[{name=\"dense\",peer=0.1}]",
        ],
        "`layer.peer` (from --set layer=[",
    );
}

#[test]
fn what_replicas_would_be_is_shown() {
    let shown = dry(&["progressive", "--set", "hidden=[10]", "--replicas", "2"]);
    assert!(shown.contains("replicas = 2"), "{shown}");
    assert!(shown.contains("# parameters  7950"), "{shown}");
    refused(
        &["progressive", "--set", "hidden=[10]", "--replicas", "1000"],
        "at most",
    );
}

#[test]
fn a_baseline_without_a_setting_of_all_is_left_out() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let start = ["compare", "progressive", "--set", "goodness=mean_squares"];
    let more = ["--set", "hidden=[5]", "--out", str(&out)];
    let output = onward(&[&start[..], &SMALL, &more].concat());
    let said = text(&output.stderr);
    let expected = "the baseline backprop is left out, since it has no setting `goodness`";
    assert!(output.status.success() && said.contains(expected), "{said}");
    let table = text(&output.stdout);
    assert!(table.contains("progressive,frozen=true"), "{table}");
}

#[test]
fn a_random_sweep_finds_every_combination() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let start = ["sweep", "progressive", "--grid", "lr=0.1,0.1,0.2"];
    let more = ["--random", "3", "--set", "hidden=[5]", "--out", str(&out)];
    let output = onward(&[&start[..], &SMALL, &more].concat());
    let said = text(&output.stderr);
    let expected = "there are only 2 different combinations, not 3";
    assert!(output.status.success() && said.contains(expected), "{said}");
    assert!(said.contains("[2/2] progressive,lr="), "{said}");
}
