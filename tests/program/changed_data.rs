//! Data that changed after the training.

use crate::own_data::{bars, folder, train, word};
use crate::*;

/// Otherwise a sampler refuses them, in words that say nothing about the data.
#[test]
fn images_for_a_run_on_text_are_called_so_and_the_other_way_round() {
    let base = tempfile::tempdir().unwrap();
    let [of_text, of_images] = ["text", "images"].map(|name| base.path().join(name));
    let small = ["--set", "hidden=[4]", "--epochs", "1", "--quiet", "--out"];
    succeeds(
        &[
            &["train", "nlp", "--data", "fables"],
            &small[..],
            &[str(&of_text)],
        ]
        .concat(),
    );
    succeeds(&[&["train", "progressive"], &small[..], &[str(&of_images)]].concat());
    let message = fails(2, &["evaluate", str(&of_text), "--data", "digits"]);
    let expected = "data digits: found images, but the run was trained on text";
    assert!(message.contains(expected), "{message}");
    let message = fails(2, &["evaluate", str(&of_images), "--data", "fables"]);
    let expected = "data fables: found text, but the run was trained on images";
    assert!(message.contains(expected), "{message}");
    let message = fails(2, &["train", "nlp", "--data", "digits"]);
    let expected = "the architecture nlp learns from text alone";
    assert!(message.contains(expected), "{message}");
}

/// Shapes of variables alone would not say which setting is to be put back.
#[test]
fn a_setting_that_changes_the_network_of_a_run_is_named() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&crate::train(&run, &[]));
    for (key, value, before) in [
        ("hidden", "[30,40]", "[40, 40]"),
        ("goodness", "projection", "sum_squares"),
        ("layer.norm", "batch", "none"),
    ] {
        let setting = format!("{key}={value}");
        let message = fails(
            2,
            &["resume", str(&run), "--epochs", "3", "--set", &setting],
        );
        let is_named = message.contains(&format!("setting `{key}")) && message.contains(before);
        assert!(is_named, "{message}");
        assert!(message.contains("start a new run"), "{message}");
    }
    succeeds(&["resume", str(&run), "--epochs", "3", "--quiet"]);
}

/// Test pictures may have been trained on where `resume` would refuse.
#[test]
fn an_evaluation_says_that_the_data_are_other_than_in_the_training() {
    let base = tempfile::tempdir().unwrap();
    let [data, other, run] = ["data", "other", "run"].map(|name| base.path().join(name));
    bars(&data, 12, 250);
    bars(&other, 12, 240);
    train(&folder(&data), &run, &[]);
    let said = |more: &[&str]| {
        let output = onward(&[&["evaluate", word(&run)], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let warning = "warning: the data are not those that the run was trained on";
    assert!(!said(&[]).contains(warning));
    assert!(!said(&["--data", &folder(&other)]).contains(warning));
    for index in [0, 1, 2, 3, 4, 5] {
        std::fs::remove_file(data.join(format!("lying/{index}.png"))).unwrap();
    }
    let found = said(&[]);
    assert!(found.contains(warning), "{found}");
    let expected = "different parts: train, validation, test (there were 17 training examples, \
                    and are 13 now)";
    assert!(found.contains(expected), "{found}");
}

#[test]
fn an_evaluation_says_that_a_text_is_another_one_than_in_the_training() {
    let base = tempfile::tempdir().unwrap();
    let (file, run) = (base.path().join("a.txt"), base.path().join("run"));
    let lines = "The fox saw the crow, and the crow saw the fox.\n".repeat(60);
    std::fs::write(&file, &lines).unwrap();
    let data = format!("text:{}", file.display());
    let small = ["--epochs", "1", "--set", "hidden=[20]", "--quiet"];
    let base = ["train", "nlp", "--data", &data, "--out", word(&run)];
    succeeds(&[&base[..], &small].concat());
    std::fs::write(&file, lines.replacen("fox", "box", 3)).unwrap();
    let said = text(&onward(&["evaluate", word(&run)]).stderr);
    let expected = ["different parts: train (", "no baseline is counted"];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
}
