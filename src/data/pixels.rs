//! The bytes of images, in memory or in files.

use std::borrow::Cow;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::room::{Room, Temporary};
use crate::disk;
use crate::error::{Error, Result};

/// The bytes of images of one size.
#[derive(Clone)]
pub struct Pixels(Place);

#[derive(Clone)]
enum Place {
    // Not `Arc<[u8]>`, which would copy all of them.
    Memory(Arc<Vec<u8>>),
    Files(Arc<Files>),
}

/// Files that have equally many images each.
struct Files {
    files: Vec<(File, PathBuf)>,
    records: Records,
}

/// The places of the images in a file.
#[derive(Clone, Copy)]
pub(super) struct Records {
    /// The first byte of the first image.
    pub first: u64,
    /// The bytes from the beginning of an image to that of the next.
    pub distance: u64,
    /// The number of images.
    pub count: usize,
}

impl Pixels {
    /// Images in files with these places each.
    pub(super) fn in_files(files: Vec<(File, PathBuf)>, records: Records) -> Self {
        Self(Place::Files(Arc::new(Files { files, records })))
    }

    /// All bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Memory(bytes) => Some(bytes),
            Place::Files(_) => None,
        }
    }

    /// The number of images of `size` bytes, if it is a whole one.
    pub(super) fn count(&self, size: usize) -> Option<usize> {
        match &self.0 {
            Place::Memory(bytes) => {
                let is_whole = size > 0 && bytes.len().is_multiple_of(size);
                is_whole.then(|| bytes.len() / size)
            }
            Place::Files(files) => Some(files.files.len() * files.records.count),
        }
    }

    /// The image with this index, of `size` bytes.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read from its file.
    pub(super) fn image(&self, index: usize, size: usize) -> Result<Cow<'_, [u8]>> {
        let files = match &self.0 {
            Place::Memory(bytes) => return Ok((&bytes[index * size..][..size]).into()),
            Place::Files(files) => files,
        };
        let Records {
            first,
            distance,
            count,
        } = files.records;
        let (file, path) = &files.files[index / count];
        let mut bytes = vec![0; size];
        let place = first + (index % count) as u64 * distance;
        disk::read_at(file, &mut bytes, place).map_err(Error::file("read", path))?;
        Ok(bytes.into())
    }
}

impl From<Vec<u8>> for Pixels {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Place::Memory(bytes.into()))
    }
}

/// Collects images one after the other: in memory or, if there is no room for all of
/// them, in a temporary file without a name.
pub(super) enum Collector {
    Memory(Vec<u8>),
    File(Temporary),
}

impl Collector {
    /// For up to `bytes` bytes of images from `place`.
    ///
    /// # Errors
    /// [`Error::File`] if no temporary file can be made.
    pub fn new(room: &Room, bytes: u64, place: impl std::fmt::Display) -> Result<Self> {
        if room.has(bytes) {
            return Ok(Self::Memory(Vec::with_capacity(bytes as usize)));
        }
        let file = room.temporary()?;
        room.say_temporary(place, "the images take", bytes);
        Ok(Self::File(file))
    }

    /// Adds an image.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn add(&mut self, image: &[u8]) -> Result<()> {
        match self {
            Self::Memory(bytes) => bytes.extend_from_slice(image),
            Self::File(file) => file.write(image)?,
        }
        Ok(())
    }

    /// The images, `count` of `size` bytes.
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be written.
    pub fn finish(self, count: usize, size: usize) -> Result<Pixels> {
        match self {
            Self::Memory(bytes) => Ok(bytes.into()),
            Self::File(file) => {
                let records = Records {
                    first: 0,
                    distance: size as u64,
                    count,
                };
                Ok(Pixels::in_files(vec![file.finish()?], records))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_the_same_in_memory_and_in_a_temporary_file() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<Vec<u8>> = (0..50u8).map(|i| vec![i, 2 * i, 255 - i]).collect();
        let room = Room::new(Some(folder.path().join("cache")));
        for (most, is_in_memory) in [(150, true), (149, false), (0, false)] {
            let mut collector = Collector::new(&room.clone().at_most(most), 150, "the test")?;
            images.iter().try_for_each(|image| collector.add(image))?;
            let pixels = collector.finish(50, 3)?;
            assert_eq!(pixels.in_memory().is_some(), is_in_memory);
            assert_eq!(pixels.count(3), Some(50));
            for index in [49, 0, 7, 8, 7] {
                assert_eq!(pixels.image(index, 3)?, images[index], "{index} of {most}");
            }
        }
        // The files have no names, so that nothing is left of a process that is killed.
        let left = std::fs::read_dir(folder.path().join("cache")).unwrap();
        assert_eq!(left.count(), 0);
        Ok(())
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_in_use_is_named() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        std::fs::write(&path, [1, 2, 3, 4, 5, 6, 7]).unwrap();
        let records = Records {
            first: 1,
            distance: 3,
            count: 2,
        };
        let file = File::open(&path).unwrap();
        let pixels = Pixels::in_files(vec![(file, path.clone())], records);
        assert_eq!(*pixels.image(0, 2)?, [2, 3]);
        assert_eq!(*pixels.image(1, 2)?, [5, 6]);
        let shorter = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        shorter.set_len(5).unwrap();
        let error = pixels.image(1, 2).unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        Ok(())
    }
}
