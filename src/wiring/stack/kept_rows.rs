//! A row of numbers for each training example, in memory or in a temporary file.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::Path;

use rayon::prelude::*;

use crate::disk;
use crate::kernels::memory;

/// The share of the free memory, and of what is free on the disk, that may be used.
const SHARE: u64 = 4;

/// A row of numbers for each training example, written once.
pub(super) struct KeptRows {
    width: usize,
    is_known: Vec<bool>,
    place: Place,
}

enum Place {
    Memory(Vec<f32>),
    /// Without a name, so that nothing is left of a process that is killed.
    File(File),
}

/// How many bytes may be used.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub memory: u64,
    pub disk: u64,
}

impl Limits {
    /// A quarter of what is free in memory, and on the disk of `folder`.
    pub fn of(folder: Option<&Path>) -> Self {
        let disk = folder.and_then(disk::free).unwrap_or(0);
        Self {
            memory: memory::available().unwrap_or(0) / SHARE,
            disk: disk / SHARE,
        }
    }
}

impl KeptRows {
    /// For `count` rows of `width` numbers: in memory or, where that is too small, in a
    /// temporary file in `folder`. `None` if there is no room in either.
    pub fn new(count: usize, width: usize, limits: Limits, folder: Option<&Path>) -> Option<Self> {
        let numbers = count.checked_mul(width)?;
        let bytes = 4 * numbers as u64;
        let place = match folder {
            _ if bytes <= limits.memory => Place::Memory(vec![0.; numbers]),
            Some(folder) if bytes <= limits.disk => {
                Place::File(tempfile::tempfile_in(folder).ok()?)
            }
            _ => return None,
        };
        Some(Self {
            width,
            is_known: vec![false; count],
            place,
        })
    }

    /// Whether the rows are in a file.
    pub fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Whether this row is known.
    pub fn has(&self, index: usize) -> bool {
        self.is_known.get(index).is_some_and(|is_known| *is_known)
    }

    /// Keeps some rows, each with its index.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn write(&mut self, rows: &[(usize, &[f32])]) -> io::Result<()> {
        let width = self.width;
        match &mut self.place {
            Place::Memory(values) => {
                for (index, row) in rows {
                    values[index * width..][..width].copy_from_slice(row);
                }
            }
            Place::File(file) => rows.par_iter().try_for_each(|(index, row)| {
                let mut bytes = vec![0; 4 * width];
                let (places, _) = bytes.as_chunks_mut::<4>();
                let to_bytes = |(place, value): (&mut [u8; 4], &f32)| *place = value.to_le_bytes();
                places.iter_mut().zip(*row).for_each(to_bytes);
                disk::write_at(file, &bytes, (4 * index * width) as u64)
            })?,
        }
        for (index, _) in rows {
            self.is_known[*index] = true;
        }
        Ok(())
    }

    /// These rows, which are known.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn read(&self, indices: &[usize]) -> io::Result<Vec<Cow<'_, [f32]>>> {
        let width = self.width;
        match &self.place {
            Place::Memory(values) => {
                let rows = indices
                    .iter()
                    .map(|index| &values[index * width..][..width]);
                Ok(rows.map(Cow::from).collect())
            }
            // A disk is fast only if it is asked for several rows at a time.
            Place::File(file) => indices
                .par_iter()
                .map(|index| {
                    let mut bytes = vec![0; 4 * width];
                    disk::read_at(file, &mut bytes, (4 * index * width) as u64)?;
                    let numbers = bytes.as_chunks::<4>().0.iter();
                    Ok(numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect())
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_in_memory_and_in_a_file() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let rows: Vec<Vec<f32>> = (0..40)
            .map(|row| {
                vec![
                    row as f32,
                    -0.,
                    f32::from_bits(0x7fc0_0001),
                    1. / row as f32,
                ]
            })
            .collect();
        let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let (memory, disk) = (40 * 4 * 4, 40 * 4 * 4);
        for (memory, disk, is_file) in [
            (memory, 0, Some(false)),
            (memory - 1, disk, Some(true)),
            (memory - 1, disk - 1, None),
        ] {
            let limits = Limits { memory, disk };
            let kept = KeptRows::new(40, 4, limits, Some(folder.path()));
            assert_eq!(kept.as_ref().map(KeptRows::is_file), is_file);
            let Some(mut kept) = kept else { continue };
            for index in (0..39).rev().filter(|index| index % 3 != 0) {
                assert!(!kept.has(index));
                kept.write(&[(index, &rows[index])])?;
                assert!(kept.has(index) && !kept.has(40));
            }
            kept.write(&[(39, &rows[39]), (0, &rows[0])])?;
            let wanted = [1, 38, 39, 0, 1];
            for (found, index) in kept.read(&wanted)?.iter().zip(wanted) {
                assert_eq!(bits(found), bits(&rows[index]));
            }
        }
        assert!(KeptRows::new(
            2,
            2,
            Limits {
                memory: 0,
                disk: 99
            },
            None
        )
        .is_none());
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
