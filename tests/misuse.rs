//! Compiler messages for wrong declarations of plugins, recorded in `tests/ui`.
//!
//! `RECORD=1 cargo test --test misuse` records the messages. They depend on the
//! compiler's version: other versions only have to refuse the declarations.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The compiler whose messages are recorded.
const COMPILER: &str = "rustc 1.95.";

/// The library that this test was compiled with, and the folder of its dependencies.
fn library() -> (PathBuf, PathBuf) {
    let test = std::env::current_exe().expect("the path of this program");
    let dependencies = test.parent().expect("the folder of this program");
    let entries = std::fs::read_dir(dependencies).expect("read the folder of this program");
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libonward-") && name.ends_with(".rlib")
    };
    // Those of other features or of older sources may lie beside it; cargo compiled the
    // newest one last, from the sources of today.
    let libraries = entries.flatten().map(|entry| entry.path());
    let newest = libraries
        .filter(is_library)
        .max_by_key(|path| path.metadata().and_then(|about| about.modified()).ok());
    let library = newest.expect("libonward-….rlib beside this program");
    (library, dependencies.to_path_buf())
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
    let ((library, dependencies), out) = (library(), tempfile::tempdir().unwrap());
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
