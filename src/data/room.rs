//! How much of a data set is kept in memory.

use std::fs::File;
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::PathBuf;

use super::cache;
use crate::error::{notify, Error, Result};
use crate::kernels::memory;

/// How many bytes of its images or of its text a data set keeps in memory: half of what is
/// free, or fewer. Those of a larger one stay in files.
#[derive(Clone, Debug)]
pub struct Room {
    limit: Option<u64>,
    left: u64,
    /// What was free before anything of the data set was read.
    free: Option<u64>,
    folder: Option<PathBuf>,
}

/// Half of the free memory, with temporary files in the user's cache folder.
impl Default for Room {
    fn default() -> Self {
        Self::new(cache())
    }
}

impl Room {
    /// Half of the free memory. Temporary files are made in `folder`, by default in that
    /// of the system.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            limit: None,
            left: 0,
            free: memory::available(),
            folder,
        }
    }

    /// Half of what is free beside so many bytes, which are for something else.
    pub(super) fn leaving(self, left: u64) -> Self {
        Self { left, ..self }
    }

    /// The same with so many bytes instead of half of the free memory; 0 for a process
    /// that does not train on the data.
    pub fn at_most(self, bytes: u64) -> Self {
        Self {
            limit: Some(bytes),
            ..self
        }
    }

    /// The number of bytes that there is room for now.
    pub(super) fn bytes(&self) -> u64 {
        let half = |free: u64| free.saturating_sub(self.left) / 2;
        let free = || memory::available().map_or(u64::MAX, half);
        self.limit.unwrap_or_else(free)
    }

    /// The bytes that were free before anything of the data set was read, where the system
    /// says it.
    pub(super) fn free_before(&self) -> Option<u64> {
        self.free
    }

    /// Whether it belongs to a process that does not train on the data.
    pub(super) fn is_closed(&self) -> bool {
        self.limit == Some(0)
    }

    /// Whether there is room for so many bytes now.
    pub(super) fn has(&self, bytes: u64) -> bool {
        bytes <= self.bytes()
    }

    fn for_temporary(&self) -> PathBuf {
        self.folder.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// A new temporary file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn temporary(&self) -> Result<Temporary> {
        let folder = self.for_temporary();
        let file = std::fs::create_dir_all(&folder).and_then(|()| tempfile::tempfile_in(&folder));
        let file = file.map_err(Error::file("make a temporary file in", &folder))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Temporary { file, folder })
    }

    /// Says that `what` of a data set, such as "the tokens take", is in a temporary file.
    pub(super) fn say_temporary(&self, place: impl std::fmt::Display, what: &str, bytes: u64) {
        let folder = self.for_temporary();
        let file = format!("a temporary file in {}", folder.display());
        self.say(place, what, bytes, &file);
    }

    /// Says that `what` of a data set, such as "the images take", is read from a file.
    pub(super) fn say(&self, place: impl std::fmt::Display, what: &str, bytes: u64, file: &str) {
        if self.limit.is_none() {
            notify(format_args!(
                "note: {place}: {what} {} MB, for which there is too little memory, and will be \
                 read from {file} when needed",
                bytes >> 20
            ));
        }
    }
}

/// A temporary file that is being written. It has no name, so that nothing is left of it when
/// the process ends, and no other process can change it.
pub(super) struct Temporary {
    file: BufWriter<File>,
    folder: PathBuf,
}

impl Temporary {
    /// Adds some bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(Error::file("write a temporary file in", &self.folder))
    }

    /// The file, all of it on the disk, and the folder that it is in.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(self) -> Result<(File, PathBuf)> {
        let file = self.file.into_inner().map_err(IntoInnerError::into_error);
        // What cannot be written is an error here, not when it is read.
        let file = file.and_then(|file| file.sync_data().map(|()| file));
        let file = file.map_err(Error::file("write a temporary file in", &self.folder))?;
        Ok((file, self.folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_for_something_else_is_no_room() {
        let room = Room::default();
        assert!(room.bytes() > 0);
        assert_eq!(room.clone().leaving(u64::MAX).bytes(), 0);
        assert_eq!(room.leaving(u64::MAX).at_most(7).bytes(), 7);
    }
}
