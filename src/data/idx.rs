//! The IDX format of MNIST: big-endian headers, then bytes; plain or gzipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::bytes::Reader;
use crate::data::images::Images;
use crate::data::{find, Content, DataSet, ExampleSpec, Framing};
use crate::disk;
use crate::error::{Error, Result};
use crate::flow::random::{shuffled, stream};

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// The four files of a data set.
pub const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Reads a data set from four files named as for MNIST (`train-images-idx3-ubyte`, …),
/// plain or `.gz`, with images of any height and width.
///
/// The last sixth of the training part is the validation part, 10,000 of MNIST's 60,000;
/// a random sixth if the images are sorted by class. `classes` are the names of the
/// classes. If it is empty, classes are named by number, up to the largest label of the
/// training part.
///
/// # Errors
/// [`Error::MissingData`] and [`Error::File`] for files that cannot be found or read;
/// [`Error::Data`] for files that are not in IDX format, are too short or too long, or do
/// not match each other.
pub fn data_set(
    folders: &[PathBuf],
    name: &str,
    classes: &[&str],
    framing: Framing,
) -> Result<DataSet> {
    let train = pair(folders, name, "train")?;
    let test = pair(folders, name, "t10k")?;
    let file = find(folders, name, "t10k-images-idx3-ubyte")?;
    if train.shape() != test.shape() {
        return Err(Error::data(
            file,
            format!(
                "found test images of shape {:?}, expected {:?} as in the training part",
                test.shape(),
                train.shape()
            ),
        ));
    }
    if train.labels().len() < 6 || test.labels().is_empty() {
        return Err(Error::data(
            file,
            format!(
                "found {} training and {} test images, expected at least 6 and 1",
                train.labels().len(),
                test.labels().len()
            ),
        ));
    }
    let found = train
        .labels()
        .iter()
        .max()
        .map_or(0, |&label| usize::from(label) + 1);
    let first = train.labels()[0];
    if classes.is_empty() && train.labels().iter().all(|label| *label == first) {
        let problem = format!("all training images have the label {first}, expected two classes");
        let file = find(folders, name, "train-labels-idx1-ubyte")?;
        return Err(Error::data(file, problem));
    }
    let classes: Vec<String> = match classes {
        [] => (0..found.max(2)).map(|class| class.to_string()).collect(),
        names => names.iter().map(|name| name.to_string()).collect(),
    };
    if let Some(&label) = train
        .labels()
        .iter()
        .chain(test.labels())
        .find(|&&label| usize::from(label) >= classes.len())
    {
        let file = find(folders, name, "t10k-labels-idx1-ubyte")?;
        return Err(Error::data(
            file,
            format!(
                "found label {label} in the training or test part, expected 0 to {}",
                classes.len() - 1
            ),
        ));
    }
    let (train, validation) = divided(train);
    Ok(DataSet {
        spec: ExampleSpec::new(train.shape(), classes, Content::Picture(framing)),
        train: Arc::new(train),
        validation: Arc::new(validation),
        test: Arc::new(test),
        text: None,
    })
}

/// The training and the validation part: the last sixth, or a random sixth, always the
/// same, if the images are sorted by class, so that the last sixth lacks classes.
fn divided(all: Images) -> (Images, Images) {
    let count = all.labels().len() / 6;
    let (train, validation) = all.split_last(count);
    let classes = |part: &Images| -> BTreeSet<u8> { part.labels().iter().copied().collect() };
    let (of_train, of_validation) = (classes(&train), classes(&validation));
    // Few images cannot have all classes.
    let is_sorted = all.labels().is_sorted() && count >= 2 && of_train.len() > 1;
    if of_validation.is_subset(&of_train) && !is_sorted {
        return (train, validation);
    }
    let order = shuffled(&mut stream(0, "validation part", 0), all.labels().len());
    let (last, first) = order.split_at(count);
    (all.select(first), all.select(last))
}

fn pair(folders: &[PathBuf], name: &str, part: &str) -> Result<Images> {
    let images = find(folders, name, &format!("{part}-images-idx3-ubyte"))?;
    let labels = find(folders, name, &format!("{part}-labels-idx1-ubyte"))?;
    let (pixels, count, [height, width]) = read_images(&images)?;
    let classes = read_labels(&labels)?;
    if classes.len() != count {
        return Err(Error::data(
            labels,
            format!(
                "found {} labels for the {count} images of {}",
                classes.len(),
                images.display()
            ),
        ));
    }
    Images::new(pixels, classes, [1, height, width])
}

/// Reads the bytes of all images, their number, and their height and width.
///
/// # Errors
/// As [`data_set`].
pub fn read_images(path: &Path) -> Result<(Vec<u8>, usize, [usize; 2])> {
    let mut file = Reader::open(path)?;
    magic(&mut file, IMAGES, "images")?;
    let [count, height, width] = [number(&mut file)?, number(&mut file)?, number(&mut file)?];
    if height == 0 || width == 0 {
        return Err(file.fault(format!(
            "found images of {height} by {width} pixels, expected at least 1 by 1"
        )));
    }
    let size = count as u64 * height as u64;
    let pixels = file.exactly(
        size.checked_mul(width as u64),
        &format!("the header states {count} images of {height} by {width}"),
    )?;
    Ok((pixels, count, [height, width]))
}

/// Reads the labels, one byte each.
///
/// # Errors
/// As [`data_set`].
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut file = Reader::open(path)?;
    magic(&mut file, LABELS, "labels")?;
    let count = number(&mut file)?;
    file.exactly(
        Some(count as u64),
        &format!("the header states {count} labels"),
    )
}

/// Writes the four files that [`data_set`] reads into a folder, uncompressed.
///
/// # Errors
/// [`Error::Usage`] for images of more than one channel, which the format does not
/// support; [`Error::File`].
pub fn write(folder: &Path, train: &Images, test: &Images) -> Result<()> {
    for (part, files) in [train, test].into_iter().zip(FILES.chunks_exact(2)) {
        let &[1, height, width] = part.shape() else {
            return Err(Error::usage(
                "IDX",
                format!(
                    "expected images of one channel, found shape {:?}",
                    part.shape()
                ),
            ));
        };
        let header = |numbers: &[usize]| -> Vec<u8> {
            // Every side fits into 32 bits if the array fits into memory, except for
            // empty images.
            numbers
                .iter()
                .flat_map(|&number| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes())
                .collect()
        };
        let count = part.labels().len();
        let images = [
            &header(&[IMAGES as usize, count, height, width]),
            part.pixels(),
        ]
        .concat();
        let labels = [&header(&[LABELS as usize, count]), part.labels()].concat();
        disk::replace(&folder.join(files[0]), &images)?;
        disk::replace(&folder.join(files[1]), &labels)?;
    }
    Ok(())
}

fn magic(file: &mut Reader<'_>, expected: u32, what: &str) -> Result<()> {
    let found = file.u32()?;
    if found == expected {
        return Ok(());
    }
    let described = described(found);
    Err(file.fault(format!(
        "begins with {found}{described}; an IDX file of {what} begins with {expected}"
    )))
}

/// What the first number of another IDX file says: the type and the number of dimensions.
fn described(magic: u32) -> String {
    let numbers = match magic >> 8 {
        _ if magic == LABELS => return ", a file of labels".into(),
        _ if magic == IMAGES => return ", a file of images".into(),
        _ if [LABELS, IMAGES].contains(&magic.swap_bytes()) => {
            return ", which has the bytes in the other order".into();
        }
        _ if magic.to_be_bytes().iter().all(u8::is_ascii_graphic) => {
            let letters = magic.to_be_bytes().map(char::from);
            return format!(", the letters {}", letters.iter().collect::<String>());
        }
        0x08 => "bytes",
        0x09 => "signed bytes",
        0x0b => "whole numbers of 16 bits",
        0x0c => "whole numbers of 32 bits",
        0x0d => "numbers with a fraction, of 32 bits",
        0x0e => "numbers with a fraction, of 64 bits",
        _ => return String::new(),
    };
    match magic & 0xff {
        1 => format!(", {numbers} in 1 dimension"),
        dimensions => format!(", {numbers} in {dimensions} dimensions"),
    }
}

fn number(file: &mut Reader<'_>) -> Result<usize> {
    Ok(file.u32()? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn images(count: u32, height: u32, width: u32, pixels: &[u8]) -> Vec<u8> {
        let header = [IMAGES, count, height, width]
            .map(u32::to_be_bytes)
            .concat();
        [&header, pixels].concat()
    }

    fn labels(count: u32, labels: &[u8]) -> Vec<u8> {
        [&[LABELS, count].map(u32::to_be_bytes).concat(), labels].concat()
    }

    /// A folder with six training and two test images of 2×2 pixels.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (part, count) in [("train", 6), ("t10k", 2)] {
            let pixels: Vec<u8> = (0..4 * count as u8).collect();
            put(
                &folder,
                &format!("{part}-images-idx3-ubyte"),
                &images(count, 2, 2, &pixels),
            );
            let classes: Vec<u8> = (0..count as u8).map(|index| index % 3).collect();
            put(
                &folder,
                &format!("{part}-labels-idx1-ubyte"),
                &labels(count, &classes),
            );
        }
        folder
    }

    fn put(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }

    fn read(folder: &tempfile::TempDir) -> Result<DataSet> {
        data_set(
            &[folder.path().to_path_buf()],
            "test",
            &[],
            Framing::Object(4),
        )
    }

    fn message(folder: &tempfile::TempDir) -> String {
        read(folder).expect_err("must be refused").to_string()
    }

    #[test]
    fn four_files_make_three_parts() -> Result<()> {
        let data = read(&folder())?;
        assert_eq!(
            (data.train.len(), data.validation.len(), data.test.len()),
            (5, 1, 2)
        );
        assert_eq!(
            (data.spec.shape, data.spec.classes.len()),
            (vec![1, 2, 2], 3)
        );
        Ok(())
    }

    #[test]
    fn images_that_are_sorted_by_class_are_divided_at_random() -> Result<()> {
        let folder = folder();
        let count = 60u32;
        let sorted: Vec<u8> = (0..count as u8).map(|index| index / 20).collect();
        put(
            &folder,
            "train-images-idx3-ubyte",
            &images(count, 2, 2, &[7; 240]),
        );
        put(&folder, "train-labels-idx1-ubyte", &labels(count, &sorted));
        let data = read(&folder)?;
        let classes = |examples: &dyn crate::data::Examples| -> Result<BTreeSet<u32>> {
            let all: Vec<usize> = (0..examples.len()).collect();
            let batch = examples.batch(&all, None)?;
            Ok(batch.labels()?.iter().copied().collect())
        };
        assert_eq!((data.train.len(), data.validation.len()), (50, 10));
        assert_eq!(classes(&*data.train)?.len(), 3);
        assert!(classes(&*data.validation)?.len() > 1);
        Ok(())
    }

    #[test]
    fn zeros_behind_a_compressed_file_are_ignored() -> Result<()> {
        let folder = folder();
        let name = "train-images-idx3-ubyte";
        let plain = std::fs::read(folder.path().join(name)).unwrap();
        // Two streams, one after the other, and zeros.
        let mut packed = Vec::new();
        for part in plain.chunks(20) {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            packed.extend(encoder.finish().unwrap());
        }
        packed.extend([0; 100]);
        put(&folder, name, &packed);
        assert_eq!(read(&folder)?.train.len(), 5);
        packed.truncate(packed.len() - 110);
        put(&folder, name, &packed);
        assert!(
            message(&folder).contains("cannot be decompressed"),
            "{}",
            message(&folder)
        );
        Ok(())
    }

    #[test]
    fn compressed_files_are_recognised_by_content() -> Result<()> {
        let folder = folder();
        for name in ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
            let plain = folder.path().join(name);
            let mut packed =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(&std::fs::read(&plain).unwrap()).unwrap();
            let packed = packed.finish().unwrap();
            if name.starts_with("train") {
                std::fs::remove_file(&plain).unwrap();
                put(&folder, &format!("{name}.gz"), &packed);
            } else {
                put(&folder, name, &packed);
            }
        }
        assert_eq!(read(&folder)?.train.len(), 5);
        Ok(())
    }

    #[test]
    fn an_invalid_file_is_refused_with_the_reason() {
        let huge = images(1_000_000_000, 28, 28, &[0; 100]);
        let cases: [(&str, Vec<u8>, &str); 14] = [
            (
                "train-images-idx3-ubyte",
                images(6, 2, 2, &[0; 23]),
                "24 bytes; found only 23",
            ),
            (
                "train-images-idx3-ubyte",
                images(6, 2, 2, &[0; 25]),
                "24 bytes; found more",
            ),
            (
                "train-images-idx3-ubyte",
                huge,
                "784000000000 bytes; found only 100",
            ),
            (
                "train-images-idx3-ubyte",
                images(u32::MAX, u32::MAX, u32::MAX, &[]),
                "impossible",
            ),
            ("train-images-idx3-ubyte", images(6, 0, 2, &[]), "0 by 2"),
            (
                "train-images-idx3-ubyte",
                b"PK".to_vec(),
                "found the end of the file",
            ),
            (
                "train-images-idx3-ubyte",
                labels(24, &[0; 24]),
                "begins with 2049, a file of labels;",
            ),
            (
                "train-images-idx3-ubyte",
                [0x0308_0000u32, 6].map(u32::to_be_bytes).concat(),
                "the bytes in the other order;",
            ),
            (
                "train-images-idx3-ubyte",
                b"<html>404".to_vec(),
                "the letters <htm;",
            ),
            (
                "train-labels-idx1-ubyte",
                labels(6, &[1; 6]),
                "all training images have the label 1",
            ),
            (
                "train-images-idx3-ubyte",
                [2052u32, 6].map(u32::to_be_bytes).concat(),
                "begins with 2052, bytes in 4 dimensions;",
            ),
            (
                "train-images-idx3-ubyte",
                [0x0d03u32, 6].map(u32::to_be_bytes).concat(),
                "numbers with a fraction, of 32 bits in 3 dimensions;",
            ),
            (
                "train-labels-idx1-ubyte",
                labels(5, &[0; 5]),
                "5 labels for the 6 images",
            ),
            (
                "t10k-images-idx3-ubyte",
                images(2, 1, 4, &[0; 8]),
                "[1, 2, 2]",
            ),
        ];
        for (name, bytes, expected) in cases {
            let folder = folder();
            put(&folder, name, &bytes);
            let message = message(&folder);
            assert!(
                message.contains(name) && message.contains(expected),
                "{expected} is missing from: {message}"
            );
        }
        let folder = folder();
        put(&folder, "t10k-labels-idx1-ubyte", &labels(2, &[0, 9]));
        assert!(message(&folder).contains("label 9"), "{}", message(&folder));
        std::fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        assert!(
            message(&folder).contains("t10k-labels-idx1-ubyte, plain or .gz"),
            "{}",
            message(&folder)
        );
    }

    proptest! {
        /// Reading never panics, whichever byte is changed and wherever the file is cut.
        #[test]
        fn a_damaged_file_is_read_or_refused(
            file in 0..4usize, place in 0..40usize, byte in any::<u8>(), cut in proptest::option::of(0..40usize),
        ) {
            let folder = folder();
            let name = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte"][file];
            let path = folder.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let length = bytes.len();
            bytes[place % length] = byte;
            bytes.truncate(cut.unwrap_or(length));
            std::fs::write(&path, bytes).unwrap();
            let _ = read(&folder);
        }
    }
}
