//! The binary format of CIFAR-10: for every image one byte for the class, then its
//! pixels, channel by channel.

use std::path::{Path, PathBuf};

use crate::data::bytes::Reader;
use crate::data::find;
use crate::data::images::Images;
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
/// The number of images in a file.
const COUNT: usize = 10_000;

/// Reads the training and test images from [`FILES`] in one of `folders`, plain or `.gz`.
///
/// # Errors
/// [`Error::MissingData`] and [`Error::File`] for files that cannot be found or read;
/// [`Error::Data`] for files without exactly 10,000 images of 32×32 pixels in three
/// colours, or with a class above 9.
pub fn read(folders: &[PathBuf], name: &str) -> Result<[Images; 2]> {
    let files = FILES
        .map(|file| find(folders, name, file))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    // All of them at once, since a vector that grows is copied. Memory that is not written
    // to is not used yet.
    if memory::available().is_some_and(|free| free < (7 * COUNT * IMAGE) as u64) {
        let problem = format!(
            "its pixels need {} MB, more than is free",
            (6 * COUNT * IMAGE) >> 20
        );
        return Err(Error::usage(name, problem));
    }
    pixels.reserve_exact(5 * COUNT * IMAGE);
    let (test, train) = files.split_last().expect("there are six");
    for file in train {
        append(file, &mut pixels, &mut labels)?;
    }
    let train = Images::new(pixels, labels, SHAPE)?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    append(test, &mut pixels, &mut labels)?;
    Ok([train, Images::new(pixels, labels, SHAPE)?])
}

fn append(path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> Result<()> {
    let mut file = Reader::open(path)?;
    let size = COUNT * (IMAGE + 1);
    let bytes = file.exactly(
        Some(size as u64),
        "expected 10000 images of 3 by 32 by 32, as in CIFAR-10",
    )?;
    for (index, record) in bytes.chunks_exact(IMAGE + 1).enumerate() {
        if record[0] > 9 {
            return Err(file.fault(format!(
                "found class {} for image {index}, expected 0 to 9",
                record[0]
            )));
        }
        labels.push(record[0]);
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(())
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
    let images = [train, test]
        .into_iter()
        .flat_map(|part| part.labels().iter().zip(part.pixels().chunks_exact(IMAGE)));
    let records: Vec<u8> = images
        .flat_map(|(label, pixels)| [&[*label], pixels].concat())
        .collect();
    for (file, bytes) in FILES.iter().zip(records.chunks_exact(COUNT * (IMAGE + 1))) {
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
        let error = read(&folders, "cifar-10")
            .err()
            .expect("it is refused")
            .to_string();
        assert!(error.contains("data_batch_1.bin"), "{error}");
        let (train, test) = (part(50_000, 0)?, part(10_000, 3)?);
        write(folder.path(), &train, &test)?;
        let found = read(&folders, "cifar-10")?;
        assert!(found[0].pixels() == train.pixels() && found[0].labels() == train.labels());
        assert!(found[1].pixels() == test.pixels());

        let path = folder.path().join(FILES[3]);
        let good = std::fs::read(&path).expect("it was written");
        let mut foreign = good.clone();
        foreign[IMAGE + 1] = 10;
        let longer = [&good[..], &[0]].concat();
        for (bytes, says) in [
            (&foreign, "class 10"),
            (&good[..100].to_vec(), "found only 100"),
            (&longer, "found more"),
        ] {
            std::fs::write(&path, bytes).expect("a file");
            let error = read(&folders, "cifar-10")
                .err()
                .expect("it is refused")
                .to_string();
            assert!(error.contains(says) && error.contains(FILES[3]), "{error}");
        }
        assert!(write(folder.path(), &test, &train).is_err());
        Ok(())
    }
}
