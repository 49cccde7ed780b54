//! Files: reading within limits, and writing so that a reader never sees half a file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// The beginning of the name of a file that is still being written.
const BEGUN: &str = ".onward-";
/// The end of such a name.
const UNFINISHED: &str = ".tmp";

/// The longest text file that is read: a configuration, a summary, a table.
pub(crate) const TEXT: u64 = 64 << 20;

/// Opens a regular file to read it. Anything else is refused before it is opened: a pipe
/// would wait for ever, a device has no end.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn open(path: &Path) -> Result<File> {
    let opened = fs::metadata(path).and_then(|about| {
        if about.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !about.is_file() {
            let problem = "not a regular file, but a pipe, a device or a socket; copy what it \
                           gives into a file";
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        File::open(path)
    });
    opened.map_err(Error::file("read", path))
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// [`Error::File`]; [`Error::Data`] for a larger file.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata().map_err(Error::file("read", path))?.len();
    let mut bytes = Vec::with_capacity(size.min(most) as usize);
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(Error::file("read", path))?;
    if bytes.len() as u64 > most {
        let problem = format!("has {size} bytes, expected at most {most}");
        return Err(Error::data(path, problem));
    }
    Ok(bytes)
}

/// Fills `bytes` from a place in a file. Several threads may read at the same time.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], place: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, place);
    #[cfg(windows)]
    {
        let (mut rest, mut place) = (bytes, place);
        while !rest.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, rest, place)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => (rest, place) = (&mut rest[read..], place + read as u64),
            }
        }
        Ok(())
    }
}

/// Writes `bytes` to a place in a file. Several threads may write at the same time.
pub(crate) fn write_at(file: &File, bytes: &[u8], place: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, place);
    #[cfg(windows)]
    {
        let (mut rest, mut place) = (bytes, place);
        while !rest.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(file, rest, place)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => (rest, place) = (&rest[written..], place + written as u64),
            }
        }
        Ok(())
    }
}

/// How many bytes are free on the disk of a folder, where the system says it.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let about = rustix::fs::statvfs(folder).ok()?;
        Some(about.f_bavail.saturating_mul(about.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// The text of a regular file in UTF-8, at most [`TEXT`] bytes.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, TEXT)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::data(path, format!("is not text in UTF-8, from byte {at} on"))
    })
}

/// Writes a file of a run: the new file takes the place of the old one, or of a link.
///
/// # Errors
/// [`Error::File`]; the old file is then as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    write_beside(path, bytes, None)?
        .persist_over(path)
        .map_err(Error::file("write", path))
}

/// Opens a file of a run to write to it for some time, and makes it if it is missing. A
/// link or a pipe in its place is replaced by a file.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn open_to_write(path: &Path, options: &mut OpenOptions) -> Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
        replace(path, &[])?;
    }
    let opened = options.create(true).open(path);
    opened.map_err(Error::file("write", path))
}

/// As [`replace`], with a file that `fill` writes at the path that it gets. The path is
/// in a folder of its own, for what `fill` puts beside the file.
///
/// # Errors
/// [`Error::File`]; errors of `fill`.
pub(crate) fn replace_by(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = unfinished().tempdir_in(parent(path));
    let folder = folder
        .map_err(unnamed)
        .map_err(Error::file("write", path))?;
    let file = folder.path().join("file");
    fill(&file)?;
    // A temporary file may be the owner's alone; a file of a run is as open as any new one.
    let written = File::create(folder.path().join("new"))
        .and_then(|new| fs::set_permissions(&file, new.metadata()?.permissions()))
        .and_then(|()| File::options().write(true).open(&file)?.sync_all())
        .and_then(|()| uninterrupted(|| fs::rename(&file, path)))
        .and_then(|()| sync(parent(path)));
    written.map_err(Error::file("write", path))
}

/// Writes a file of the user: a link stays a link to it, and its permissions stay.
///
/// # Errors
/// As [`replace`].
pub(crate) fn rewrite(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let permissions = fs::metadata(&target).ok().map(|about| about.permissions());
    write_beside(&target, bytes, permissions)?
        .persist_over(&target)
        .map_err(Error::file("write", path))
}

/// Writes a new file, and makes its folder if it is missing; `None` if there is one of
/// this name.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<Option<()>> {
    fs::create_dir_all(parent(path)).map_err(Error::file("write", path))?;
    let written = write_beside(path, bytes, None)?.0.persist_noclobber(path);
    match written {
        Ok(_) => sync(parent(path))
            .map(Some)
            .map_err(Error::file("write", path)),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(Error::file("write", path)(error.error)),
    }
}

/// Removes what a killed process left unfinished in a folder. No other process may be
/// writing there.
pub(crate) fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_unfinished(&path) {
            // If this fails, it only takes up room.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

/// Whether this is the name of a file that was still being written.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(BEGUN) && name.ends_with(UNFINISHED)
}

/// Makes the entries of a folder durable, as `fsync` does for the bytes of a file. Where
/// the system cannot do that for folders, it does nothing.
///
/// # Errors
/// Errors of the system.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    if !cfg!(unix) {
        return Ok(()); // a folder cannot be opened there
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if [InvalidInput, PermissionDenied, Unsupported].contains(&error.kind()) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Makes a folder whose name must be free, durably.
///
/// # Errors
/// Errors of the system; [`ErrorKind::AlreadyExists`] if the name is taken.
pub(crate) fn create_empty_folder(path: &Path) -> io::Result<()> {
    uninterrupted(|| fs::create_dir(path))?;
    sync(parent(path))
}

/// Repeats a call that a signal interrupted.
fn uninterrupted(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            done => return done,
        }
    }
}

/// The folder of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A written file that has a temporary name.
struct Beside(NamedTempFile);

impl Beside {
    fn persist_over(self, path: &Path) -> io::Result<()> {
        let written = self.0.into_temp_path(); // removed if this fails
        #[cfg(not(unix))]
        written.persist(path).map_err(|error| error.error)?;
        #[cfg(unix)]
        {
            uninterrupted(|| fs::rename(&written, path))?;
            // It has another name now, so there is nothing to remove.
            let _ = written.keep();
        }
        sync(parent(path))
    }
}

/// An error without the name of the temporary file, which says nothing to a user.
fn unnamed(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.split_once(" at path ") {
        Some((problem, _)) => io::Error::new(error.kind(), problem),
        None => error,
    }
}

/// The names of files and folders that are still being written.
fn unfinished() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(BEGUN).suffix(UNFINISHED);
    builder
}

/// Writes a temporary file with these permissions, by default those of any new file.
fn write_beside(path: &Path, bytes: &[u8], permissions: Option<Permissions>) -> Result<Beside> {
    let mut builder = unfinished();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Before the user's mask; otherwise only the owner could read it.
        builder.permissions(Permissions::from_mode(0o666));
    }
    let written = builder.tempfile_in(parent(path)).and_then(|mut file| {
        file.write_all(bytes)?;
        if let Some(permissions) = permissions {
            file.as_file().set_permissions(permissions)?;
        }
        file.as_file().sync_all()?;
        Ok(Beside(file))
    });
    written.map_err(unnamed).map_err(Error::file("write", path))
}

/// Makes a folder that `fill` fills. The folder gets its name when it is complete. `None`
/// if the name is taken.
///
/// # Errors
/// [`Error::File`]; errors of `fill`.
pub(crate) fn create_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<Option<()>> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(None);
    }
    let folder = unfinished().tempdir_in(parent(path));
    let folder = folder
        .map_err(unnamed)
        .map_err(Error::file("create", path))?;
    open_to_all(folder.path()).map_err(Error::file("create", path))?;
    fill(folder.path())?;
    // An empty folder of this name, made in the meantime, would be replaced: no loss.
    fs::rename(folder.path(), path).map_err(Error::file("create", path))?;
    let _ = folder.keep(); // it has another name now
    sync(parent(path)).map_err(Error::file("create", path))?;
    Ok(Some(()))
}

/// Gives a folder the permissions of any new folder.
fn open_to_all(folder: &Path) -> io::Result<()> {
    let sample = folder.join("permissions");
    fs::create_dir(&sample)?;
    let permissions = fs::metadata(&sample)?.permissions();
    fs::remove_dir(&sample)?;
    fs::set_permissions(folder, permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_no_temporary_file() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        // A file of the user that an older version would have overwritten.
        fs::write(base.path().join("x.tmp"), b"mine").unwrap();
        replace(&path, b"first")?;
        replace(&path, b"2nd")?;
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        assert_eq!(fs::read(base.path().join("x.tmp")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
        replace_by(&path, |file| replace(file, b"by"))?;
        assert_eq!(fs::read(&path).unwrap(), b"by");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::write(base.path().join("new"), b"").unwrap();
            let mode = |name: &str| {
                let about = fs::metadata(base.path().join(name)).unwrap();
                about.permissions().mode()
            };
            assert_eq!(mode("x"), mode("new"));
            fs::remove_file(base.path().join("new")).unwrap();
        }
        assert_eq!(create(&path, b"3rd")?, None);
        assert_eq!(create(&base.path().join("y"), b"3rd")?, Some(()));
        let deep = base.path().join("in/a/folder");
        assert_eq!(create(&deep, b"4th")?, Some(()));
        assert_eq!(fs::read(deep).unwrap(), b"4th");
        let inside_a_file = create(&base.path().join("y/z"), b"x").unwrap_err();
        assert!(inside_a_file.to_string().contains("y/z"), "{inside_a_file}");
        Ok(())
    }

    #[test]
    fn a_missing_folder_is_an_error_without_a_temporary_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none/file");
        let errors = [
            replace(&path, b"x").err(),
            replace_by(&path, |_| Ok(())).err(),
            create_folder(&path, |_| Ok(())).err(),
        ];
        for error in errors {
            let error = error.unwrap().to_string();
            assert!(
                error.contains("No such file") && !error.contains(BEGUN),
                "{error}"
            );
        }
    }

    #[test]
    fn a_folder_is_made_whole_or_not_at_all() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("new");
        let fill = |at: &Path| replace(&at.join("a"), b"a");
        assert_eq!(create_folder(&path, fill)?, Some(()));
        assert_eq!(fs::read(path.join("a")).unwrap(), b"a");
        assert_eq!(create_folder(&path, fill)?, None);
        let failed = create_folder(&base.path().join("bad"), |_| {
            Err(Error::usage("test", "fails"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        Ok(())
    }

    #[test]
    fn unfinished_files_are_removed_and_others_stay() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        for name in [".onward-a1.tmp", "state.tmp", ".onward-notes"] {
            fs::write(base.path().join(name), b"x").unwrap();
        }
        fs::create_dir_all(base.path().join(".onward-b2.tmp/c")).unwrap();
        remove_unfinished(base.path());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
        Ok(())
    }

    #[test]
    fn a_large_file_is_refused() -> Result<()> {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5)?, b"12345");
        let error = read(&path, 4).unwrap_err().to_string();
        assert!(error.contains("5 bytes, expected at most 4"), "{error}");
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_of_a_users_file_stay() -> Result<()> {
        use std::os::unix::fs::{symlink, PermissionsExt};
        let base = tempfile::tempdir().unwrap();
        let (file, link) = (base.path().join("file"), base.path().join("link"));
        fs::write(&file, b"x").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        rewrite(&link, b"y")?;
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"y");
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640);
        // In a run, a link that somebody put there is replaced, and its file is left
        // alone.
        replace(&link, b"z")?;
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"y");
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_refused() {
        let error = read(Path::new("/dev/zero"), 10).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
