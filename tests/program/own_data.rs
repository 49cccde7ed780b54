//! Training on pictures and files of a user.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, ImageBuffer, Luma};
use onward::data::idx;
use onward::data::images::Images;

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
    let rates = "layer_lr=[0.001,0.001,0.001,0.001]";
    for (name, more) in [
        ("suited", &[][..]),
        ("rate", &["--set", "lr=0.002"]),
        ("rates", &["--set", rates]),
    ] {
        let (said, command) = trained(&photos, name, more);
        assert!(said.contains(suited), "{said}");
        assert!(command.contains("--preset convolutional"), "{command}");
    }
    // A baseline sees the same pictures.
    let backprop = ["train", "backprop", "--dry-run", "--data", &folder(&photos)];
    let said = text(&onward(&backprop).stderr);
    let is_said = said.contains("colour photographs: data.colour = true, data.height = 32");
    assert!(is_said, "{said}");
    // A choice of the network turns this off.
    let why = "data.width = 32; since `hidden` is set, the preset hinton is used instead of \
               convolutional; to use convolutional with it: --preset convolutional";
    let of_height = "colour photographs: data.colour = true, data.width = 16\n";
    let chosen: [(&[&str], &str); 5] = [
        (&["--set", "hidden=[20]"], why),
        (
            &["--preset", "hinton"],
            "colour photographs: data.colour = true",
        ),
        (
            &["--preset", "hinton", "--set", "data.height=16"],
            of_height,
        ),
        (&["--set", "data.colour=false"], ""),
        (&["--set", "data.color=false"], ""),
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
        let colour = format!("data.colour={}", !why.is_empty());
        assert!(command.contains(&colour), "{command}");
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
fn pictures_of_12_bits_in_16_are_said_to_be_dark() {
    let base = tempfile::tempdir().unwrap();
    let pictures = base.path().join("pictures");
    for (class, step) in [("fine", 900), ("coarse", 300)] {
        std::fs::create_dir_all(pictures.join(class)).unwrap();
        for index in 0..12 {
            let picture = ImageBuffer::from_fn(20, 20, |x, y| {
                Luma([((x * step + y * index) % 4096) as u16])
            });
            let file = pictures.join(class).join(format!("{index}.png"));
            picture.save(file).unwrap();
        }
    }
    let said = train(&folder(&pictures), &base.path().join("run"), &[]);
    let expected = "the training part is dark: no pixel is above 16 of 255";
    assert!(said.contains(expected), "{said}");
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
