//! The file that a fuzzed function reads.

use std::path::PathBuf;
use std::sync::OnceLock;

/// A file with these bytes, in a folder of this process.
pub fn with(bytes: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("file");
    std::fs::write(&path, bytes).expect("a file");
    path
}
