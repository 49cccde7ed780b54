//! A compact form of n-grams in bytes.

use super::{key, KneserNey, Level};

/// The largest order that is read.
const LONGEST: u32 = 64;

impl KneserNey {
    /// The counts in a compact form, about three bytes for each n-gram.
    ///
    /// Numbers are in LEB128: the order and the vocabulary; then for each length, for
    /// each n-gram that is one shorter, how many tokens follow it, and each of these as
    /// the distance from the one before and its count.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, self.levels.len() as u32);
        write(&mut bytes, self.vocabulary as u32);
        for level in &self.levels {
            for context in level.contexts.windows(2) {
                let range = context[0].0 as usize..context[1].0 as usize;
                write(&mut bytes, range.len() as u32);
                let mut next = 0;
                for (key, count) in level.keys[range.clone()].iter().zip(&level.counts[range]) {
                    let token = *key as u32;
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
        let (order, vocabulary) = (read(&mut bytes)?, read(&mut bytes)?);
        if order > LONGEST {
            return None;
        }
        let mut levels: Vec<Level> = Vec::new();
        for _ in 0..order {
            let above = levels.last().map_or(1, |level| level.keys.len());
            let (mut keys, mut counts, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
            for context in 0..above {
                contexts.push((keys.len() as u32, 0, 0.));
                let mut next = 0u32;
                for _ in 0..read(&mut bytes)? {
                    let token = next.checked_add(read(&mut bytes)?)?;
                    if token >= vocabulary {
                        return None;
                    }
                    keys.push(key(context as u32, token));
                    counts.push(read(&mut bytes)?);
                    next = token + 1;
                }
            }
            contexts.push((u32::try_from(keys.len()).ok()?, 0, 0.));
            let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
            u32::try_from(sum).ok()?;
            let mut level = Level {
                keys,
                counts,
                contexts,
                discounts: [0.; 3],
            };
            level.finish();
            levels.push(level);
        }
        let vocabulary = vocabulary as usize;
        let is_whole = bytes.as_slice().is_empty();
        is_whole.then_some(Self { levels, vocabulary })
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

fn read<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u32> {
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
    fn counts_come_back_as_they_were() {
        let text: Vec<u32> = (0..500).map(|i| i * i % 17 % 9).collect();
        let parts = [&text[..200], &text[200..]];
        for order in 1..5 {
            let model = KneserNey::fit(&parts, order, 300);
            let bytes = model.to_bytes();
            let found = KneserNey::from_bytes(&bytes).unwrap();
            assert_eq!((found.order(), found.vocabulary()), (order, 300));
            for (level, found) in model.levels.iter().zip(&found.levels) {
                assert_eq!(level.keys, found.keys);
                assert_eq!(level.counts, found.counts);
                assert_eq!(level.contexts, found.contexts);
                assert_eq!(level.discounts, found.discounts);
            }
            // Whatever else is no model, and nothing panics.
            assert!(KneserNey::from_bytes(&bytes[..bytes.len() - 1]).is_none());
            assert!(KneserNey::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    let mut bytes = bytes.clone();
                    bytes[place] ^= 1 << bit;
                    let _ = KneserNey::from_bytes(&bytes);
                }
            }
        }
    }
}
