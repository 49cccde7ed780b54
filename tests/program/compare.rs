//! `onward compare`: many runs, one table.

use std::path::Path;

use serde_json::Value;

use crate::*;

/// The arguments of a small comparison.
pub fn compare<'a>(out: &'a Path, methods: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let small = [
        "--data",
        "digits",
        "--set",
        "data.size=200",
        "--set",
        "hidden=[20]",
        "--epochs",
        "1",
        "--out",
        str(out),
    ];
    [&["compare"], methods, &small, more].concat()
}

fn modified(path: &Path) -> std::time::SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

#[test]
fn methods_and_seeds_give_one_table() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let methods = ["progressive", "progressive,lr=0.5,layer.dropout=0.1"];
    let more = ["--seeds", "1..2", "--layers"];
    let printed = succeeds(&compare(&out, &methods, &more));
    assert!(
        printed.lines().all(|line| !line.contains("no result")),
        "{printed}"
    );
    for name in [
        "progressive ",
        "dropout=0.1",
        "backprop ",
        "backprop:deep_supervision ",
        "frozen=true",
        "±",
        "MACs",
    ] {
        assert!(printed.contains(name), "{name}: {printed}");
    }
    let json = std::fs::read_to_string(out.join("compare.json")).unwrap();
    let rows: Value = serde_json::from_str(&json).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 5);
    let class = |method: &str| {
        let row = rows.iter().find(|row| row["method"] == method);
        row.unwrap()["rule"].as_str().unwrap().to_string()
    };
    assert_eq!(class("progressive"), "contrast");
    assert_eq!(class("backprop"), "backpropagation");
    assert_eq!(class("progressive,frozen=true"), "frozen");
    assert!(rows
        .iter()
        .all(|row| row["seeds"].as_array().unwrap().len() == 2));
    let probed = |method: &str| {
        let row = rows.iter().find(|row| row["method"] == method).unwrap();
        row["layers"].as_array().unwrap().len()
    };
    // The baseline is one block, which does not show its layers.
    assert_eq!((probed("progressive"), probed("backprop")), (1, 0));
    let csv = std::fs::read_to_string(out.join("compare.csv")).unwrap();
    assert_eq!(csv.lines().count(), 11);
    let table = std::fs::read_to_string(out.join("compare.md")).unwrap();
    assert_eq!(table.lines().count(), 7, "{table}");
    // Forward, and back for both weights and, through the classifier, for the layer. In the
    // first of two steps the classifier is 0, so that no gradient reaches the layer.
    let (layer, classifier) = (28 * 28 * 20, 20 * 10);
    let of_backprop = rows.iter().find(|row| row["method"] == "backprop").unwrap();
    assert_eq!(
        of_backprop["multiply_adds_per_example"],
        f64::from(3 * layer / 2 + 3 * classifier)
    );

    // The figures are those of the same run alone.
    let alone = base.path().join("alone");
    let arguments = compare(&alone, &["progressive"], &["--seed", "2", "--quiet"]);
    let train: Vec<&str> = [&["train"], &arguments[1..]].concat();
    succeeds(&train);
    let model = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(model(&alone) == model(&out.join("progressive-digits-2")));

    // Again: nothing is trained, and one run that is missing is made.
    let kept = out.join("progressive-digits-1/summary.json");
    let before = modified(&kept);
    std::fs::remove_dir_all(out.join("backprop-digits-2")).unwrap();
    succeeds(&compare(&out, &methods, &["--seeds", "1..2"]));
    assert_eq!(modified(&kept), before);
    assert!(out.join("backprop-digits-2/summary.json").is_file());
}

#[test]
fn many_runs_are_not_written_into_one_run() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let small = compare(&run, &["progressive"], &["--quiet"]);
    succeeds(&[&["train"], &small[1..]].concat());
    let count = || std::fs::read_dir(&run).unwrap().count();
    let (before, inside) = (count(), run.join("many"));
    for out in [&run, &inside] {
        let only = ["--no-baselines"];
        let comparison = compare(out, &["progressive"], &only);
        let mut sweep = compare(out, &["progressive"], &["--grid", "lr=0.1,0.2"]);
        sweep[0] = "sweep";
        for arguments in [comparison, sweep] {
            let message = fails(2, &arguments);
            let expected = format!("{}: is the folder of one run", str(&run));
            assert!(
                message.contains(&expected) && message.contains("--out"),
                "{message}"
            );
        }
    }
    assert_eq!(count(), before);
}

#[test]
fn a_run_that_was_interrupted_goes_on_and_one_that_fails_is_a_row() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let only = ["--no-baselines"];
    succeeds(&compare(&out, &["progressive"], &only));
    let run = out.join("progressive-digits-1");
    let model = std::fs::read(run.join("model.safetensors")).unwrap();
    for name in ["summary.json", "model.safetensors"] {
        std::fs::remove_file(run.join(name)).unwrap();
    }
    // These settings are valid one by one; together they fail in the first step.
    let wrong = "progressive,goodness=predsim,sampler=hybrid_images";
    let printed = succeeds(&compare(&out, &["progressive", wrong], &only));
    assert!(std::fs::read(run.join("model.safetensors")).unwrap() == model);
    let row = format!("{wrong}: no result: ");
    let row = printed.lines().find(|line| line.contains(&row));
    assert!(
        row.is_some_and(|row| row.contains("one positive view")),
        "{printed}"
    );

    // A method that is a baseline too is one row, and one of other data is not taken.
    let baseline = succeeds(&compare(&base.path().join("b"), &["backprop"], &[]));
    let rows = baseline.lines().filter(|line| line.contains("  backprop "));
    assert_eq!(rows.count(), 1, "{baseline}");
    let other = compare(
        &out,
        &["progressive"],
        &["--no-baselines", "--set", "data.size=300"],
    );
    let message = fails(1, &other);
    assert!(message.contains("other settings"), "{message}");
    // The settings of a method win over those of all.
    let lr = ["--no-baselines", "--set", "lr=0.5"];
    let own = base.path().join("own");
    succeeds(&compare(&own, &["progressive,lr=0.125"], &lr));
    let config = own.join("progressivexlr=0.125-digits-1/config.toml");
    let config = std::fs::read_to_string(config).unwrap();
    assert!(config.contains("\nlr = 0.125\n"), "{config}");
    for wrong in ["seed=3", "epochs=2"] {
        let message = fails(2, &compare(&out, &["progressive"], &["--set", wrong]));
        assert!(message.contains("own flag"), "{message}");
    }

    // Other settings in the same folder and wrong names are refused before any training.
    let changed = compare(
        &out,
        &["progressive"],
        &["--no-baselines", "--set", "batch=50"],
    );
    let message = fails(1, &changed);
    assert!(message.contains("other settings"), "{message}");
    let message = fails(2, &compare(&out, &["progressive:unknown"], &only));
    assert!(message.contains("preset"), "{message}");
    let message = fails(2, &compare(&out, &["progressive,lr"], &only));
    assert!(message.contains("KEY=VALUE"), "{message}");
    let message = fails(2, &compare(&out, &["progressive"], &["--seeds", "3..1"]));
    assert!(message.contains("1..3"), "{message}");
}

#[test]
fn a_budget_of_operations_or_time_becomes_epochs() {
    let base = tempfile::tempdir().unwrap();
    let words = |out: &Path, more: &[&str]| -> Vec<String> {
        let mut words = compare(out, &["progressive", "progressive,hidden=[40]"], more);
        let epochs = words.iter().position(|word| *word == "--epochs").unwrap();
        words.drain(epochs..epochs + 2);
        words.iter().map(ToString::to_string).collect()
    };
    let run = |out: &Path, more: &[&str]| -> Value {
        let words = words(out, &[&["--no-baselines", "--json"], more].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        serde_json::from_str(&succeeds(&words)).unwrap()
    };
    // Twice the units cost about twice as much: 200 examples, 28·28·20·5 operations each
    // for two views that go forward and back, and for negatives.
    let out = base.path().join("operations");
    let rows = run(&out, &["--multiply-adds", "1e8"]);
    let rows = rows.as_array().unwrap();
    let epochs = |hidden: &str| {
        let of =
            |row: &&Value| row["method"].as_str().unwrap().contains("[40]") == (hidden == "40");
        rows.iter().find(of).unwrap()["epochs"].as_u64().unwrap()
    };
    assert!(epochs("20") > epochs("40") && epochs("40") > 1, "{rows:?}");
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        let all = number("multiply_adds_per_example") * number("epochs") * 200.;
        assert!((0.5e8..1.2e8).contains(&all), "{row}");
    }
    let out = base.path().join("time");
    // The time of an epoch depends on the machine; an interrupted pilot is made anew.
    std::fs::create_dir_all(out.join("pilots/progressive-digits")).unwrap();
    let run_of_before = out.join("pilots/progressive-digits/config.toml");
    std::fs::write(run_of_before, "architecture = \"progressive\"\n").unwrap();
    let rows = run(&out, &["--minutes", "0.02"]);
    let epochs = rows[0]["epochs"].as_u64().unwrap();
    assert!((1..1_000_000).contains(&epochs), "{rows}");
    // Another budget, or other settings, do not replace the table that is there.
    let out = base.path().join("operations");
    let table = || std::fs::read_to_string(out.join("compare.md")).unwrap();
    let before = table();
    let other = ["--multiply-adds", "1e8", "--set", "lr=0.5"];
    for more in [&["--multiply-adds", "3e8"][..], &other] {
        let words = words(&out, &[&["--no-baselines"], more].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let message = fails(1, &words);
        assert!(message.contains("is a run of other settings"), "{message}");
        assert_eq!(table(), before);
    }
    let words = words(&base.path().join("small"), &["--multiply-adds", "10"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let message = fails(1, &[&words[..], &["--no-baselines"]].concat());
    assert!(message.contains("more than the budget"), "{message}");
    let both = [&words[..], &["--epochs", "1"]].concat();
    assert!(fails(2, &both).contains("cannot be used with"));
}

/// The names of folders leave out what data have of slashes.
#[test]
fn data_of_nearly_the_same_name_are_measured_apart() {
    let base = tempfile::tempdir().unwrap();
    let [one, other] = ["x/y", "xy"].map(|name| base.path().join(name));
    crate::own_data::bars(&one, 12, 250);
    crate::own_data::bars(&other, 12, 240);
    let data = [&one, &other].map(|folder| crate::own_data::folder(folder));
    let out = base.path().join("out");
    let table = succeeds(&[
        "compare",
        "progressive,hidden=[4]",
        "--data",
        &data[0],
        "--data",
        &data[1],
        "--minutes",
        "0.005",
        "--no-baselines",
        "--json",
        "--out",
        str(&out),
    ]);
    let rows: Value = serde_json::from_str(&table).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(row["problems"].as_array().unwrap().is_empty(), "{row}");
    }
}

#[test]
fn a_training_stops_after_some_epochs_and_goes_on() {
    let base = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| base.path().join(name));
    let train = |out: &Path, more: &[&str]| {
        let small = compare(out, &["progressive"], &["--quiet"]);
        let mut words = [&["train"], &small[1..], more].concat();
        let epochs = words.iter().position(|word| *word == "--epochs").unwrap();
        words[epochs + 1] = "3";
        succeeds(&words)
    };
    train(&whole, &[]);
    let printed = train(&parts, &["--until", "1"]);
    assert!(
        printed.starts_with("1 of 3 epochs are complete"),
        "{printed}"
    );
    assert!(printed.contains("next: onward resume"), "{printed}");
    assert!(!parts.join("summary.json").exists());
    succeeds(&["resume", str(&parts), "--until", "2", "--quiet"]);
    succeeds(&["resume", str(&parts), "--quiet"]);
    for name in ["model.safetensors", "state.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(read(&whole) == read(&parts), "{name}");
    }
    let lines = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        text.lines().count()
    };
    assert_eq!(lines(&whole), lines(&parts));
}

#[test]
fn the_locality_of_each_method_is_measured_once() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let arguments = compare(
        &out,
        &[
            "progressive",
            "trifecta,hidden=[20,20]",
            "backprop,hidden=[20,20]",
        ],
        &["--seeds", "1..2"],
    );
    let arguments = [&arguments[..], &["--certify", "--no-baselines", "--json"]].concat();
    let rows: Value = serde_json::from_str(&succeeds(&arguments)).unwrap();
    let crossed = |method: &str| {
        let mut rows = rows.as_array().unwrap().iter();
        let row = rows.find(|row| row["method"].as_str().unwrap().starts_with(method));
        row.unwrap()["crossed"].as_str().unwrap().to_string()
    };
    assert_eq!(
        [
            crossed("progressive"),
            crossed("trifecta"),
            crossed("backprop,")
        ],
        ["0", "1", "all"]
    );
    let certificate = |seed: u32| {
        let folder = out.join(format!("progressive-digits-{seed}"));
        folder.join("certificate.json").exists()
    };
    assert_eq!((certificate(1), certificate(2)), (true, false));
    // The page says it, and a run that goes on still knows it.
    let run = out.join("progressive-digits-1");
    let epochs = ["resume", str(&run), "--epochs", "2", "--quiet", "--json"];
    let summary: Value = serde_json::from_str(&succeeds(&epochs)).unwrap();
    assert_eq!(summary["locality"]["crossed"], 0);
    assert_eq!(summary["locality"]["local"], true);
    let page = base.path().join("page.html");
    succeeds(&["page", str(&run), "--out", str(&page)]);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("No signal comes back to a block"), "{page}");
    // No signal from another block is no sign of locality where there is one block.
    let backprop = [
        "certify",
        "backprop",
        "--set",
        "hidden=[8,8]",
        "--set",
        "data.size=100",
    ];
    let found = succeeds(&backprop);
    let expected = "The whole network is one block, and inside it a signal comes back from layer";
    let is_said = found.contains(expected) && !found.contains("No signal");
    assert!(is_said && found.contains("In block net"), "{found}");
}

/// Counts are the same for all methods, so that a table of them would rank none; what they
/// predict by themselves stands below.
#[test]
fn language_models_are_compared_without_their_counts_and_beside_them() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let methods = ["nlp", "nlp,mixture=true"];
    let settings = [
        "--set",
        "hidden=[10]",
        "--set",
        "data.tokenizer=char",
        "--no-baselines",
    ];
    let start = [
        "compare", methods[0], methods[1], "--data", "fables", "--epochs", "1",
    ];
    let table = succeeds(&[&start[..], &settings, &["--out", str(&out)]].concat());
    let written = std::fs::read_to_string(out.join("compare.md")).unwrap();
    for baseline in ["kneser_ney_6 ", "kneser_ney_6_adaptive ", "unigram "] {
        for table in [&table, &written] {
            let lines = table.lines().filter(|line| line.contains(baseline));
            let is_measured = |line: &&str| line.matches(" bits/char").count() == 2;
            assert_eq!(lines.filter(is_measured).count(), 1, "{baseline}: {table}");
        }
    }
    let mut mixed = 0;
    for run in std::fs::read_dir(&out).unwrap() {
        let read = |name: &str| std::fs::read_to_string(run.as_ref().unwrap().path().join(name));
        let (Ok(summary), Ok(config)) = (read("summary.json"), read("config.toml")) else {
            continue;
        };
        let summary: Value = serde_json::from_str(&summary).unwrap();
        let is_mixed = summary["test"]["readouts"].get("mixture").is_some();
        assert_eq!(is_mixed, config.contains("mixture = true"), "{config}");
        mixed += usize::from(is_mixed);
    }
    assert_eq!(mixed, 1);
}

#[test]
fn a_table_is_not_replaced_by_runs_of_other_settings() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let alone = ["--no-baselines"];
    succeeds(&compare(&out, &["progressive"], &alone));
    let table = || std::fs::read_to_string(out.join("compare.md")).unwrap();
    let before = table();
    let other = ["--no-baselines", "--set", "lr=0.5"];
    let message = fails(1, &compare(&out, &["progressive"], &other));
    assert!(message.contains("is a run of other settings"), "{message}");
    assert_eq!(table(), before);
    // A file may have other examples.
    let file = base.path().join("few.toml");
    let few = "architecture = \"progressive\"\nhidden = [20]\nexamples = 50\n";
    std::fs::write(&file, few).unwrap();
    let both = onward(&compare(
        &base.path().join("few"),
        &["progressive", str(&file)],
        &alone,
    ));
    let said = text(&both.stderr);
    assert!(
        said.contains("few.toml has examples = 50, progressive has 0"),
        "{said}"
    );
    // Another method makes another table, and says so.
    let another = onward(&compare(&out, &["progressive,lr=0.5"], &alone));
    let said = text(&another.stderr);
    assert!(
        another.status.success() && said.contains("leaves out progressive,"),
        "{said}"
    );
}

#[test]
fn a_comparison_without_a_result_of_what_was_asked_for_fails() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    // A network for text, on images.
    let asked = |more: &[&'static str]| compare(&out, &[&["nlp"], more].concat(), &[]);
    let message = fails(1, &asked(&[]));
    assert!(
        message.contains("no method that was asked for"),
        "{message}"
    );
    succeeds(&asked(&["progressive"]));
}

#[test]
fn a_report_of_a_folder_that_is_not_there_is_an_error() {
    let base = tempfile::tempdir().unwrap();
    let nothing = base.path().join("nothere");
    let message = fails(1, &["report", str(&nothing)]);
    assert!(
        message.contains("nothere: expected the folder"),
        "{message}"
    );
    // A table is not replaced by one without a result, and nothing but runs has rows.
    let [table, run, empty] = ["table.md", "run", "empty"].map(|name| base.path().join(name));
    let marks = "<!-- onward report: begin -->\nold\n<!-- onward report: end -->";
    std::fs::write(&table, marks).unwrap();
    std::fs::create_dir(&empty).unwrap();
    fails(1, &["report", str(&empty), "--write", str(&table)]);
    assert_eq!(std::fs::read_to_string(&table).unwrap(), marks);
    let train = [
        "train",
        "progressive",
        "--data=digits",
        "--set=data.size=100",
        "--epochs=1",
    ];
    succeeds(&[&train[..], &["--quiet", "--out", str(&run)]].concat());
    succeeds(&["report", str(&run), str(&empty), "--write", str(&table)]);
    let rows = std::fs::read_to_string(&table).unwrap();
    assert!(
        rows.contains("progressive") && !rows.contains("no result"),
        "{rows}"
    );
}
