//! Training on a part of the data.

use serde_json::Value;

use crate::*;

/// Trains on so many examples.
fn trained(out: &Path, examples: &str, seed: &str) -> Value {
    let of = format!("examples={examples}");
    let small = ["--set", "hidden=[20]", "--set", &of, "--seed", seed];
    let start = ["train", "progressive", "--data", "digits", "--epochs", "1"];
    let out = ["--quiet", "--json", "--out", str(out)];
    serde_json::from_str(&succeeds(&[&start[..], &small, &out].concat())).unwrap()
}

#[test]
fn a_run_learns_from_the_drawn_examples_and_is_tested_on_all() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    let summary = trained(&run, "500", "1");
    assert_eq!(summary["training_examples"], 500);
    assert_eq!(summary["test"]["examples"], 2000);
    let evaluate = |run: &Path, more: &[&str]| -> Value {
        let start = ["evaluate", str(run), "--json", "--split"];
        serde_json::from_str(&succeeds(&[&start[..], more].concat())).unwrap()
    };
    assert_eq!(evaluate(&run, &["train"])["examples"], 500);
    // Its own data by another way are those that it was trained on.
    let start = [
        "evaluate",
        str(&run),
        "--data",
        "digits",
        "--split",
        "train",
    ];
    let again = onward(&start);
    assert!(text(&again.stdout).contains("500 examples"));
    assert!(text(&again.stderr).contains("trained on the training part"));
    // Other data are looked at as a whole, and may have fewer examples.
    write_images(base.path());
    let other = format!("idx:{}", base.path().display());
    let on_other = evaluate(&run, &["all", "--data", &other]);
    assert_eq!(on_other["examples"], 60);
}

/// Writes 50 images for training and 10 for testing, in the format of MNIST.
fn write_images(dir: &Path) {
    for (name, count) in [("train", 50u8), ("t10k", 10)] {
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
        images.extend((0..usize::from(count) * 784).map(|pixel| (pixel * 7 % 256) as u8));
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, count];
        labels.extend((0..count).map(|label| label % 10));
        std::fs::write(dir.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(dir.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn a_run_on_drawn_examples_goes_on_with_them() {
    let base = tempfile::tempdir().unwrap();
    let [whole, parted] = ["whole", "parted"].map(|name| base.path().join(name));
    let start = ["train", "progressive", "--data", "digits", "--quiet"];
    let small = ["--set", "hidden=[20]", "--set", "examples=300"];
    let run = |out: &Path, more: &[&str]| {
        let out = ["--epochs", "3", "--out", str(out)];
        succeeds(&[&start[..], &small, &out, more].concat());
    };
    run(&whole, &[]);
    run(&parted, &["--until", "1"]);
    succeeds(&["resume", str(&parted), "--quiet"]);
    let model = |run: &Path| std::fs::read(run.join("model.safetensors")).unwrap();
    assert!(model(&whole) == model(&parted));
    for changed in ["examples=200", "seed=2"] {
        let message = fails(2, &["resume", str(&parted), "--set", changed]);
        assert!(message.contains(", which the run has kept"), "{message}");
    }
}

#[test]
fn more_examples_than_there_are_and_parts_of_text_are_refused() {
    for (architecture, examples, expected) in [
        ("progressive", "examples=10001", "at most 10000"),
        ("nlp", "examples=10", "train on a shorter file"),
    ] {
        let message = fails(2, &["train", architecture, "--set", examples]);
        assert!(message.contains(expected), "{message}");
    }
}
