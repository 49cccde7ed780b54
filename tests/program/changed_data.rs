//! Data that changed after the training.

use crate::own_data::{bars, folder, train, word};
use crate::*;

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
