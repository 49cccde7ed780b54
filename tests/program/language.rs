//! What a language model writes, and how it scores texts.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::*;

/// A run on a text with a test part of its own, and that part.
fn trained(base: &Path) -> (String, String) {
    let [text, other, run] =
        ["text.txt", "other.txt", "run"].map(|name| str(&base.join(name)).to_string());
    let line = |number: usize| format!("The fox saw {number} crows, and crow {number} saw it.\n");
    std::fs::write(&text, (0..60).map(line).collect::<String>()).unwrap();
    std::fs::write(&other, (70..90).map(line).collect::<String>()).unwrap();
    let (data, test) = (format!("text:{text}"), format!("data.test={other}"));
    let settings = ["--set", &test, "--set", "hidden=[20]", "--epochs", "2"];
    let start = ["train", "nlp", "--quiet", "--out", &run, "--data", &data];
    succeeds(&[&start[..], &settings].concat());
    (run, other)
}

fn with_stdin(arguments: &[&str], input: &str) -> String {
    let program = env!("CARGO_BIN_EXE_onward");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

#[test]
fn a_whole_text_is_scored_beside_the_counts_of_the_training_text() {
    let base = tempfile::tempdir().unwrap();
    let (run, other) = trained(base.path());
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&succeeds(&[&["score", &run, "--json"], arguments].concat())).unwrap()
    };
    // The test part of the run is that text.
    let summary: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{run}/summary.json")).unwrap())
            .unwrap();
    let found = json(&[&other, "--tokens"]);
    let score = &found["texts"][0]["score"];
    for (kind, name) in [("readouts", "head"), ("baselines", "kneser_ney_6")] {
        assert_eq!(score[kind][name], summary["test"][kind][name], "{name}");
    }
    let readout = found["readout"].as_str().unwrap();
    let bits = score["readouts"][readout]["bits_per_token"]
        .as_f64()
        .unwrap();
    let tokens = found["texts"][0]["tokens"].as_array().unwrap();
    let sum: f64 = tokens
        .iter()
        .map(|token| token["bits"].as_f64().unwrap())
        .sum();
    assert_eq!(score["tokens"], tokens.len());
    assert!((sum / tokens.len() as f64 - bits).abs() < 1e-9);

    // Two texts together have the mean of their bits, weighted by their tokens.
    let copy = str(&base.path().join("copy.txt")).to_string();
    std::fs::copy(&other, &copy).unwrap();
    let twice = json(&[&other, &copy, &other]);
    assert_eq!(twice["all"]["tokens"], 2 * tokens.len());
    let all = twice["all"]["readouts"][readout]["bits_per_token"]
        .as_f64()
        .unwrap();
    assert!((all - bits).abs() < 1e-9);
    let table = succeeds(&["score", &run, &other]);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(
        rows[0].contains("head") && rows[0].contains("kneser_ney_6"),
        "{table}"
    );
    // The bits of a text that the run has seen say little.
    let said = |file: &str| text(&onward(&["score", &run, file]).stderr);
    let note = "the run was trained on this file";
    let lines = succeeds(&["score", &run, &other, &copy, "--tokens"]);
    let last_of = |file: &str| lines.lines().filter(|line| line.ends_with(file)).count();
    assert_eq!([&other, &copy].map(|file| last_of(file)), [tokens.len(); 2]);
    assert!(said(str(&base.path().join("text.txt"))).contains(note));
    assert!(!said(&other).contains(note));
    let plots = base.path().join("plots");
    let written = succeeds(&["plot", &run, "--out", str(&plots)]);
    assert!(written.contains("bits.svg"), "{written}");
    let text = std::fs::read_to_string(&other).unwrap();
    assert_eq!(with_stdin(&["score", &run, "-"], &text).lines().count(), 2);

    // Without the training text only the unigrams are missing.
    std::fs::remove_file(base.path().join("text.txt")).unwrap();
    let found = json(&[&other]);
    assert_eq!(found["texts"][0]["score"]["readouts"], score["readouts"]);
    let mut ngrams = score["baselines"].clone();
    ngrams.as_object_mut().unwrap().remove("unigram").unwrap();
    assert_eq!(found["all"]["baselines"], ngrams);

    // A text without a token to predict is left out beside others.
    let short = str(&base.path().join("short.txt")).to_string();
    std::fs::write(&short, "The fox").unwrap();
    let found = json(&[&short, &other]);
    let problem = found["texts"][0]["left_out"].as_str().unwrap();
    assert!(problem.contains("has 7 tokens"), "{problem}");
    assert_eq!(found["texts"][1]["score"]["readouts"], score["readouts"]);
    let message = fails(2, &["score", &run, &short]);
    assert!(
        message.contains("short.txt") && message.contains("has 7 tokens"),
        "{message}"
    );

    // Files that cannot be read are said once each; the others are scored.
    let [empty, none] = ["empty.txt", "none.txt"].map(|name| base.path().join(name));
    std::fs::write(&empty, "").unwrap();
    let output = onward(&[
        "score",
        &run,
        &other,
        str(&empty),
        str(&none),
        &copy,
        "--json",
    ]);
    let message = crate::text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.matches("empty.txt").count(), 1, "{message}");
    assert_eq!(message.matches("none.txt").count(), 1, "{message}");
    assert!(
        message.contains("2 of 4 texts could not be read"),
        "{message}"
    );
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["texts"].as_array().unwrap().len(), 2);
    // Both faults are said.
    let message = fails(2, &["score", &run, str(&none), &short]);
    assert!(message.contains("none.txt"), "{message}");
    assert!(message.contains("short.txt"), "{message}");
}

#[test]
fn a_text_that_was_held_out_is_not_one_that_was_trained_on() {
    let base = tempfile::tempdir().unwrap();
    trained(base.path());
    let books = base.path().join("*.txt");
    let [seen, held_out, run] =
        ["text.txt", "other.txt", "books"].map(|name| str(&base.path().join(name)).to_string());
    let (data, test) = (
        format!("text:{}", str(&books)),
        format!("data.test={held_out}"),
    );
    let settings = ["--set", &test, "--set", "hidden=[8]", "--epochs", "1"];
    let start = ["train", "nlp", "--quiet", "--out", &run, "--data", &data];
    succeeds(&[&start[..], &settings].concat());
    let said = text(&onward(&["score", &run, &seen, &held_out]).stderr);
    assert_eq!(
        said.matches("was trained on this file").count(),
        1,
        "{said}"
    );
    assert!(said.contains("text.txt: the run was trained"), "{said}");
}

/// The readout that the run chose needs what the model alone has.
#[test]
fn a_model_without_its_counts_is_not_used_in_silence() {
    let base = tempfile::tempdir().unwrap();
    let (run, other) = trained(base.path());
    let model = Path::new(&run).join("model.safetensors");
    let (whole, said) = (
        std::fs::read(&model).unwrap(),
        succeeds(&["score", &run, &other]),
    );
    let mut flipped = whole.clone();
    flipped[whole.len() - 100] ^= 1;
    let damages: [&dyn Fn(); 2] = [&|| std::fs::write(&model, &flipped).unwrap(), &|| {
        std::fs::remove_file(&model).unwrap()
    }];
    for damage in damages {
        damage();
        // Twice: the first command may write a model again.
        for command in [&["score", &run, &other][..], &["evaluate", &run]] {
            let message = fails(1, command);
            assert!(
                message.contains("`onward resume` counts them again"),
                "{message}"
            );
        }
        succeeds(&["resume", &run, "--quiet"]);
        assert!(std::fs::read(&model).unwrap() == whole);
        assert_eq!(succeeds(&["score", &run, &other]), said);
    }
}

#[test]
fn texts_are_generated_from_files_several_at_a_time_up_to_a_word() {
    let base = tempfile::tempdir().unwrap();
    let (run, _) = trained(base.path());
    let generate =
        |more: &[&str]| succeeds(&[&["generate", &run, "--tokens", "60"], more].concat());
    let one = generate(&["--prompt", "The fox saw ", "--seed", "2"]);
    let three = generate(&["--prompt", "The fox saw ", "--samples", "3"]);
    let texts: Vec<&str> = three.split("---\n").collect();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[1], one);
    assert_ne!(texts[0], one);
    // The text ends before the word, which the prompt may contain.
    let letter = one["The fox saw ".len()..]
        .chars()
        .nth(10)
        .unwrap()
        .to_string();
    let stopped = generate(&["--prompt", "The fox saw ", "--seed", "2", "--stop", &letter]);
    let rest = &stopped["The fox saw ".len()..];
    assert!(!rest.contains(&letter) && one.starts_with(stopped.trim_end_matches('\n')));
    let prompt = base.path().join("prompt");
    std::fs::write(&prompt, "The fox saw \n").unwrap();
    assert_eq!(
        generate(&["--prompt-file", str(&prompt), "--seed", "2"]),
        one
    );
    let arguments = [
        "generate",
        &run,
        "--tokens",
        "60",
        "--prompt-file",
        "-",
        "--seed",
        "2",
    ];
    assert_eq!(with_stdin(&arguments, "The fox saw "), one);
    fails(2, &["generate", &run]);
    let nothing = generate(&["--prompt", "", "--seed", "2"]);
    assert!(!nothing.is_empty());
    let help = succeeds(&["generate", "--help"]);
    assert!(help.contains("for none; or use --prompt-file"), "{help}");
    let out = base.path().join("a.png");
    for command in [["picture", &run, "--out"], ["predict", &run, "--csv"]] {
        let message = fails(2, &[&command[..], &[str(&out)]].concat());
        let expected = "expected a run on images, found one on text";
        assert!(message.contains(expected), "{message}");
    }
    fails(
        2,
        &["generate", &run, "--prompt", "a", "--prompt-file", "b"],
    );
}

#[test]
fn the_most_probable_next_tokens_are_printed() {
    let base = tempfile::tempdir().unwrap();
    let (run, _) = trained(base.path());
    let generate = ["generate", &run, "--prompt", "The fox "];
    let with = |more: &[&str]| succeeds(&[&generate, more].concat());
    let found: Value = serde_json::from_str(&with(&["--next", "5", "--json"])).unwrap();
    let probability = |at: usize| found[at]["probability"].as_f64().unwrap();
    assert_eq!(found.as_array().unwrap().len(), 5);
    assert!((1..5).all(|at| probability(at) <= probability(at - 1)));
    assert!((0..5).map(probability).sum::<f64>() <= 1.);
    // The unknown token has its share.
    let all: Value = serde_json::from_str(&with(&["--next", "1000", "--json"])).unwrap();
    let all = all.as_array().unwrap().iter();
    let sum: f64 = all.map(|next| next["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.).abs() < 1e-5, "{sum}");
    let best = found[0]["token"].as_str().unwrap();
    let text = with(&["--temperature", "0", "--tokens", "1"]);
    assert_eq!(text.trim_end_matches('\n'), format!("The fox {best}"));
    let table = with(&["--next", "2"]);
    assert!(table.lines().count() == 2 && table.contains('%'), "{table}");

    // A penalty changes a text that repeats itself.
    let repeats = ["--temperature", "0", "--tokens", "40"];
    let penalty = [&repeats[..], &["--repetition-penalty", "1e4"]].concat();
    assert_ne!(with(&repeats), with(&penalty));
    let wrong = [&generate[..], &["--repetition-penalty", "0.5"]].concat();
    assert!(fails(2, &wrong).contains("at least 1"));
    fails(2, &[&generate[..], &["--json"]].concat());
    fails(
        2,
        &[&generate[..], &["--next", "2", "--seed", "1"]].concat(),
    );
}

#[test]
fn the_size_of_a_text_chooses_the_preset() {
    let base = tempfile::tempdir().unwrap();
    let path = str(&base.path().join("text.txt")).to_string();
    let said = |characters: usize, more: &[&str]| {
        std::fs::write(&path, "The fox saw a crow. ".repeat(characters / 20)).unwrap();
        let data = format!("text:{path}");
        let dry = ["train", "nlp", "--dry-run", "--data", &data];
        let output = onward(&[&dry[..], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr) + &text(&output.stdout)
    };
    let book = said(30_000, &[]);
    assert!(
        book.contains("less than half a megabyte: preset book"),
        "{book}"
    );
    let corpus = said(600_000, &[]);
    assert!(
        corpus.contains("half a megabyte or more: preset corpus"),
        "{corpus}"
    );
    let characters = said(600_000, &["--set", "tokenizer=char"]);
    assert!(
        characters.contains("in characters: preset characters"),
        "{characters}"
    );
    assert!(characters.contains("window = 10"), "{characters}");
    // A window of words or byte pairs is shorter, unless it is chosen.
    for tokenizer in ["word", "bpe", "bpe:265"] {
        let tokenizer = format!("tokenizer={tokenizer}");
        let pieces = said(600_000, &["--set", &tokenizer]);
        let is_corpus = pieces.contains("preset corpus");
        assert!(is_corpus && pieces.contains("window = 3"), "{pieces}");
    }
    let chosen = ["--set", "tokenizer=word", "--set", "window=7"];
    let chosen = said(600_000, &chosen);
    assert!(chosen.contains("window = 7"), "{chosen}");
    let shorthand = said(30_000, &["--set", "tokenizer=bpe:260"]);
    assert!(shorthand.contains("preset book"), "{shorthand}");
    let rate = said(30_000, &["--set", "lr=0.01"]);
    assert!(rate.contains("preset book"), "{rate}");
    // Another width is no other network, another number of layers is one.
    let width = said(30_000, &["--set", "hidden=[20]"]);
    assert!(width.contains("preset book"), "{width}");
    // Nor are settings of the plugins that it has.
    let inputs = ["--set", "sampler.words=2", "--set", "layer.dropout=0.1"];
    let inputs = said(30_000, &inputs);
    assert!(inputs.contains("preset book"), "{inputs}");
    let another = said(30_000, &["--set", "sampler.negatives=uniform"]);
    assert!(another.contains("since `sampler` is set"), "{another}");
    let chosen = said(30_000, &["--set", "hidden=[20,20]"]);
    let is_said =
        chosen.contains("since `hidden` is set, the preset window is used instead of book");
    assert!(is_said, "{chosen}");
    let chosen = said(30_000, &["--preset", "window"]);
    assert!(!chosen.contains("megabyte"), "{chosen}");
}

/// The new one would have no effect, and the record of the run would be wrong.
#[test]
fn the_tokenizer_of_a_run_cannot_change() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let small = ["--data", "fables", "--epochs", "1", "--out", str(&run)];
    succeeds(
        &[
            &["train", "nlp", "--set", "hidden=[4]", "--quiet"],
            &small[..],
        ]
        .concat(),
    );
    let written = std::fs::read(run.join("config.toml")).unwrap();
    let more = ["resume", str(&run), "--quiet", "--epochs", "2"];
    for tokenizer in ["word", "bpe:300", "nothere.json"] {
        let other = format!("data.tokenizer={tokenizer}");
        let message = fails(2, &[&more, &["--set", &other][..]].concat());
        let expected = "expected \"char\", which the run has kept";
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(std::fs::read(run.join("config.toml")).unwrap(), written);
    succeeds(&[&more, &["--set", "data.tokenizer=char"][..]].concat());
}

#[test]
fn a_suggestion_of_the_data_is_said_where_it_changes_something() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("text.txt");
    std::fs::write(&path, "The fox saw a crow. ".repeat(50)).unwrap();
    let data = format!("text:{}", str(&path));
    let said = |name: &str, arguments: &[&str]| {
        let out = base.path().join(name);
        let small = ["--set", "hidden=[4]", "--out", str(&out)];
        let output = onward(&[&["train"], arguments, &small].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    // The preset has the same.
    let same = said("same", &["nlp", "--preset", "window", "--data", &data]);
    assert!(!same.contains("suggests"), "{same}");
    let size = ["--set", "data.size=100"];
    let digits = said("other", &[&["progressive"], &size[..]].concat());
    assert!(
        digits.contains("the data set suggests epochs = 12\n"),
        "{digits}"
    );
    let own = said(
        "own",
        &[&["progressive", "--epochs", "2"], &size[..]].concat(),
    );
    assert!(!own.contains("suggests"), "{own}");
}
