//! The binary format of CIFAR-10: for every image one byte for the class, then its
//! pixels, channel by channel.

use std::path::{Path, PathBuf};

use crate::data::bytes::Reader;
use crate::data::find;
use crate::data::images::Images;
use crate::data::pixels::{Pixels, Records};
use crate::data::Room;
use crate::disk;
use crate::error::{Error, Result};
use crate::kernels::memory;

/// The six files of CIFAR-10: five for training, one for testing.
pub const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

/// The shape of an image.
pub const SHAPE: [usize; 3] = [3, 32, 32];

const IMAGE: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];
/// The bytes of an image with its class.
const RECORD: usize = IMAGE + 1;
/// The number of images in a file.
const COUNT: usize = 10_000;

/// Reads the training and test images from [`FILES`] in one of `folders`, plain or `.gz`.
/// Those of plain files for which there is no `room` are read batch by batch.
///
/// # Errors
/// [`Error::MissingData`] and [`Error::File`] for files that cannot be found or read;
/// [`Error::Data`] for files without exactly 10,000 images of 32×32 pixels in three
/// colours, or with a class above 9.
pub fn read(folders: &[PathBuf], name: &str, room: &Room) -> Result<[Images; 2]> {
    let files = FILES
        .map(|file| find(folders, name, file))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let (test, train) = files.split_last().expect("there are six");
    Ok([part(train, room)?, part(std::slice::from_ref(test), room)?])
}

/// The images in some of the files.
fn part(files: &[PathBuf], room: &Room) -> Result<Images> {
    let size = files.len() * COUNT * IMAGE;
    let (mut labels, mut plain) = (Vec::new(), Vec::new());
    for path in files {
        if !Reader::open(path)?.is_packed() {
            plain.push((disk::open(path)?, path.clone()));
        }
    }
    let stay = plain.len() == files.len() && !room.has(size as u64);
    if !stay && memory::available().is_some_and(|free| free < size as u64) {
        let problem = format!(
            "its pixels need {} MB, more than is free; unpack the files: then they need not fit \
             into memory",
            size >> 20
        );
        return Err(Error::data(&files[0], problem));
    }
    // All of them at once, since a vector that grows is copied.
    let mut pixels = Vec::with_capacity(if stay { 0 } else { size });
    for path in files {
        for record in records(path)?.chunks_exact(RECORD) {
            labels.push(record[0]);
            if !stay {
                pixels.extend_from_slice(&record[1..]);
            }
        }
    }
    if !stay {
        return Images::new(pixels, labels, SHAPE);
    }
    room.say(
        files[0].display(),
        "the images take",
        size as u64,
        "their files",
    );
    let records = Records {
        first: 1,
        distance: RECORD as u64,
        count: COUNT,
    };
    Images::of(Pixels::in_files(plain, records), labels, SHAPE)
}

/// The bytes of a file, whose classes are checked.
fn records(path: &Path) -> Result<Vec<u8>> {
    let mut file = Reader::open(path)?;
    let size = COUNT * RECORD;
    let bytes = file.exactly(
        Some(size as u64),
        "expected 10000 images of 3 by 32 by 32, as in CIFAR-10",
    )?;
    for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
        if record[0] > 9 {
            return Err(file.fault(format!(
                "found class {} for image {index}, expected 0 to 9",
                record[0]
            )));
        }
    }
    Ok(bytes)
}

/// Writes the six files that [`read`] reads into a folder, uncompressed.
///
/// # Errors
/// [`Error::Usage`] if the images do not have the number and shape of CIFAR-10;
/// [`Error::File`].
pub fn write(folder: &Path, train: &Images, test: &Images) -> Result<()> {
    let counts = [train.labels().len(), test.labels().len()];
    if [train.shape(), test.shape()] != [&SHAPE; 2] || counts != [5 * COUNT, COUNT] {
        return Err(Error::usage(
            "CIFAR-10",
            format!(
                "expected [50000, 10000] images of [3, 32, 32], found {counts:?} of {:?}",
                train.shape()
            ),
        ));
    }
    let mut records = Vec::with_capacity(6 * COUNT * RECORD);
    for part in [train, test] {
        for (index, label) in part.labels().iter().enumerate() {
            records.push(*label);
            records.extend_from_slice(&part.image(index)?);
        }
    }
    for (file, bytes) in FILES.iter().zip(records.chunks_exact(COUNT * RECORD)) {
        disk::replace(&folder.join(file), bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(count: usize, first: usize) -> Result<Images> {
        let pixels = (0..count)
            .flat_map(|index| (0..IMAGE).map(move |pixel| ((first + index) * 7 + pixel) as u8));
        Images::new(
            pixels.collect(),
            (0..count).map(|index| (index % 10) as u8).collect(),
            SHAPE,
        )
    }

    #[test]
    fn written_files_can_be_read_and_damaged_files_are_refused() -> Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let folders = [folder.path().to_path_buf()];
        let in_files = Room::default().at_most(0);
        let read = |room: &Room| read(&folders, "cifar-10", room);
        let refused = |room: &Room| read(room).err().expect("it is refused").to_string();
        let error = refused(&Room::default());
        assert!(error.contains("data_batch_1.bin"), "{error}");
        let (train, test) = (part(50_000, 0)?, part(10_000, 3)?);
        write(folder.path(), &train, &test)?;
        for room in [Room::default(), in_files.clone()] {
            for (found, written) in read(&room)?.iter().zip([&train, &test]) {
                assert!(found.labels() == written.labels());
                assert!(found.to_bytes()? == written.to_bytes()?);
            }
        }

        let path = folder.path().join(FILES[3]);
        let good = std::fs::read(&path).expect("it was written");
        let mut foreign = good.clone();
        foreign[RECORD] = 10;
        let longer = [&good[..], &[0]].concat();
        for (bytes, says) in [
            (&foreign, "class 10"),
            (&good[..100].to_vec(), "found only 100"),
            (&longer, "found more"),
        ] {
            std::fs::write(&path, bytes).expect("a file");
            for room in [&Room::default(), &in_files] {
                let error = refused(room);
                assert!(error.contains(says) && error.contains(FILES[3]), "{error}");
            }
        }
        assert!(write(folder.path(), &test, &train).is_err());
        Ok(())
    }
}
