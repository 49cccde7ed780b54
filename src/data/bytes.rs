//! Files of bytes, plain or gzipped, of which no more is read than they have.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::kernels::memory;

/// A file that is read from its beginning.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: Box<dyn Read>,
}

impl<'a> Reader<'a> {
    pub fn open(path: &'a Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::file("read", path))?;
        let mut start = [0u8; 2];
        let read = file.read(&mut start).map_err(Error::file("read", path))?;
        let file = Cursor::new(start).take(read as u64).chain(file);
        // By what is in it, not by its name: browsers unpack and keep the name.
        let bytes: Box<dyn Read> = match start {
            [0x1f, 0x8b] => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
            _ => Box::new(BufReader::with_capacity(1 << 16, file)),
        };
        Ok(Self { path, bytes })
    }

    pub fn fault(&self, problem: impl Into<String>) -> Error {
        Error::data(self.path, problem)
    }

    /// The next four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0u8; 4];
        match self.bytes.read_exact(&mut bytes) {
            Ok(()) => Ok(u32::from_be_bytes(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.fault("ends within its header; it is truncated or no IDX file"))
            }
            Err(error) => Err(self.fault(format!("cannot be unpacked: {error}"))),
        }
    }

    /// The rest, which has to be `count` bytes, as `promise` says; no more memory is taken than there are bytes.
    pub fn exactly(&mut self, count: Option<u64>, promise: &str) -> Result<Vec<u8>> {
        let Some(count) = count.filter(|&count| count < u64::MAX) else {
            return Err(self.fault(format!("{promise}, which is impossible")));
        };
        // A small file may unpack to more than there is room for.
        let room = memory::available().unwrap_or(u64::MAX) / 2;
        let mut bytes = Vec::new();
        let read = self
            .bytes
            .by_ref()
            .take((count + 1).min(room))
            .read_to_end(&mut bytes);
        read.map_err(|error| self.fault(format!("cannot be unpacked: {error}")))?;
        match bytes.len() as u64 {
            found if found == room => Err(self.fault(format!(
                "{promise}, {count} bytes: more than half of the memory that is free"
            ))),
            found if found == count => Ok(bytes),
            found if found < count => {
                Err(self.fault(format!("{promise}, {count} bytes; it has only {found}")))
            }
            _ => Err(self.fault(format!("{promise}, {count} bytes; it has more"))),
        }
    }
}
