//! The files of a text: one, a folder of them, or a pattern.

use std::path::{Path, PathBuf};

use crate::data::at_home;
use crate::error::{notify, printable, Error, Result};

/// The endings of text files, in lower case.
const ENDINGS: [&str; 4] = ["txt", "text", "md", "markdown"];

/// The files that a path stands for, sorted by name: a file; all text files in and below
/// a folder; or all files whose names match a pattern with `*`.
///
/// # Errors
/// [`Error::Data`] if no file is found, or the pattern is wrong.
pub fn files(path: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let path = path.as_ref();
    let start = path.to_str().map_or_else(|| path.to_path_buf(), at_home);
    let has_star = path.as_os_str().as_encoded_bytes().contains(&b'*');
    let is_pattern = has_star && !start.exists();
    if !start.is_dir() && !is_pattern {
        return Ok(vec![start]);
    }
    let fault = |problem: String| Error::data(&start, problem);
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
    let first = left_out.first().map_or(String::new(), |path| {
        let (count, name) = (left_out.len(), printable(&path.display().to_string()));
        format!("; {count} others are left out, such as {name}")
    });
    notify(format_args!(
        "{}: {} text files{first}",
        printable(&start.display().to_string()),
        kept.len()
    ));
    Ok(kept)
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
        let found = |path: PathBuf| files(path);
        let names = ["a.TXT", "b.txt", "below [1]/c.md"].map(at);
        assert_eq!(found(at("")).unwrap(), names);
        assert_eq!(found(at("below [1]")).unwrap(), names[2..]);
        assert_eq!(found(at("*.txt")).unwrap(), [at("b.txt")]);
        assert_eq!(found(at("below [1]/*.md")).unwrap(), names[2..]);
        assert_eq!(found(at("d.pdf")).unwrap(), [at("d.pdf")]);
        let error = found(at("*.tex")).unwrap_err().to_string();
        assert!(error.contains("matches no file"), "{error}");
        std::fs::remove_file(at("below [1]/c.md")).unwrap();
        let error = found(at("below [1]")).unwrap_err().to_string();
        assert!(error.contains("end in .txt"), "{error}");
    }
}
