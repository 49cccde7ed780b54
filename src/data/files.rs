//! Search for the files of a data set.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder in a data set's setting `dir`. `usage` shows how to give it, such as
/// `--data idx:DIR`.
///
/// # Errors
/// [`Error::Setting`] if the setting is empty.
pub fn folder<'a>(dir: &'a str, usage: &str) -> Result<&'a Path> {
    if !dir.is_empty() {
        return Ok(Path::new(dir));
    }
    Err(Error::setting(
        "data.dir",
        "\"\"",
        "the settings",
        format!("a folder, as in {usage}"),
    ))
}

/// Finds `file` or `file.gz` in one of `folders`. `name` is that of the data set, for
/// messages.
///
/// # Errors
/// [`Error::MissingData`] with the searched folders.
pub fn find(folders: &[PathBuf], name: &str, file: &str) -> Result<PathBuf> {
    let places = folders
        .iter()
        .flat_map(|dir| [dir.join(file), dir.join(format!("{file}.gz"))]);
    let found = places.into_iter().find(|path| path.is_file());
    let (looked, why) = (folders.to_vec(), String::new());
    found.ok_or_else(|| Error::MissingData {
        name: name.into(),
        file: file.into(),
        looked,
        why,
    })
}

/// Writes a file atomically: a temporary file is written and renamed. A reader sees the
/// old or the new file, never a part of it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside).map_err(Error::file("create", &beside))?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // Remove the incomplete file, since the disk may be full.
        let _ = fs::remove_file(&beside);
        Error::file("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_no_temporary_file() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        write_atomically(&path, b"first")?;
        write_atomically(&path, b"2nd")?;
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        Ok(())
    }
}
