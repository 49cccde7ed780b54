//! Hostile files: pipes, devices, oversized pictures, forged checkpoints.

use std::path::Path;

use crate::*;

/// Pipes wait for ever, devices have no end: neither is opened.
#[test]
#[cfg(unix)]
fn files_that_are_no_files_are_refused_at_once() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let pipe = base.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let devices = [pipe.as_path(), Path::new("/dev/zero")];
    for device in devices {
        let name = str(device);
        let data = format!("text:{name}");
        for arguments in [
            &["train", "nlp", "--quiet", "--data", &data][..],
            &["train", "progressive", "--quiet", "--config", name],
            &["predict", str(&run), name],
            &[
                "tokenize",
                name,
                "--kind",
                "char",
                "--out",
                "/nonexistent/x",
            ],
        ] {
            let message = fails(1, arguments);
            assert!(
                message.contains("not a regular file"),
                "{arguments:?}: {message}"
            );
        }
        for file in [
            "config.toml",
            "model.safetensors",
            "state.safetensors",
            ".lock",
        ] {
            let other = base.path().join("other");
            std::fs::create_dir(&other).unwrap();
            for name in ["config.toml", "model.safetensors", "state.safetensors"] {
                std::fs::copy(run.join(name), other.join(name)).unwrap();
            }
            let _ = std::fs::remove_file(other.join(file));
            std::os::unix::fs::symlink(device, other.join(file)).unwrap();
            let command = if file == ".lock" {
                "resume"
            } else {
                "evaluate"
            };
            let output = onward(&[command, str(&other)]);
            let message = text(&output.stderr);
            // Without its state a run still has its model.
            assert!(
                output.status.success() || message.contains("not a"),
                "{file}: {message}"
            );
            std::fs::remove_dir_all(&other).unwrap();
        }
    }
}

/// A PNG of less than a hundred bytes that promises 12000×12000 pixels.
#[test]
fn a_picture_that_promises_far_more_than_its_file_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    let small = image::GrayImage::new(16, 16);
    small.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let mut bytes = bytes.into_inner();
    let side = 12_000u32.to_be_bytes();
    bytes[16..24].copy_from_slice(&[side, side].concat());
    let sum = crc(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&sum);
    let path = base.path().join("bomb.png");
    std::fs::write(&path, bytes).unwrap();
    let message = fails(1, &["predict", str(&run), str(&path)]);
    assert!(
        message.contains(
            "has 12000×12000 pixels, 144 MB decoded, expected at most 67 MB for its file"
        ),
        "{message}"
    );
}

/// The checksum of a part of a PNG (CRC-32).
fn crc(bytes: &[u8]) -> u32 {
    let bits = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bits))
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let (one, other) = (base.path().join("one"), base.path().join("other"));
    succeeds(&train(&one, &[]));
    let small = [
        "--epochs",
        "1",
        "--set",
        "hidden=[20,20]",
        "--set",
        "data.size=100",
    ];
    succeeds(
        &[
            &["train", "recurrent", "--quiet", "--out", str(&other)],
            &small[..],
        ]
        .concat(),
    );
    for file in ["model.safetensors", "state.safetensors"] {
        std::fs::copy(other.join(file), one.join(file)).unwrap();
    }
    for command in ["evaluate", "resume"] {
        let message = fails(1, &[command, str(&one)]);
        assert!(
            message.contains("holds the architecture recurrent, expected progressive"),
            "{message}"
        );
    }
}

#[test]
fn a_state_that_was_tampered_with_is_not_resumed() {
    let base = tempfile::tempdir().unwrap();
    let run = base.path().join("run");
    succeeds(&train(&run, &[]));
    let path = run.join("state.safetensors");
    // With a model of the same epoch, `predict` would not read the state.
    std::fs::remove_file(run.join("model.safetensors")).unwrap();
    let good = std::fs::read(&path).unwrap();
    let end = good.len();
    let mut no_number = good.clone();
    // The last bytes count steps; weights and optimiser states precede them.
    no_number[end - 400..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mut longer = good.clone();
    longer.extend([0; 8]);
    let mut header = good.clone();
    header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut weight = good.clone();
    weight[end - 400] ^= 1;
    // The header contains the description as JSON within JSON.
    let described = |from: &str, to: &str| {
        let at = good
            .windows(from.len())
            .position(|found| found == from.as_bytes())
            .expect(from);
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    let cases = [
        (no_number, "not finite"),
        (longer, "safetensors"),
        (header, "not a safetensors file"),
        (weight, "checksum"),
        (
            described(r#"\"shape\":[1,28,28]"#, r#"\"shape\":[9,99,99]"#),
            "checksum",
        ),
        (described(r#"\"epoch\":2"#, r#"\"epoch\":9"#), "checksum"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        for command in ["evaluate", "resume", "predict"] {
            // The network is loaded before any image is read.
            let pictures: &[&str] = if command == "predict" {
                &["none.png"]
            } else {
                &[]
            };
            let message = fails(1, &[&[command, str(&run)], pictures].concat());
            assert!(
                message.contains("state.safetensors") && message.contains(expected),
                "{expected}: {message}"
            );
        }
    }
}

/// What a run writes to for some time is its own: nothing behind a link, no pipe.
#[test]
#[cfg(unix)]
fn links_and_pipes_among_the_files_of_a_run_are_replaced() {
    let base = tempfile::tempdir().unwrap();
    let (run, theirs) = (base.path().join("run"), base.path().join("theirs"));
    succeeds(&train(&run, &["--until", "1", "--log", "csv"]));
    std::fs::write(&theirs, "precious").unwrap();
    for (epochs, name) in [("2", "metrics.csv"), ("3", "metrics.jsonl")] {
        let path = run.join(name);
        std::fs::remove_file(&path).unwrap();
        if epochs == "2" {
            std::os::unix::fs::symlink(&theirs, &path).unwrap();
        } else {
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
        }
        succeeds(&["resume", str(&run), "--quiet", "--epochs", epochs]);
        assert!(path.symlink_metadata().unwrap().is_file(), "{name}");
        assert!(std::fs::metadata(&path).unwrap().len() > 0, "{name}");
    }
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "precious");
}
