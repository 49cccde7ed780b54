//! Counting the n-grams of a text.
//!
//! The places of the text are sorted by the tokens that begin there. The n-grams of all
//! lengths then come one after the other, each with all of its places, in the order in
//! which a model keeps them. So one pass counts them, and an n-gram that is left out is
//! never stored. A long text is sorted part by part, so that the memory for it has a
//! limit.

use std::ops::Range;

use rayon::prelude::*;

use super::{Context, KneserNey, Level};

impl KneserNey {
    /// Counts the n-grams of up to `order` tokens in passages of tokens below
    /// `vocabulary`.
    pub fn fit(passages: &[&[u32]], order: usize, vocabulary: usize) -> Self {
        Self::fit_frequent(passages, order, vocabulary, 1)
    }

    /// Counts as [`fit`](Self::fit), and leaves out the n-grams of two tokens or more that
    /// occur fewer than `least` times.
    ///
    /// The discounts are those of all n-grams. The count of an n-gram that is left out is
    /// added to `γ` of its context, and so goes to the shorter n-grams.
    ///
    /// The memory for it is that of the model, and about 70 MB.
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
                counter.add(places.before(place), places.behind(place, 0));
            }
        }
        Self {
            levels: counter.finish(),
            vocabulary,
        }
    }
}

/// The places that are sorted at a time, about.
const PART: usize = 1 << 21;

/// The places of a text, to be sorted by the `order` tokens that begin there. A passage
/// that ends earlier comes first.
struct Places<'a> {
    passages: &'a [&'a [u32]],
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
        Self {
            passages,
            order,
            bits,
            // One bit is free, so that a part can end behind the highest number.
            packed: order.clamp(1, ((u64::BITS - 1) / bits) as usize),
        }
    }

    /// Ranges of packed tokens that cover all places, in order, with about `most` places
    /// each.
    fn parts(&self, most: usize) -> Vec<Range<u64>> {
        // One of so many places is looked at.
        let stride = most.div_ceil(SAMPLES).max(1);
        let some = self.runs().flat_map_iter(|(passage, range)| {
            let some = self.from(passage, range).step_by(stride);
            some.map(|place| place.tokens)
        });
        let mut some: Vec<u64> = some.collect();
        some.par_sort_unstable();
        let bounds = some.chunks(SAMPLES).skip(1).map(|chunk| chunk[0]);
        let mut bounds: Vec<u64> = std::iter::once(0).chain(bounds).collect();
        // As many places as that begin with the same tokens.
        bounds.dedup();
        bounds.push(u64::MAX);
        bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// The places whose packed tokens are in a range, sorted.
    fn sorted(&self, range: Range<u64>) -> Vec<Place> {
        let places = self.runs().flat_map_iter(|(passage, run)| {
            let places = self.from(passage, run);
            places.filter(|place| range.contains(&place.tokens))
        });
        let mut places: Vec<Place> = places.collect();
        // The order of places with the same tokens changes no count.
        places.par_sort_unstable_by(|a, b| {
            let packed = a.tokens.cmp(&b.tokens);
            packed.then_with(|| {
                self.behind(*a, self.packed)
                    .cmp(self.behind(*b, self.packed))
            })
        });
        places
    }

    /// All places in runs for one thread each.
    fn runs(&self) -> impl ParallelIterator<Item = (usize, Range<usize>)> + '_ {
        let passages = self.passages.par_iter().enumerate();
        passages.flat_map_iter(|(passage, tokens)| {
            let starts = (0..tokens.len()).step_by(RUN);
            starts.map(move |start| (passage, start..tokens.len().min(start + RUN)))
        })
    }

    /// The places of a run, the last one first.
    fn from(&self, passage: usize, run: Range<usize>) -> impl Iterator<Item = Place> + '_ {
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

    /// The tokens that begin at a place, without the first `skipped` ones.
    fn behind(&self, place: Place, skipped: usize) -> &'a [u32] {
        let tokens = &self.passages[place.passage as usize][place.offset as usize..];
        let tokens = &tokens[..tokens.len().min(self.order)];
        &tokens[skipped.min(tokens.len())..]
    }
}

/// The places that are looked at for a part.
const SAMPLES: usize = 64;

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

    /// So that the limits of the parts, and what lies across them, change nothing.
    #[test]
    fn a_text_in_parts_has_the_counts_of_the_whole() {
        let mut rng = stream(1, "counting", 0);
        for (vocabulary, order) in [(3, 4), (40, 6), (70_000, 6), (70_000, 12)] {
            let mut token = |i: usize| match i % 7 {
                0 => vocabulary as u32 - 1,
                _ => below(&mut rng, vocabulary.min(5)) as u32,
            };
            let text: Vec<u32> = (0..3000).map(&mut token).collect();
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

    /// Places that begin alike cannot be divided.
    #[test]
    fn the_parts_cover_every_place_once() {
        let text: Vec<u32> = (0..5000u32).map(|i| (i * i / 7) % 11).collect();
        let same = [3; 900];
        let passages = [&text[..], &same, &[5]];
        let places = Places::new(&passages, 5, 11);
        let parts = places.parts(200);
        assert!((20..60).contains(&parts.len()), "{}", parts.len());
        let sizes: Vec<usize> = parts
            .iter()
            .map(|part| places.sorted(part.clone()).len())
            .collect();
        assert_eq!(sizes.iter().sum::<usize>(), 5901);
        assert!(sizes.iter().all(|size| *size < 1000), "{sizes:?}");
        assert_eq!(places.parts(10_000), [0..u64::MAX]);
    }
}
