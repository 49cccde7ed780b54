//! Hashed n-grams of a context, as one-hot slots.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::flow::input::{indices, Values};

crate::settings! {
    /// The last n-grams of a context as further inputs: for `n` from 2 to `ngrams`, the
    /// last `n` tokens together pick one of `buckets` entries by a hash.
    ///
    /// A layer so has a row of weights for every n-gram that it meets, as a table of
    /// counts has. Different n-grams may share a row; n-grams of different lengths do
    /// not.
    ///
    /// # Reference
    /// Mikolov et al., "Strategies for Training Large Scale Neural Network Language
    /// Models", ASRU 2011, section 5, for hashed n-grams.
    pub struct HashedNgrams {
        /// The number of tokens of the longest n-gram of the context that is an input of
        /// its own, at most `data.window`; below 2 for none.
        ngrams: usize = 0, in 0..=32;
        /// The number of entries that n-grams of one length are hashed to.
        buckets: usize = 16_384, in 1..=10_000_000;
    }
}

impl HashedNgrams {
    /// Refuses n-grams that are longer than a window.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self, window: usize) -> Result<()> {
        if self.ngrams <= window {
            return Ok(());
        }
        let expected = format!("at most the {window} tokens of `data.window`");
        Err(Error::setting(
            "ngrams",
            self.ngrams,
            "the settings",
            expected,
        ))
    }

    /// The number of columns of the input.
    pub fn width(&self) -> usize {
        self.slots() * self.buckets
    }

    fn slots(&self) -> usize {
        self.ngrams.saturating_sub(1)
    }

    /// One slot for each length, of contexts `(B, K)`; `None` without n-grams.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(&self, contexts: &Tensor) -> Result<Option<Values>> {
        let (rows, window) = contexts.dims2()?;
        let slots = self.slots();
        if slots == 0 || window < self.ngrams {
            return Ok(None);
        }
        let tokens = indices(contexts, usize::MAX)?;
        let mut index = Vec::with_capacity(rows * slots);
        for context in tokens.chunks_exact(window) {
            let mut hash = 0;
            for (length, token) in context.iter().rev().take(self.ngrams).enumerate() {
                hash = mixed(hash ^ (u64::from(*token) + 1));
                if length > 0 {
                    index.push((hash % self.buckets as u64) as u32);
                }
            }
        }
        let index = Tensor::from_vec(index, (rows, slots), &Device::Cpu)?;
        Ok(Some(Values::OneHot {
            index: index.to_device(contexts.device())?,
            classes: self.buckets,
            strength: 1.,
        }))
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

    fn slots(ngrams: &HashedNgrams, contexts: &[[u32; 4]]) -> Result<Vec<Vec<u32>>> {
        let contexts = Tensor::new(contexts, &Device::Cpu)?;
        match ngrams.of(&contexts)? {
            Some(Values::OneHot { index, classes, .. }) => {
                assert_eq!(classes, ngrams.buckets);
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
        let ngrams = HashedNgrams {
            ngrams: 4,
            buckets: 1000,
        };
        let found = slots(&ngrams, &[[9, 5, 3, 7], [8, 5, 3, 7], [9, 5, 7, 3]])?;
        assert_eq!(found[0], [378, 96, 532]);
        assert_eq!(found[0][..2], found[1][..2]);
        assert_ne!(found[0][2], found[1][2]);
        assert!(found[0].iter().zip(&found[2]).all(|(a, b)| a != b));
        assert_eq!(ngrams.width(), 3000);
        Ok(())
    }

    #[test]
    fn short_n_grams_are_none_and_long_ones_are_refused() -> Result<()> {
        let contexts = Tensor::new(&[[1u32, 2]], &Device::Cpu)?;
        for ngrams in [0, 1] {
            let ngrams = HashedNgrams {
                ngrams,
                ..HashedNgrams::default()
            };
            assert!(ngrams.of(&contexts)?.is_none());
            assert_eq!(ngrams.width(), 0);
        }
        let ngrams = HashedNgrams {
            ngrams: 3,
            ..HashedNgrams::default()
        };
        assert!(ngrams.check(3).is_ok());
        let error = ngrams.check(2).unwrap_err().to_string();
        assert!(error.contains("at most the 2 tokens"), "{error}");
        Ok(())
    }
}
