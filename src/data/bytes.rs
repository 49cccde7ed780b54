//! Binary files, plain or gzipped, read with a limit on their size.

use std::cmp::Ordering;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::pixels::{Pixels, Records};
use super::Room;
use crate::disk;
use crate::error::{Error, Result};
use crate::kernels::memory;

/// A reader of a file from its beginning.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: Box<dyn Read>,
    is_packed: bool,
}

/// Gzip streams, one after the other. Anything else behind them ends the data, as for the
/// program `gzip`: some servers fill up a file with zeros.
struct Unpacked<R: BufRead>(Option<GzDecoder<R>>);

impl<R: Read> Unpacked<BufReader<R>> {
    fn of(file: R) -> Self {
        Self(Some(GzDecoder::new(BufReader::with_capacity(
            1 << 16,
            file,
        ))))
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let Some(stream) = &mut self.0 else {
                return Ok(0);
            };
            match stream.read(out)? {
                0 if !out.is_empty() => (),
                read => return Ok(read),
            }
            let mut rest = self.0.take().map(GzDecoder::into_inner);
            if let Some(mut rest) = rest.take() {
                if rest.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
                    self.0 = Some(GzDecoder::new(rest));
                }
            }
        }
    }
}

impl<'a> Reader<'a> {
    pub fn open(path: &'a Path) -> Result<Self> {
        let mut file = disk::open(path)?;
        let mut start = [0u8; 2];
        let read = file.read(&mut start).map_err(Error::file("read", path))?;
        let file = Cursor::new(start).take(read as u64).chain(file);
        // Detected by content, not by name: browsers may decompress a file and keep its
        // name.
        let is_packed = start == [0x1f, 0x8b];
        let bytes: Box<dyn Read> = match is_packed {
            true => Box::new(BufReader::with_capacity(1 << 16, Unpacked::of(file))),
            false => Box::new(BufReader::with_capacity(1 << 16, file)),
        };
        Ok(Self {
            path,
            bytes,
            is_packed,
        })
    }

    /// Whether the file is compressed.
    pub fn is_packed(&self) -> bool {
        self.is_packed
    }

    pub fn fault(&self, problem: impl Into<String>) -> Error {
        Error::data(self.path, problem)
    }

    /// The next four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0u8; 4];
        match self.bytes.read_exact(&mut bytes) {
            Ok(()) => Ok(u32::from_be_bytes(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.fault(
                "expected an IDX header, found the end of the file; it is truncated or \
                 not an IDX file",
            )),
            Err(error) => Err(self.fault(format!("cannot be decompressed: {error}"))),
        }
    }

    /// The rest of the file, which must have `count` bytes; `promise` explains the number
    /// in messages. Memory is used only for bytes that exist.
    pub fn exactly(&mut self, count: Option<u64>, promise: &str) -> Result<Vec<u8>> {
        let Some(count) = count.filter(|&count| count < u64::MAX) else {
            return Err(self.fault(format!("{promise}, an impossible size")));
        };
        let path = self.path;
        let undecoded = |error| Error::data(path, format!("cannot be decompressed: {error}"));
        // A small file may decompress to more than fits into memory.
        let room = memory::available().unwrap_or(u64::MAX) / 2;
        if count > room {
            let mut bytes = self.bytes.by_ref().take(room);
            let found = std::io::copy(&mut bytes, &mut std::io::sink()).map_err(undecoded)?;
            return Err(self.fault(match found == room {
                true => format!(
                    "{promise}, {count} bytes; that is more than half of the free memory. Unpack \
                     it: images in a plain file need not fit into memory"
                ),
                false => format!("{promise}, {count} bytes; found only {found}"),
            }));
        }
        // As large as it will be: a vector that grows is copied, and is twice as large.
        let mut bytes = Vec::new();
        let size = usize::try_from(count).unwrap_or(usize::MAX);
        if bytes.try_reserve_exact(size.saturating_add(1)).is_err() {
            return Err(self.fault(format!("{promise}, {count} bytes; that is too much")));
        }
        let read = self.bytes.by_ref().take(count + 1).read_to_end(&mut bytes);
        read.map_err(undecoded)?;
        self.check(bytes.len() as u64, count, promise)?;
        Ok(bytes)
    }

    /// As [`exactly`](Self::exactly), for `images` images after a header of `header`
    /// bytes. They stay in the file if there is no room for them, and it is not packed.
    pub fn pixels(
        &mut self,
        header: u64,
        images: usize,
        count: Option<u64>,
        promise: &str,
        room: &Room,
    ) -> Result<Pixels> {
        let count = match count {
            Some(count) if !self.is_packed && images > 0 && !room.has(count) => count,
            _ => return Ok(self.exactly(count, promise)?.into()),
        };
        let file = disk::open(self.path)?;
        let about = file.metadata().map_err(Error::file("read", self.path))?;
        self.check(about.len().saturating_sub(header), count, promise)?;
        room.say(self.path.display(), "the images take", count, "it");
        let records = Records {
            first: header,
            distance: count / images as u64,
            count: images,
        };
        Ok(Pixels::in_files(vec![(file, self.path.into())], records))
    }

    /// Refuses a file with more or fewer bytes than it should have.
    fn check(&self, found: u64, count: u64, promise: &str) -> Result<()> {
        let problem = match found.cmp(&count) {
            Ordering::Equal => return Ok(()),
            Ordering::Less => format!("{promise}, {count} bytes; found only {found}"),
            Ordering::Greater => format!("{promise}, {count} bytes; found more"),
        };
        Err(self.fault(problem))
    }
}
