//! Search for the files of a data set.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::printable;

use crate::error::{Error, Result};

/// The folder in a data set's setting `dir`. `usage` shows how to give it, such as
/// `--data idx:DIR`.
///
/// # Errors
/// [`Error::Setting`] if the setting is empty.
pub fn folder(dir: &str, usage: &str) -> Result<PathBuf> {
    if !dir.is_empty() {
        return Ok(at_home(dir));
    }
    Err(Error::refused(
        "data.dir",
        "\"\"",
        format!("a folder, as in {usage}"),
    ))
}

/// A path with `~` at its start for the user's home. A shell expands only a word that
/// begins with it, not `folder:~/pictures`.
pub fn at_home(path: &str) -> PathBuf {
    let rest = path.strip_prefix('~').filter(|rest| {
        let is_alone = rest.is_empty();
        is_alone || rest.starts_with('/')
    });
    match (rest, std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest.trim_start_matches('/')),
        _ => path.into(),
    }
}

/// The folder `onward` in the user's cache.
pub(crate) fn cache() -> Option<PathBuf> {
    let folder = |name: &str| {
        let folder = std::env::var_os(name).filter(|folder| !folder.is_empty());
        folder.map(PathBuf::from)
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("onward"))
}

/// Finds `file` or `file.gz` in one of `folders`. `name` is that of the data set, for
/// messages.
///
/// A folder that does not hold the file under this name is searched two folders deep for
/// the names that programs and archives give it: `train-images.idx3-ubyte` for
/// `train-images-idx3-ubyte`, `test-…` for `t10k-…`, `emnist-digits-train-…`.
///
/// # Errors
/// [`Error::MissingData`] with the searched folders, and the files that are there;
/// [`Error::Data`] if several files could be meant.
pub fn find(folders: &[PathBuf], name: &str, file: &str) -> Result<PathBuf> {
    for dir in folders {
        let exact = [dir.join(file), dir.join(format!("{file}.gz"))];
        if let Some(path) = exact.into_iter().find(|path| path.is_file()) {
            return Ok(path);
        }
        let mut similar = Vec::new();
        collect(dir, 2, &mut |path| {
            if is_meant(path, file) {
                similar.push(path.to_path_buf());
            }
        });
        // An archive beside what was unpacked from it.
        let is_packed = |path: &PathBuf| spelling(path).1;
        if !similar.iter().all(is_packed) {
            similar.retain(|path| !is_packed(path));
        }
        match &similar[..] {
            [] => continue,
            [only] => return Ok(only.clone()),
            [first, second, ..] => {
                let problem = format!(
                    "{} and {} could both be {file}; name the folder of one data set",
                    first.display(),
                    second.display()
                );
                return Err(Error::data(dir, problem));
            }
        }
    }
    Err(Error::MissingData {
        name: name.into(),
        file: file.into(),
        looked: folders.to_vec(),
        why: there(folders),
    })
}

/// Calls `f` with the files in a folder and `depth` folders below, in order.
fn collect(dir: &Path, depth: usize, f: &mut impl FnMut(&Path)) {
    // A folder that cannot be read has nothing for us.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).take(MANY).collect();
    paths.sort();
    for path in paths {
        if path.is_file() {
            f(&path);
        } else if depth > 0 && path.is_dir() {
            collect(&path, depth - 1, f);
        }
    }
}

/// The entries of a folder that are looked at.
const MANY: usize = 1000;

/// The name of a file in one spelling, and whether it is compressed.
fn spelling(path: &Path) -> (String, bool) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let (name, is_packed) = match name.strip_suffix(".gz") {
        Some(name) => (name, true),
        None => (&name[..], false),
    };
    (name.replace(['.', '_', ' '], "-"), is_packed)
}

/// Whether this file could be `file` under another name.
fn is_meant(path: &Path, file: &str) -> bool {
    let (found, _) = spelling(path);
    let (wanted, _) = spelling(Path::new(file));
    let names = [wanted.replacen("t10k-", "test-", 1), wanted];
    names.iter().any(|name| {
        let before = found.strip_suffix(name.as_str());
        before.is_some_and(|before| before.is_empty() || before.ends_with('-'))
    })
}

/// The files that are in the first of these folders that has any.
pub(super) fn there(folders: &[PathBuf]) -> String {
    for dir in folders {
        let mut names = Vec::new();
        collect(dir, 1, &mut |path| {
            let path = path.strip_prefix(dir).unwrap_or(path);
            names.push(printable(&path.display().to_string()));
        });
        if names.is_empty() {
            continue;
        }
        let more = names.len().saturating_sub(6);
        names.truncate(6);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more files"),
        };
        return format!("{} has {}{more}", dir.display(), names.join(", "));
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, each in its folders.
    fn with(files: &[&str]) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        for file in files {
            let path = base.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        base
    }

    #[test]
    fn files_are_found_under_the_names_that_others_give_them() {
        let (images, labels) = ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte");
        for (there, wanted) in [
            ("train-images-idx3-ubyte.gz", images),
            ("train-images.idx3-ubyte", images),
            ("MNIST/raw/train-images-idx3-ubyte", images),
            ("train-images-idx3-ubyte/train-images-idx3-ubyte", images),
            ("emnist-digits-train-images-idx3-ubyte.gz", images),
            ("test-labels-idx1-ubyte", labels),
            ("T10K-Labels.IDX1-ubyte", labels),
            ("cifar-10-batches-bin/data_batch_1.bin", "data_batch_1.bin"),
        ] {
            let base = with(&[there, "notes.txt"]);
            let found = find(&[base.path().into()], "x", wanted).unwrap();
            assert_eq!(found, base.path().join(there));
        }
        // What was unpacked comes before its archive.
        let base = with(&[
            "raw/train-images.idx3-ubyte.gz",
            "raw/train-images.idx3-ubyte",
        ]);
        let found = find(&[base.path().into()], "x", images).unwrap();
        assert!(found.ends_with("raw/train-images.idx3-ubyte"), "{found:?}");
    }

    #[test]
    fn another_file_is_not_taken_for_it() {
        let images = "train-images-idx3-ubyte";
        for there in [
            "retrain-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "a/b/c/train-images-idx3-ubyte",
        ] {
            let base = with(&[there]);
            let error = find(&[base.path().into()], "x", images).unwrap_err();
            assert!(
                matches!(error, Error::MissingData { .. }),
                "{there}: {error}"
            );
        }
        let base = with(&["notes.txt", "train-labels-idx1-ubyte"]);
        let error = find(&[base.path().into()], "x", images)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("has notes.txt, train-labels-idx1-ubyte"),
            "{error}"
        );
        let base = with(&[
            "emnist-mnist-train-images-idx3-ubyte",
            "emnist-digits-train-images-idx3-ubyte",
        ]);
        let error = find(&[base.path().into()], "x", images)
            .unwrap_err()
            .to_string();
        assert!(error.contains("could both be"), "{error}");
    }

    #[test]
    fn the_home_folder_is_found_behind_a_colon() {
        let home = std::env::var("HOME").unwrap_or_default();
        if !home.is_empty() {
            assert_eq!(at_home("~/pictures"), Path::new(&home).join("pictures"));
        }
        assert_eq!(at_home("~other/x"), Path::new("~other/x"));
        assert_eq!(at_home("a/~"), Path::new("a/~"));
    }
}
