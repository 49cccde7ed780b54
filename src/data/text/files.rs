//! The files of a text: one, a folder of them, or a pattern.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::data::{at_home, Room};
use crate::error::{notify, printable, Error, Result};

/// The endings of text files, in lower case.
const ENDINGS: [&str; 4] = ["txt", "text", "md", "markdown"];

/// The files that a path stands for, sorted by name: a file; all text files in and below
/// a folder; or all files whose names match a pattern with `*`. Of several, those without
/// a byte are left out. A line says which were found.
///
/// # Errors
/// [`Error::Data`] if no file is found, or the pattern is wrong.
pub fn files(path: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let (files, said) = found(path.as_ref())?;
    if let Some(said) = said {
        notify(format_args!("{said}"));
    }
    Ok(files)
}

/// The same without the line; none if no file is found.
pub fn files_if_any(path: impl AsRef<Path>) -> Vec<PathBuf> {
    found(path.as_ref()).map_or_else(|_| Vec::new(), |(files, _)| files)
}

/// The size in bytes of the files that a path stands for, together; `None` if no file is
/// found.
pub fn size(path: impl AsRef<Path>) -> Option<u64> {
    let (files, _) = found(path.as_ref()).ok()?;
    let sizes = files.iter().map(|file| Some(file.metadata().ok()?.len()));
    sizes.sum()
}

/// The files that a path stands for, and a line about several.
fn found(path: &Path) -> Result<(Vec<PathBuf>, Option<String>)> {
    let start = path.to_str().map_or_else(|| path.to_path_buf(), at_home);
    let has_star = path.as_os_str().as_encoded_bytes().contains(&b'*');
    let is_pattern = has_star && !start.exists();
    let fault = |problem: String| Error::data(&start, problem);
    if !start.is_dir() && !is_pattern {
        let is_list = start.as_os_str().as_encoded_bytes().contains(&b',');
        if is_list && !start.exists() {
            let problem = "is no file; for several files name a folder or a pattern such as \
                           'books/*.txt', or add them: --set 'data.more=[\"FILE\"]'";
            return Err(fault(problem.into()));
        }
        return Ok((vec![start], None));
    }
    let pattern = match is_pattern {
        // A star is the only mark; brackets are parts of names.
        true => {
            let parts = start.to_string_lossy();
            let parts = parts.split('*').map(glob::Pattern::escape);
            parts.collect::<Vec<_>>().join("*")
        }
        false => format!("{}/**/*", glob::Pattern::escape(&start.to_string_lossy())),
    };
    let paths = glob::glob(&pattern).map_err(|error| fault(error.to_string()))?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| fault(error.to_string()))?;
        // Pipes and devices are refused when they are read.
        if !path.is_dir() && !is_hidden(&path, &start) {
            found.push(path);
        }
    }
    found.sort();
    let (kept, left_out): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|path| is_pattern || is_text(path));
    if kept.is_empty() {
        let problem = match is_pattern {
            true => "matches no file".into(),
            false => format!(
                "has no text file, expected some that end in .{}",
                ENDINGS.join(", .")
            ),
        };
        return Err(fault(problem));
    }
    let is_empty = |path: &PathBuf| path.metadata().is_ok_and(|about| about.len() == 0);
    let (empty, full): (Vec<_>, Vec<_>) = kept.iter().cloned().partition(is_empty);
    let (kept, empty) = match full.is_empty() {
        true => (kept, Vec::new()),
        false => (full, empty),
    };
    let none = empty.first().map_or(String::new(), |path| {
        let (count, name) = (empty.len(), printable(&path.display().to_string()));
        match count {
            1 => format!("; left out as empty: {name}"),
            _ => format!("; left out as empty: {count}, such as {name}"),
        }
    });
    let first = left_out.first().map_or(String::new(), |path| {
        let (count, name) = (left_out.len(), printable(&path.display().to_string()));
        match count {
            1 => format!("; left out, since it is no text file: {name}"),
            _ => format!("; left out, since they are no text files: {count}, such as {name}"),
        }
    });
    let said = format!(
        "{}: {}{none}{first}",
        printable(&start.display().to_string()),
        match kept.len() {
            1 => "1 text file".to_string(),
            count => format!("{count} text files"),
        }
    );
    Ok((kept, Some(said)))
}

/// Some files without repetitions, such as a file that is named beside its folder. A line
/// says so.
pub fn distinct(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let (once, again): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|path| seen.insert(place(path)));
    if let Some(first) = again.first() {
        let (count, first) = (again.len(), printable(&first.display().to_string()));
        notify(format_args!(
            "note: {count} of the files are named more than once, and read once, such as {first}"
        ));
    }
    once
}

/// The training files without those of the validation or test part, such as the file of a
/// folder that is named for the test. A line says so.
///
/// # Errors
/// [`Error::Data`] if nothing is left, or if a file is in the validation and in the test
/// part.
pub fn apart(train: Vec<PathBuf>, [validation, test]: [&[PathBuf]; 2]) -> Result<Vec<PathBuf>> {
    let mut taken: HashSet<PathBuf> = validation.iter().map(place).collect();
    if let Some(both) = test.iter().find(|path| taken.contains(&place(path))) {
        let problem = "is in the validation part and in the test part, expected different \
                       files; change `data.validation` or `data.test`";
        return Err(Error::data(both, problem));
    }
    taken.extend(test.iter().map(place));
    let (shared, rest): (Vec<_>, Vec<_>) = train
        .into_iter()
        .partition(|path| taken.contains(&place(path)));
    let Some(first) = shared.first() else {
        return Ok(rest);
    };
    if rest.is_empty() {
        let problem = "is also in the validation or test part, so nothing is left to train on";
        return Err(Error::data(first, problem));
    }
    let (count, first) = (shared.len(), printable(&first.display().to_string()));
    notify(format_args!(
        "note: {count} of the files are in the validation or test part, and not trained on, \
         such as {first}"
    ));
    Ok(rest)
}

/// One path for all names of a file.
fn place(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn is_text(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    ENDINGS.contains(&ending.to_lowercase().as_str())
}

/// Whether a file, or a folder that it is in, is hidden; the folder `start` may be.
fn is_hidden(path: &Path, start: &Path) -> bool {
    let below = match path.strip_prefix(start) {
        Ok(below) => below,
        Err(_) => path.file_name().map_or(path, Path::new),
    };
    let mut names = below.iter();
    names.any(|name| name.to_string_lossy().starts_with('.'))
}

/// How many bytes a training takes for each byte of English, about: four for the order of
/// the examples, and the counts of n-grams of up to `order` tokens that occur at least
/// `least` times. Measured with 11 MB in characters, byte pairs and words.
fn times(order: usize, least: usize) -> u64 {
    let longer = order.saturating_sub(6) as u64;
    match least {
        1 => 14 + 6 * longer,
        _ => 6 + 2 * longer,
    }
}

/// The room for the words and tokens of a text in these files, beside what it probably
/// takes to train on it and to count its n-grams of up to `order` tokens that occur at
/// least `least` times.
pub fn room_beside_counts(files: &[PathBuf], order: usize, least: usize, room: Room) -> Room {
    let sizes = files.iter().filter_map(|file| file.metadata().ok());
    let size: u64 = sizes.map(|about| about.len()).sum();
    room.leaving(size.saturating_mul(times(order, least)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_pattern_stand_for_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["below [1]", ".venv"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in [
            "b.txt",
            "a.TXT",
            "below [1]/c.md",
            "d.pdf",
            ".hidden.txt",
            ".venv/licence.txt",
        ] {
            std::fs::write(at(name), "text").unwrap();
        }
        std::fs::write(at("empty.txt"), "").unwrap();
        let found = |path: PathBuf| files(path);
        let names = ["a.TXT", "b.txt", "below [1]/c.md"].map(at);
        assert_eq!(found(at("")).unwrap(), names);
        assert_eq!(found(at("below [1]")).unwrap(), names[2..]);
        assert_eq!(found(at("*.txt")).unwrap(), [at("b.txt")]);
        assert_eq!(found(at("below [1]/*.md")).unwrap(), names[2..]);
        assert_eq!(found(at("d.pdf")).unwrap(), [at("d.pdf")]);
        // An empty file that is asked for is refused when it is read.
        assert_eq!(found(at("empty.txt")).unwrap(), [at("empty.txt")]);
        assert_eq!((size(at("")), size(at("b.txt"))), (Some(12), Some(4)));
        let error = found(at("*.tex")).unwrap_err().to_string();
        assert!(error.contains("matches no file"), "{error}");
        std::fs::remove_file(at("below [1]/c.md")).unwrap();
        let error = found(at("below [1]")).unwrap_err().to_string();
        assert!(error.contains("end in .txt"), "{error}");
    }

    #[test]
    fn a_file_is_in_one_part() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a.txt", "b.txt"] {
            std::fs::write(at(name), "text").unwrap();
        }
        let [a, b] = ["a.txt", "b.txt"].map(at);
        let both = || vec![a.clone(), b.clone()];
        assert_eq!(apart(both(), [&[], &[]]).unwrap(), both());
        let other_way = folder.path().join(".").join("a.txt");
        let found = apart(both(), [&[], std::slice::from_ref(&other_way)]);
        assert_eq!(found.unwrap(), both()[1..]);
        let error = apart(vec![a.clone()], [&both(), &[]]).unwrap_err();
        assert!(error.to_string().contains("nothing is left"), "{error}");
        let error = apart(vec![b.clone()], [&both()[..1], &[other_way]]).unwrap_err();
        let expected = "a.txt: is in the validation part and in the test part";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_file_that_is_named_twice_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a.txt", "b.txt"].map(|name| folder.path().join(name));
        for file in [&a, &b] {
            std::fs::write(file, "text").unwrap();
        }
        let other_way = folder.path().join(".").join("a.txt");
        let missing = folder.path().join("c.txt");
        let given = vec![a.clone(), b.clone(), other_way, missing.clone(), b.clone()];
        assert_eq!(distinct(given), [a, b, missing]);
    }

    #[test]
    fn several_names_in_one_are_explained() {
        let error = files("a.txt,b.txt").unwrap_err().to_string();
        assert!(error.contains("data.more"), "{error}");
    }
}
