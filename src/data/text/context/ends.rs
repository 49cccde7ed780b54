//! Hashed ends of a context, as one-hot slots.

use super::ContextInputs;
use crate::data::text::tokenizer::Tokenizer;
use crate::error::Result;

/// Hashes the last tokens and the last words of a context: see [`ContextInputs`].
pub struct Ends {
    ngrams: usize,
    words: usize,
    buckets: usize,
    /// One for each end.
    slots: usize,
    /// Whether each token begins a word; empty without `words`.
    begins_word: Vec<bool>,
}

impl Ends {
    /// # Errors
    /// As [`Tokenizer::text_of`].
    pub fn new(settings: &ContextInputs, tokenizer: &Tokenizer) -> Result<Self> {
        let tokens = match settings.words {
            0 => 0..0,
            _ => 0..tokenizer.vocabulary().len() as u32,
        };
        let begins_word = |token: u32| -> Result<bool> {
            let text = tokenizer.text_of(token)?;
            // A part of a character is decoded as a replacement.
            let continues = |first: char| first.is_alphanumeric() || first == '\u{fffd}';
            Ok(!text.chars().next().is_some_and(continues))
        };
        Ok(Self {
            ngrams: settings.ngrams,
            words: settings.words,
            buckets: settings.buckets,
            slots: settings.slots(),
            begins_word: tokens.map(begins_word).collect::<Result<_>>()?,
        })
    }

    /// The number of slots, one for each end.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The number of entries of a slot.
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    /// The number of columns of all slots.
    pub fn width(&self) -> usize {
        self.slots() * self.buckets
    }

    /// Adds the entry of each slot.
    pub fn add_to(&self, index: &mut Vec<u32>, context: &[u32]) {
        let Self {
            ngrams,
            words,
            buckets,
            ..
        } = *self;
        let bucket = |hash: u64| (hash % buckets as u64) as u32;
        let end = index.len() + self.slots;
        // The hash of the last tokens, one more at each place.
        let hashes = context.iter().rev().scan(0, |hash, token| {
            *hash = mixed(*hash ^ (u64::from(*token) + 1));
            Some((*token, *hash))
        });
        let (mut word_ends, mut last) = (Vec::with_capacity(words), 0);
        for (place, (token, hash)) in hashes.enumerate() {
            if (1..ngrams).contains(&place) {
                index.push(bucket(hash));
            }
            if word_ends.len() < words && self.begins_word[token as usize] {
                word_ends.push(bucket(hash));
            }
            if place + 1 >= ngrams && word_ends.len() == words {
                break;
            }
            last = hash;
        }
        index.extend(word_ends);
        // Words that begin before the context.
        index.resize(end, bucket(last));
    }
}

/// Spreads a number over 64 bits: the finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::text::tokenizer::tests::SPACED;

    fn inputs(ngrams: usize, words: usize, buckets: usize) -> ContextInputs {
        ContextInputs {
            ngrams,
            words,
            buckets,
            ..ContextInputs::default()
        }
    }

    fn slots(settings: &ContextInputs, contexts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let tokenizer = Tokenizer::characters(" abcdefghi")?;
        let ends = Ends::new(settings, &tokenizer)?;
        let slots = contexts.iter().map(|text| {
            let mut slots = Vec::new();
            ends.add_to(&mut slots, &tokenizer.encode(text)?.ids);
            assert_eq!(slots.len(), ends.slots());
            Ok(slots)
        });
        slots.collect()
    }

    // def mixed(n):
    //     m = 2**64 - 1
    //     z = n + 0x9e3779b97f4a7c15 & m
    //     z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & m
    //     z = (z ^ z >> 27) * 0x94d049bb133111eb & m
    //     return z ^ z >> 31
    //
    // h = 0
    // for token in reversed([9, 5, 3, 7]):
    //     h = mixed(h ^ token + 1)
    //     print(h % 1000)
    #[test]
    fn slots_hash_the_last_tokens() -> Result<()> {
        let found = slots(&inputs(4, 0, 1000), &["iecg", "hecg", "iegc"])?;
        assert_eq!(found[0], [378, 96, 532]);
        assert_eq!(found[0][..2], found[1][..2]);
        assert_ne!(found[0][2], found[1][2]);
        assert!(found[0].iter().zip(&found[2]).all(|(a, b)| a != b));
        Ok(())
    }

    #[test]
    fn slots_hash_the_last_words() -> Result<()> {
        let found = slots(
            &inputs(0, 2, 100_000),
            &["a bc", "d bc", "d b ", "dabc", "  bc"],
        )?;
        // The same last word after another one.
        assert_eq!(found[0][0], found[1][0]);
        assert_ne!(found[0][1], found[1][1]);
        // A space begins a word.
        assert_ne!(found[2][0], found[1][0]);
        // Of a word that begins before the window, all of the window counts.
        assert_eq!(found[3][0], found[3][1]);
        assert_eq!(found[4][0], found[0][0]);
        Ok(())
    }

    #[test]
    fn a_word_begins_with_the_space_in_its_token() -> Result<()> {
        let tokenizer = Tokenizer::from_json(SPACED.into())?;
        // `<unk>`, ` the`, ` fox`, `es`, `,`
        let ends = Ends::new(&inputs(2, 1, 10), &tokenizer)?;
        assert_eq!(ends.begins_word, [true, true, true, false, true]);
        let ends = Ends::new(&inputs(2, 0, 10), &tokenizer)?;
        assert!(ends.begins_word.is_empty() && ends.slots() == 1);
        Ok(())
    }
}
