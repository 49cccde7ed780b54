//! The folder of a run: locking and atomic writes.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::{shell_word, Error, Result};

pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const STATE: &str = "state.safetensors";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const CSV: &str = "metrics.csv";
/// What the names of event files for TensorBoard begin and end with.
pub(crate) const EVENTS: [&str; 2] = ["events.out.tfevents.", ".onward"];
pub(crate) const CERTIFICATE: &str = "certificate.json";
const LOCK: &str = ".lock";
pub(crate) const SUMMARY: &str = "summary.json";

/// Whether a folder is that of a run. Other programs have a `config.toml` too, without an
/// architecture.
pub(crate) fn is_run(path: &Path) -> bool {
    let config = disk::read_text(&path.join(CONFIG)).ok();
    let config = config.and_then(|text| text.parse::<toml::Table>().ok());
    config.is_some_and(|config| config.contains_key("architecture")) || path.join(STATE).is_file()
}

/// Says what is missing in a folder that is not that of a run.
pub(crate) fn not_a_run(folder: &Path, error: Error) -> Error {
    let config = folder.join(CONFIG);
    // A folder without permission may well be that of a run.
    if !error.is_file() || config.exists() || denied(&config).is_some() {
        return error;
    }
    let found = match (folder.is_dir(), folder.exists()) {
        (true, _) => "a folder without it",
        (false, true) => "a file",
        (false, false) => "nothing there",
    };
    let problem = format!("expected the folder of a run, with config.toml, found {found}");
    Error::run(folder, problem)
}

/// The error of a path that this user may not look at.
pub(crate) fn denied(path: &Path) -> Option<Error> {
    let error = path.try_exists().err()?;
    let is_denied = error.kind() == ErrorKind::PermissionDenied;
    is_denied.then(|| Error::file("read", path)(error))
}

/// What to do about a run that is not finished.
pub(crate) fn to_go_on(folder: &Path) -> String {
    let run = shell_word(&folder.display().to_string());
    let lock = File::open(folder.join(LOCK));
    let locked = lock.map(|lock| lock.try_lock_shared());
    match locked {
        Ok(Err(TryLockError::WouldBlock)) => "another process is training it".into(),
        _ => format!("continue with: onward resume {run}"),
    }
}

/// The folder of a run, locked by this process until the value is dropped.
pub(crate) struct Folder {
    path: PathBuf,
    /// The operating system releases the locks with the handles, even if the process is
    /// killed.
    lock: File,
    /// The folder itself, in case the lock file is removed; `None` where the system
    /// does not lock folders.
    _itself: Option<File>,
    /// Whether this process made it for a new run.
    is_new: bool,
}

impl Folder {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses to go on if the folder is no longer the one that was locked: it was moved
    /// or removed, or something else was put in its place, which is not touched.
    pub fn check(&self) -> Result<()> {
        let found = fs::symlink_metadata(self.path.join(LOCK));
        let found = found.and_then(|found| Ok((found, self.lock.metadata()?)));
        match found {
            Ok((found, held)) if is_same(&found, &held) => Ok(()),
            _ => {
                let problem = "is not the folder that this run began to write: it was moved, \
                               removed or replaced, or its lock was. Nothing there was \
                               changed; put the folder back and resume the run";
                Err(Error::run(&self.path, problem))
            }
        }
    }

    /// Creates and locks the folder of a new run; an existing folder must be empty.
    pub fn create(path: &Path) -> Result<Self> {
        let parent = disk::parent(path);
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        match disk::create_empty_folder(path) {
            Ok(()) => Self::of_new(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !path.is_dir() {
                    return Err(Error::run(
                        path,
                        "is a file; a run needs a folder, choose a new or empty one",
                    ));
                }
                // A process that was killed before it wrote a configuration leaves only
                // these.
                let entries = fs::read_dir(path).map_err(Error::file("read", path))?;
                let is_left = |name: &Path| name == Path::new(LOCK) || disk::is_unfinished(name);
                if entries
                    .flatten()
                    .all(|entry| is_left(Path::new(&entry.file_name())))
                {
                    return Self::of_new(path);
                }
                Err(Error::run(
                    path,
                    "exists and is not empty; a run is never overwritten, \
                     choose another folder"
                        .to_string(),
                ))
            }
            Err(error) => Err(Error::file("create", path)(error)),
        }
    }

    /// Creates the folder `<base>`, or `<base>-2` and so on if it exists. Two processes
    /// never get the same folder.
    pub fn create_numbered(base: &Path) -> Result<Self> {
        let parent = disk::parent(base);
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        let mut number = 1;
        loop {
            let mut name = base.as_os_str().to_owned();
            if number > 1 {
                name.push(format!("-{number}"));
            }
            let path = PathBuf::from(name);
            match disk::create_empty_folder(&path) {
                Ok(()) => return Self::of_new(&path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::file("create", &path)(error)),
            }
        }
    }

    fn of_new(path: &Path) -> Result<Self> {
        Ok(Self {
            is_new: true,
            ..Self::lock(path)?
        })
    }

    /// Removes the folder of a run that failed before its first checkpoint, so that the
    /// next try can use its name. Files of others stay, and so does the folder then.
    pub fn discard(&self) {
        let saved = [STATE, MODEL, SUMMARY];
        let is_saved = saved.iter().any(|name| self.path.join(name).exists());
        // What stands there may be another folder by now.
        if !self.is_new || is_saved || self.check().is_err() {
            return;
        }
        for name in [CONFIG, TOKENIZER, METRICS, CSV, CERTIFICATE, LOCK] {
            // What cannot be removed stays.
            let _ = fs::remove_file(self.path.join(name));
        }
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(EVENTS[0]) && name.ends_with(EVENTS[1]) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_dir(&self.path);
    }

    /// Locks the folder of an existing run.
    pub fn lock(path: &Path) -> Result<Self> {
        let file = path.join(LOCK);
        // Opening a pipe would wait for ever, and a link may lead anywhere.
        if fs::symlink_metadata(&file).is_ok_and(|about| !about.is_file()) {
            let problem = format!("its {LOCK} is not a file; remove it");
            return Err(Error::run(path, problem));
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file);
        let lock = lock.map_err(Error::file("write", &file))?;
        let itself = File::open(path).ok();
        let locked = lock.try_lock().and_then(|()| {
            // Not every system can open or lock a folder.
            match itself.as_ref().map(File::try_lock) {
                Some(Err(TryLockError::WouldBlock)) => Err(TryLockError::WouldBlock),
                _ => Ok(()),
            }
        });
        match locked {
            Ok(()) => {
                disk::remove_unfinished(path);
                Ok(Self {
                    path: path.into(),
                    lock,
                    _itself: itself,
                    is_new: false,
                })
            }
            Err(TryLockError::WouldBlock) => Err(Error::run(
                path,
                "another process is writing there; wait for it, or stop it",
            )),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", &file)(error)),
        }
    }
}

/// Whether both are the same file.
#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.created().ok() == b.created().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_being_trained_is_not_to_be_resumed() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let name = base.path().join("run");
        assert!(to_go_on(&name).contains("onward resume"));
        let folder = Folder::create(&name)?;
        assert_eq!(to_go_on(&name), "another process is training it");
        drop(folder);
        assert!(to_go_on(&name).contains("onward resume"));
        Ok(())
    }

    #[test]
    fn an_existing_folder_is_numbered_and_never_overwritten() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let name = base.path().join("runs").join("a");
        assert_eq!(Folder::create_numbered(&name)?.path(), name);
        assert_eq!(
            Folder::create_numbered(&name)?.path(),
            base.path().join("runs").join("a-2")
        );
        std::fs::write(name.join(".onward-x.tmp"), "arch").unwrap();
        Folder::create(&name)?; // nothing has been written yet
        std::fs::write(name.join(CONFIG), b"").unwrap();
        assert!(Folder::create(&name)
            .err()
            .unwrap()
            .to_string()
            .contains("not empty"));
        assert!(Folder::create(&name.join(CONFIG))
            .err()
            .unwrap()
            .to_string()
            .contains("is a file"));
        Folder::create(&base.path().join("new"))?;
        Ok(())
    }

    #[test]
    fn a_failed_start_leaves_no_folder() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        let folder = Folder::create(&path)?;
        std::fs::write(path.join(CONFIG), "x").unwrap();
        folder.discard();
        assert!(!path.exists());
        // What was saved, and what is not ours, stays.
        for (name, kept) in [(STATE, CONFIG), ("notes.txt", "notes.txt")] {
            let path = base.path().join(name);
            let folder = Folder::create(&path)?;
            for file in [CONFIG, name] {
                std::fs::write(path.join(file), "x").unwrap();
            }
            folder.discard();
            assert!(path.join(kept).exists());
            drop(folder);
            Folder::lock(&path)?.discard();
            assert!(path.exists());
        }
        // What was put in its place stays.
        let path = base.path().join("b");
        let folder = Folder::create(&path)?;
        std::fs::rename(&path, base.path().join("moved")).unwrap();
        let other = Folder::create(&path)?;
        std::fs::write(path.join(CONFIG), "x").unwrap();
        folder.discard();
        assert!(path.join(CONFIG).exists());
        other.check()?;
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_moved_or_replaced_is_noticed() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let (path, aside) = (base.path().join("a"), base.path().join("aside"));
        let folder = Folder::create(&path)?;
        folder.check()?;
        std::fs::rename(&path, &aside).unwrap();
        assert!(folder.check().is_err());
        let other = Folder::create(&path)?;
        assert!(folder.check().is_err() && other.check().is_ok());
        std::fs::remove_dir_all(&path).unwrap();
        // A link to the folder itself leads to the right place.
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        folder.check()?;
        std::fs::remove_file(aside.join(LOCK)).unwrap();
        assert!(folder.check().is_err());
        Ok(())
    }

    #[test]
    fn a_folder_belongs_to_one_process_at_a_time() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let held = Folder::create(&base.path().join("a"))?;
        let error = Folder::lock(held.path()).err().unwrap().to_string();
        assert!(error.contains("another process"), "{error}");
        let path = held.path().to_path_buf();
        // Also when the lock was removed in between.
        #[cfg(target_os = "linux")]
        {
            std::fs::remove_file(path.join(LOCK)).unwrap();
            let error = Folder::lock(&path).err().unwrap().to_string();
            assert!(error.contains("another process"), "{error}");
        }
        drop(held);
        Folder::lock(&path)?;
        Ok(())
    }
}
