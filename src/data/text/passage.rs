//! Passages of a text, which share its characters.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::data::growing::{Growing, Stored};
use crate::data::Room;
use crate::error::Result;

/// A passage of a text. Its copies and parts share the characters, which are in memory or,
/// if there is no room for them, in a temporary file.
#[derive(Clone)]
pub struct Passage {
    /// All of the text, in UTF-8.
    text: Arc<Stored<u8>>,
    /// The bytes of the passage; they begin and end with whole characters.
    range: Range<usize>,
}

impl Passage {
    /// A part of the passage.
    ///
    /// # Panics
    /// If there is no character that begins, or ends, at these bytes.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let part = &self[range.clone()];
        let start = self.range.start + range.start;
        Self {
            text: self.text.clone(),
            range: start..start + part.len(),
        }
    }
}

impl Deref for Passage {
    type Target = str;

    fn deref(&self) -> &str {
        let bytes = &self.text[self.range.clone()];
        // SAFETY: the bytes come from `str` and never change. `slice` cuts between
        // characters.
        #[allow(unsafe_code)]
        unsafe {
            std::str::from_utf8_unchecked(bytes)
        }
    }
}

impl From<String> for Passage {
    fn from(text: String) -> Self {
        let range = 0..text.len();
        let text = Arc::new(Stored::Memory(text.into_bytes()));
        Self { text, range }
    }
}

impl From<&str> for Passage {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

impl PartialEq for Passage {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Passage {}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Collects a text piece by piece.
pub(super) struct Collector<'a> {
    room: &'a Room,
    text: Growing<'a, u8>,
}

impl<'a> Collector<'a> {
    pub fn new(room: &'a Room) -> Self {
        let text = Growing::new(room);
        Self { room, text }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a temporary file cannot be made or written.
    pub fn add(&mut self, piece: &str) -> Result<()> {
        self.text.add(piece.as_bytes())
    }

    /// The whole text, from `place`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn finish(self, place: impl fmt::Display) -> Result<Passage> {
        let text = self.text.finish()?;
        if text.bytes_in_file() > 0 {
            let bytes = text.bytes_in_file();
            self.room.say_temporary(place, "the text takes", bytes);
        }
        let (range, text) = (0..text.len(), Arc::new(text));
        Ok(Passage { text, range })
    }
}

/// Splits a text at blank lines. Other lines are unchanged.
pub fn paragraphs(text: &Passage) -> Vec<Passage> {
    let (mut found, mut open, mut at) = (Vec::new(), None::<Range<usize>>, 0);
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            found.extend(open.take());
        } else {
            let start = open.map_or(at, |open| open.start);
            let end = line.strip_suffix('\n').unwrap_or(line);
            let end = end.strip_suffix('\r').unwrap_or(end);
            open = Some(start..at + end.len());
        }
        at += line.len();
    }
    found.extend(open);
    let passages = found.into_iter().map(|range| text.slice(range));
    passages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_end_with_blank_lines() {
        let found = paragraphs(&"\n a b\nc\r\n \r\n\n\nd\n".into());
        assert_eq!(found, [" a b\nc", "d"].map(Passage::from));
        assert_eq!(*found[1].slice(0..1), *"d");
    }

    #[test]
    #[should_panic(expected = "char boundary")]
    fn a_passage_has_whole_characters() {
        Passage::from("né").slice(0..2);
    }
}
