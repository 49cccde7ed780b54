//! The IDX format of MNIST: big-endian headers, then bytes; plain or gzipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::bytes::Reader;
use crate::data::images::Images;
use crate::data::pixels::Pixels;
use crate::data::Room;
use crate::data::{find, Content, DataSet, ExampleSpec, Framing};
use crate::disk;
use crate::error::{Error, Result};
use crate::flow::random::{shuffle, stream};

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// The bytes in front of the images: four numbers.
const HEADER: u64 = 16;

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
/// training part. The images of plain files for which there is no `room` are read batch
/// by batch.
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
    room: &Room,
) -> Result<DataSet> {
    let train = pair(folders, name, "train", room)?;
    let test = pair(folders, name, "t10k", room)?;
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
    for (part, images) in [("train", &train), ("t10k", &test)] {
        let is_unknown = |label: &u8| usize::from(*label) >= classes.len();
        if let Some(index) = images.labels().iter().position(is_unknown) {
            let file = find(folders, name, &format!("{part}-labels-idx1-ubyte"))?;
            let (label, last) = (images.labels()[index], classes.len() - 1);
            let problem = format!("found label {label} at index {index}, expected 0 to {last}");
            return Err(Error::data(file, problem));
        }
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
/// same, if the images are sorted in some way, so that a part lacks a class.
fn divided(all: Images) -> (Images, Images) {
    let count = all.labels().len() / 6;
    let (train, validation) = all.split_last(count);
    let classes = |part: &Images| -> BTreeSet<u8> { part.labels().iter().copied().collect() };
    let (of_train, of_validation) = (classes(&train), classes(&validation));
    // Few images cannot have all classes.
    let is_sorted = all.labels().is_sorted() && count >= 2 && of_train.len() > 1;
    // A random sixth lacks a class of 30 images once in two hundred times.
    let images_of = |class: u8| all.labels().iter().filter(|&&label| label == class).count();
    let mut lacking = of_train.difference(&of_validation);
    let lacks_one = lacking.any(|&class| images_of(class) >= 30);
    if of_validation.is_subset(&of_train) && !is_sorted && !lacks_one {
        return (train, validation);
    }
    let mut order: Vec<usize> = (0..all.labels().len()).collect();
    shuffle(&mut stream(0, "validation part", 0), &mut order);
    let (last, first) = order.split_at(count);
    (all.select(first), all.select(last))
}

fn pair(folders: &[PathBuf], name: &str, part: &str, room: &Room) -> Result<Images> {
    let images = find(folders, name, &format!("{part}-images-idx3-ubyte"))?;
    let labels = find(folders, name, &format!("{part}-labels-idx1-ubyte"))?;
    let (pixels, count, [height, width]) = read_images(&images, room)?;
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
    Images::of(pixels, classes, [1, height, width])
}

/// Opens a file of images: their bytes, their number, and their height and width.
///
/// # Errors
/// As [`data_set`].
pub fn read_images(path: &Path, room: &Room) -> Result<(Pixels, usize, [usize; 2])> {
    let mut file = Reader::open(path)?;
    magic(&mut file, IMAGES, "images")?;
    let [count, height, width] = [number(&mut file)?, number(&mut file)?, number(&mut file)?];
    if height == 0 || width == 0 {
        return Err(file.fault(format!(
            "found images of {height} by {width} pixels, expected at least 1 by 1"
        )));
    }
    let size = count as u64 * height as u64;
    let size = size.checked_mul(width as u64);
    let promise = format!("the header states {count} images of {height} by {width}");
    let pixels = file.pixels(HEADER, count, size, &promise, room)?;
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
        let header_of_images = header(&[IMAGES as usize, count, height, width]);
        let images = [header_of_images, part.to_bytes()?].concat();
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
mod tests;
