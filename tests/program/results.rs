//! What the program says of runs: tables, reports, predictions, names, dry runs.

use std::path::Path;

use serde_json::Value;

use crate::*;

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
        said.contains("all epochs (2) are trained") && said.contains("--epochs"),
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
fn a_report_has_the_runs_sorted_and_says_which_have_no_result() {
    let base = tempfile::tempdir().unwrap();
    let [one, two, other, begun] =
        ["one", "two", "other", "begun"].map(|name| base.path().join(name));
    succeeds(&train(&one, &[]));
    // `1` and `1.0` are one setting.
    succeeds(&train(&two, &["--seed", "2", "--set", "temperature=1"]));
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
    let message = fails(1, &["report", all[2]]);
    assert!(
        message.contains("expected at least one run with a result"),
        "{message}"
    );
    // Links lead from the file to the runs.
    let docs = base.path().join("docs");
    std::fs::create_dir(&docs).unwrap();
    let file = docs.join("R.md");
    let marks = ["begin", "end"].map(|mark| format!("<!-- onward report: {mark} -->\n"));
    std::fs::write(&file, marks.concat()).unwrap();
    succeeds(&["report", all[1], "--write", str(&file)]);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("(../one/summary.json)"), "{written}");
    let copied = onward(&["report", all[1], all[1]]);
    assert!(
        text(&copied.stderr).contains("one is left out"),
        "{copied:?}"
    );
    assert!(!text(&copied.stdout).contains(" ± "), "{copied:?}");
    let csv = succeeds(&[&["report", "--csv"], &all[..]].concat());
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(
        csv.starts_with(
            "run,data,rule,labels,negatives,gradient,epochs,seed,readout,validation,test,"
        ),
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
    // Two books are two names.
    std::fs::write(
        base.path().join("my book.txt"),
        "a fox and a crow. ".repeat(60),
    )
    .unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_onward"))
        .args(["train", "nlp", "--quiet", "--data", "text:my book.txt"])
        .args(["--epochs", "1", "--set", "hidden=[5]"])
        .current_dir(base.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let name = "nlp-text-mybook-hidden=5-1";
    assert!(base.path().join("runs").join(name).is_dir());
}

#[test]
fn a_picture_has_the_format_of_its_name() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let small = ["--set", "hidden=[5]", "--set", "data.size=100"];
    succeeds(
        &[
            &["train", "progressive", "--quiet", "--epochs", "1"],
            &small[..],
            &["--out", str(&run)],
        ]
        .concat(),
    );
    for (name, first) in [
        ("a.png", b"\x89PNG"),
        ("a.jpg", b"\xff\xd8\xff\xe0"),
        ("a", b"\x89PNG"),
    ] {
        let out = base.path().join(name);
        succeeds(&["picture", str(&run), "--out", str(&out)]);
        assert_eq!(&std::fs::read(&out).unwrap()[..4], first, "{name}");
    }
    let out = base.path().join("a.pdf");
    let message = fails(2, &["picture", str(&run), "--out", str(&out)]);
    assert!(message.contains("ends in .png"), "{message}");
}

#[test]
fn a_batch_that_is_larger_than_the_training_part_is_said() {
    let base = tempfile::tempdir().unwrap();
    let said = |batch: &str| {
        let (out, batch) = (base.path().join(batch), format!("batch={batch}"));
        let small = [
            "--set",
            "data.size=200",
            "--set",
            "hidden=[4]",
            "--epochs",
            "1",
        ];
        let start = ["train", "progressive", "--out", str(&out), "--set", &batch];
        text(&onward(&[&start[..], &small].concat()).stderr)
    };
    let note = "`batch` = 5000 is more than the";
    assert!(said("5000").contains(note));
    assert!(!said("50").contains("is more than the"));
}

#[test]
fn a_network_that_learned_nothing_is_said_at_the_end() {
    let base = tempfile::tempdir().unwrap();
    let said = |architecture: &str, epochs: &str, lr: &str| {
        let out = base.path().join(format!("{architecture}-{lr}"));
        let small = ["--set", "hidden=[20]", "--epochs", epochs, "--set", lr];
        let start = ["train", architecture, "--out", str(&out)];
        let output = onward(&[&start[..], &small].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let found = said("progressive", "2", "lr=1000");
    let expected = "warning: the run learned nothing: the error is no better than that of always";
    assert!(found.contains(expected), "{found}");
    let found = said("progressive", "2", "lr=0.01");
    assert!(!found.contains("learned nothing"), "{found}");
    let found = said("nlp", "1", "lr=1000");
    assert!(
        found.contains("warning: the network alone needs"),
        "{found}"
    );
}
