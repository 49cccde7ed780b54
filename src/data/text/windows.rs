//! Windows of tokens as examples.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use flate2::Crc;
use rayon::prelude::*;

use crate::data::text::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples, Passages};

/// Windows of equally many tokens, each with the next token as its label. They are cut on
/// demand.
#[derive(Clone)]
pub struct Windows {
    pub(super) tokens: Arc<[u32]>,
    /// For each passage, its end in `tokens`, and the number of windows in it and all
    /// earlier passages.
    ends: Arc<[(usize, usize)]>,
    window: usize,
    pub(crate) characters: usize,
    pub(crate) unknown: usize,
    pub(super) short: usize,
}

impl Windows {
    /// All windows of some documents. Documents that are not longer than the window have
    /// none.
    ///
    /// # Errors
    /// Errors of [`Tokenizer::encode`]; [`Error::Usage`] for a window of 0 tokens.
    pub fn new(documents: &[String], tokenizer: &Tokenizer, window: usize) -> Result<Self> {
        if window == 0 {
            return Err(Error::usage(
                "data",
                "expected a window of at least 1 token, found 0",
            ));
        }
        let (mut tokens, mut ends): (Vec<u32>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        let (mut characters, mut short, mut windows) = (0, 0, 0);
        // Documents are encoded in parallel, in chunks that limit the memory.
        for documents in documents.chunks(256) {
            let encoded: Vec<_> = documents
                .par_iter()
                .map(|document| tokenizer.encode(document))
                .collect();
            for (document, encoded) in documents.iter().zip(encoded) {
                let encoded = encoded?;
                if encoded.ids.len() <= window {
                    short += 1;
                    continue;
                }
                // An unknown token costs its bits but counts as no character, because it
                // does not determine the text.
                let behind = encoded.starts[1..]
                    .iter()
                    .copied()
                    .chain([document.chars().count() as u32]);
                let labels = encoded
                    .ids
                    .iter()
                    .zip(&encoded.starts)
                    .zip(behind)
                    .skip(window);
                let known = labels.filter(|((id, _), _)| Some(**id) != tokenizer.unknown());
                characters += known
                    .map(|((_, start), end)| (end - start) as usize)
                    .sum::<usize>();
                windows += encoded.ids.len() - window;
                tokens.extend(encoded.ids);
                ends.push((tokens.len(), windows));
            }
        }
        let unknown = tokens
            .iter()
            .filter(|token| Some(**token) == tokenizer.unknown())
            .count();
        Ok(Self {
            tokens: tokens.into(),
            ends: ends.into(),
            window,
            characters,
            unknown,
            short,
        })
    }

    /// The window with this index and the next token.
    pub(super) fn at(&self, index: usize) -> &[u32] {
        let passage = self.ends.partition_point(|(_, windows)| *windows <= index);
        let (end, windows) = self.ends[passage];
        &self.tokens[end - (windows - index) - self.window..][..self.window + 1]
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
        let (mut tokens, mut labels) =
            (Vec::with_capacity(indices.len() * self.window), Vec::new());
        for &index in indices {
            let (window, label) = self.at(index).split_at(self.window);
            tokens.extend_from_slice(window);
            labels.extend_from_slice(label);
        }
        Batch::new(
            Tensor::from_vec(tokens, (indices.len(), self.window), &Device::Cpu)?,
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
    use crate::data::text::tokenizer::Units;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn no_window_crosses_from_one_passage_to_the_next() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Char, &["abcdefg"])?;
        let windows = Windows::new(&strings(&["abcd", "ab", "efgab", ""]), &tokenizer, 2)?;
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
    fn labels_cover_the_characters_after_the_first_window() -> Result<()> {
        let text = "The fox — said nobody — sang 狐狸 songs. ".repeat(3);
        for units in [
            Units::Char,
            Units::Word(None),
            Units::Bpe(Some(256)),
            Units::Bpe(Some(270)),
        ] {
            let tokenizer = Tokenizer::train(units, &[&text])?;
            let windows = Windows::new(std::slice::from_ref(&text), &tokenizer, 3)?;
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
        let windows = Windows::new(&strings(&["the fox, the fox, the crow"]), &tokenizer, 1)?;
        assert_eq!((windows.len(), windows.characters), (7, 4 + 4 + 4 + 4));
        assert!(!is_lossy(&strings(&["the fox", " the fox"]), &tokenizer)?);
        Ok(())
    }

    /// Also beside an unknown token.
    #[test]
    fn lower_case_is_lossy() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Char, &["the fox"])?;
        assert!(!is_lossy(&strings(&["the 7 fox", "7"]), &tokenizer)?);
        let mut json: serde_json::Value = serde_json::from_str(tokenizer.to_json()).unwrap();
        json["normalizer"] = serde_json::json!({ "type": "Lowercase" });
        let tokenizer = Tokenizer::from_json(json.to_string())?;
        assert!(!is_lossy(&strings(&["the 7 fox"]), &tokenizer)?);
        assert!(is_lossy(&strings(&["The 7 fox"]), &tokenizer)?);
        Ok(())
    }
}
