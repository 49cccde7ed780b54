//! Counting the n-grams of a text.
//!
//! The places of the text are sorted by the tokens that begin there. The n-grams of all
//! lengths then come one after the other, each with all of its places, in the order in
//! which a model keeps them. So one pass counts them, and an n-gram that is left out is
//! never stored. A long text is sorted part by part, so that the memory for it has a
//! limit; the text is read once for each part.

use std::sync::OnceLock;

use super::level::{Context, Level};
use super::places::Places;
use super::KneserNey;

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
            unigrams: OnceLock::new(),
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
