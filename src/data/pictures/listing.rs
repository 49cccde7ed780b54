//! What is in a folder: pictures, and folders of them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What is in a folder, but for hidden entries, in order.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
    let mut paths = entries
        .map(|entry| {
            entry
                .map(|entry| entry.path())
                .map_err(Error::file("read", dir))
        })
        .collect::<Result<Vec<_>>>()?;
    paths.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        // Archives made on a Mac have a second folder.
        name.is_some_and(|name| !name.starts_with('.') && name != "__MACOSX")
    });
    paths.sort();
    Ok(paths)
}

/// The folders in a folder, such as those of the classes. Names need not be UTF-8.
pub(super) fn folders_in(dir: &Path) -> Result<Vec<OsString>> {
    let folders = entries(dir)?.into_iter().filter(|path| path.is_dir());
    Ok(folders
        .filter_map(|path| path.file_name().map(Into::into))
        .collect())
}

/// The pictures in a folder and the folders in it, in order.
///
/// # Errors
/// [`Error::File`] for a folder that cannot be read.
pub fn pictures_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect_pictures(dir, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// Adds the pictures of a folder; `above` are those that it is in, since a link may lead
/// back to one of them.
fn collect_pictures(dir: &Path, above: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let place = dir.canonicalize().map_err(Error::file("read", dir))?;
    if above.contains(&place) {
        return Ok(());
    }
    above.push(place);
    for path in entries(dir)? {
        if path.is_dir() {
            collect_pictures(&path, above, found)?;
        } else if is_picture(&path) {
            found.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// Endings that are read without a look into the file.
const ENDINGS: [&str; 11] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff", "gif", "dib",
];

/// Whether a file is a picture, by its ending or its first bytes.
pub(super) fn is_picture(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    if ENDINGS.contains(&ending(path).as_str()) {
        return true;
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    let format = read.ok().and_then(|_| image::guess_format(&start).ok());
    format.is_some_and(|format| format.reading_enabled())
}

/// The ending of a file in small letters; `folder` for a folder.
pub(super) fn ending(path: &Path) -> String {
    if path.is_dir() {
        return "folder".into();
    }
    let ending = path.extension().unwrap_or_default();
    ending.to_string_lossy().to_lowercase()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_but_not_in_a_circle() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("1.png"), "").unwrap();
        symlink(elsewhere.path(), folder.path().join("cat")).unwrap();
        std::fs::create_dir(folder.path().join("dog")).unwrap();
        std::fs::write(folder.path().join("dog/2.png"), "").unwrap();
        symlink(folder.path(), folder.path().join("dog/back")).unwrap();
        let found = pictures_in(folder.path()).unwrap();
        let expected = ["cat/1.png", "dog/2.png"].map(|name| folder.path().join(name));
        assert_eq!(found, expected);
    }
}
