//! Training on pictures and files of a user.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, Luma};
use onward::data::idx;
use onward::data::images::Images;
use serde_json::Value;

use super::{fails, onward, succeeds, text};

/// Bars that lie or stand, in a folder per class, on paper of this brightness.
pub(crate) fn bars(folder: &Path, count: u32, paper: u8) {
    for (class, upright) in [("lying", false), ("standing", true)] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for index in 0..count {
            let at = 4 + index * 5 % 9;
            let bar = |x: u32, y: u32| {
                let across = if upright { x } else { y };
                Luma([if across.abs_diff(at + 2) < 2 {
                    255 - paper
                } else {
                    paper
                }])
            };
            let file = folder.join(class).join(format!("{index}.png"));
            GrayImage::from_fn(20, 20, bar).save(file).unwrap();
        }
    }
}

/// Trains for a few epochs on a data set; returns what was written to stderr.
pub(crate) fn train(data: &str, out: &Path, more: &[&str]) -> String {
    let small = ["--epochs", "3", "--set", "hidden=30", "--set", "batch=10"];
    let base = ["train", "progressive", "--data", data, "--out", word(out)];
    let output = onward(&[&base[..], &small, more].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

pub(crate) fn word(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

pub(crate) fn folder(path: &Path) -> String {
    format!("folder:{}", path.display())
}

#[test]
fn the_parts_of_a_folder_are_matched_by_name() {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().join("data");
    for (part, count) in [("Training", 12), ("valid", 4), ("test", 5)] {
        bars(&data.join(part), count, 250);
    }
    let said = train(&folder(&data), &base.path().join("run"), &[]);
    assert!(
        said.contains("24 training, 8 validation, 10 test examples"),
        "{said}"
    );
    assert!(said.contains("2 classes of 12 training examples"), "{said}");

    // A class that the test part has not is named; one that the training part has not is refused.
    std::fs::remove_dir_all(data.join("test/lying")).unwrap();
    let said = train(&folder(&data), &base.path().join("second"), &[]);
    assert!(said.contains("class lying has no test examples"), "{said}");
    std::fs::create_dir(data.join("test/leaning")).unwrap();
    let message = fails(1, &["train", "progressive", "--data", &folder(&data)]);
    assert!(message.contains("class `leaning`"), "{message}");
    std::fs::remove_dir_all(data.join("test")).unwrap();
    let message = fails(1, &["train", "progressive", "--data", &folder(&data)]);
    assert!(message.contains("no folder `test`"), "{message}");
}

#[test]
fn colour_photographs_get_a_network_that_suits_them() {
    let base = tempfile::tempdir().unwrap();
    let (photos, scans) = (base.path().join("photos"), base.path().join("scans"));
    bars(&scans, 12, 250);
    for (class, red) in [("dawn", 230), ("dusk", 90)] {
        std::fs::create_dir_all(photos.join(class)).unwrap();
        for number in 0..12 {
            let pixel = |x: u32, y: u32| image::Rgb([red, (8 * x + number) as u8, (9 * y) as u8]);
            let file = photos.join(class).join(format!("{number}.png"));
            image::RgbImage::from_fn(24, 24, pixel).save(file).unwrap();
        }
    }
    let trained = |data: &Path, name: &str, more: &[&str]| {
        let out = base.path().join(name);
        let data = folder(data);
        let base = ["train", "progressive", "--data", &data, "--out", word(&out)];
        let output = onward(&[&base[..], &["--epochs", "1"], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let command = succeeds(&["report", word(&out), "--csv"]);
        (text(&output.stderr), command)
    };
    let suited = "colour photographs: preset convolutional, data.colour = true, data.height = 32";
    for (name, more) in [("suited", &[][..]), ("rate", &["--set", "lr=0.002"])] {
        let (said, command) = trained(&photos, name, more);
        assert!(said.contains(suited), "{said}");
        assert!(command.contains("--preset convolutional"), "{command}");
    }
    // A choice of the network turns this off.
    let why = "convolutional is not used, since `hidden` is set; for both: --preset \
               convolutional --set data.colour=true --set data.height=32";
    let chosen: [(&[&str], &str); 3] = [
        (&["--set", "hidden=[20]"], why),
        (&["--preset", "hinton"], ""),
        (&["--set", "data.colour=false"], ""),
    ];
    for (index, (more, why)) in chosen.into_iter().enumerate() {
        let (said, command) = trained(&photos, &format!("chosen-{index}"), more);
        assert!(said.contains(why), "{said}");
        assert_eq!(
            said.contains("colour photographs"),
            !why.is_empty(),
            "{said}"
        );
        // The command repeats the run all the same.
        assert!(command.contains("--preset hinton"), "{command}");
    }
    let (said, _) = trained(&scans, "grey", &[]);
    assert!(!said.contains("colour photographs"), "{said}");
}

/// The files of Fashion-MNIST, KMNIST and others have the names of MNIST's.
#[test]
fn another_data_set_under_the_name_of_a_known_one_is_noticed() {
    let base = tempfile::tempdir().unwrap();
    let images = |count: u8| {
        let pixels = (0..u32::from(count) * 16)
            .map(|pixel| pixel as u8)
            .collect();
        let labels = (0..count).map(|index| index % 10).collect();
        Images::new(pixels, labels, [1, 4, 4]).unwrap()
    };
    let folder = base.path().join("mnist");
    std::fs::create_dir(&folder).unwrap();
    idx::write(&folder, &images(60), &images(20)).unwrap();
    let from = ["--data-dir", word(base.path())];
    let said = train("mnist", &base.path().join("run"), &from);
    let expected =
        "not the images of mnist, or not all: found 2 test images of class 0, expected 980";
    assert!(said.contains(expected), "{said}");
    let own = format!("idx:{}", folder.display());
    let said = train(&own, &base.path().join("own"), &[]);
    assert!(!said.contains("not the images"), "{said}");
}

#[test]
fn no_file_is_left_out_in_silence() {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().join("data");
    bars(&data, 12, 10);
    // A JPEG without the usual ending, and files that are no pictures.
    let jpeg = base.path().join("x.jpg");
    GrayImage::new(20, 20).save(&jpeg).unwrap();
    std::fs::rename(jpeg, data.join("lying/photo.jpe_")).unwrap();
    std::fs::write(data.join("lying/notes.txt"), "x").unwrap();
    std::fs::write(data.join("lying/raw.heic"), "x").unwrap();
    let said = train(&folder(&data), &base.path().join("run"), &[]);
    let expected = "2 of 27 entries are no pictures that can be read, and are left out: \
                    1 .heic, 1 .txt";
    assert!(said.contains(expected), "{said}");

    // The way out that a message names works.
    std::fs::write(data.join("standing/broken.png"), "x").unwrap();
    let message = fails(1, &["train", "progressive", "--data", &folder(&data)]);
    assert!(message.contains("--set data.broken=skip"), "{message}");
    assert!(message.contains(" part cannot be read"), "{message}");
    let skip = ["--set", "data.broken=skip"];
    let said = train(&folder(&data), &base.path().join("skipped"), &skip);
    assert!(said.contains("1 of"), "{said}");
    let wrong = [
        "train",
        "progressive",
        "--data",
        &folder(&data),
        "--set",
        "broken=skip",
    ];
    let message = fails(2, &wrong);
    assert!(message.contains("did you mean `data.broken`?"), "{message}");

    let outer = ["train", "progressive", "--data", &folder(base.path())];
    std::fs::remove_dir_all(base.path().join("run")).unwrap();
    std::fs::remove_dir_all(base.path().join("skipped")).unwrap();
    let message = fails(1, &outer);
    assert!(
        message.contains("has 2 folders: name that one"),
        "{message}"
    );
}

#[test]
fn pictures_without_class_folders_are_named() {
    let base = tempfile::tempdir().unwrap();
    bars(base.path(), 6, 250);
    let loose = folder(&base.path().join("lying"));
    let message = fails(1, &["train", "progressive", "--data", &loose]);
    let expected = "6 pictures lie in it: put those of each class into a folder";
    assert!(message.contains(expected), "{message}");
}

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

#[test]
fn a_run_resumes_from_any_folder_and_with_moved_data() {
    let base = tempfile::tempdir().unwrap();
    bars(&base.path().join("data"), 12, 10);
    let run = |folder: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
        command.args(arguments).current_dir(folder);
        command.output().unwrap()
    };
    let small = ["--set", "hidden=20", "--epochs", "1"];
    let relative = [
        "train",
        "progressive",
        "--data",
        "folder:data",
        "--out",
        "run",
    ];
    let output = run(base.path(), &[&relative[..], &small].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (root, folder) = (PathBuf::from("/"), base.path().join("run"));
    let output = run(&root, &["resume", word(&folder), "--epochs", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let writings = "The fox saw the crow, and the crow saw the fox.\n".repeat(40);
    for name in ["book.txt", "test.txt"] {
        std::fs::write(base.path().join(name), &writings).unwrap();
    }
    let of_text = [
        "train",
        "nlp",
        "--data",
        "text:book.txt",
        "--set",
        "data.test=test.txt",
    ];
    let of_text = [&of_text[..], &small, &["--out", "book"]].concat();
    let output = run(base.path(), &of_text);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run(&root, &["evaluate", word(&base.path().join("book"))]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    std::fs::rename(base.path().join("data"), base.path().join("moved")).unwrap();
    let longer = ["resume", word(&folder), "--epochs", "3"];
    let output = run(&root, &longer);
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("also take --data folder:PATH"),
        "{said}"
    );
    let moved = format!("folder:{}", base.path().join("moved").display());
    let output = run(&root, &[&longer[..], &["--data", &moved]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_failed_start_leaves_no_folder() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("run");
    let start = |sampler: &str| {
        let arguments = ["--set", sampler, "--set", "loss=symmetric", "--epochs", "1"];
        let small = ["--set", "hidden=20", "--set", "data.size=100", "--quiet"];
        let command = ["train", "progressive", "--out", word(&out)];
        onward(&[&command[..], &arguments, &small].concat())
    };
    // There is no negative view to compare with, which the first step finds.
    let output = start("sampler=plain");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(!out.exists());
    assert!(start("sampler=label_overlay").status.success());
}

#[test]
fn text_that_is_not_utf_8_is_named() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("t.txt");
    let letters = "The fox saw the crow. ".repeat(50);
    for (name, bytes) in [
        (
            "UTF-16LE",
            letters
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
        ),
        (
            "UTF-16BE",
            letters.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let data = format!("text:{}", file.display());
        let message = fails(1, &["train", "nlp", "--data", &data]);
        assert!(
            message.contains(name) && message.contains("iconv"),
            "{message}"
        );
    }
}

#[test]
fn what_would_change_nothing_or_mean_something_else_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let (data, run) = (base.path().join("data"), base.path().join("run"));
    bars(&data, 12, 250);
    train(&folder(&data), &run, &[]);
    let run = word(&run);
    let message = fails(2, &["resume", run, "--set", "lr=0.001"]);
    assert!(message.contains("--epochs N, N above 3"), "{message}");
    let config = std::fs::read_to_string(format!("{run}/config.toml")).unwrap();
    assert!(!config.contains("lr = 0.001"), "{config}");
    for hidden in ["hidden=[200", "hidden=200]", "hidden=([200,100]"] {
        let message = fails(2, &["train", "progressive", "--set", hidden]);
        assert!(message.contains("expected a list"), "{message}");
    }
    fails(2, &["generate", run, "--prompt", "a", "--samples", "0"]);
    fails(2, &["generate", run, "--prompt", "a", "--stop", ""]);
    // Other classes are matched by their order, with a warning.
    let other = base.path().join("other");
    bars(&other, 12, 250);
    std::fs::rename(other.join("lying"), other.join("flat")).unwrap();
    let output = onward(&["evaluate", run, "--data", &folder(&other)]);
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.contains("flat for lying"),
        "{said}"
    );
}
