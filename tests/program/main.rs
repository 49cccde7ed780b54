//! The program `onward`, run as a process.

use std::path::Path;
use std::process::{Command, Output};

mod bad_input;
mod bench;
mod changed_data;
mod command_line;
mod compare;
mod errors;
mod hostile_files;
mod injected;
mod interrupted;
mod language;
mod logs;
mod memory;
mod methods;
mod new;
mod own_data;
mod page;
mod part;
mod precision;
mod predict;
mod ranks;
mod results;
mod settings;
mod shim;
mod shown;
mod sweep;
mod text;

pub(crate) fn onward(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
    command
        .args(arguments)
        .env_remove("ONWARD_DATA")
        .env("HOME", "/dev/null")
        .env_remove("XDG_CACHE_HOME");
    // No server listens on this port: tests do not use the network.
    command
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env("NO_PROXY", "127.0.0.1");
    command.output().expect("start the program")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn str(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Runs the program, asserts success and returns its stdout.
pub(crate) fn succeeds(arguments: &[&str]) -> String {
    let output = onward(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs the program, asserts this exit code and returns its stderr.
pub(crate) fn fails(code: i32, arguments: &[&str]) -> String {
    let output = onward(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    message
}

pub(crate) fn train<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let small = [
        "--epochs",
        "2",
        "--set",
        "hidden=[40,40]",
        "--set",
        "data.size=200",
    ];
    let out = [
        "train",
        "progressive",
        "--quiet",
        "--out",
        out.to_str().expect("a UTF-8 path"),
    ];
    [&out[..], &small, more].concat()
}
