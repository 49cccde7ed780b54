//! Training within a limited amount of memory: a control group of Linux, as containers and
//! batch systems use. What does not fit is refused; nothing is killed without a word.
//!
//! Needs the right to make a control group (root); without it the test is skipped with a
//! message.
#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::*;

/// A control group with a limit, removed at the end.
struct Group(PathBuf);

impl Group {
    fn of(mb: u64) -> Option<Self> {
        // Version 1 has a folder for memory alone.
        let roots = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        roots.iter().find_map(|(root, limit)| {
            let name = format!("onward-test-{}-{mb}", std::process::id());
            let group = Self(Path::new(root).join(name));
            std::fs::create_dir(&group.0).ok()?;
            std::fs::write(group.0.join(limit), (mb << 20).to_string()).ok()?;
            // Without room on the disk of swap either, where that can be limited.
            let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
            Some(group)
        })
    }

    fn onward(&self, arguments: &[&str]) -> Output {
        let enter = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter, str(&self.0), env!("CARGO_BIN_EXE_onward")]);
        command.args(arguments).env("HOME", "/dev/null");
        command.output().expect("start a shell")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn what_does_not_fit_into_a_container_is_refused_and_the_rest_is_trained() {
    let base = tempfile::tempdir().unwrap();
    let (mut trained, mut refused) = (0, 0);
    for (limit, optimiser) in [(120, "sgd"), (400, "adam")] {
        let Some(group) = Group::of(limit) else {
            eprintln!("skipped: no right to make a control group");
            return;
        };
        for (method, width) in [
            ("progressive", 100),
            ("progressive", 1000),
            ("progressive", 4000),
            ("progressive", 9000),
            ("progressive", 16000),
            ("progressive", 28000),
            ("progressive", 200_000),
            ("backprop", 9000),
            ("backprop", 20000),
            ("recurrent", 500),
            ("recurrent", 1500),
            ("recurrent", 4000),
        ] {
            let what = format!("{method} of {width} units, {optimiser}, {limit} MB");
            let run = base
                .path()
                .join(format!("{method}-{width}-{optimiser}-{limit}"));
            let hidden = format!("hidden=[{width}]");
            let optimiser = format!("optimiser={optimiser}");
            let output = group.onward(&[
                "train",
                method,
                "--quiet",
                "--epochs",
                "1",
                "--out",
                str(&run),
                "--set",
                "data.size=200",
                "--set",
                &hidden,
                "--set",
                &optimiser,
            ]);
            let message = text(&output.stderr);
            assert_eq!(output.status.signal(), None, "{what}: killed; {message}");
            if output.status.success() {
                trained += 1;
                let output = group.onward(&["evaluate", str(&run)]);
                assert!(output.status.success(), "{what}: {output:?}");
            } else {
                refused += 1;
                assert_eq!(output.status.code(), Some(2), "{what}: {message}");
                assert!(message.contains(" MB"), "{what}: {message}");
                assert!(!run.exists(), "{what}: a folder is left");
            }
        }
    }
    assert!(trained >= 6 && refused >= 6, "{trained} and {refused}");
}

#[test]
fn data_that_do_not_fit_into_a_container_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let data = base.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // 47 MB of images, which are all black but for their first bytes.
    for (part, count) in [("train", 60_000u32), ("t10k", 1000)] {
        let images = [
            [0, 0, 8, 3],
            count.to_be_bytes(),
            [0, 0, 0, 28],
            [0, 0, 0, 28],
        ]
        .concat();
        let path = data.join(format!("{part}-images-idx3-ubyte"));
        std::fs::write(&path, images).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(16 + u64::from(count) * 784).unwrap();
        let labels = (0..count).map(|index| (index % 10) as u8);
        let labels = [[0, 0, 8, 1], count.to_be_bytes()]
            .concat()
            .into_iter()
            .chain(labels);
        let path = data.join(format!("{part}-labels-idx1-ubyte"));
        std::fs::write(path, labels.collect::<Vec<u8>>()).unwrap();
    }
    let data = format!("idx:{}", str(&data));
    let mut codes = Vec::new();
    // A little more than the data is the worst.
    for limit in [
        64, 96, 100, 104, 112, 130, 150, 165, 175, 180, 185, 200, 300,
    ] {
        let Some(group) = Group::of(limit) else {
            eprintln!("skipped: no right to make a control group");
            return;
        };
        let run = base.path().join(limit.to_string());
        let output = group.onward(&[
            "train",
            "progressive",
            "--quiet",
            "--epochs",
            "1",
            "--out",
            str(&run),
            "--data",
            &data,
            "--set",
            "hidden=[10]",
            "--set",
            "batch=1000",
        ]);
        let message = text(&output.stderr);
        assert_eq!(
            output.status.signal(),
            None,
            "{limit} MB: killed; {message}"
        );
        assert!(
            output.status.success() || message.contains("memory"),
            "{message}"
        );
        codes.push(output.status.code());
    }
    assert!(
        codes[0] != Some(0) && codes.last() == Some(&Some(0)),
        "{codes:?}"
    );
}
