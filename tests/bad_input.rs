//! What a user can get wrong, and what a machine can: an error that says so, never a panic, nothing half-written.

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

mod program;
use program::*;

fn str(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The files of a folder with what is in them, but for the lock.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.retain(|(path, _)| !path.ends_with(".lock"));
    files.sort();
    files
}

/// What a disk with no room left does to a file that grows, a limit on the size of files does as well.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_run_with_the_last_good_checkpoint() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let before = files(&run);
    let limited = |arguments: &str| {
        let command = format!("trap '' XFSZ; ulimit -f 64; exec '{}' {arguments}", env!("CARGO_BIN_EXE_onward"));
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        message
    };
    let message = limited(&format!("resume '{}' --epochs 4 --quiet", str(&run)));
    assert!(message.contains(".safetensors") && message.contains("cannot write"), "{message}");
    let after = files(&run);
    for (path, bytes) in &before {
        let kept = after.iter().any(|(found, now)| found == path && now == bytes);
        let grows = ["metrics.jsonl", "config.toml"].iter().any(|name| path.ends_with(name));
        assert!(kept || grows, "{} has changed", path.display());
    }
    assert!(
        after.iter().all(|(path, _)| path.extension().is_none_or(|ending| ending != "tmp")),
        "half of a file is left"
    );
    succeeds(&["resume", str(&run), "--epochs", "4", "--quiet"]);
    let new = base.path().join("new");
    limited(&format!(
        "train progressive --quiet --epochs 1 --set hidden=[40] --set data.size=200 --out '{}'",
        str(&new)
    ));
    assert!(!new.join("summary.json").exists() && !new.join("model.safetensors").exists());
    succeeds(&["resume", str(&new), "--quiet"]);
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let (one, other) = (base.path().join("one"), base.path().join("other"));
    succeeds(&train(&one, &[]));
    let small = ["--epochs", "1", "--set", "hidden=[20,20]", "--set", "data.size=100"];
    succeeds(&[&["train", "recurrent", "--quiet", "--out", str(&other)], &small[..]].concat());
    for file in ["model.safetensors", "state.safetensors"] {
        std::fs::copy(other.join(file), one.join(file)).unwrap();
    }
    for command in ["evaluate", "resume"] {
        let message = fails(1, &[command, str(&one)]);
        assert!(message.contains("holds the architecture recurrent, not progressive"), "{message}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let message = fails(1, &train(&file.join("run"), &[]));
    assert!(message.contains("cannot create") && message.contains(str(&file)), "{message}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let closed = base.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
        // Root may write everywhere.
        if std::fs::write(closed.join("probe"), "").is_err() {
            let message = fails(1, &train(&closed.join("run"), &[]));
            assert!(message.contains(str(&closed)), "{message}");
        }
    }
}

#[test]
fn what_would_need_more_memory_than_there_is_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("run");
    let cases: [(&[&str], &str); 4] = [
        (&["--set", "hidden=[1000000000]"], "too large"),
        (&["--set", "n_layers=1000000000", "--set", "hidden_size=1"], "`n_layers`"),
        (&["--set", "batch=99999999999999999999"], "`batch`"),
        (&["--set", "data.size=1000000000000"], "`data.size`"),
    ];
    for (arguments, expected) in cases {
        let message = fails(2, &[&["train", "progressive", "--quiet", "--out", str(&out)], arguments].concat());
        assert!(message.contains(expected), "{expected} is missing from\n{message}");
        assert!(!out.exists(), "{arguments:?}");
    }
    // As on a machine of 4 GB.
    #[cfg(target_os = "linux")]
    {
        let arguments = format!("train progressive --quiet --set hidden=[20000,20000] --out '{}'", str(&out));
        let command = format!("ulimit -v 4000000; exec '{}' {arguments}", env!("CARGO_BIN_EXE_onward"));
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let message = text(&output.stderr);
        assert!(output.status.code() == Some(2) && message.contains("more memory than is free"), "{message}");
    }
    // A step of all examples there are is no fault.
    succeeds(&train(&out, &["--set", "batch=9223372036854775807"]));
}

#[test]
fn idx_files_that_cannot_be_right_are_named() {
    let base = tempfile::tempdir().unwrap();
    let header = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let images = |count: u32, bytes: usize| [header(&[2051, count, 2, 2]), vec![7; bytes]].concat();
    let labels = |count: u32| [header(&[2049, count]), (0..count).map(|label| (label % 2) as u8).collect()].concat();
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
        ("train-images-idx3-ubyte", Some(images(12, 47)), "it has only 47"),
        ("train-images-idx3-ubyte", Some(huge), "784000000000 bytes; it has only 100"),
        ("t10k-labels-idx1-ubyte", Some(labels(3)), "3 labels for the 4 images"),
        ("t10k-images-idx3-ubyte", Some(b"\x89PNG\r\n\x1a\n".to_vec()), "an IDX file of images begins with 2051"),
        ("train-images-idx3-ubyte", Some(b"\x1f\x8bnot gzip at all".to_vec()), "cannot be unpacked"),
    ];
    for (name, bytes, expected) in cases {
        let folder = base.path().join("data");
        std::fs::create_dir_all(&folder).unwrap();
        good().into_iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
        match bytes {
            Some(bytes) => std::fs::write(folder.join(name), bytes).unwrap(),
            None => std::fs::remove_file(folder.join(name)).unwrap(),
        }
        let message = fails(1, &["train", "progressive", "--data", &format!("idx:{}", str(&folder))]);
        assert!(message.contains(name) && message.contains(expected), "{expected} is missing from\n{message}");
    }
}

#[test]
fn a_state_that_was_tampered_with_is_not_resumed() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let path = run.join("state.safetensors");
    let good = std::fs::read(&path).unwrap();
    let end = good.len();
    let mut no_number = good.clone();
    // The last bytes count steps; before them are weights and what optimisers keep.
    no_number[end - 400..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mut longer = good.clone();
    longer.extend([0; 8]);
    let mut header = good.clone();
    header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for (bytes, expected) in [(no_number, "not finite"), (longer, "safetensors"), (header, "no safetensors file")] {
        std::fs::write(&path, bytes).unwrap();
        for command in ["evaluate", "resume"] {
            let message = fails(1, &[command, str(&run)]);
            assert!(message.contains("state.safetensors") && message.contains(expected), "{expected}: {message}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    /// The summary says which readout is preferred, and may say anything.
    #[test]
    fn a_changed_summary_is_no_reason_to_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        readout in "[a-z]{0,6}",
    ) {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("run");
        succeeds(&["train", "progressive", "--quiet", "--epochs", "1", "--set", "hidden=[5]", "--set", "data.size=100",
            "--out", str(&run)]);
        let path = run.join("summary.json");
        let good = std::fs::read_to_string(&path).unwrap();
        let picture = base.path().join("picture.png");
        image::GrayImage::new(28, 28).save(&picture).unwrap();
        let mut bytes = good.clone().into_bytes();
        changes.iter().for_each(|(index, value)| { let at = index.index(bytes.len()); bytes[at] = *value; });
        let named = good.replace("\"readout\": \"search\"", &format!("\"readout\": \"{readout}\""));
        for text in [bytes, named.into_bytes(), "[".repeat(100_000).into_bytes()] {
            std::fs::write(&path, text).unwrap();
            for arguments in [&["evaluate", str(&run)][..], &["predict", str(&run), str(&picture)]] {
                let output = onward(arguments);
                let message = self::text(&output.stderr);
                prop_assert!(matches!(output.status.code(), Some(0..=2)) && !message.contains("panicked"), "{}", message);
            }
        }
    }
}
