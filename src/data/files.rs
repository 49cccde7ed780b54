//! Where the files of a data set are.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folder that a data set's setting `dir` names; `usage` says how it is given, `--data idx:DIR`.
///
/// # Errors
/// [`Error::Setting`] if it names none.
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

/// Looks in each of `folders` for `file`, then for `file.gz`; `name` is the data set's, for messages.
///
/// # Errors
/// [`Error::MissingData`] with the folders that were looked in.
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
