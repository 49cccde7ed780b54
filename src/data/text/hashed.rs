//! Hashed ends of a context, as one-hot slots.

use candle_core::{Device, Tensor};

use super::tokenizer::Tokenizer;
use crate::error::Result;
use crate::flow::input::{indices, Values};
use crate::settings::Idle;

crate::settings! {
    /// Hashed ends of a context as further inputs: for `n` from 2 to `ngrams` its last
    /// `n` tokens, and for `n` from 1 to `words` its last `n` words, the last of which
    /// may be unfinished. Each end picks one of `buckets` entries by a hash.
    ///
    /// So a layer has a row of weights for every end, like a table of counts. Different
    /// ends may share a row; those of different `n` do not. A word begins with a token
    /// that does not begin with a letter or digit, such as a space, and ends before the
    /// next such token.
    ///
    /// # Reference
    /// Mikolov et al., "Strategies for Training Large Scale Neural Network Language
    /// Models", ASRU 2011, section 5, for hashed n-grams; words as contexts are from
    /// compression (Mahoney, "Adaptive Weighing of Context Models for Lossless Data
    /// Compression", 2005).
    pub struct HashedContexts {
        /// The number of tokens of the longest n-gram that is an input, at most
        /// `data.window`; below 2 for none.
        ngrams: usize = 0, in 0..=64;
        /// The number of last words that are inputs, as far as they are within
        /// `data.window`; 0 for none.
        words: usize = 0, in 0..=16;
        /// The number of entries that the ends of one kind are hashed to.
        buckets: usize = 16_384, in 1..=10_000_000;
    }
}

impl HashedContexts {
    /// Whether no end is hashed.
    pub fn is_empty(&self) -> bool {
        self.slots() == 0
    }

    /// The settings without an effect beside the others.
    pub fn idle(&self) -> Vec<Idle> {
        match self.is_empty() {
            true => Idle::all(&["buckets"], "nothing is hashed (`ngrams` and `words`)"),
            false => Vec::new(),
        }
    }

    fn slots(&self) -> usize {
        self.ngrams.saturating_sub(1) + self.words
    }
}

/// Hashes the ends of contexts: see [`HashedContexts`].
pub struct ContextHasher {
    settings: HashedContexts,
    vocabulary: usize,
    /// Whether each token begins a word; empty without `words`.
    begins_word: Vec<bool>,
}

impl ContextHasher {
    /// For windows of `window` tokens, which have no longer n-grams.
    ///
    /// # Errors
    /// As [`Tokenizer::text_of`].
    pub fn new(settings: &HashedContexts, tokenizer: &Tokenizer, window: usize) -> Result<Self> {
        let settings = HashedContexts {
            ngrams: settings.ngrams.min(window),
            ..settings.clone()
        };
        let vocabulary = tokenizer.vocabulary().len();
        let tokens = match settings.words {
            0 => 0..0,
            _ => 0..vocabulary as u32,
        };
        let begins_word = |token: u32| -> Result<bool> {
            let text = tokenizer.text_of(token)?;
            // A part of a character is decoded as a replacement.
            let continues = |first: char| first.is_alphanumeric() || first == '\u{fffd}';
            Ok(!text.chars().next().is_some_and(continues))
        };
        Ok(Self {
            settings,
            vocabulary,
            begins_word: tokens.map(begins_word).collect::<Result<_>>()?,
        })
    }

    /// The number of columns of the input.
    pub fn width(&self) -> usize {
        self.settings.slots() * self.settings.buckets
    }

    /// The one-hot slots of contexts `(B, K)`, one slot for each end; `None` without
    /// `ngrams` and `words`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(&self, contexts: &Tensor) -> Result<Option<Values>> {
        let (rows, window) = contexts.dims2()?;
        let slots = self.settings.slots();
        if slots == 0 {
            return Ok(None);
        }
        let tokens = indices(contexts, self.vocabulary)?;
        let mut index = Vec::with_capacity(rows * slots);
        for context in tokens.chunks_exact(window) {
            self.add_ends(context, &mut index);
        }
        let index = Tensor::from_vec(index, (rows, slots), &Device::Cpu)?;
        Ok(Some(Values::OneHot {
            index: index.to_device(contexts.device())?,
            classes: self.settings.buckets,
            strength: 1.,
        }))
    }

    fn add_ends(&self, context: &[u32], index: &mut Vec<u32>) {
        let HashedContexts {
            ngrams,
            words,
            buckets,
        } = self.settings;
        let bucket = |hash: u64| (hash % buckets as u64) as u32;
        let end = index.len() + self.settings.slots();
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
        // Words that begin before the window.
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

    fn slots(settings: HashedContexts, contexts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let tokenizer = Tokenizer::characters(" abcdefghi")?;
        let buckets = settings.buckets;
        let hasher = ContextHasher::new(&settings, &tokenizer, 4)?;
        let tokens = contexts.iter().map(|text| Ok(tokenizer.encode(text)?.ids));
        let tokens: Vec<Vec<u32>> = tokens.collect::<Result<_>>()?;
        match hasher.of(&Tensor::new(tokens, &Device::Cpu)?)? {
            Some(Values::OneHot { index, classes, .. }) => {
                assert_eq!(classes, buckets);
                assert_eq!(hasher.width(), buckets * index.dim(1)?);
                Ok(index.to_vec2()?)
            }
            _ => panic!("expected one-hot slots"),
        }
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
        let settings = HashedContexts {
            ngrams: 4,
            words: 0,
            buckets: 1000,
        };
        let found = slots(settings, &["iecg", "hecg", "iegc"])?;
        assert_eq!(found[0], [378, 96, 532]);
        assert_eq!(found[0][..2], found[1][..2]);
        assert_ne!(found[0][2], found[1][2]);
        assert!(found[0].iter().zip(&found[2]).all(|(a, b)| a != b));
        Ok(())
    }

    #[test]
    fn slots_hash_the_last_words() -> Result<()> {
        let settings = HashedContexts {
            ngrams: 0,
            words: 2,
            buckets: 100_000,
        };
        let found = slots(settings, &["a bc", "d bc", "d b ", "dabc", "  bc"])?;
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
        let with = |words| HashedContexts {
            ngrams: 2,
            words,
            ..HashedContexts::default()
        };
        // `<unk>`, ` the`, ` fox`, `es`, `,`
        let hasher = ContextHasher::new(&with(1), &tokenizer, 2)?;
        assert_eq!(hasher.begins_word, [true, true, true, false, true]);
        let hasher = ContextHasher::new(&with(0), &tokenizer, 2)?;
        let contexts = Tensor::new(&[[1u32, 3]], &Device::Cpu)?;
        assert!(hasher.begins_word.is_empty() && hasher.of(&contexts)?.is_some());
        Ok(())
    }

    #[test]
    fn there_are_no_n_grams_of_one_token_or_beyond_the_window() -> Result<()> {
        let tokenizer = Tokenizer::characters("abc")?;
        let contexts = Tensor::new(&[[1u32, 2]], &Device::Cpu)?;
        let with = |ngrams| HashedContexts {
            ngrams,
            ..HashedContexts::default()
        };
        for ngrams in [0, 1] {
            let hasher = ContextHasher::new(&with(ngrams), &tokenizer, 2)?;
            assert!(hasher.of(&contexts)?.is_none());
            assert_eq!(hasher.width(), 0);
        }
        // A window of two tokens has no n-gram of three.
        let hasher = ContextHasher::new(&with(3), &tokenizer, 2)?;
        assert_eq!(hasher.width(), HashedContexts::default().buckets);
        assert!(hasher.of(&contexts)?.is_some());
        Ok(())
    }
}
