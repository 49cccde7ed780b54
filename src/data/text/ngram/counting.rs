//! Counting the n-grams of a text.

use rayon::prelude::*;

use super::{key, KneserNey, Level, NONE};

impl KneserNey {
    /// Counts the n-grams of up to `order` tokens in passages of tokens below
    /// `vocabulary`.
    pub fn fit(passages: &[&[u32]], order: usize, vocabulary: usize) -> Self {
        Self::fit_frequent(passages, order, vocabulary, 1)
    }

    /// Counts as [`fit`](Self::fit), and then leaves out the n-grams of two tokens or
    /// more that occur fewer than `least` times.
    ///
    /// The discounts are computed before that. The count of an n-gram that is left out
    /// is added to `γ` of its context, and so goes to the shorter n-grams.
    pub fn fit_frequent(
        passages: &[&[u32]],
        order: usize,
        vocabulary: usize,
        least: usize,
    ) -> Self {
        let tokens: Vec<u32> = passages.concat();
        let mut starts = vec![false; tokens.len()];
        let mut start = 0;
        for passage in passages.iter().filter(|passage| !passage.is_empty()) {
            starts[start] = true;
            start += passage.len();
        }
        let mut levels: Vec<Level> = Vec::with_capacity(order);
        let mut above = vec![0];
        let mut last: Option<All> = None;
        // The index of the n-gram that ends at each position; at first that of the empty
        // n-gram.
        let mut ending = vec![0; tokens.len()];
        for length in 1..=order {
            let at = |place: usize| match length {
                1 => Some(key(0, tokens[place])),
                _ if starts[place] || ending[place - 1] == NONE => None,
                _ => Some(key(ending[place - 1], tokens[place])),
            };
            let mut keys: Vec<u64> = (0..tokens.len()).filter_map(at).collect();
            keys.par_sort_unstable();
            keys.dedup();
            // There are as many positions as tokens, but far fewer different n-grams,
            // especially short ones.
            keys.shrink_to_fit();
            let number = |place| {
                at(place).map_or(NONE, |key| {
                    keys.binary_search(&key).map_or(NONE, |at| at as u32)
                })
            };
            let numbers: Vec<u32> = (0..tokens.len()).into_par_iter().map(number).collect();
            let mut occurrences = vec![0u32; keys.len()];
            let shorter = last.as_ref().map_or(0, |last| last.keys.len());
            let mut continuations = vec![0u32; shorter];
            for (place, number) in numbers
                .iter()
                .enumerate()
                .filter(|(_, number)| **number != NONE)
            {
                if let (0, Some(shorter)) = (
                    occurrences[*number as usize],
                    continuations.get_mut(ending[place] as usize),
                ) {
                    *shorter += 1;
                }
                occurrences[*number as usize] += 1;
            }
            if let Some(last) = last {
                levels.push(last.pruned(Some(continuations), &mut above));
            }
            last = Some(All {
                keys,
                occurrences,
                least: if length == 1 { 0 } else { least },
            });
            ending = numbers;
        }
        levels.extend(last.map(|last| last.pruned(None, &mut above)));
        Self { levels, vocabulary }
    }
}

/// All n-grams of one length, before some are left out.
struct All {
    /// As in a [`Level`], with the indices of all contexts.
    keys: Vec<u64>,
    occurrences: Vec<u32>,
    /// How often they have to occur.
    least: usize,
}

impl All {
    /// The level of the n-grams that occur often enough. `continuations` has the counts
    /// of all but the longest ones. `above` has the index of each context in the level
    /// before, and then that of each n-gram in this one.
    fn pruned(self, continuations: Option<Vec<u32>>, above: &mut Vec<u32>) -> Level {
        let mut keys = self.keys;
        let (mut counts, occurrences) = match continuations {
            Some(continuations) => (continuations, Some(self.occurrences)),
            None => (self.occurrences, None),
        };
        let discounts = discounts(&counts);
        let contexts = above.iter().filter(|context| **context != NONE).count();
        let mut lost = vec![0u32; contexts];
        let mut numbers = vec![NONE; keys.len()];
        // They move to the front in place: a large text has many.
        let mut kept = 0;
        for place in 0..keys.len() {
            let context = above[(keys[place] >> 32) as usize];
            if context == NONE {
                continue;
            }
            let times = occurrences.as_ref().map_or(counts[place], |all| all[place]);
            if (times as usize) < self.least {
                lost[context as usize] += counts[place];
                continue;
            }
            keys[kept] = key(context, keys[place] as u32);
            counts[kept] = counts[place];
            numbers[place] = kept as u32;
            kept += 1;
        }
        *above = numbers;
        keys.truncate(kept);
        keys.shrink_to_fit();
        counts.truncate(kept);
        counts.shrink_to_fit();
        let mut first = 0;
        let ends = (0..=contexts as u64).map(|context| {
            first += keys[first..].partition_point(|key| key >> 32 < context);
            (first as u32, 0, 0.)
        });
        let mut level = Level {
            contexts: ends.collect(),
            keys,
            counts,
            discounts,
        };
        level.sum_up(|context| lost[context]);
        level
    }
}

/// The discounts `D(1)`, `D(2)` and `D(3)` of n-grams with these counts.
pub(super) fn discounts(counts: &[u32]) -> [f64; 3] {
    let mut of = [0f64; 5];
    let low = counts.iter().filter(|count| **count < 5);
    low.for_each(|count| of[*count as usize] += 1.);
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
