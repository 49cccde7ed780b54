//! The places of a text, sorted by the tokens that begin there.

use std::ops::Range;

use rayon::prelude::*;

/// The places of a text. They are sorted by the `order` tokens that begin there; where a
/// passage ends before, its end counts as the lowest token.
pub(super) struct Places<'a> {
    passages: &'a [&'a [u32]],
    /// For each passage, the number of places before it.
    before: Vec<usize>,
    order: usize,
    /// The bits of a token in a [`Place`].
    bits: u32,
    /// The number of tokens in a [`Place`].
    packed: usize,
}

/// A place in a text.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The first tokens from here on, each plus 1, the first of them in the highest bits;
    /// 0 behind the passage.
    tokens: u64,
    passage: u32,
    offset: u32,
}

impl<'a> Places<'a> {
    pub fn new(passages: &'a [&'a [u32]], order: usize, vocabulary: usize) -> Self {
        let bits = (vocabulary as u64 + 1).next_power_of_two().ilog2().max(1);
        let before = passages.iter().scan(0, |all, passage| {
            let before = *all;
            *all += passage.len();
            Some(before)
        });
        Self {
            passages,
            before: before.collect(),
            order,
            bits,
            // The highest bit is free, so that the last part has an end above all numbers.
            packed: order.clamp(1, ((u64::BITS - 1) / bits) as usize),
        }
    }

    /// The number of places.
    pub fn count(&self) -> usize {
        let last = self.before.last().zip(self.passages.last());
        last.map_or(0, |(before, passage)| before + passage.len())
    }

    /// Ranges of packed tokens that cover all places, in order, with about `most` places
    /// each.
    pub fn parts(&self, most: usize) -> Vec<Range<u64>> {
        // The borders are taken from a sample, which is sorted.
        let stride = most.div_ceil(SAMPLED).max(1);
        let sample = self.runs().flat_map_iter(|(passage, run)| {
            let places = self.of_run(passage, run);
            let sampled = places.filter(move |place| {
                let number = self.before[passage] + place.offset as usize;
                number % stride == stride / 2
            });
            sampled.map(|place| place.tokens)
        });
        let mut sample: Vec<u64> = sample.collect();
        sample.par_sort_unstable();
        let borders = sample.chunks(SAMPLED).skip(1).map(|chunk| chunk[0]);
        let mut borders: Vec<u64> = std::iter::once(0).chain(borders).collect();
        // Where many places have the same packed tokens, they stay together.
        borders.dedup();
        borders.push(u64::MAX);
        borders.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// The places whose packed tokens are in a range, sorted.
    pub fn sorted(&self, range: Range<u64>) -> Vec<Place> {
        let places = self.runs().flat_map_iter(|(passage, run)| {
            let places = self.of_run(passage, run);
            places.filter(|place| range.contains(&place.tokens))
        });
        let mut places: Vec<Place> = places.collect();
        let unpacked = |place: Place| {
            let tokens = self.tokens_at(place);
            &tokens[self.packed.min(tokens.len())..]
        };
        // The order of places with the same tokens changes no count.
        places.par_sort_unstable_by(|a, b| {
            let packed = a.tokens.cmp(&b.tokens);
            packed.then_with(|| unpacked(*a).cmp(unpacked(*b)))
        });
        places
    }

    /// All places, as ranges within passages that are looked at in parallel.
    fn runs(&self) -> impl ParallelIterator<Item = (usize, Range<usize>)> + '_ {
        let passages = self.passages.par_iter().enumerate();
        passages.flat_map(|(passage, tokens)| {
            let runs = (0..tokens.len().div_ceil(RUN)).into_par_iter();
            runs.map(move |run| (passage, run * RUN..tokens.len().min((run + 1) * RUN)))
        })
    }

    /// The places of a run, the last one first.
    fn of_run(&self, passage: usize, run: Range<usize>) -> impl Iterator<Item = Place> + '_ {
        let tokens = self.passages[passage];
        let first = self.bits * (self.packed as u32 - 1);
        let end = tokens.len().min(run.end + self.packed);
        let packed = (run.start..end).rev().scan(0, move |packed, offset| {
            *packed = *packed >> self.bits | u64::from(tokens[offset] + 1) << first;
            Some((*packed, offset))
        });
        // Those behind the run only fill the first number.
        packed
            .skip(end - run.end)
            .map(move |(tokens, offset)| Place {
                tokens,
                passage: passage as u32,
                offset: offset as u32,
            })
    }

    /// The token before a place.
    pub fn before(&self, place: Place) -> Option<u32> {
        let before = (place.offset as usize).checked_sub(1)?;
        Some(self.passages[place.passage as usize][before])
    }

    /// The tokens that begin at a place.
    pub fn tokens_at(&self, place: Place) -> &'a [u32] {
        let tokens = &self.passages[place.passage as usize][place.offset as usize..];
        &tokens[..tokens.len().min(self.order)]
    }
}

/// The places of a sample for each part.
const SAMPLED: usize = 64;

/// The places of a run.
const RUN: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::random::{below, stream};

    /// In short passages that end alike or differently, too. Places that begin alike cannot
    /// be divided.
    #[test]
    fn the_parts_cover_every_place_once_and_are_alike() {
        let long: Vec<u32> = (0..5000u32).map(|i| (i * i / 7) % 11).collect();
        let same = [3; 900];
        let long = vec![long, same.to_vec(), vec![5]];
        let mut rng = stream(1, "parts", 0);
        let mut passage = |end: Option<u32>| {
            let mut tokens: Vec<u32> = (0..19).map(|_| below(&mut rng, 11) as u32).collect();
            tokens.push(end.unwrap_or(tokens[7]));
            tokens
        };
        let ending_alike: Vec<Vec<u32>> = (0..500).map(|_| passage(Some(1))).collect();
        let other: Vec<Vec<u32>> = (0..500).map(|_| passage(None)).collect();
        for passages in [long, ending_alike, other] {
            let passages: Vec<&[u32]> = passages.iter().map(Vec::as_slice).collect();
            let places = Places::new(&passages, 5, 11);
            let parts = places.parts(500);
            let number = places.count() / 500;
            assert!((number - 2..number + 3).contains(&parts.len()), "{parts:?}");
            let sizes = parts.iter().map(|part| places.sorted(part.clone()).len());
            let sizes: Vec<usize> = sizes.collect();
            assert_eq!(sizes.iter().sum::<usize>(), places.count());
            assert!(sizes.iter().all(|size| *size < 1600), "{sizes:?}");
            assert_eq!(places.parts(20_000).len(), 1);
        }
    }
}
