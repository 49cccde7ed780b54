//! The text in a file, or what else is in it.

use std::io::Read;
use std::path::Path;

use crate::disk;
use crate::error::{shell_word, Error, Result};
use crate::kernels::memory;

/// Reads the text in a file.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Data`] if it is empty, or not UTF-8,
/// with the position.
pub fn read(path: &Path) -> Result<String> {
    let fault = |problem: String| Error::data(path, problem);
    let room = room();
    let size = disk::open(path)?.metadata().map_or(0, |about| about.len());
    if size > room {
        let [size, room] = [size, room].map(|bytes| bytes >> 20);
        return Err(fault(format!(
            "has {size} MB, expected at most {room} MB, a quarter of the free memory; use a part \
             of the text"
        )));
    }
    decoded(path, disk::read(path, room)?)
}

/// Reads the text in a file, or on stdin for `-`.
///
/// # Errors
/// As [`read`].
pub fn read_or_stdin(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return read(path);
    }
    let (path, room) = (Path::new("stdin"), room());
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(room + 1)
        .read_to_end(&mut bytes);
    read.map_err(Error::file("read", path))?;
    if bytes.len() as u64 > room {
        let problem = format!(
            "has more than {} MB, a quarter of the free memory",
            room >> 20
        );
        return Err(Error::data(path, problem));
    }
    decoded(path, bytes)
}

/// The most bytes of a text: a quarter of the free memory.
fn room() -> u64 {
    memory::available().unwrap_or(u64::MAX / 8) / 4
}

/// Text from bytes in UTF-8, without a byte order mark.
fn decoded(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let fault = |problem: String| Error::data(path, problem);
    if let Some([problem, cure]) = other_format(&bytes) {
        return Err(fault(format!("{problem}, expected text; {cure}")));
    }
    if let Some(encoding) = wide(&bytes) {
        let cure = format!(
            "iconv -f {encoding} -t UTF-8 {}",
            shell_word(&path.display().to_string())
        );
        return Err(fault(format!(
            "is {encoding}, expected UTF-8; convert it, for example with: {cure} > text.txt"
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        if let Some(found) = not_text(error.as_bytes()) {
            return fault(format!(
                "is not text but {found}; expected plain text in UTF-8, choose another file"
            ));
        }
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        // Latin-1 may end with such a byte too; text in UTF-8 has had other characters.
        let is_utf_8 = !error.as_bytes()[..at].is_ascii();
        if is_utf_8 && error.utf8_error().error_len().is_none() {
            return fault(format!(
                "breaks off within a character at byte {at}; expected all of the text"
            ));
        }
        // Latin-1 has no characters there, only controls.
        let (name, encoding) = match byte {
            0x80..=0x9f => ("Windows-1252", "CP1252"),
            _ => ("Latin-1", "LATIN1"),
        };
        fault(format!(
            "is not UTF-8 at byte {at} (0x{byte:02x}); expected plain text. If it is {name}, \
             convert it: iconv -f {encoding} -t UTF-8"
        ))
    })?;
    let text = normalised(&text);
    if text.trim().is_empty() {
        return Err(fault("is empty; expected text".into()));
    }
    Ok(text)
}

/// Text without a byte order mark. Line ends of other systems, which would be tokens of
/// their own, become `\n`.
pub fn normalised(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.replace("\r\n", "\n")
}

/// What a file is that is no text, by its first bytes, and how it becomes text.
fn other_format(bytes: &[u8]) -> Option<[&'static str; 2]> {
    let known: [(&[u8], [&str; 2]); 4] = [
        (
            &[0x1f, 0x8b],
            ["is compressed (gzip)", "unpack it with gunzip"],
        ),
        (b"\xfd7zXZ", ["is compressed (xz)", "unpack it with unxz"]),
        (
            b"%PDF-",
            ["is a PDF", "convert it, for example with pdftotext"],
        ),
        (
            b"PK\x03\x04",
            [
                "is a zip file, as are .docx and .epub",
                "save the document as plain text",
            ],
        ),
    ];
    let found = known.iter().find(|(start, _)| bytes.starts_with(start));
    found.map(|(_, words)| *words)
}

/// What bytes are that have never been text: pictures, programs, or anything with many
/// control characters.
fn not_text(bytes: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 7] = [
        (b"\x89PNG", "a PNG image"),
        (&[0xff, 0xd8, 0xff], "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"RIFF", "a WebP image, or sound"),
        (b"\x7fELF", "a program"),
        (b"BZh", "compressed data (bzip2)"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "compressed data (zstd)"),
    ];
    let found = known.iter().find(|(start, _)| bytes.starts_with(start));
    let start = &bytes[..bytes.len().min(1 << 12)];
    let is_control = |byte: &u8| *byte < b' ' && !b"\t\n\r\x0c\x1b".contains(byte);
    let controls = start.iter().filter(|byte| is_control(byte)).count();
    // Bytes of every kind have a tenth of them, old texts hardly any.
    let is_data = (controls > start.len() / 50).then_some("data with control characters");
    found.map(|(_, words)| *words).or(is_data)
}

/// UTF-16, by its mark or by the zeros between its letters.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(1 << 12)];
    let zeros = |first: usize| {
        let every_second = start.iter().skip(first).step_by(2);
        every_second.filter(|byte| **byte == 0).count()
    };
    // Most letters of most texts are below 256.
    let many = start.len() / 5;
    match start {
        [0xff, 0xfe, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] => Some("UTF-32BE"),
        [0xff, 0xfe, ..] => Some("UTF-16LE"),
        [0xfe, 0xff, ..] => Some("UTF-16BE"),
        _ if start.len() < 4 => None,
        _ if zeros(1) > many && zeros(0) == 0 => Some("UTF-16LE"),
        _ if zeros(0) > many && zeros(1) == 0 => Some("UTF-16BE"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_text_is_refused_with_the_position() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |bytes: &[u8], expected: &str| {
            let path = folder.path().join("a.txt");
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(
                error.contains("a.txt") && error.contains(expected),
                "{error}"
            );
        };
        refused(b"caf\xe9 noir", "not UTF-8 at byte 3 (0xe9)");
        refused(b"caf\xe9 noir", "iconv -f LATIN1");
        refused(b"\xff\xfe\0\0a\0\0\0", "is UTF-32LE");
        refused(b"\x1f\x8b\x08\0", "compressed (gzip)");
        refused(b"%PDF-1.4\n\xe2\xe3", "is a PDF, expected text; convert it");
        refused(b"PK\x03\x04\x14\0", "is a zip file, as are .docx");
        refused(b"a \x93word\x94", "iconv -f CP1252");
        refused(b"caf\xe9", "iconv -f LATIN1");
        refused(b"caf\xe9\x0c\n\x1b[0m", "iconv -f LATIN1");
        refused(
            b"\x89PNG\r\n\x1a\n\0",
            "is not text but a PNG image; expected",
        );
        refused(b"\xff\xd8\xff\xe0", "is not text but a JPEG image");
        refused(b"GIF89a\x01\xf7", "is not text but a GIF image");
        refused(b"RIFF\x90\x01\0\0WEBP", "is not text but a WebP image");
        refused(b"\x7fELF\x02\x01\x80", "is not text but a program");
        let noise: Vec<u8> = (0..=255).collect();
        refused(&noise, "is not text but data with control characters");
        refused(b"\xc3\xa9t\xc3", "breaks off within a character at byte 3");
        refused(b"", "is empty");
        refused(b" \n\n", "is empty");
        assert!(matches!(
            read(&folder.path().join("none")),
            Err(Error::File { .. })
        ));
    }

    #[test]
    fn line_ends_of_other_systems_are_read_as_one_character() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "\u{feff}the fox\r\nand\rthe crow\r\n").unwrap();
        assert_eq!(read(&path)?, "the fox\nand\rthe crow\n");
        Ok(())
    }
}
