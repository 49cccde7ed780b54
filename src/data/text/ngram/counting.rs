//! Counting the n-grams of a text.
//!
//! The places of the text are sorted by the tokens that begin there. The n-grams of all
//! lengths then come one after the other, each with all of its places, in the order in
//! which a model keeps them. So one pass counts them, and an n-gram that is left out is
//! never stored. A long text is sorted part by part, so that the memory for it has a
//! limit; the text is read once for each part.

use std::ops::Range;

use rayon::prelude::*;

use super::{Context, KneserNey, Level};

impl KneserNey {
    /// Counts the n-grams of up to `order` tokens in passages of tokens below
    /// `vocabulary`, fewer than 2³² in all.
    pub fn fit(passages: &[&[u32]], order: usize, vocabulary: usize) -> Self {
        Self::fit_frequent(passages, order, vocabulary, 1)
    }

    /// Counts as [`fit`](Self::fit), and leaves out the n-grams of two tokens or more that
    /// occur fewer than `least` times.
    ///
    /// The discounts are those of all n-grams. The count of an n-gram that is left out is
    /// added to `γ` of its context, and so goes to the shorter n-grams.
    ///
    /// The memory for it is that of the model, about 70 MB, and four bytes for each length
    /// and token of the vocabulary.
    pub fn fit_frequent(
        passages: &[&[u32]],
        order: usize,
        vocabulary: usize,
        least: usize,
    ) -> Self {
        Self::fit_in_parts(passages, order, vocabulary, least, PART)
    }

    fn fit_in_parts(
        passages: &[&[u32]],
        order: usize,
        vocabulary: usize,
        least: usize,
        part: usize,
    ) -> Self {
        let places = Places::new(passages, order, vocabulary);
        let mut counter = Counter::new(order, vocabulary, least);
        for range in places.parts(part) {
            for place in places.sorted(range) {
                counter.add(places.before(place), places.tokens_at(place));
            }
        }
        Self {
            levels: counter.finish(),
            vocabulary,
        }
    }

    /// About how many bytes the counts of [`fit_frequent`](Self::fit_frequent) take.
    ///
    /// Some of the n-grams are counted for it, all of them of a short text. If even a text
    /// without repetitions would take less than `enough` bytes, none are.
    pub(crate) fn estimated_bytes(
        passages: &[&[u32]],
        order: usize,
        vocabulary: usize,
        least: usize,
        enough: u64,
    ) -> u64 {
        let places = Places::new(passages, order, vocabulary);
        let highest = (16 * order * places.count()) as u64;
        if highest <= enough {
            return highest;
        }
        let parts = places.parts(PART / 16);
        let (mut counted, mut bytes) = (0, 0);
        for part in parts.iter().step_by(parts.len().div_ceil(8)) {
            let mut counter = Counter::new(order, vocabulary, least);
            let sorted = places.sorted(part.clone());
            for place in &sorted {
                counter.add(places.before(*place), places.tokens_at(*place));
            }
            counted += sorted.len();
            bytes += counter.finish().iter().map(Level::bytes).sum::<usize>();
        }
        (bytes as u64).saturating_mul(places.count() as u64) / counted.max(1) as u64
    }
}

/// About how many places are sorted at a time.
const PART: usize = 1 << 21;

/// The places of a text. They are sorted by the `order` tokens that begin there; where a
/// passage ends before, its end counts as the lowest token.
struct Places<'a> {
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
struct Place {
    /// The first tokens from here on, each plus 1, the first of them in the highest bits;
    /// 0 behind the passage.
    tokens: u64,
    passage: u32,
    offset: u32,
}

impl<'a> Places<'a> {
    fn new(passages: &'a [&'a [u32]], order: usize, vocabulary: usize) -> Self {
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
    fn count(&self) -> usize {
        let last = self.before.last().zip(self.passages.last());
        last.map_or(0, |(before, passage)| before + passage.len())
    }

    /// Ranges of packed tokens that cover all places, in order, with about `most` places
    /// each.
    fn parts(&self, most: usize) -> Vec<Range<u64>> {
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
    fn sorted(&self, range: Range<u64>) -> Vec<Place> {
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
    fn before(&self, place: Place) -> Option<u32> {
        let before = (place.offset as usize).checked_sub(1)?;
        Some(self.passages[place.passage as usize][before])
    }

    /// The tokens that begin at a place.
    fn tokens_at(&self, place: Place) -> &'a [u32] {
        let tokens = &self.passages[place.passage as usize][place.offset as usize..];
        &tokens[..tokens.len().min(self.order)]
    }
}

/// The places of a sample for each part.
const SAMPLED: usize = 64;

/// The places of a run.
const RUN: usize = 1 << 16;

/// Counts n-grams that come sorted.
struct Counter {
    /// How often an n-gram of two tokens and more has to occur.
    least: u32,
    lengths: Vec<Length>,
    /// The last tokens. Those of each length are the n-gram that is being counted.
    tokens: Vec<u32>,
}

/// The n-grams of one length.
struct Length {
    level: Level,
    /// How many have a count of 0 to 4, also of those that are left out.
    with_count: [u64; 5],
    now: Now,
    /// For each token, the last n-gram that it was seen in front of.
    seen: Vec<u32>,
}

/// The n-gram that is being counted.
#[derive(Default)]
struct Now {
    /// Which one it is, from 1 on.
    number: u32,
    occurrences: u32,
    /// The number of different tokens before it.
    continuations: u32,
    /// The first n-gram that is one longer.
    first: u32,
    /// What is left out of the counts after it.
    lost: u32,
}

impl Counter {
    fn new(order: usize, vocabulary: usize, least: usize) -> Self {
        let lengths = (0..order).map(|_| Length {
            level: Level::default(),
            with_count: [0; 5],
            now: Now::default(),
            seen: vec![0; vocabulary],
        });
        let mut lengths: Vec<Length> = lengths.collect();
        // The only context of single tokens is the empty one.
        if let Some(first) = lengths.first_mut() {
            first.level.contexts.push(Context::default());
        }
        Self {
            least: u32::try_from(least).unwrap_or(u32::MAX),
            lengths,
            tokens: Vec::new(),
        }
    }

    /// Counts the n-grams that begin at one place: `tokens`, behind the token `before`.
    fn add(&mut self, before: Option<u32>, tokens: &[u32]) {
        let both = self.tokens.iter().zip(tokens);
        let same = both.take_while(|(a, b)| a == b).count();
        self.end(same);
        for (length, token) in tokens.iter().enumerate().skip(same) {
            let longer = self.lengths.get(length + 1);
            let first = longer.map_or(0, |longer| longer.level.tokens.len() as u32);
            let now = &mut self.lengths[length].now;
            let number = now.number + 1;
            *now = Now {
                number,
                first,
                ..Now::default()
            };
            self.tokens.push(*token);
        }
        for Length { now, seen, .. } in &mut self.lengths[..tokens.len()] {
            now.occurrences += 1;
            if let Some(before) = before {
                let last = &mut seen[before as usize];
                now.continuations += u32::from(*last != now.number);
                *last = now.number;
            }
        }
    }

    /// Ends the n-grams of more than `same` tokens.
    fn end(&mut self, same: usize) {
        while self.tokens.len() > same {
            let Some(token) = self.tokens.pop() else {
                return;
            };
            let length = self.tokens.len();
            let is_longest = length + 1 == self.lengths.len();
            let Length {
                level,
                with_count,
                now,
                ..
            } = &mut self.lengths[length];
            let count = match is_longest {
                true => now.occurrences,
                false => now.continuations,
            };
            if let Some(with_count) = with_count.get_mut(count as usize) {
                *with_count += 1;
            }
            if length > 0 && now.occurrences < self.least {
                self.lengths[length - 1].now.lost += count;
                continue;
            }
            level.tokens.push(token);
            level.counts.push(count);
            let context = Context {
                first: now.first,
                sum: now.lost,
            };
            if let Some(longer) = self.lengths.get_mut(length + 1) {
                longer.level.contexts.push(context);
            }
        }
    }

    /// The counts of all n-grams.
    fn finish(mut self) -> Vec<Level> {
        self.end(0);
        let levels = self.lengths.into_iter().map(|length| {
            let mut level = length.level;
            level.contexts.push(Context {
                first: level.tokens.len() as u32,
                ..Context::default()
            });
            level.tokens.shrink_to_fit();
            level.counts.shrink_to_fit();
            level.contexts.shrink_to_fit();
            level.discounts = discounts(length.with_count);
            level.sum_up();
            level
        });
        levels.collect()
    }
}

/// How many n-grams have a count of 0 to 4.
pub(super) fn with_count(counts: &[u32]) -> [u64; 5] {
    let mut with_count = [0; 5];
    let low = counts.iter().filter(|count| **count < 5);
    low.for_each(|count| with_count[*count as usize] += 1);
    with_count
}

/// The discounts `D(1)`, `D(2)` and `D(3)` where so many n-grams have a count of 0 to 4.
pub(super) fn discounts(with_count: [u64; 5]) -> [f64; 3] {
    let of = with_count.map(|number| number as f64);
    let y = if of[1] > 0. {
        of[1] / (of[1] + 2. * of[2])
    } else {
        0.
    };
    [1, 2, 3].map(|k: usize| {
        let estimate = k as f64 - (k + 1) as f64 * y * of[k + 1] / of[k];
        if estimate > 0. && estimate <= k as f64 {
            estimate
        } else {
            k as f64 / 2.
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::random::{below, stream};

    fn text(vocabulary: usize, tokens: usize) -> Vec<u32> {
        let mut rng = stream(1, "counting", 0);
        let token = |i: usize| match i % 7 {
            0 => vocabulary as u32 - 1,
            _ => below(&mut rng, vocabulary.min(5)) as u32,
        };
        (0..tokens).map(token).collect()
    }

    /// Also of more tokens than are packed into a place, here three.
    #[test]
    fn every_n_gram_is_counted_as_by_a_table() {
        use std::collections::{BTreeMap, BTreeSet};
        let (text, order, vocabulary) = (text(70_000, 2000), 6, 70_000);
        let passages = [&text[..1], &[], &text[1..700], &text[700..]];
        let mut table: BTreeMap<&[u32], (u32, BTreeSet<u32>)> = BTreeMap::new();
        for passage in passages {
            for start in 0..passage.len() {
                for end in start + 1..=passage.len().min(start + order) {
                    let (occurrences, before) = table.entry(&passage[start..end]).or_default();
                    *occurrences += 1;
                    before.extend(start.checked_sub(1).map(|before| passage[before]));
                }
            }
        }
        for least in [1, 2] {
            let model = KneserNey::fit_frequent(&passages, order, vocabulary, least as usize);
            for (length, level) in (1..).zip(&model.levels) {
                let of_length = table.iter().filter(|(tokens, _)| tokens.len() == length);
                let kept = of_length.filter(|(_, (times, _))| length == 1 || *times >= least);
                let kept = kept.map(|(tokens, (occurrences, before))| match length == order {
                    true => (tokens[length - 1], *occurrences),
                    false => (tokens[length - 1], before.len() as u32),
                });
                let found = level
                    .tokens
                    .iter()
                    .copied()
                    .zip(level.counts.iter().copied());
                assert!(found.eq(kept), "length {length}, least {least}");
            }
        }
    }

    /// So that the borders of the parts, and what lies across them, change nothing.
    #[test]
    fn a_text_in_parts_has_the_counts_of_the_whole() {
        for (vocabulary, order) in [(3, 4), (40, 6), (70_000, 6), (70_000, 12)] {
            let text = text(vocabulary, 3000);
            let passages = [&text[..1], &[], &text[1..700], &text[700..]];
            for least in [1, 2] {
                let fit = |part| {
                    let model = KneserNey::fit_in_parts(&passages, order, vocabulary, least, part);
                    model.to_bytes()
                };
                let whole = fit(PART);
                for part in [1, 50, 1000] {
                    assert!(fit(part) == whole, "{vocabulary}, {order}, {least}, {part}");
                }
            }
        }
    }

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

    #[test]
    fn the_memory_of_counts_is_estimated() {
        let mut rng = stream(1, "estimate", 0);
        let text: Vec<u32> = (0..400_000)
            .map(|i| (below(&mut rng, 40) * (i % 3)) as u32)
            .collect();
        let estimate = |enough| KneserNey::estimated_bytes(&[&text], 5, 100, 2, enough) as f64;
        let model = KneserNey::fit_frequent(&[&text], 5, 100, 2);
        let bytes = model.levels.iter().map(Level::bytes).sum::<usize>() as f64;
        let found = estimate(0);
        assert!(
            (found / bytes - 1.).abs() < 0.3,
            "{found}, and there are {bytes}"
        );
        assert_eq!(estimate(1 << 40), 5. * 16. * 400_000.);
    }
}
