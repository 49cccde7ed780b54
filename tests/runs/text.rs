//! Text end to end: a softmax over token windows, on embedded and other text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onward::data::Content;
use onward::flow::examples::Split;
use onward::run::generate::{generate, Generator, Sampling};
use onward::run::summary::Score;
use onward::{Error, Result, Run, RunBuilder, Tokenizer};

pub(super) fn shallow(data: &str) -> RunBuilder {
    Run::builder("shallow")
        .data(data)
        .set("sampler", "slots")
        .set("epochs", 2)
}

/// Trains on the embedded fables and returns the folder of the run.
fn trained(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("run");
    shallow("fables").out(&path).build()?.fit(&mut ())?;
    Ok(path)
}

/// Writes a short text with many repetitions, which is easy to learn.
fn prose(folder: &Path) -> String {
    let path = folder.join("prose.txt");
    let line = |i: usize| {
        format!(
            "the {} sat on the {}.\n",
            ["cat", "dog", "crow"][i % 3],
            ["mat", "log"][i % 2]
        )
    };
    std::fs::write(&path, (0..300).map(line).collect::<String>()).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn text_is_evaluated_in_bits_with_n_gram_baselines() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = shallow("fables").set("mixture", false);
    let mut run = run.out(folder.path().join("run")).build()?;
    assert_eq!(run.data().spec.content, Content::Text);
    let summary = run.fit(&mut ())?;
    let bits = |name: &str| summary.test.readouts[name].bits;
    let best = bits("softmax").unwrap();
    assert_eq!(
        (summary.test.readout.as_str(), summary.test.bits),
        ("softmax", Some(best))
    );
    assert!(bits("bare").is_none() && bits("flat").unwrap().bits_per_char > best.bits_per_char);
    assert_eq!(best.bits_per_char, best.bits_per_token); // each token is a character
    assert!((best.perplexity.log2() - best.bits_per_token).abs() < 1e-12);
    let counted = |name: &str| summary.test.baselines[name].bits.unwrap().bits_per_char;
    assert!(
        best.bits_per_char < counted("unigram") - 0.3,
        "{best:?} {}",
        counted("unigram")
    );
    assert!(counted("kneser_ney_6") < best.bits_per_char);
    let json = serde_json::to_value(&summary).unwrap();
    assert!(
        json["test"]["bits_per_char"].is_number()
            && json["test"]["readouts"]["bare"].get("perplexity").is_none()
    );
    assert!(json["validation"]["baselines"]["kneser_ney_6"].is_object());
    // The loaded run gives the same evaluation.
    let loaded = Run::load(folder.path().join("run"))?;
    assert_eq!(loaded.evaluate(Split::Test, Some("softmax"))?, summary.test);
    Ok(())
}

pub(super) fn bits(scores: &BTreeMap<String, Score>, name: &str) -> f64 {
    scores[name].bits.unwrap().bits_per_char
}

/// A text of 200 words, in which each word has one successor within a sentence.
fn chains(folder: &Path) -> String {
    let path = folder.join("chains.txt");
    let sentence = |i: usize| {
        let start = i * 37 % 200;
        let words = (0..6).map(|place| format!("w{}", (start + place * 61) % 200));
        words.collect::<Vec<_>>().join(" ")
    };
    let text: Vec<String> = (0..2000).map(sentence).collect();
    std::fs::write(&path, text.join("\n")).unwrap();
    path.to_str().unwrap().to_string()
}

/// A sampled softmax learns about as well as that of all tokens, and is evaluated over all of
/// them: scores that do not add up to 1 are refused.
#[test]
fn a_step_may_compare_some_of_the_tokens() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = chains(folder.path());
    let of_words = |samples: i64| {
        let builder = Run::builder("nlp").preset("book").data("text");
        let builder = builder.set("data.file", file.as_str());
        let builder = builder.set("data.tokenizer", "word").set("data.window", 2);
        let builder = builder.set("hidden", vec![50]).set("samples", samples);
        let builder = builder.set("sampler.layout", false);
        let builder = builder.set("lr", 0.01).set("head_lr", 0.01);
        builder.set("epochs", 6).set("mixture", false).build()
    };
    let bits_by = |samples: i64| -> Result<[f64; 2]> {
        let test = of_words(samples)?.fit(&mut ())?.test;
        Ok([
            bits(&test.readouts, "head"),
            bits(&test.baselines, "unigram"),
        ])
    };
    let ([all, unigram], [some, _]) = (bits_by(0)?, bits_by(20)?);
    assert!(some < 0.5 * unigram, "{some} {unigram}");
    assert!(some < all + 0.1 && some != all, "{some} {all}");
    // More than half of them stand for all.
    let weight = |run: &Run| {
        let mut all = run.vars().all().into_iter();
        let weight = all.find(|(name, _)| name.starts_with("head."));
        weight.map(|(_, var)| var.dims().to_vec())
    };
    assert_eq!(weight(&of_words(202)?), weight(&of_words(0)?));
    assert_ne!(weight(&of_words(20)?), weight(&of_words(0)?));
    Ok(())
}

#[test]
fn scores_that_are_not_probabilities_are_refused() -> Result<()> {
    let error = shallow("fables")
        .set("lies", true)
        .set("epochs", 1)
        .build()?
        .fit(&mut ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("softmax") && error.contains("add up to"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_run_keeps_its_tokenizer_and_refuses_another() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = prose(folder.path());
    let data = onward::export::Table::from_iter([
        ("name".to_string(), "text".into()),
        ("file".to_string(), file.as_str().into()),
        ("tokenizer".to_string(), "bpe:270".into()),
    ]);
    let path = folder.path().join("run");
    let build = || {
        Run::builder("shallow")
            .set("data", data.clone())
            .set("sampler", "slots")
            .set("epochs", 2)
    };
    let mut run = build().out(&path).build()?;
    run.train_until(1, &mut ())?;
    drop(run);
    let json = std::fs::read_to_string(path.join("tokenizer.json")).unwrap();
    let own = Tokenizer::open(&path.join("tokenizer.json"))?;
    assert_eq!(own.vocabulary().len(), 270);
    // After a change of the text, the run keeps its tokenizer but does not resume.
    std::fs::write(
        &file,
        "no cat is on any mat; the crow has sung. ".repeat(60),
    )
    .unwrap();
    let loaded = Run::load(&path)?;
    assert_eq!(
        loaded.data().text.as_ref().unwrap().tokenizer.fingerprint(),
        own.fingerprint()
    );
    let error = Run::open(&path)?
        .resume()
        .err()
        .expect("refused")
        .to_string();
    assert!(error.contains("examples when the run began"), "{error}");
    // Without the file, another tokenizer would be trained on the new text.
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    let refused = |builder: Result<RunBuilder>, expected: &str| {
        let error = builder
            .and_then(RunBuilder::build)
            .err()
            .expect("refused")
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(Run::open(&path), "tokenizer.json: is missing");
    let other = Tokenizer::train(
        "bpe:270".parse()?,
        &[&"another text than that, and another ".repeat(9)],
    )?;
    std::fs::write(path.join("tokenizer.json"), other.to_json()).unwrap();
    refused(
        Run::open(&path),
        "is not the tokenizer that the network was trained with",
    );
    refused(
        Run::open(&path).map(RunBuilder::without_data),
        "put that one back",
    );
    std::fs::write(path.join("tokenizer.json"), &json[..json.len() / 2]).unwrap();
    refused(Run::open(&path), "tokenizer.json");
    std::fs::write(path.join("tokenizer.json"), &json).unwrap();
    refused(
        Run::open(&path).map(|builder| builder.data("digits")),
        "found images, but the run was trained on text",
    );
    Run::load(&path)?;
    Ok(())
}

#[test]
fn generation_from_any_prompt_is_repeatable() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = prose(folder.path());
    for (tokenizer, window) in [("char", 4), ("word", 3), ("bpe:262", 5)] {
        let data = onward::export::Table::from_iter([
            ("name".to_string(), "text".into()),
            ("file".to_string(), file.as_str().into()),
            ("tokenizer".to_string(), tokenizer.into()),
            ("window".to_string(), onward::export::Value::Integer(window)),
        ]);
        let mut run = Run::builder("shallow")
            .set("data", data)
            .set("sampler", "slots")
            .set("epochs", 4)
            .build()?;
        run.fit(&mut ())?;
        let sure = Sampling {
            temperature: 0.,
            ..Sampling::default()
        };
        let text = generate(&run, "the cat sat on the ", 60, sure)?;
        assert!(text.contains(" on the "), "{tokenizer}: {text}");
        assert_eq!(text, generate(&run, "the cat sat on the ", 60, sure)?);
        let drawn = |prompt: &str, seed: u64| {
            generate(
                &run,
                prompt,
                40,
                Sampling {
                    seed,
                    ..Sampling::default()
                },
            )
        };
        assert_eq!(drawn("the", 1)?, drawn("the", 1)?, "{tokenizer}");
        assert_ne!(drawn("the", 1)?, drawn("the", 2)?, "{tokenizer}");
        assert!(!drawn("", 1)?.contains("<unk>"), "{tokenizer}");
        let generator = Generator::new(&run, "", Some("flat"), sure)?;
        assert!(
            generator.notes()[0].contains(&format!("0 tokens, the window {window}")),
            "{:?}",
            generator.notes()
        );
        let generator = Generator::new(&run, "狐 the cat sat on the mat", None, sure)?;
        assert_eq!(
            generator.notes().len(),
            usize::from(tokenizer != "bpe:262"),
            "{:?}",
            generator.notes()
        );
        for (readout, expected) in [("bare", "flat, softmax"), ("none", "flat, softmax")] {
            let error = Generator::new(&run, "", Some(readout), sure)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    Ok(())
}

#[test]
fn images_and_text_are_distinguished() -> Result<()> {
    let picture = tempfile::tempdir().unwrap();
    let data = onward::export::Table::from_iter([
        ("name".to_string(), "digits".into()),
        ("size".to_string(), onward::export::Value::Integer(100)),
    ]);
    let run = Run::builder("progressive")
        .set("data", data)
        .set("hidden", vec![5])
        .build()?;
    let error = generate(&run, "a", 1, Sampling::default()).unwrap_err();
    assert!(
        error.is_usage() && error.to_string().contains("onward predict"),
        "{error}"
    );
    let run = shallow("fables").build()?;
    let error = run
        .predict(&[picture.path().join("a.png")], Some("softmax"))
        .unwrap_err();
    assert!(
        error.is_usage() && error.to_string().contains("onward generate"),
        "{error}"
    );
    let error = shallow("fables")
        .set("sampler", "label_concat")
        .build()
        .err()
        .unwrap();
    assert!(
        error.is_usage() && error.to_string().contains("choose a sampler for text"),
        "{error}"
    );
    for (key, value) in [
        ("shift", onward::export::Value::Integer(1)),
        ("flip", true.into()),
    ] {
        let error = shallow("fables").set(key, value).build().err().unwrap();
        assert!(
            error.is_usage() && error.to_string().contains("text cannot be shifted"),
            "{error}"
        );
    }
    Ok(())
}

/// Checks the prepared text of Aesop if `$ONWARD_DATA/text/aesop.txt` exists.
///
/// The expected figures come from a plain program with dictionaries.
#[test]
fn the_prepared_fables_match_known_figures() -> Result<()> {
    let folder = std::env::var_os("ONWARD_DATA")
        .map(|folder| Path::new(&folder).join("text").join("aesop.txt"));
    let Some(file) = folder.filter(|file| file.is_file()) else {
        eprintln!("skipped: no text/aesop.txt in $ONWARD_DATA");
        return Ok(());
    };
    let data = onward::export::Table::from_iter([
        ("name".to_string(), "text".into()),
        ("file".to_string(), file.to_str().unwrap().into()),
        ("prepare".to_string(), "hinton".into()),
    ]);
    let run = |validate: bool| {
        let builder = Run::builder("shallow")
            .set("data", data.clone())
            .set("sampler", "slots");
        builder.set("epochs", 1).set("validate", validate).build()
    };
    let apart = run(true)?;
    let sizes =
        [Split::Train, Split::Validation, Split::Test].map(|split| apart.data().split(split).len());
    assert_eq!(sizes, [178 * 90, 20 * 90, 4500]);
    assert_eq!(
        apart.data().spec.classes.concat(),
        " !,.abcdefghijklmnopqrstuvwxyz"
    );
    let baselines = run(false)?.evaluate(Split::Test, None)?.baselines;
    let found = |name: &str| baselines[name].bits.unwrap().bits_per_char;
    assert_eq!(
        format!("{:.4} {:.4}", found("unigram"), found("kneser_ney_6")),
        "4.1067 2.1430"
    );
    assert_eq!(baselines["kneser_ney_6"].wrong, 4500 - 2532);
    Ok(())
}

/// Runs as the program `onward` with the plugins of this file, if [`program`] starts it.
///
/// It tests nothing otherwise.
#[test]
fn as_the_program() {
    if let Ok(arguments) = std::env::var("ONWARD_TEST_ARGUMENTS") {
        let code = onward::cli::main_with(
            std::iter::once("onward")
                .chain(arguments.split('\n'))
                .map(Into::into),
        );
        // `ExitCode` cannot be compared, so compare its debug output.
        let failed = format!("{code:?}") != format!("{:?}", std::process::ExitCode::SUCCESS);
        std::process::exit(i32::from(failed));
    }
}

fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "text::as_the_program", "--nocapture", "--quiet"]);
    command
        .env("ONWARD_TEST_ARGUMENTS", arguments.join("\n"))
        .output()
        .expect("start this program")
}

#[test]
fn the_program_generates_text() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path())?;
    let run = run.to_str().unwrap();
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let output = program(&[
        "generate",
        run,
        "--prompt",
        "The Fox é",
        "--tokens",
        "50",
        "--seed",
        "3",
    ]);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{notes}");
    assert!(text(&output).contains("The Fox <unk>"), "{}", text(&output));
    assert!(
        notes.contains("\"é\"") && notes.contains("9 tokens, the window 10: spaces"),
        "{notes}"
    );
    let again = program(&[
        "generate",
        run,
        "--prompt",
        "The Fox é",
        "--tokens",
        "50",
        "--seed",
        "3",
    ]);
    assert_eq!(text(&again), text(&output));
    for (arguments, expected) in [
        (["--temperature", "-1"], "at least 0"),
        (["--top-p", "2"], "at most 1"),
        (["--readout", "bare"], "softmax"),
    ] {
        let output = program(&[&["generate", run, "--prompt", ""], &arguments[..]].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && message.contains(expected),
            "{arguments:?}: {message}"
        );
    }
    let error = Run::load(run)?
        .predict(&["x.png"], Some("softmax"))
        .unwrap_err();
    assert!(matches!(error, Error::Usage { .. }), "{error}");
    Ok(())
}

/// Another text resets the settings that name files of the first text.
#[test]
fn another_text_resets_the_files_of_the_first() -> Result<()> {
    let data = |settings: &str| settings.parse::<onward::export::Table>().expect("TOML");
    let run = || {
        Run::builder("nlp").set(
            "data",
            data("name = 'text'\nfile = 'a'\ntest = 'b'\nmore = ['c']\nwindow = 7"),
        )
    };
    let of = |builder: RunBuilder| {
        Ok::<_, Error>(builder.config()?.run.data.expect("a data set").settings)
    };
    let found = of(run().data("text:other"))?;
    assert_eq!(
        (
            found["file"].as_str(),
            found.get("test"),
            found["window"].as_integer()
        ),
        (Some("other"), None, Some(7))
    );
    assert_eq!(found["more"].as_array().map(Vec::len), Some(0));
    let kept = of(run().set("data", data("window = 8")))?;
    assert_eq!(
        (kept["test"].as_str(), kept["window"].as_integer()),
        (Some("b"), Some(8))
    );
    Ok(())
}
