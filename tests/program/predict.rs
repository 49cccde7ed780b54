//! Predictions and evaluations of pictures of a user.

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use serde_json::Value;

use super::own_data::{bars, folder, train, word};
use super::{fails, onward, succeeds, text};

#[test]
fn predictions_are_printed_for_folders_as_text_csv_and_json() {
    let base = tempfile::tempdir().unwrap();
    let (run, pictures) = (base.path().join("run"), base.path().join("pictures"));
    let arguments = [
        "train",
        "progressive",
        "--quiet",
        "--epochs",
        "2",
        "--set",
        "hidden=[60]",
        "--out",
        word(&run),
    ];
    succeeds(&arguments); // digits, with the framing of an object
    std::fs::create_dir_all(pictures.join("inner")).unwrap();
    GrayImage::from_pixel(40, 40, Luma([200]))
        .save(pictures.join("blank, page.png"))
        .unwrap();
    let stroke = |x: u32, y: u32| {
        Luma([if x.abs_diff(20) < 3 && y.abs_diff(20) < 14 {
            20
        } else {
            220
        }])
    };
    GrayImage::from_fn(40, 40, stroke)
        .save(pictures.join("inner/one.png"))
        .unwrap();
    let printed = succeeds(&["predict", word(&run), word(&pictures)]);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].ends_with("blank, page.png: nothing found"),
        "{printed}"
    );
    assert!(
        lines[1].contains("inner/one.png: ") && lines[1].contains('%'),
        "{printed}"
    );

    let printed = succeeds(&["predict", word(&run), "--csv", word(&pictures)]);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines[0].starts_with("file,class,probability,0,1,"),
        "{printed}"
    );
    assert!(
        lines[1].starts_with('"') && lines[1].contains("page.png\",,,"),
        "{printed}"
    );
    assert_eq!(lines[2].split(',').count(), 13);

    let printed = succeeds(&["predict", word(&run), "--json", word(&pictures)]);
    let answers: Value = serde_json::from_str(&printed).unwrap();
    assert!(answers[0]["class"].is_null(), "{printed}");
    assert!(
        answers[1]["probability"].as_f64().unwrap() > 0.1,
        "{printed}"
    );
    let message = fails(2, &["predict", word(&run), word(&run)]);
    assert!(message.contains("has no pictures"), "{message}");
    // In the wrong order.
    let message = fails(
        1,
        &["predict", word(&pictures.join("inner/one.png")), word(&run)],
    );
    assert!(
        message.contains("expected the folder of a run"),
        "{message}"
    );
    // Those that cannot be read are said once each.
    let [one, two] = ["one.png", "two.png"].map(|name| base.path().join(name));
    let missing = [
        "predict",
        word(&run),
        word(&pictures),
        word(&one),
        word(&two),
    ];
    let message = fails(1, &missing);
    let counts = ["one.png: ", "two.png: "].map(|name| message.matches(name).count());
    assert_eq!(counts, [1, 1], "{message}");
    assert!(
        message.contains("2 of 4 images could not be read"),
        "{message}"
    );
    let said = text(&onward(&["report", word(base.path())]).stderr);
    assert!(said.contains("but has 1 of them: name those"), "{said}");
}

/// A network for digits, of which only the framing of pictures matters.
fn network_for_one_object(base: &Path) -> PathBuf {
    let run = base.join("run");
    let small = ["--epochs", "1", "--set", "hidden=[20]", "--quiet"];
    let command = ["train", "progressive", "--out", word(&run)];
    succeeds(&[&command[..], &small].concat());
    run
}

/// Strokes at these columns, `depth` levels darker than the paper.
fn strokes(columns: &[u32], depth: u8) -> GrayImage {
    GrayImage::from_fn(160, 100, |x, y| {
        let is_ink = columns.iter().any(|at| (*at..at + 8).contains(&x));
        Luma([if is_ink && (25..75).contains(&y) {
            230 - depth
        } else {
            230
        }])
    })
}

#[test]
fn several_objects_and_too_little_contrast_are_said() {
    let base = tempfile::tempdir().unwrap();
    let run = network_for_one_object(base.path());
    let predict = |picture: GrayImage, more: &[&str]| {
        let file = base.path().join("picture.png");
        picture.save(&file).unwrap();
        let output = onward(&[&["predict", word(&run), word(&file)], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (_, said) = predict(strokes(&[70], 180), &[]);
    assert_eq!(said, "");
    let (printed, said) = predict(strokes(&[40, 90], 180), &["--json"]);
    assert!(said.contains("picture.png: found 2 objects"), "{said}");
    assert!(said.contains("crop the picture to one"), "{said}");
    let answers: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(answers[0]["objects"], 2);
    // Without grain six levels can be seen, two cannot.
    let (printed, said) = predict(strokes(&[70], 6), &[]);
    assert!(!printed.contains("nothing found"), "{printed}");
    assert_eq!(said, "");
    for form in [&[][..], &["--csv"], &["--json"]] {
        let (_, said) = predict(strokes(&[70], 2), form);
        let expected = "nothing found: the contrast is too low: 2 of 255 levels, expected 4";
        assert!(said.contains(expected), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn any_name_of_a_file_is_one_field_of_csv_and_harmless_on_a_terminal() {
    let base = tempfile::tempdir().unwrap();
    let run = network_for_one_object(base.path());
    let pictures = base.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let name = "a\u{1b}[2J, \"b\"\nc\u{202e}.png";
    strokes(&[70], 180).save(pictures.join(name)).unwrap();
    let printed = succeeds(&["predict", word(&run), "--csv", word(&pictures)]);
    let quoted = name.replace('"', "\"\"");
    assert!(printed.contains(&format!("/{quoted}\",")), "{printed}");
    for form in [&[][..], &["--json"]] {
        let printed = succeeds(&[&["predict", word(&run), word(&pictures)], form].concat());
        let obeyed = |c: char| c == '\u{202e}' || (c.is_control() && c != '\n');
        assert!(!printed.contains(obeyed), "{printed:?}");
        if !form.is_empty() {
            let answers: Value = serde_json::from_str(&printed).unwrap();
            let file = answers[0]["file"].as_str().unwrap();
            assert!(file.ends_with(name), "{file}");
        }
    }
}

#[test]
fn other_pictures_are_evaluated_in_part_or_all_of_them() {
    let base = tempfile::tempdir().unwrap();
    let [data, other, run] = ["data", "other", "run"].map(|name| base.path().join(name));
    bars(&data, 18, 250);
    bars(&other, 12, 250);
    train(&folder(&data), &run, &[]);
    let evaluate = ["evaluate", word(&run), "--json", "--data", &folder(&other)];
    let examples = |arguments: &[&str]| {
        let output = onward(&[&evaluate[..], arguments].concat());
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        (result["examples"].clone(), text(&output.stderr))
    };
    let (found, said) = examples(&[]);
    assert_eq!(found, 4);
    assert!(
        said.contains("only the test part of that data, 4 of 24"),
        "{said}"
    );
    let (found, said) = examples(&["--split", "all"]);
    assert_eq!(found, 24);
    assert!(!said.contains("note"), "{said}");
    let message = fails(2, &["evaluate", word(&run), "--split", "all", "--layers"]);
    assert!(
        message.contains("train, validation or test for the probes"),
        "{message}"
    );
}
