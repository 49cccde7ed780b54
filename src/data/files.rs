//! Search for the files of a data set.

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
