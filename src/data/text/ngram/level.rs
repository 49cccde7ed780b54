//! The n-grams of one length.

use std::collections::HashMap;
use std::ops::Range;

/// The n-grams of one length, sorted by their tokens.
#[derive(Default)]
pub(super) struct Level {
    /// The last token of each n-gram.
    pub tokens: Vec<u32>,
    pub counts: Vec<u32>,
    /// For each n-gram that is one shorter, and one past the last.
    pub contexts: Vec<Context>,
    /// `γ` of the contexts with many tokens after them.
    pub wide: HashMap<u32, f64>,
    /// `D(1)`, `D(2)`, `D(3)`.
    pub discounts: [f64; 3],
}

/// What is known of the tokens after an n-gram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Context {
    /// The first of the n-grams that are one token longer. They end where those of the next
    /// context begin.
    pub first: u32,
    /// The sum of the counts of these n-grams, and of those that were left out.
    pub sum: u32,
}

/// The tokens after a context from which on its `γ` is kept. For fewer, it is computed
/// when it is needed: most contexts have one or two.
pub(super) const WIDE: usize = 16;

impl Level {
    /// The n-grams after a context, the sum of their counts, and `γ`; nothing for a
    /// context that was not seen.
    pub fn after(&self, context: u32) -> (Range<usize>, u32, f64) {
        let place = context as usize;
        let Some([here, next]) = self.contexts.get(place..place + 2) else {
            return (0..0, 0, 0.);
        };
        let range = here.range(next);
        let gamma = match range.len() >= WIDE {
            true => self.wide[&context],
            false => self.gamma(here.sum, &self.counts[range.clone()]),
        };
        (range, here.sum, gamma)
    }

    /// `γ` after a context with these counts. Of their sum, what is missing was left out:
    /// the shorter context gets all of it.
    pub fn gamma(&self, sum: u32, counts: &[u32]) -> f64 {
        let discounts = counts.iter().map(|count| self.discount(*count));
        let lost = sum - counts.iter().sum::<u32>();
        discounts.sum::<f64>() + f64::from(lost)
    }

    /// The n-grams after a context.
    pub fn range(&self, context: u32) -> Range<usize> {
        let place = context as usize;
        let both = self.contexts.get(place..place + 2);
        both.map_or(0..0, |both| both[0].range(&both[1]))
    }

    /// The index of the n-gram, if it was seen.
    pub fn find(&self, context: u32, token: u32) -> Option<u32> {
        let range = self.range(context);
        let first = range.start;
        let found = self.tokens[range].binary_search(&token).ok()?;
        Some((first + found) as u32)
    }

    pub fn count(&self, context: u32, token: u32) -> u32 {
        let found = self.find(context, token);
        found.map_or(0, |number| self.counts[number as usize])
    }

    /// A count minus its discount.
    pub fn discounted(&self, count: u32) -> f64 {
        (f64::from(count) - self.discount(count)).max(0.)
    }

    pub fn discount(&self, count: u32) -> f64 {
        if count == 0 {
            0.
        } else {
            self.discounts[count.min(3) as usize - 1]
        }
    }

    /// Adds the counts of each context to its sum, which was what is missing of them, and
    /// keeps `γ` of those with many tokens.
    pub fn sum_up(&mut self) {
        self.wide.clear();
        for place in 1..self.contexts.len() {
            let range = self.contexts[place - 1].range(&self.contexts[place]);
            let counts = &self.counts[range];
            let sum = self.contexts[place - 1].sum + counts.iter().sum::<u32>();
            if counts.len() >= WIDE {
                self.wide.insert(place as u32 - 1, self.gamma(sum, counts));
            }
            self.contexts[place - 1].sum = sum;
        }
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.tokens[..])
            + size_of_val(&self.counts[..])
            + size_of_val(&self.contexts[..])
    }

    /// What is missing of the counts of a context.
    pub fn lost(&self, [context, next]: &[Context; 2]) -> u32 {
        context.sum - self.counts[context.range(next)].iter().sum::<u32>()
    }
}

impl Context {
    /// The n-grams that are one longer.
    pub fn range(&self, next: &Self) -> Range<usize> {
        self.first as usize..next.first as usize
    }
}
