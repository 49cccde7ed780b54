//! The library of `shim.c`, which makes faults in the calls of a process that change a
//! folder.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Errors of the system: no space, an error of the disk, an interruption.
pub const ERRORS: [(&str, &str); 3] = [("ENOSPC", "28"), ("EIO", "5"), ("EINTR", "4")];
pub const KILLS: [&str; 3] = ["kill_before", "kill_after", "kill_half"];

/// Compiles the library that makes the faults; `None` without a C compiler.
pub fn shim(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/program/shim.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .args([library.as_os_str(), source.as_ref(), "-ldl".as_ref()])
        .status();
    match built {
        Ok(status) if status.success() => Some(library),
        _ => {
            eprintln!("skipped: no C compiler `cc` for tests/program/shim.c");
            None
        }
    }
}
