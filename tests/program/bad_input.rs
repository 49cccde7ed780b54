//! User errors and machine errors: each is reported, without a panic or a partial file.

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use crate::*;

/// The files of a folder with their contents, except for the lock.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.retain(|(path, _)| !path.ends_with(".lock"));
    files.sort();
    files
}

/// Simulates a full disk by a limit on the size of files.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_run_with_the_last_good_checkpoint() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let before = files(&run);
    let limited = |arguments: &str| {
        let command = format!(
            "trap '' XFSZ; ulimit -f 64; exec '{}' {arguments}",
            env!("CARGO_BIN_EXE_onward")
        );
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        message
    };
    let message = limited(&format!("resume '{}' --epochs 4 --quiet", str(&run)));
    assert!(
        message.contains(".safetensors") && message.contains("cannot write"),
        "{message}"
    );
    let after = files(&run);
    for (path, bytes) in &before {
        let kept = after
            .iter()
            .any(|(found, now)| found == path && now == bytes);
        let grows = ["metrics.jsonl", "config.toml"]
            .iter()
            .any(|name| path.ends_with(name));
        assert!(kept || grows, "{} has changed", path.display());
    }
    assert!(
        after
            .iter()
            .all(|(path, _)| path.extension().is_none_or(|ending| ending != "tmp")),
        "a partial file is left"
    );
    succeeds(&["resume", str(&run), "--epochs", "4", "--quiet"]);
    let new = base.path().join("new");
    limited(&format!(
        "train progressive --quiet --epochs 1 --set hidden=[40] --set data.size=200 --out '{}'",
        str(&new)
    ));
    assert!(!new.join("summary.json").exists() && !new.join("model.safetensors").exists());
    succeeds(&["resume", str(&new), "--quiet"]);
    let corpus = base.path().join("corpus");
    let words: String = (0..5000).map(|word| format!("w{word} ")).collect();
    std::fs::write(&corpus, words).unwrap();
    let tokenizer = base.path().join("tokenizer.json");
    let message = limited(&format!(
        "tokenize '{}' --kind word --out '{}'",
        str(&corpus),
        str(&tokenizer)
    ));
    assert!(
        message.contains(str(&tokenizer)) && !tokenizer.exists(),
        "{message}"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let message = fails(1, &train(&file.join("run"), &[]));
    assert!(
        message.contains("cannot create") && message.contains(str(&file)),
        "{message}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let closed = base.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
        // The superuser may write everywhere.
        if std::fs::write(closed.join("probe"), "").is_err() {
            let message = fails(1, &train(&closed.join("run"), &[]));
            assert!(message.contains(str(&closed)), "{message}");
        }
    }
}

#[test]
fn settings_that_need_too_much_memory_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("run");
    let cases: [(&[&str], &str); 4] = [
        (&["--set", "hidden=[1000000000]"], "`hidden`"),
        (
            &["--set", "n_layers=1000000000", "--set", "hidden_size=1"],
            "`n_layers`",
        ),
        (&["--set", "batch=99999999999999999999"], "`batch`"),
        (&["--set", "data.size=1000000000000"], "`data.size`"),
    ];
    for (arguments, expected) in cases {
        let message = fails(
            2,
            &[
                &["train", "progressive", "--quiet", "--out", str(&out)],
                arguments,
            ]
            .concat(),
        );
        assert!(
            message.contains(expected),
            "{expected} is missing from\n{message}"
        );
        assert!(!out.exists(), "{arguments:?}");
    }
    // Simulate a machine with 4 GB of memory.
    #[cfg(target_os = "linux")]
    {
        let arguments = format!(
            "train progressive --quiet --set hidden=[20000,20000] --out '{}'",
            str(&out)
        );
        let command = format!(
            "ulimit -v 4000000; exec '{}' {arguments}",
            env!("CARGO_BIN_EXE_onward")
        );
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let message = text(&output.stderr);
        assert!(
            output.status.code() == Some(2) && message.contains("more than the free memory"),
            "{message}"
        );
    }
    // A batch larger than the data is valid: it contains all examples.
    succeeds(&train(&out, &["--set", "batch=9223372036854775807"]));
}

#[test]
fn invalid_idx_files_are_named() {
    let base = tempfile::tempdir().unwrap();
    let header = |numbers: &[u32]| {
        numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect::<Vec<u8>>()
    };
    let images = |count: u32, bytes: usize| [header(&[2051, count, 2, 2]), vec![7; bytes]].concat();
    let labels = |count: u32| {
        [
            header(&[2049, count]),
            (0..count).map(|label| (label % 2) as u8).collect(),
        ]
        .concat()
    };
    let good = || {
        [
            ("train-images-idx3-ubyte", images(12, 48)),
            ("train-labels-idx1-ubyte", labels(12)),
            ("t10k-images-idx3-ubyte", images(4, 16)),
            ("t10k-labels-idx1-ubyte", labels(4)),
        ]
    };
    let huge = [header(&[2051, 1_000_000_000, 28, 28]), vec![0; 100]].concat();
    let cases: [(&str, Option<Vec<u8>>, &str); 6] = [
        ("train-labels-idx1-ubyte", None, "is in none of"),
        (
            "train-images-idx3-ubyte",
            Some(images(12, 47)),
            "found only 47",
        ),
        (
            "train-images-idx3-ubyte",
            Some(huge),
            "784000000000 bytes; found only 100",
        ),
        (
            "t10k-labels-idx1-ubyte",
            Some(labels(3)),
            "3 labels for the 4 images",
        ),
        (
            "t10k-images-idx3-ubyte",
            Some(b"\x89PNG\r\n\x1a\n".to_vec()),
            "an IDX file of images begins with 2051",
        ),
        (
            "train-images-idx3-ubyte",
            Some(b"\x1f\x8bnot gzip at all".to_vec()),
            "cannot be decompressed",
        ),
    ];
    for (name, bytes, expected) in cases {
        let folder = base.path().join("data");
        std::fs::create_dir_all(&folder).unwrap();
        good()
            .into_iter()
            .for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
        match bytes {
            Some(bytes) => std::fs::write(folder.join(name), bytes).unwrap(),
            None => std::fs::remove_file(folder.join(name)).unwrap(),
        }
        let message = fails(
            1,
            &[
                "train",
                "progressive",
                "--data",
                &format!("idx:{}", str(&folder)),
            ],
        );
        assert!(
            message.contains(name) && message.contains(expected),
            "{expected} is missing from\n{message}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    /// Changes the summary, which `report` and `resume` read.
    #[test]
    fn a_changed_summary_does_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        readout in "[a-z]{0,6}",
    ) {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("run");
        succeeds(&["train", "progressive", "--quiet", "--epochs", "1", "--set", "hidden=[5]", "--set", "data.size=100",
            "--out", str(&run)]);
        let path = run.join("summary.json");
        let good = std::fs::read_to_string(&path).unwrap();
        let mut bytes = good.clone().into_bytes();
        changes.iter().for_each(|(index, value)| { let at = index.index(bytes.len()); bytes[at] = *value; });
        let named = good.replace("\"readout\": \"search\"", &format!("\"readout\": \"{readout}\""));
        for text in [bytes, named.into_bytes(), "[".repeat(100_000).into_bytes()] {
            std::fs::write(&path, text).unwrap();
            for arguments in [&["report", str(&run)], &["resume", str(&run)]] {
                let output = onward(arguments);
                let message = self::text(&output.stderr);
                prop_assert!(matches!(output.status.code(), Some(0..=2)) && !message.contains("panicked"), "{}", message);
            }
        }
    }
}

#[test]
fn invalid_settings_are_refused_before_anything_is_written() {
    let base = tempfile::tempdir().unwrap();
    let (out, file) = (base.path().join("run"), base.path().join("text"));
    std::fs::write(&file, "the fox and the crow. ".repeat(40)).unwrap();
    let text = format!("text:{}", str(&file));
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["recurrent", "--set", "steps=0"],
            &["`steps` = 0", "at least 1"],
        ),
        (
            &["recurrent", "--set", "window=[]"],
            &["`window` = []", "a list"],
        ),
        (
            &["recurrent", "--set", "window=[5,3]"],
            &["`window` = [5, 3]", "1 <= first <= last"],
        ),
        (
            &["recurrent", "--set", "window=[3,9]"],
            &["`window` = [3, 9]", "steps = 8"],
        ),
        (
            &["recurrent", "--set", "damping=1"],
            &["`damping` = 1", "less than 1"],
        ),
        (
            &[
                "progressive",
                "--set",
                "layer={name=\"local\",field=40}",
                "--set",
                "sampler=hybrid_images",
            ],
            &["28×28", "`field` at most 28"],
        ),
        (
            &[
                "progressive",
                "--set",
                "layer={name=\"local\",padding=9223372036854775807}",
            ],
            &["`layer.padding`", "1024"],
        ),
        (
            &[
                "progressive",
                "--set",
                "layer={name=\"local\",field=5,padding=5}",
            ],
            &["`padding` less than `field`"],
        ),
        (
            &["progressive", "--set", "layer={name=\"local\",stride=0}"],
            &["`layer.stride` = 0"],
        ),
        (
            &["progressive", "--set", "layer={name=\"conv\",pool=15}"],
            &["no pool of 15×15"],
        ),
        (
            &[
                "progressive",
                "--set",
                "sampler=hybrid_images",
                "--set",
                "batch=199",
            ],
            &[
                "`batch` = 199",
                "200 training examples",
                "of at least 2",
                "the last batch would have 1",
            ],
        ),
        (
            &[
                "progressive",
                "--set",
                "sampler=hybrid_images",
                "--set",
                "batch=1",
            ],
            &["`batch` = 1", "hybrid_images"],
        ),
        (
            &["progressive", "--set", "readout_to=1"],
            &["`readout_to` = 1", "readout_from = 2"],
        ),
        (
            &[
                "progressive",
                "--set",
                "goodness=[\"sum_squares\",\"mean_squares\"]",
            ],
            &["`goodness`", "a list of 3", "found 2"],
        ),
        (
            &[
                "progressive",
                "--set",
                "goodness=[\"sum_squares\",\"sum_squares\",\"projection\"]",
            ],
            &["a column per class", "choose one kind for all of them"],
        ),
        (
            &["nlp", "--data", &text, "--set", "flip=true"],
            &["`flip` = true", "text"],
        ),
        (
            &["nlp", "--data", &text, "--set", "shift=1"],
            &["`shift` = 1", "text"],
        ),
        (
            &["nlp", "--data", &text, "--set", "window=800"],
            &["more than 800 tokens", str(&file)],
        ),
    ];
    for (arguments, expected) in cases {
        let small: &[&str] = if arguments[0] == "nlp" {
            &[]
        } else {
            &["--set", "data.size=200"]
        };
        let quiet = ["--quiet", "--epochs", "1", "--out", str(&out)];
        let message = fails(2, &[&["train"], *arguments, small, &quiet].concat());
        for part in *expected {
            assert!(message.contains(part), "{part} is missing from\n{message}");
        }
        assert!(!out.exists(), "{arguments:?}");
    }
}

#[test]
fn a_run_is_drawn_and_the_image_is_never_overwritten() {
    let base = tempfile::tempdir().unwrap();
    let (run, out) = (base.path().join("run"), base.path().join("run.png"));
    succeeds(&train(&run, &["--set", "sampler=hybrid_images"]));
    succeeds(&["picture", str(&run), "--out", str(&out), "--count", "3"]);
    let picture = image::open(&out).unwrap().into_rgb8();
    // Six rows: examples, positive views, negative views, masks, two rows of features.
    // Each row has three images of 28×28 pixels, scaled by 2.
    assert_eq!(picture.dimensions(), (3 * 58 + 2, 6 * 58 + 2));
    // A mask is black or white.
    let mask = image::imageops::crop_imm(&picture, 2, 2 + 3 * 58, 56, 56).to_image();
    assert!(mask.pixels().all(|pixel| [0, 255].contains(&pixel[0])));
    assert!(mask.pixels().any(|pixel| pixel[0] == 0) && mask.pixels().any(|pixel| pixel[0] == 255));
    let message = fails(1, &["picture", str(&run), "--out", str(&out)]);
    assert!(message.contains("never overwritten"), "{message}");
    let text = base.path().join("text");
    succeeds(&[
        "train",
        "nlp",
        "--quiet",
        "--epochs",
        "1",
        "--set",
        "hidden=[8]",
        "--out",
        str(&text),
    ]);
    let message = fails(
        2,
        &[
            "picture",
            str(&text),
            "--out",
            str(&base.path().join("text.png")),
        ],
    );
    assert!(
        message.contains("expected a run on images, found one on text"),
        "{message}"
    );
}

#[test]
fn fewer_epochs_than_complete_ones_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let before = files(&run);
    let message = fails(2, &["resume", str(&run), "--epochs", "1"]);
    assert!(
        message.contains("`epochs` = 1 (from --epochs 1)")
            && message.contains("at least the 2 epochs"),
        "{message}"
    );
    assert_eq!(files(&run), before);
}

#[test]
fn a_run_folder_that_is_a_file_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let message = fails(1, &train(&file, &[]));
    assert!(
        message.contains(str(&file)) && message.contains("is a file"),
        "{message}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn settings_are_blamed_and_not_plugins() {
    for (arguments, expected) in [
        (
            &["train", "progressive", "--set", "sampler.strength=1e30"][..],
            "sampler.strength",
        ),
        (&["list", "--threads", "65535"], "--threads 65535"),
    ] {
        let message = fails(2, arguments);
        assert!(
            message.contains(expected) && !message.contains("returned") && message.len() < 2000,
            "{message}"
        );
    }
}
