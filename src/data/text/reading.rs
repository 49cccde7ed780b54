//! The text in a file, or what else is in it.

use std::io::Read;
use std::path::Path;

use super::passage::{Collector, Passage};
use crate::data::Room;
use crate::disk;
use crate::error::{shell_word, Error, Result};

/// Reads the text in a file.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Data`] if it is empty, or not UTF-8,
/// with the position.
pub fn read(path: &Path, room: &Room) -> Result<Passage> {
    decoded(path, disk::open(path)?, room)
}

/// Reads the text in a file, or on stdin for `-`.
///
/// # Errors
/// As [`read`].
pub fn read_or_stdin(path: &Path) -> Result<Passage> {
    let room = Room::default();
    match path == Path::new("-") {
        true => decoded(Path::new("stdin"), std::io::stdin().lock(), &room),
        false => read(path, &room),
    }
}

/// The bytes that are decoded at a time.
const BLOCK: usize = 1 << 20;

/// Text from bytes in UTF-8, block by block, without a byte order mark.
fn decoded(path: &Path, mut bytes: impl Read, room: &Room) -> Result<Passage> {
    let fault = |problem: String| Error::data(path, problem);
    let mut text = Collector::new(room);
    let (mut block, mut place) = (Vec::with_capacity(BLOCK), 0);
    let mut start = Vec::new();
    let (mut is_ascii, mut is_blank) = (true, true);
    loop {
        let read = bytes.by_ref().take(BLOCK as u64).read_to_end(&mut block);
        let is_at_end = read.map_err(Error::file("read", path))? == 0;
        if start.is_empty() {
            start.extend_from_slice(&block[..block.len().min(START)]);
            check_format(path, &start)?;
        }
        let mut whole = match std::str::from_utf8(&block) {
            Ok(text) => text,
            // The rest of a character is in the next block.
            Err(error) if error.error_len().is_none() && !is_at_end => {
                std::str::from_utf8(&block[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(error) => {
                let at = error.valid_up_to();
                // Latin-1 may end with such a byte too; text in UTF-8 has had other
                // characters.
                let is_utf_8 = !is_ascii || !block[..at].is_ascii();
                let is_cut = is_utf_8 && error.error_len().is_none();
                return Err(fault(not_utf_8(
                    path,
                    &start,
                    place + at,
                    block[at],
                    is_cut,
                )));
            }
        };
        // The other half of a line end may be in the next block too.
        if !is_at_end {
            whole = whole.strip_suffix('\r').unwrap_or(whole);
        }
        is_ascii &= whole.is_ascii();
        let unmarked = match place {
            0 => unmarked(whole),
            _ => whole,
        };
        is_blank &= unmarked.trim().is_empty();
        text.add(&with_line_ends(unmarked))?;
        place += whole.len();
        block.drain(..whole.len());
        if is_at_end {
            break;
        }
    }
    if is_blank {
        return Err(fault("is empty; expected text".into()));
    }
    text.finish(path.display())
}

/// The bytes at the beginning of a file that show what it is.
const START: usize = 1 << 12;

/// Refuses a file that begins like one of another format.
fn check_format(path: &Path, start: &[u8]) -> Result<()> {
    let fault = |problem: String| Err(Error::data(path, problem));
    if let Some([problem, cure]) = other_format(start) {
        return fault(format!("{problem}, expected text; {cure}"));
    }
    if let Some(encoding) = wide(start) {
        let cure = converted(path, encoding);
        return fault(format!(
            "is {encoding}, expected UTF-8; convert it, for example with: {cure}"
        ));
    }
    Ok(())
}

/// The command that converts a file to UTF-8.
fn converted(path: &Path, encoding: &str) -> String {
    let path = shell_word(&path.display().to_string());
    format!("iconv -f {encoding} -t UTF-8 {path} > text.txt")
}

/// What is wrong with a file that begins with `start` and has a byte that is not UTF-8.
fn not_utf_8(path: &Path, start: &[u8], at: usize, byte: u8, is_cut: bool) -> String {
    if let Some(found) = not_text(start) {
        return format!(
            "is not text but {found}; expected plain text in UTF-8, choose another file"
        );
    }
    if is_cut {
        return format!("breaks off within a character at byte {at}; expected all of the text");
    }
    // Latin-1 has no characters there, only controls.
    let (name, encoding) = match byte {
        0x80..=0x9f => ("Windows-1252", "CP1252"),
        _ => ("Latin-1", "LATIN1"),
    };
    let cure = converted(path, encoding);
    format!(
        "is not UTF-8 at byte {at} (0x{byte:02x}); expected plain text. If it is {name}, convert \
         it: {cure}"
    )
}

/// Text without a byte order mark. Line ends of other systems, which would be tokens of
/// their own, become `\n`.
pub fn normalised(text: &str) -> String {
    with_line_ends(unmarked(text))
}

fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn with_line_ends(text: &str) -> String {
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
    let start = &bytes[..bytes.len().min(START)];
    let is_control = |byte: &u8| *byte < b' ' && !b"\t\n\r\x0c\x1b".contains(byte);
    let controls = start.iter().filter(|byte| is_control(byte)).count();
    // Bytes of every kind have a tenth of them, old texts hardly any.
    let is_data = (controls > start.len() / 50).then_some("data with control characters");
    found.map(|(_, words)| *words).or(is_data)
}

/// UTF-16, by its mark or by the zeros between its letters.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(START)];
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
            let error = read(&path, &Room::default()).unwrap_err().to_string();
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
        refused(b"\xef\xbb\xbf\r\n", "is empty");
        refused(b" \n\n", "is empty");
        assert!(matches!(
            read(&folder.path().join("none"), &Room::default()),
            Err(Error::File { .. })
        ));
    }

    #[test]
    fn line_ends_of_other_systems_are_read_as_one_character() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "\u{feff}the fox\r\nand\rthe crow\r\n").unwrap();
        let text = read(&path, &Room::default())?;
        assert_eq!(*text, *"the fox\nand\rthe crow\n");
        Ok(())
    }

    /// Characters and line ends that cross the border of a block, in memory and in a
    /// temporary file.
    #[test]
    fn a_text_of_many_blocks_is_read_as_a_whole() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let room = Room::new(Some(folder.path().join("cache")));
        for shift in 0..5 {
            let text = format!("{}{}\r", "a".repeat(shift), "狐\r\n".repeat(BLOCK / 2));
            std::fs::write(&path, &text).unwrap();
            for room in [room.clone(), room.clone().at_most(0)] {
                assert!(*read(&path, &room)? == *normalised(&text), "{shift}");
            }
        }
        let cut = "é".repeat(BLOCK);
        std::fs::write(&path, &cut.as_bytes()[..2 * BLOCK - 1]).unwrap();
        let error = read(&path, &room).unwrap_err().to_string();
        let expected = format!("within a character at byte {}", 2 * BLOCK - 2);
        assert!(error.contains(&expected), "{error}");
        Ok(())
    }
}
