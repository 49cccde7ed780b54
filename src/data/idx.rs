//! The IDX format of MNIST: big-endian headers, then bytes; plain or gzipped.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::data::images::Images;
use crate::data::{find, DataSet};
use crate::error::{Error, Result};

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// A data set in the four files of MNIST, `train-images-idx3-ubyte` and so on, plain or `.gz`, of any height and width.
///
/// The last sixth of the training part is the validation part: 10,000 of MNIST's 60,000. With `classes` unset there are
/// as many as the largest label of the training part says.
///
/// # Errors
/// [`Error::MissingData`] and [`Error::File`] for files that cannot be found or read; [`Error::Data`] for files that
/// are no IDX, are too short or too long, or do not fit each other.
pub fn data_set(folders: &[PathBuf], name: &str, classes: Option<usize>) -> Result<DataSet> {
    let train = pair(folders, name, "train")?;
    let test = pair(folders, name, "t10k")?;
    let file = find(folders, name, "t10k-images-idx3-ubyte")?;
    if train.shape() != test.shape() {
        let problem = format!("images of {:?}, where those to train on are {:?}", test.shape(), train.shape());
        return Err(Error::Data { file, problem });
    }
    if train.labels().len() < 6 || test.labels().is_empty() {
        let problem =
            format!("{} images to train and {} to test on are too few", train.labels().len(), test.labels().len());
        return Err(Error::Data { file, problem });
    }
    let found = train.labels().iter().max().map_or(0, |&label| usize::from(label) + 1);
    let classes = classes.unwrap_or(found.max(2));
    if let Some(&label) = train.labels().iter().chain(test.labels()).find(|&&label| usize::from(label) >= classes) {
        let file = find(folders, name, "t10k-labels-idx1-ubyte")?;
        let problem = format!("label {label} in it or beside it; expected 0 to {}", classes - 1);
        return Err(Error::Data { file, problem });
    }
    let (train, validation) = train.split_last(train.labels().len() / 6);
    Ok(DataSet {
        shape: train.shape().to_vec(),
        classes,
        train: Box::new(train),
        validation: Box::new(validation),
        test: Box::new(test),
    })
}

fn pair(folders: &[PathBuf], name: &str, part: &str) -> Result<Images> {
    let images = find(folders, name, &format!("{part}-images-idx3-ubyte"))?;
    let labels = find(folders, name, &format!("{part}-labels-idx1-ubyte"))?;
    let (pixels, count, [height, width]) = read_images(&images)?;
    let classes = read_labels(&labels)?;
    if classes.len() != count {
        let problem = format!("{} labels for the {count} images of {}", classes.len(), images.display());
        return Err(Error::Data { file: labels, problem });
    }
    Images::new(pixels, classes, [1, height, width])
}

/// The bytes of all images, their number, and their height and width.
///
/// # Errors
/// As [`data_set`].
pub fn read_images(path: &Path) -> Result<(Vec<u8>, usize, [usize; 2])> {
    let mut file = Reader::open(path)?;
    file.magic(IMAGES, "images")?;
    let [count, height, width] = [file.number()?, file.number()?, file.number()?];
    if height == 0 || width == 0 {
        return Err(file.fault(format!("images of {height} by {width} pixels")));
    }
    let size = count as u64 * height as u64;
    let pixels = file.exactly(size.checked_mul(width as u64), &format!("{count} images of {height} by {width}"))?;
    Ok((pixels, count, [height, width]))
}

/// The labels, one byte each.
///
/// # Errors
/// As [`data_set`].
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut file = Reader::open(path)?;
    file.magic(LABELS, "labels")?;
    let count = file.number()?;
    file.exactly(Some(count as u64), &format!("{count} labels"))
}

struct Reader<'a> {
    path: &'a Path,
    bytes: Box<dyn Read>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::file("read", path))?;
        let mut start = [0u8; 2];
        let read = file.read(&mut start).map_err(Error::file("read", path))?;
        let file = std::io::Cursor::new(start).take(read as u64).chain(file);
        // By what is in it, not by its name: browsers unpack and keep the name.
        let bytes: Box<dyn Read> = match start {
            [0x1f, 0x8b] => Box::new(std::io::BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
            _ => Box::new(std::io::BufReader::with_capacity(1 << 16, file)),
        };
        Ok(Self { path, bytes })
    }

    fn fault(&self, problem: impl Into<String>) -> Error {
        Error::Data { file: self.path.into(), problem: problem.into() }
    }

    fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0u8; 4];
        match self.bytes.read_exact(&mut bytes) {
            Ok(()) => Ok(u32::from_be_bytes(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.fault("ends within its header; it is truncated or no IDX file"))
            }
            Err(error) => Err(self.fault(format!("cannot be unpacked: {error}"))),
        }
    }

    fn magic(&mut self, expected: u32, what: &str) -> Result<()> {
        let found = self.u32()?;
        if found == expected {
            return Ok(());
        }
        Err(self.fault(format!("begins with {found}, where an IDX file of {what} begins with {expected}")))
    }

    fn number(&mut self) -> Result<usize> {
        Ok(self.u32()? as usize)
    }

    /// The rest, which has to be `count` bytes; no more memory is taken than there are bytes, whatever a header claims.
    fn exactly(&mut self, count: Option<u64>, what: &str) -> Result<Vec<u8>> {
        let Some(count) = count.filter(|&count| count < u64::MAX) else {
            return Err(self.fault(format!("its header promises {what}, which is impossible")));
        };
        let mut bytes = Vec::new();
        let read = self.bytes.by_ref().take(count + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.fault(format!("cannot be unpacked: {error}")))?;
        match bytes.len() as u64 {
            found if found == count => Ok(bytes),
            found if found < count => {
                Err(self.fault(format!("its header promises {what}, {count} bytes; it has only {found}")))
            }
            _ => Err(self.fault(format!("its header promises {what}, {count} bytes; it has more"))),
        }
    }
}
