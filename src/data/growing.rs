//! Bytes or numbers that are collected, in memory or in a temporary file.

use std::marker::PhantomData;
use std::ops::Deref;

use memmap2::Mmap;
use pulp::bytemuck::{cast_slice, Pod};

use super::room::{Room, Temporary};
use crate::error::{Error, Result};

/// Collects numbers one after the other: in memory or, as soon as there is no room for
/// more, in a temporary file.
pub(super) struct Growing<'a, T> {
    room: &'a Room,
    /// The bytes that there was room for at the beginning.
    limit: u64,
    kept: Vec<T>,
    file: Option<Temporary>,
}

impl<'a, T: Pod> Growing<'a, T> {
    pub fn new(room: &'a Room) -> Self {
        Self {
            room,
            limit: room.bytes(),
            kept: Vec::new(),
            file: None,
        }
    }

    /// Adds some numbers.
    ///
    /// # Errors
    /// [`Error::File`] if no temporary file can be made or written.
    pub fn add(&mut self, numbers: &[T]) -> Result<()> {
        let bytes = size_of_val(&self.kept[..]) + size_of_val(numbers);
        if self.file.is_none() && bytes as u64 <= self.limit {
            self.kept.extend_from_slice(numbers);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.room.temporary()?),
        };
        file.write(cast_slice(&std::mem::take(&mut self.kept)))?;
        file.write(cast_slice(numbers))
    }

    /// All numbers.
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be written.
    pub fn finish(mut self) -> Result<Stored<T>> {
        let Some(file) = self.file else {
            self.kept.shrink_to_fit();
            return Ok(Stored::Memory(self.kept));
        };
        let (file, folder) = file.finish()?;
        // SAFETY: the file never changes. It has no name, and its only writer is gone.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) };
        let map = map.map_err(Error::file("map a temporary file in", &folder))?;
        Ok(Stored::File(map, PhantomData))
    }
}

/// Numbers in memory, or in a temporary file of which the system reads the pages that are
/// looked at, and forgets those that it has no memory for.
pub(super) enum Stored<T> {
    Memory(Vec<T>),
    File(Mmap, PhantomData<T>),
}

impl<T> Stored<T> {
    /// The number of bytes in memory.
    pub fn bytes_in_memory(&self) -> u64 {
        match self {
            Self::Memory(numbers) => size_of_val(&numbers[..]) as u64,
            Self::File(..) => 0,
        }
    }

    /// The number of bytes in a temporary file.
    pub fn bytes_in_file(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::File(map, _) => map.len() as u64,
        }
    }
}

impl<T: Pod> Deref for Stored<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Memory(numbers) => numbers,
            // A mapping begins at a page, which suits all numbers.
            Self::File(map, _) => cast_slice(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_in_memory_and_in_a_temporary_file() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(Some(folder.path().join("cache")));
        let numbers: Vec<u32> = (0..1000u32).map(|i| i * i).collect();
        for (most, is_in_memory) in [(4000, true), (3999, false), (1000, false), (0, false)] {
            let room = room.clone().at_most(most);
            let mut growing = Growing::new(&room);
            for some in numbers.chunks(7) {
                growing.add(some)?;
            }
            let stored = growing.finish()?;
            let in_file = if is_in_memory { 0 } else { 4000 };
            assert_eq!(stored.bytes_in_file(), in_file, "{most}");
            assert_eq!(*stored, numbers, "{most}");
        }
        // The files have no names, so that nothing is left of a process that is killed.
        let left = std::fs::read_dir(folder.path().join("cache")).unwrap();
        assert_eq!(left.count(), 0);
        Ok(())
    }
}
