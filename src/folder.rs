//! The folder of a run: what is written into it, and how nothing in it is ever lost.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const STATE: &str = "state.safetensors";
pub(crate) const SUMMARY: &str = "summary.json";

/// Makes the folder of a new run; one that exists must be empty.
pub(crate) fn create(folder: &Path) -> Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    match fs::create_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if fs::read_dir(folder).map_err(Error::file("read", folder))?.next().is_none() {
                return Ok(());
            }
            let problem = "exists and is not empty; a run is never overwritten, name another folder".to_string();
            Err(Error::Run { path: folder.into(), problem })
        }
        Err(error) => Err(Error::file("create", folder)(error)),
    }
}

/// Makes the folder `<base>`, or `<base>-2` and so on if it is taken. Two processes get two folders.
pub(crate) fn create_numbered(base: &Path) -> Result<PathBuf> {
    if let Some(parent) = base.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    for number in 1.. {
        let mut name = base.as_os_str().to_owned();
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let folder = PathBuf::from(name);
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("create", &folder)(error)),
        }
    }
    unreachable!("there are more numbers than folders")
}

/// Writes a file beside its place and renames it: whoever reads it sees the old or the new one, never half of it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside).map_err(Error::file("create", &beside))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::file("write", &beside))?;
    fs::rename(&beside, path).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_taken_is_numbered_and_never_overwritten() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let name = base.path().join("runs").join("a");
        assert_eq!(create_numbered(&name)?, name);
        assert_eq!(create_numbered(&name)?, base.path().join("runs").join("a-2"));
        create(&name)?; // empty
        write(&name.join("x"), b"1")?;
        assert!(create(&name).unwrap_err().to_string().contains("not empty"));
        Ok(())
    }

    #[test]
    fn a_file_is_replaced_whole() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        write(&path, b"first")?;
        write(&path, b"2nd")?;
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        Ok(())
    }
}
