//! The checksums of the files in the cache.

use std::path::Path;

use flate2::Crc;

use crate::disk;
use crate::error::Result;

/// A line for each file: its checksum (CRC-32) and its name.
const NAME: &str = ".checksums";

/// The largest file of a data set in the cache, in bytes.
const LARGEST: u64 = 4 << 30;

fn line(folder: &Path, file: &str) -> Result<String> {
    let mut crc = Crc::new();
    crc.update(&disk::read(&folder.join(file), LARGEST)?);
    Ok(format!("{:08x} {file}\n", crc.sum()))
}

/// Writes the checksums of the files in a folder beside them.
#[cfg(feature = "hub")]
pub(super) fn write(folder: &Path, files: &[&str]) -> Result<()> {
    let lines: Result<String> = files.iter().map(|file| line(folder, file)).collect();
    disk::replace(&folder.join(NAME), lines?.as_bytes())
}

/// Whether the files in a folder were written here: others are those of the user.
pub(super) fn are_ours(folder: &Path) -> bool {
    folder.join(NAME).is_file()
}

/// What is wrong with the files of a data set in the cache, if there is anything. The
/// user's own files are not looked at.
pub(super) fn damage(folder: &Path, files: &[&str]) -> Option<String> {
    if !are_ours(folder) {
        return None;
    }
    let known = disk::read_text(&folder.join(NAME)).unwrap_or_default();
    files.iter().find_map(|file| {
        if !folder.join(file).is_file() {
            return Some(format!("{file} is missing"));
        }
        match line(folder, file) {
            Ok(line) if known.contains(&line) => None,
            _ => Some(format!("{file} has changed")),
        }
    })
}

#[cfg(all(test, feature = "hub"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_changed_is_noticed() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["a", "b"] {
            std::fs::write(path.join(name), name).unwrap();
        }
        assert_eq!(damage(path, &["a", "b"]), None);
        write(path, &["a", "b"])?;
        assert_eq!(damage(path, &["a", "b"]), None);
        std::fs::write(path.join("b"), "c").unwrap();
        assert_eq!(damage(path, &["a", "b"]).unwrap(), "b has changed");
        std::fs::remove_file(path.join("a")).unwrap();
        assert_eq!(damage(path, &["a", "b"]).unwrap(), "a is missing");
        Ok(())
    }
}
