//! Windows of tokens as examples.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use flate2::Crc;
use rayon::prelude::*;

use super::passage::Passage;
use super::tokenizer::{pieces, Encoded, Tokenizer};
use crate::data::growing::{Growing, Stored};
use crate::data::Room;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples, Passages};

/// Windows of equally many tokens, each with the next token as its label, and with some of
/// the tokens before it. They are cut on demand.
#[derive(Clone)]
pub struct Windows {
    pub(super) tokens: Arc<Stored<u32>>,
    /// For each passage, its end in `tokens`, and the number of windows in it and all
    /// earlier passages.
    ends: Arc<[(usize, usize)]>,
    window: usize,
    /// The number of tokens before a window.
    before: usize,
    /// The token for those before the beginning of a passage.
    filler: u32,
    pub(crate) characters: usize,
    pub(crate) unknown: usize,
    /// The number of passages without a window.
    pub(super) short: usize,
    /// The number of tokens of the longest passage.
    pub(crate) longest: usize,
}

impl Windows {
    /// All windows of some passages. Passages that are not longer than the window have
    /// none. The tokens stay in a temporary file if there is no room for them.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown symbol, if there is no unknown token, and for a
    /// window of 0 tokens; [`Error::File`] if a temporary file cannot be written.
    pub fn new(
        passages: &[Passage],
        tokenizer: &Tokenizer,
        window: usize,
        room: &Room,
    ) -> Result<Self> {
        if window == 0 {
            return Err(Error::usage(
                "data",
                "expected a window of at least 1 token, found 0",
            ));
        }
        let all = passages.iter().enumerate();
        let all = all.flat_map(|(passage, text)| {
            let some = pieces(text).into_iter();
            some.map(move |piece| (passage, piece))
        });
        let mut all = all.peekable();
        let mut begun = Begun::new(tokenizer, window, room);
        let mut passage = 0;
        // Pieces are encoded in parallel, as many at a time as limit the memory.
        while all.peek().is_some() {
            let some: Vec<(usize, &str)> = all.by_ref().take(AT_ONCE).collect();
            let encoded = some
                .par_iter()
                .map(|(_, piece)| tokenizer.encode_piece(piece));
            let encoded: Vec<_> = encoded.collect();
            for ((of, _), encoded) in some.into_iter().zip(encoded) {
                while passage < of {
                    begun.end_passage();
                    passage += 1;
                }
                begun.add(encoded?)?;
            }
        }
        (passage..passages.len()).for_each(|_| begun.end_passage());
        begun.finish()
    }

    /// The same, with the `before` tokens before each window as a part of its example. The
    /// [filler](Tokenizer::filler) stands for those before the beginning of a passage.
    pub fn with_before(self, before: usize) -> Self {
        Self { before, ..self }
    }

    /// Adds the example with this index to `tokens`, and returns its label.
    fn add_to(&self, tokens: &mut Vec<u32>, index: usize) -> u32 {
        let passage = self.ends.partition_point(|(_, windows)| *windows <= index);
        let (end, windows) = self.ends[passage];
        let start = passage.checked_sub(1).map_or(0, |last| self.ends[last].0);
        let label = end - (windows - index);
        let first = start.max(label.saturating_sub(self.window + self.before));
        let missing = self.window + self.before - (label - first);
        tokens.extend(std::iter::repeat_n(self.filler, missing));
        tokens.extend_from_slice(&self.tokens[first..label]);
        self.tokens[label]
    }
}

/// The pieces of a text that are encoded at a time.
const AT_ONCE: usize = 64;

/// Windows that are being collected, piece by piece.
struct Begun<'a> {
    unknown: Option<u32>,
    filler: u32,
    window: usize,
    tokens: Growing<'a, u32>,
    ends: Vec<(usize, usize)>,
    characters: usize,
    unknown_tokens: usize,
    short: usize,
    longest: usize,
    passage: BegunPassage,
}

/// What was read of the last passage.
#[derive(Default)]
struct BegunPassage {
    tokens: usize,
    characters: usize,
    /// Its tokens, as long as it has no window.
    first: Vec<u32>,
    /// The position of its last token, if this is a known label.
    label: Option<usize>,
}

impl<'a> Begun<'a> {
    fn new(tokenizer: &Tokenizer, window: usize, room: &'a Room) -> Self {
        Self {
            unknown: tokenizer.unknown(),
            filler: tokenizer.filler().1,
            window,
            tokens: Growing::new(room),
            ends: Vec::new(),
            characters: 0,
            unknown_tokens: 0,
            short: 0,
            longest: 0,
            passage: BegunPassage::default(),
        }
    }

    /// Adds the next piece of the passage, with the number of its characters.
    fn add(&mut self, (Encoded { ids, starts }, characters): (Encoded, usize)) -> Result<()> {
        for (id, start) in ids.iter().zip(starts) {
            let start = self.passage.characters + start as usize;
            self.end_label(start);
            // An unknown token costs its bits but counts as no character, because it does
            // not determine the text.
            let is_known_label = self.passage.tokens >= self.window && Some(*id) != self.unknown;
            self.passage.label = is_known_label.then_some(start);
            self.passage.tokens += 1;
        }
        self.passage.characters += characters;
        let mut first = std::mem::take(&mut self.passage.first);
        if self.passage.tokens <= self.window {
            first.extend(ids);
            self.passage.first = first;
            return Ok(());
        }
        let (before, _) = self.ends.last().copied().unwrap_or_default();
        if before + self.passage.tokens > u32::MAX as usize {
            let problem = format!("has more than {} tokens; use a part of it", u32::MAX);
            return Err(Error::usage("the text", problem));
        }
        for ids in [first, ids] {
            let unknown = ids.iter().filter(|id| Some(**id) == self.unknown);
            self.unknown_tokens += unknown.count();
            self.tokens.add(&ids)?;
        }
        Ok(())
    }

    fn end_label(&mut self, end: usize) {
        let start = self.passage.label.take();
        self.characters += start.map_or(0, |start| end - start);
    }

    fn end_passage(&mut self) {
        self.end_label(self.passage.characters);
        let tokens = std::mem::take(&mut self.passage).tokens;
        self.longest = self.longest.max(tokens);
        let (end, windows) = self.ends.last().copied().unwrap_or_default();
        match tokens.checked_sub(self.window) {
            None | Some(0) => self.short += 1,
            Some(more) => self.ends.push((end + tokens, windows + more)),
        }
    }

    fn finish(self) -> Result<Windows> {
        Ok(Windows {
            tokens: self.tokens.finish()?.into(),
            ends: self.ends.into(),
            window: self.window,
            before: 0,
            filler: self.filler,
            characters: self.characters,
            unknown: self.unknown_tokens,
            short: self.short,
            longest: self.longest,
        })
    }
}

impl Examples for Windows {
    fn len(&self) -> usize {
        self.ends.last().map_or(0, |(_, windows)| *windows)
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        if augment.is_some_and(|augment| augment.shift > 0 || augment.flip) {
            return Err(Error::usage(
                "data",
                "`shift` and `flip` are for images; use 0 and false for text".to_string(),
            ));
        }
        let width = self.before + self.window;
        let mut tokens = Vec::with_capacity(indices.len() * width);
        let labels = indices.iter().map(|index| self.add_to(&mut tokens, *index));
        let labels = labels.collect();
        Batch::new(
            Tensor::from_vec(tokens, (indices.len(), width), &Device::Cpu)?,
            labels,
        )
    }

    fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc::new();
        let numbers = self.ends.iter().map(|(end, _)| *end as u32);
        for number in numbers.chain(self.tokens.iter().copied()) {
            crc.update(&number.to_le_bytes());
        }
        Ok(crc.sum())
    }

    fn passages(&self) -> Option<Passages<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        let documents = starts
            .zip(self.ends.iter())
            .map(|(start, (end, _))| &self.tokens[start..*end])
            .collect();
        Some(Passages {
            documents,
            window: self.window,
            characters: self.characters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::text::is_lossy;
    use crate::data::text::tests::passages;
    use crate::data::text::tokenizer::Units;

    fn windows(texts: &[&str], tokenizer: &Tokenizer, window: usize) -> Result<Windows> {
        Windows::new(&passages(texts), tokenizer, window, &Room::default())
    }

    /// A passage of many pieces between short ones, in memory and in a temporary file.
    #[test]
    fn windows_of_a_long_text_are_those_of_all_its_tokens() -> Result<()> {
        let word = |i: usize| format!("{} {i}{}", ["the", "狐狸"][i % 2], [" ", "\n"][i % 3 / 2]);
        let long: String = (0..60_000).map(word).collect();
        let tokenizer = Tokenizer::train(Units::Word(Some(500)), &[&long])?;
        let texts = passages(&["the 狐狸", "", &long, "the", &long[..102]]);
        let window = 4;
        let (mut tokens, mut characters, mut unknown) = (Vec::new(), 0, 0);
        for text in [&long[..], &long[..102]] {
            let Encoded { ids, starts } = tokenizer.encode(text)?;
            let ends = starts[1..].iter().copied();
            let ends = ends.chain([text.chars().count() as u32]);
            for (place, (id, (start, end))) in ids.iter().zip(starts.iter().zip(ends)).enumerate() {
                let is_unknown = Some(*id) == tokenizer.unknown();
                unknown += usize::from(is_unknown);
                if place >= window && !is_unknown {
                    characters += (end - start) as usize;
                }
            }
            tokens.extend(ids);
        }
        assert!(pieces(&long).len() > 8 && unknown > 1000);
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(Some(folder.path().into()));
        for room in [room.clone(), room.at_most(1000)] {
            let windows = Windows::new(&texts, &tokenizer, window, &room)?;
            assert!(windows.tokens[..] == tokens);
            assert_eq!(windows.len(), tokens.len() - 2 * window);
            assert_eq!((windows.characters, windows.unknown), (characters, unknown));
            assert_eq!(windows.short, 3);
            assert_eq!(windows.longest, tokenizer.encode(&long)?.ids.len());
        }
        Ok(())
    }

    #[test]
    fn no_window_crosses_from_one_passage_to_the_next() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Char, &["abcdefg"])?;
        let windows = windows(&["abcd", "ab", "efgab", ""], &tokenizer, 2)?;
        assert_eq!(
            (windows.len(), windows.short, windows.characters),
            (5, 2, 5)
        );
        let batch = windows.batch(&[4, 0, 1, 2, 3], None)?;
        let text = batch
            .rows()
            .to_vec2::<u32>()?
            .iter()
            .map(|row| tokenizer.decode(row))
            .collect::<Result<Vec<_>>>()?;
        assert_eq!(text, ["ga", "ab", "bc", "ef", "fg"]);
        assert_eq!(tokenizer.decode(batch.labels()?)?, "bcdga");
        let passages = windows.passages().expect("text");
        assert_eq!(tokenizer.decode(passages.documents[1])?, "efgab");
        let step = crate::flow::step::Step::evaluation(1);
        assert!(windows
            .batch(
                &[0],
                Some(&Augment {
                    shift: 1,
                    flip: false,
                    step: &step
                })
            )
            .is_err());
        Ok(())
    }

    #[test]
    fn line_ends_stand_for_the_tokens_before_a_passage() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Char, &["abcdefg\n"])?;
        let windows = windows(&["abcd", "efgab"], &tokenizer, 2)?.with_before(2);
        let batch = windows.batch(&[1, 4, 2], None)?;
        let rows = batch.rows().to_vec2::<u32>()?;
        let text = rows.iter().map(|row| tokenizer.decode(row));
        let text: Vec<String> = text.collect::<Result<_>>()?;
        assert_eq!(text, ["\nabc", "efga", "\n\nef"]);
        assert_eq!(tokenizer.decode(batch.labels()?)?, "dbg");
        let passages = windows.passages().expect("text");
        assert_eq!((windows.len(), passages.window), (5, 2));
        Ok(())
    }

    #[test]
    fn labels_cover_the_characters_after_the_first_window() -> Result<()> {
        let text = "The fox — said nobody — sang 狐狸 songs. ".repeat(3);
        for units in [
            Units::Char,
            Units::Word(None),
            Units::Bpe(Some(256)),
            Units::Bpe(Some(270)),
        ] {
            let tokenizer = Tokenizer::train(units, &[&text])?;
            let windows = windows(&[&text], &tokenizer, 3)?;
            let first = tokenizer.encode(&text)?.ids[..3].to_vec();
            let before = tokenizer.decode(&first)?.chars().count();
            assert_eq!(
                windows.characters,
                text.chars().count() - before,
                "{units:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn unknown_tokens_cover_no_characters() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Word(Some(3)), &["the fox, the fox, the crow"])?;
        // The words are the| fox|,| the| fox|,| the| crow; ` fox` and ` the` are known,
        // `the` at the beginning is not.
        let windows = windows(&["the fox, the fox, the crow"], &tokenizer, 1)?;
        assert_eq!((windows.len(), windows.characters), (7, 4 + 4 + 4 + 4));
        assert!(!is_lossy(&passages(&["the fox", " the fox"]), &tokenizer)?);
        Ok(())
    }

    /// Also beside an unknown token.
    #[test]
    fn lower_case_is_lossy() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Char, &["the fox"])?;
        assert!(!is_lossy(&passages(&["the 7 fox", "7"]), &tokenizer)?);
        let mut json: serde_json::Value = serde_json::from_str(tokenizer.to_json()).unwrap();
        json["normalizer"] = serde_json::json!({ "type": "Lowercase" });
        let tokenizer = Tokenizer::from_json(json.to_string())?;
        assert!(!is_lossy(&passages(&["the 7 fox"]), &tokenizer)?);
        assert!(is_lossy(&passages(&["The 7 fox"]), &tokenizer)?);
        Ok(())
    }
}
