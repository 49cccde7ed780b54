//! A compact form of n-grams in bytes.

use std::slice::Iter;
use std::sync::OnceLock;

use super::counting::{discounts, with_count};
use super::level::{Context, Level};
use super::KneserNey;

/// The largest order that is read.
const LONGEST: u32 = 64;

impl KneserNey {
    /// The counts in a compact form, about three bytes for each n-gram.
    ///
    /// Numbers are in LEB128: the order and the vocabulary; then for each length, for
    /// each n-gram that is one shorter, how many tokens follow it, and each of these as
    /// the distance from the one before and its count. Where n-grams were left out, the
    /// first number is a 0; the discounts of each length are in front of it, and what is
    /// missing of the counts behind each number of tokens.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let is_whole = self.levels.iter().all(Level::is_whole);
        if !is_whole {
            write(&mut bytes, 0);
        }
        write(&mut bytes, self.levels.len() as u32);
        write(&mut bytes, self.vocabulary as u32);
        for level in &self.levels {
            if !is_whole {
                let discounts = level.discounts.iter();
                bytes.extend(discounts.flat_map(|discount| discount.to_le_bytes()));
            }
            for context in level.contexts.array_windows() {
                let range = context[0].range(&context[1]);
                write(&mut bytes, range.len() as u32);
                if !is_whole {
                    write(&mut bytes, level.lost(context));
                }
                let (mut next, counts) = (0, &level.counts[range.clone()]);
                for (&token, count) in level.tokens[range].iter().zip(counts) {
                    write(&mut bytes, token - next);
                    write(&mut bytes, *count);
                    next = token + 1;
                }
            }
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) writes; `None` for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.iter();
        let first = read(&mut bytes)?;
        let is_whole = first != 0;
        let order = match is_whole {
            true => first,
            false => read(&mut bytes)?,
        };
        let vocabulary = read(&mut bytes)?;
        // Without a length or a token there is nothing to predict.
        if !(1..=LONGEST).contains(&order) || vocabulary == 0 {
            return None;
        }
        let mut levels: Vec<Level> = Vec::new();
        for _ in 0..order {
            let contexts = levels.last().map_or(1, |level| level.tokens.len());
            levels.push(Level::read(&mut bytes, contexts, vocabulary, is_whole)?);
        }
        let vocabulary = vocabulary as usize;
        let is_at_end = bytes.as_slice().is_empty();
        is_at_end.then(|| Self {
            levels,
            vocabulary,
            unigrams: OnceLock::new(),
        })
    }
}

impl Level {
    /// Reads the n-grams after some contexts.
    fn read(bytes: &mut Iter<u8>, contexts: usize, vocabulary: u32, whole: bool) -> Option<Self> {
        let given = match whole {
            true => None,
            false => Some([read_f64(bytes)?, read_f64(bytes)?, read_f64(bytes)?]),
        };
        let mut level = Self {
            discounts: given.unwrap_or_default(),
            ..Self::default()
        };
        for _ in 0..contexts {
            let (mut next, tokens) = (0u32, read(bytes)?);
            level.contexts.push(Context {
                first: level.tokens.len() as u32,
                sum: if whole { 0 } else { read(bytes)? },
            });
            for _ in 0..tokens {
                let token = next.checked_add(read(bytes)?)?;
                if token >= vocabulary {
                    return None;
                }
                level.tokens.push(token);
                level.counts.push(read(bytes)?);
                next = token + 1;
            }
        }
        let lost = level.contexts.iter().map(|context| context.sum);
        let sum: u64 = level
            .counts
            .iter()
            .copied()
            .chain(lost)
            .map(u64::from)
            .sum();
        level.contexts.push(Context {
            first: u32::try_from(level.tokens.len()).ok()?,
            ..Context::default()
        });
        u32::try_from(sum).ok()?;
        if given.is_none() {
            level.discounts = discounts(with_count(&level.counts));
        }
        // A discount of 0 would give tokens that were not seen a probability of 0.
        let mut discounts = (1..).zip(level.discounts);
        let are_discounts =
            discounts.all(|(k, discount)| discount > 0. && discount <= f64::from(k));
        level.sum_up();
        are_discounts.then_some(level)
    }

    /// Whether no n-gram was left out.
    fn is_whole(&self) -> bool {
        let mut contexts = self.contexts.array_windows();
        contexts.all(|context| self.lost(context) == 0)
    }
}

/// Writes a number, seven bits in a byte, the lowest first.
fn write(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_f64(bytes: &mut Iter<u8>) -> Option<f64> {
    let (number, rest) = bytes.as_slice().split_first_chunk()?;
    *bytes = rest.iter();
    Some(f64::from_le_bytes(*number))
}

fn read(bytes: &mut Iter<u8>) -> Option<u32> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_are_written_and_read() {
        for number in [0, 1, 127, 128, 300, 1 << 14, u32::MAX - 1, u32::MAX] {
            let mut bytes = Vec::new();
            write(&mut bytes, number);
            let mut rest = bytes.iter();
            assert_eq!(read(&mut rest), Some(number));
            assert_eq!(rest.next(), None);
        }
        assert_eq!(read(&mut [0x80].iter()), None);
        assert_eq!(read(&mut [0xff; 5].iter()), None);
    }

    #[test]
    fn counts_that_predict_nothing_or_never_are_refused() {
        let model = |discount: f64| {
            let [order, vocabulary, tokens, lost] = [1, 3, 1, 0];
            let discounts = [discount, 1., 1.].map(f64::to_le_bytes).concat();
            let counts = [tokens, lost, 1, 5];
            [&[0, order, vocabulary], &discounts[..], &counts].concat()
        };
        assert!(KneserNey::from_bytes(&model(0.5)).is_some());
        for discount in [0., -0., -0.5, 1.5, f64::NAN] {
            assert!(
                KneserNey::from_bytes(&model(discount)).is_none(),
                "{discount}"
            );
        }
        let [no_order, no_vocabulary] = [[0, 0, 3].as_slice(), &[1, 0, 0]];
        for bytes in [no_order, no_vocabulary] {
            assert!(KneserNey::from_bytes(bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn counts_come_back_as_they_were() {
        let text: Vec<u32> = (0..500).map(|i| i * i % 17 % 9).collect();
        let parts = [&text[..200], &text[200..]];
        for (order, least) in (1..5).flat_map(|order| [1, 3].map(|least| (order, least))) {
            let model = KneserNey::fit_frequent(&parts, order, 300, least);
            let bytes = model.to_bytes();
            let found = KneserNey::from_bytes(&bytes).unwrap();
            assert_eq!((found.order(), found.vocabulary()), (order, 300));
            for (level, found) in model.levels.iter().zip(&found.levels) {
                assert_eq!(level.tokens, found.tokens);
                assert_eq!(level.counts, found.counts);
                assert_eq!(level.contexts, found.contexts);
                assert_eq!(level.wide, found.wide);
                assert_eq!(level.discounts, found.discounts);
            }
            // Whatever else is no model, and nothing panics.
            assert!(KneserNey::from_bytes(&bytes[..bytes.len() - 1]).is_none());
            assert!(KneserNey::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    let mut bytes = bytes.clone();
                    bytes[place] ^= 1 << bit;
                    if let Some(found) = KneserNey::from_bytes(&bytes) {
                        assert!(found.order() > 0 && found.vocabulary() > 0);
                        let p = found.after(&[]).p;
                        assert!(p.iter().all(|p| *p > 0.), "bit {bit} of byte {place}");
                    }
                }
            }
        }
    }
}
