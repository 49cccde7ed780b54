//! Compiler messages for wrong declarations of plugins, recorded in `tests/ui`.
//!
//! `RECORD=1 cargo test --test misuse` records the messages. They depend on the
//! compiler's version: other versions only have to refuse the declarations.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The compiler whose messages are recorded.
const COMPILER: &str = "rustc 1.95.";

/// The compiled library, and the folder of its dependencies.
fn library(root: &Path) -> (PathBuf, PathBuf) {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "check",
        "--package",
        "onward",
        "--lib",
        "--offline",
        "--quiet",
        "--message-format",
        "json",
    ]);
    let output = command.current_dir(root).output().expect("start cargo");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let artifacts = String::from_utf8(output.stdout).unwrap();
    let files = artifacts
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|artifact| {
            let is_ours =
                artifact["reason"] == "compiler-artifact" && artifact["target"]["name"] == "onward";
            is_ours.then(|| artifact["filenames"].clone())
        });
    let files: Vec<PathBuf> =
        serde_json::from_value(files.expect("an artifact of the library")).unwrap();
    let metadata = files
        .into_iter()
        .find(|file| file.extension().is_some_and(|kind| kind == "rmeta"))
        .unwrap();
    let dependencies = metadata.parent().unwrap().to_path_buf();
    (metadata, dependencies)
}

/// The errors with their places in `file` and their notes.
///
/// Places in other files are omitted, because they change with every edit of these files.
fn errors(diagnostics: &str, file: &str) -> String {
    let mut said = String::new();
    for diagnostic in diagnostics
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let (level, message) = (
            diagnostic["level"].as_str().unwrap_or(""),
            diagnostic["message"].as_str().unwrap_or(""),
        );
        if level != "error" || message.starts_with("aborting due to") {
            continue;
        }
        let code = diagnostic["code"]["code"]
            .as_str()
            .map_or(String::new(), |code| format!("[{code}]"));
        said += &format!("error{code}: {message}\n");
        for span in diagnostic["spans"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|span| span["is_primary"] == true)
        {
            // Follow macro expansions to the place in the file.
            let within = std::iter::successors(Some(span), |span| span["expansion"].get("span"));
            if let Some(place) = within.into_iter().find(|span| span["file_name"] == file) {
                let label = span["label"]
                    .as_str()
                    .map_or(String::new(), |label| format!(": {label}"));
                said += &format!(
                    "  --> {file}:{}:{}{label}\n",
                    place["line_start"], place["column_start"]
                );
            }
        }
        for child in diagnostic["children"].as_array().into_iter().flatten() {
            let message = child["message"].as_str().unwrap_or("");
            // Skip a list that grows with the crate, and a hint for nightly compilers.
            if !message.contains("other types implement")
                && !message.contains("originates in the macro")
            {
                said += &format!("  = {}: {message}\n", child["level"].as_str().unwrap_or(""));
            }
        }
        said.push('\n');
    }
    said.trim_end().to_string() + "\n"
}

#[test]
fn wrong_declarations_give_helpful_compiler_errors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(&rustc)
        .arg("--version")
        .output()
        .expect("start the compiler")
        .stdout;
    let is_recorded = String::from_utf8_lossy(&version).starts_with(COMPILER);
    if !is_recorded {
        eprintln!(
            "skipped in part: the recorded messages are those of {COMPILER}*, not of this compiler"
        );
    }
    let ((library, dependencies), out) = (library(root), tempfile::tempdir().unwrap());
    let mut names: Vec<String> = std::fs::read_dir(root.join("tests/ui"))
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".rs")
                .map(String::from)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let file = format!("tests/ui/{name}.rs");
        let mut command = Command::new(&rustc);
        command
            .current_dir(root)
            .env("CARGO_PKG_NAME", "my-plugins")
            .arg(&file);
        command.args([
            "--edition",
            "2021",
            "--emit",
            "metadata",
            "--error-format",
            "json",
            // Long types are written whole.
            "--diagnostic-width",
            "400",
            "--out-dir",
        ]);
        command
            .arg(out.path())
            .arg("--extern")
            .arg(format!("onward={}", library.display()));
        let output = command
            .arg("-L")
            .arg(format!("dependency={}", dependencies.display()))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{file} compiles");
        let found = errors(&String::from_utf8_lossy(&output.stderr), &file);
        let record = root.join("tests/ui").join(format!("{name}.txt"));
        if std::env::var_os("RECORD").is_some() {
            std::fs::write(&record, &found).unwrap();
        }
        if is_recorded {
            let recorded = std::fs::read_to_string(&record).unwrap_or_default();
            assert!(
                found == recorded,
                "{file}: the compiler prints\n\n{found}\nexpected\n\n{recorded}"
            );
        }
    }
}
