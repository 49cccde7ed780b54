//! Where on the page a context ends, as one-hot slots.

use crate::data::text::tokenizer::Tokenizer;
use crate::error::Result;

/// Tells where on the page a context ends, which says much about where its line will: in
/// verse, in code, in lists and in text with line ends at a margin.
pub struct Layout {
    /// For each token, the number of characters before its first line end, between each
    /// two, and after the last.
    pieces: Vec<Box<[usize]>>,
}

/// The number of slots.
pub const SLOTS: usize = 3;

/// The number of entries of a slot: of each pair of two lengths in steps of [`STEP`].
pub const CLASSES: usize = STEPS * STEPS;

/// The length from which on lines count as equally long.
const LONGEST: usize = 80;

/// The characters in a step of the length of a line.
const STEP: usize = 4;

/// The number of steps, with one for an unknown length.
const STEPS: usize = LONGEST / STEP + 2;

/// The number of lines from which on an empty line counts as unknown.
const LINES: usize = 20;

impl Layout {
    /// For the tokens of this tokenizer; `None` if none of them ends a line.
    ///
    /// # Errors
    /// As [`Tokenizer::text_of`].
    pub fn new(tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let pieces = |token: u32| -> Result<Box<[usize]>> {
            let text = tokenizer.text_of(token)?;
            Ok(text
                .split('\n')
                .map(|piece| piece.chars().count())
                .collect())
        };
        let tokens = 0..tokenizer.vocabulary().len() as u32;
        let pieces: Vec<Box<[usize]>> = tokens.map(pieces).collect::<Result<_>>()?;
        let ends_lines = pieces.iter().any(|pieces| pieces.len() > 1);
        Ok(ends_lines.then_some(Self { pieces }))
    }

    /// The entry of each slot: the length of the line so far, the lengths of the line
    /// before and of the line so far together, and the number of lines since an empty one.
    pub fn slots(&self, context: &[u32]) -> [u32; SLOTS] {
        // The lengths of the lines from the last one on; the beginning of the first one
        // in the context is unknown.
        let (mut last, mut before, mut line, mut length) = (None, None, 0, 0);
        let mut empty = LINES + 1;
        'context: for token in context.iter().rev() {
            let mut pieces = self.pieces[*token as usize].iter().rev();
            length += pieces.next().unwrap_or(&0);
            for piece in pieces {
                match line {
                    0 => last = Some(length),
                    1 => before = Some(length),
                    _ => (),
                }
                if line > 0 && length == 0 {
                    empty = line;
                }
                if line >= LINES.min(empty) {
                    break 'context;
                }
                line += 1;
                length = *piece;
            }
        }
        let steps =
            |length: Option<usize>| length.map_or(STEPS - 1, |length| length.min(LONGEST) / STEP);
        let column = last.map_or(LONGEST + 1, |length| length.min(LONGEST));
        let lengths = steps(before) * STEPS + steps(last);
        [column, lengths, empty].map(|entry| entry as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(text: &str) -> Result<[u32; SLOTS]> {
        let tokenizer = Tokenizer::characters("abc \n")?;
        let layout = Layout::new(&tokenizer)?.expect("there are line ends");
        Ok(layout.slots(&tokenizer.encode(text)?.ids))
    }

    #[test]
    fn slots_tell_the_lengths_of_lines_and_the_empty_line_before() -> Result<()> {
        let unknown = STEPS as u32 - 1;
        let pair = |before: u32, last: u32| before * STEPS as u32 + last;
        // The beginning of the line is not in the context.
        assert_eq!(slots("abc")?, [81, pair(unknown, unknown), 21]);
        assert_eq!(slots("abc\nab")?, [2, pair(unknown, 0), 21]);
        assert_eq!(slots("\nabc abc\nabc a")?, [5, pair(1, 1), 21]);
        // One line, and two lines after an empty one.
        assert_eq!(slots("a\n\nabcab")?, [5, pair(0, 1), 1]);
        assert_eq!(slots("a\n\nabcab\n")?, [0, pair(1, 0), 2]);
        let long = format!("\n{}\n{}", "a".repeat(500), "b".repeat(79));
        assert_eq!(slots(&long)?, [79, pair(20, 19), 21]);
        let lines = |count: usize| slots(&format!("b\n\n{}", "a\n".repeat(count)));
        assert_eq!((lines(18)?[2], lines(19)?[2], lines(30)?[2]), (19, 20, 21));
        assert!(slots(&long)?.iter().all(|entry| *entry < CLASSES as u32));
        Ok(())
    }

    #[test]
    fn there_is_no_layout_without_line_ends() -> Result<()> {
        assert!(Layout::new(&Tokenizer::characters("abc ")?)?.is_none());
        Ok(())
    }

    #[test]
    fn a_token_may_have_several_line_ends() -> Result<()> {
        // `ab`, `c\n\na`, `b`
        let pieces = [&[2][..], &[1, 0, 1], &[1]].map(Into::into);
        let layout = Layout {
            pieces: pieces.into(),
        };
        assert_eq!(layout.slots(&[0, 1, 2]), slots("abc\n\nab")?);
        Ok(())
    }
}
