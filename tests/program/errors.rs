//! Wrong use and failures: exit codes, and messages that name what is valid.

use crate::*;

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
            &["`sampler.strenght`", "did you mean `sampler.strength`?"],
        ),
        (
            &["--set", "readout_form=1"],
            &["did you mean `readout_from`?"],
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
            &["--set", "loss=logistc"],
            &["cross_entropy, none; did you mean `logistic`?"],
        ),
        (
            &["--set", "readout=softmax", "--set", "data.size=100"],
            &["`readout` = \"softmax\"", "expected one of search, head"],
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
            &["--data", "table.csv"],
            &["tables and arrays are data of your own"],
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
        message.contains("did you mean `progressive`?") && !message.contains("your_crate"),
        "{message}"
    );
    let message = fails(2, &["train", "my_own_method"]);
    assert!(message.contains("use your_crate as _;"), "{message}");
    let message = fails(2, &["train", "progressive", "--preset", "hintn"]);
    assert!(message.contains("did you mean `hinton`?"), "{message}");
    let message = fails(2, &["evaluate", "none", "--split", "trai"]);
    assert!(message.contains("did you mean `train`?"), "{message}");
    let message = fails(2, &["show", "serch"]);
    assert!(message.contains("did you mean `search`?"), "{message}");
    let message = fails(2, &["list", "layer_norms"]);
    assert!(
        message.contains("expected one of architecture, layer"),
        "{message}"
    );
    for command in [&["certify", "progressive"][..], &["bench", "progressive"]] {
        let message = fails(2, &[command, &["--lr", "0.1"]].concat());
        assert!(message.contains("--set lr=VALUE"), "{message}");
    }
    fails(2, &[]);
}

#[test]
fn other_errors_exit_with_code_1_and_name_the_place() {
    let base = tempfile::tempdir().unwrap();
    let path = |name: &str| base.path().join(name).to_str().unwrap().to_string();
    std::fs::create_dir(path("empty")).unwrap();
    let message = fails(
        1,
        &[
            "train",
            "progressive",
            "--data",
            "mnist",
            "--data-dir",
            &path("empty"),
        ],
    );
    assert!(
        message.contains("empty/mnist") && message.contains("$ONWARD_DATA"),
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
    let message = fails(1, &["resume", str(&run)]);
    assert!(message.contains("state.safetensors"), "{message}");
}

#[test]
fn a_run_is_evaluated_with_the_checkpoint_that_is_not_damaged() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let paths = ["state.safetensors", "model.safetensors"].map(|name| run.join(name));
    let good = paths.each_ref().map(|path| std::fs::read(path).unwrap());
    let evaluated = |which: usize, bytes: &[u8]| {
        std::fs::write(&paths[which], bytes).unwrap();
        let output = onward(&["evaluate", str(&run)]);
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        (text(&output.stdout), message)
    };
    let (undisturbed, said) = evaluated(0, &good[0]);
    assert!(!said.contains("warning"), "{said}");
    let mut flipped = good.clone();
    flipped.iter_mut().for_each(|bytes| {
        let at = bytes.len() - 400;
        bytes[at] ^= 1;
    });
    for bytes in [&[], &good[0][..good[0].len() / 2], &flipped[0]] {
        let (found, said) = evaluated(0, bytes);
        let lost = "model.safetensors is used instead; without the state the run cannot be resumed";
        assert!(
            said.contains("state.safetensors: ") && said.contains(lost),
            "{said}"
        );
        assert_eq!(found, undisturbed);
    }
    evaluated(0, &good[0]);
    let (found, said) = evaluated(1, &flipped[1]);
    let expected = "model.safetensors: was damaged; it was written again from state.safetensors";
    assert!(said.contains(expected), "{said}");
    assert_eq!(found, undisturbed);
    assert_eq!(std::fs::read(&paths[1]).unwrap(), good[1]);
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
fn the_setting_preset_or_flag_that_was_meant_is_named() {
    for (arguments, expected) in [
        (
            &["nlp", "--set", "head=true"][..],
            "did you mean one of `head_rule`, `head_optimiser`",
        ),
        (
            &["nlp", "--set", "dropout=0.1"],
            "did you mean `layer.dropout`?",
        ),
        (
            &["nlp", "--set", "context=20"],
            "did you mean `data.window`?",
        ),
        (
            &["progressive", "--set", "data.sise=9"],
            "did you mean `data.size`?",
        ),
        (
            &["progressive", "--set", "preset=nebuly"],
            "did you mean the flag --preset, or a method such as progressive:hinton?",
        ),
        (
            &["pepita"],
            "a preset of progressive: onward train progressive --preset pepita",
        ),
        (&["nlp:windwo"], "did you mean `window`?"),
    ] {
        let message = fails(2, &[&["train"], arguments].concat());
        assert!(message.contains(expected), "{message}");
    }
}

/// A training that takes no time.
const SMALL: [&str; 6] = [
    "--set",
    "data.size=100",
    "--set",
    "hidden=[10]",
    "--epochs",
    "1",
];

#[test]
fn a_setting_without_an_effect_is_said() {
    let said = |arguments: &[&str]| {
        let output = onward(&[&["train", "progressive", "--dry-run"], arguments].concat());
        let message = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {message}");
        message
    };
    let cafo = [&["--set", "goodness=cafo"], &SMALL[..]].concat();
    let quiet = said(&cafo);
    assert!(!quiet.contains("no effect"), "{quiet}");
    for (set, expected) in [
        ("loss=symmetric", "the goodness cafo has a loss of its own"),
        ("learning_rate=0.5", "stay random"),
        ("head_lr=0.5", "there is no head"),
        ("mixture=true", "the data are no text"),
    ] {
        let found = said(&[&cafo[..], &["--set", set]].concat());
        let key = set
            .split('=')
            .next()
            .unwrap()
            .replace("learning_rate", "lr");
        let expected = [
            format!("warning: `{key}` (from --set {set}) has no effect"),
            expected.into(),
        ];
        for expected in expected {
            assert!(found.contains(&expected), "{set}: {found}");
        }
    }
    // One evaluation before the end is enough.
    for (every, is_idle) in [("4", true), ("3", false)] {
        let settings = ["patience=2", "epochs=4", &format!("evaluate_every={every}")]
            .map(|set| set.to_string());
        let settings: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
        let found = said(&[&settings[..], &SMALL[..4]].concat());
        assert_eq!(
            found.contains("`patience` has no effect"),
            is_idle,
            "{found}"
        );
    }
    // The second one changes the input, also for a network without negatives.
    for (set, is_idle) in [
        ("sampler=hybrid_images", true),
        ("sampler=modulated", true),
        ("sampler=label_overlay", false),
    ] {
        let backprop = ["train", "backprop", "--dry-run", "--set", set];
        let found = text(&onward(&[&backprop, &SMALL[..]].concat()).stderr);
        let expected = format!("`sampler.name` (from --set {set}) has no effect");
        assert_eq!(found.contains(&expected), is_idle, "{found}");
    }
    // A complete configuration repeats its run.
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("run");
    let train = ["train", "progressive", "--quiet", "--out", str(&out)];
    succeeds(&[&train, &cafo[..], &["--set", "loss=symmetric"]].concat());
    let again = said(&["--config", str(&out.join("config.toml"))]);
    assert!(!again.contains("no effect"), "{again}");
}

#[test]
fn the_parts_of_a_rule_name_each_other() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("run");
    let train = ["train", "progressive", "--quiet", "--out", str(&out)];
    for (sets, expected) in [
        (
            &["--set", "layer=two_passes"][..],
            "--set sampler=modulated --set goodness=second_pass",
        ),
        (
            &["--set", "goodness=second_pass", "--set", "sampler=plain"],
            "--set sampler=modulated",
        ),
        (
            &["--set", "goodness=two_thresholds", "--set", "sampler=plain"],
            "--set sampler=pairs",
        ),
    ] {
        let message = fails(2, &[&train, &SMALL[..], sets].concat());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_folder_that_is_no_run_is_said() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("file");
    std::fs::write(&file, "a").unwrap();
    for (folder, expected) in [
        (base.path().join("nowhere"), "found nothing there"),
        (base.path().into(), "found a folder without it"),
        (file.clone(), "found a file"),
    ] {
        for arguments in [
            &["predict", str(&folder), "x.png"][..],
            &["resume", str(&folder)],
        ] {
            let message = fails(1, arguments);
            let expected = format!("expected the folder of a run, with config.toml, {expected}");
            assert!(message.contains(&expected), "{message}");
        }
    }
    let compare = [
        "compare",
        "progressive",
        "--data",
        "digits",
        "--out",
        str(&file),
    ];
    let message = fails(1, &compare);
    assert!(
        message.contains("is a file, expected a folder"),
        "{message}"
    );
}

/// A terminal obeys no name that is printed at the end of a training.
#[test]
fn names_of_folders_are_shown_safely() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("a\u{1b}[31m");
    let train = ["train", "progressive", "--quiet", "--out", str(&out)];
    let printed = succeeds(&[&train, &SMALL[..]].concat());
    assert!(printed.contains("a\\u{1b}[31m"), "{printed}");
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
    let page = base.path().join("p\u{1b}[31m.html");
    let man = base.path().join("m\u{1b}[31m");
    for arguments in [
        &["page", str(&out), "--out", str(&page)][..],
        &["man", str(&man)],
    ] {
        let printed = succeeds(arguments);
        assert!(!printed.contains('\u{1b}'), "{printed:?}");
    }
}

#[test]
fn a_flag_that_is_nearly_right_is_taken_for_no_setting() {
    let near = fails(2, &["train", "progressive", "--epoch", "1"]);
    assert!(
        near.contains("'--epochs'") && !near.contains("--set"),
        "{near}"
    );
    // Not every near one.
    let theta = fails(2, &["train", "progressive", "--theta", "1"]);
    assert!(theta.contains("--set theta=VALUE"), "{theta}");
    let evaluate = fails(2, &["evaluate", "run", "--learning-rate", "1"]);
    assert!(!evaluate.contains("--set"), "{evaluate}");
}
