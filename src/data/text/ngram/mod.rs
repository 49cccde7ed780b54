//! Kneser–Ney models of n-grams: counting, in closed form.

mod baselines;
mod counting;
mod level;
mod packed;
mod places;
mod reader;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::data::score::Counts;
use crate::flow::examples::Passages;
use crate::kernels::wide;

pub use self::baselines::Baselines;
use self::level::Level;
use self::reader::Change;
pub use self::reader::{PassageReader, Reader};

/// Interpolated modified Kneser–Ney smoothing of n-grams.
///
/// With `c` the counts of n-grams `h·w`, a context `h` of `n − 1` tokens and the next
/// token `w`,
///
/// ```text
/// pₙ(w|h) = (max(c(hw) − D(c(hw)), 0) + γ(h)·pₙ₋₁(w|h′)) / Σᵥ c(hv)
/// γ(h) = Σᵥ D(c(hv)),    p₀(w) = 1/V
/// ```
///
/// where `h′` is `h` without its first token. For the longest n-grams `c` is the number
/// of occurrences. For shorter ones it is the number of different preceding tokens,
/// `|{u : c(uhw) > 0}|`. An unseen context has `pₙ = pₙ₋₁`. The discounts of each length
/// are `D(0) = 0` and, with `nₖ` n-grams that have `c = k`,
///
/// ```text
/// D(k) = k − (k + 1)·Y·nₖ₊₁/nₖ,  Y = n₁/(n₁ + 2n₂),    k = 1, 2, and 3 for all c ≥ 3
/// ```
///
/// Estimates outside `(0, k]`, which occur with small or closed vocabularies, are
/// replaced by `k/2`. No n-gram crosses the border of a passage, and a passage has no
/// preceding context.
///
/// N-grams may be left out ([`fit_frequent`](Self::fit_frequent)): their counts stay in
/// the sum, and are added to `γ` as a whole.
///
/// # Reference
/// Chen and Goodman, "An empirical study of smoothing techniques for language modeling",
/// Computer Speech and Language 13, 1999, section 3.
pub struct KneserNey {
    levels: Vec<Level>,
    vocabulary: usize,
    /// The count of every token after the empty context, less its discount.
    unigrams: OnceLock<Vec<f64>>,
}

/// How much a model knows of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Known {
    /// The number of tokens of the longest end of the context that was seen before
    /// another token.
    pub tokens: usize,
    /// The sum of the counts after it.
    pub sum: u32,
}

/// The probability of every token after a context, by counts.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The probability of each token.
    pub p: Vec<f64>,
    /// How much is known of the context.
    pub known: Known,
}

impl KneserNey {
    /// The number of tokens of the longest n-grams.
    pub fn order(&self) -> usize {
        self.levels.len()
    }

    /// The number of tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The probability of every token after a context.
    pub fn after(&self, context: &[u32]) -> Counted {
        let last = context
            .len()
            .saturating_sub(self.levels.len().saturating_sub(1));
        let contexts = context[last..]
            .iter()
            .fold(self.beginning(), |contexts, token| {
                self.behind(&contexts, *token)
            });
        self.interpolated(&contexts, self.unigrams(), |_, _| None)
    }

    /// The count of every token after the empty context, less its discount.
    fn unigrams(&self) -> &[f64] {
        self.unigrams.get_or_init(|| {
            let level = &self.levels[0];
            let mut unigrams = vec![0.; self.vocabulary];
            for (token, count) in level.tokens.iter().zip(&level.counts) {
                unigrams[*token as usize] = level.discounted(*count);
            }
            unigrams
        })
    }

    /// The probability of every token after these contexts. `unigrams` are the counts after
    /// the empty one, less their discounts; `more` has what is added to the counts after a
    /// longer one, given the number of its tokens.
    ///
    /// The equation of [`KneserNey`] is summed over the lengths `n`, so that a token
    /// costs as many steps as it has n-grams here:
    ///
    /// ```text
    /// p(w|h) = Σₙ rₙ·max(c(hₙw) − D(c(hₙw)), 0) / Σᵥ c(hₙv) + r₀/V
    /// rₙ = Π γ(hₘ) / Σᵥ c(hₘv) over the longer contexts hₘ, m > n
    /// ```
    fn interpolated<'a>(
        &self,
        contexts: &[u32],
        unigrams: &[f64],
        more: impl Fn(usize, u32) -> Option<&'a Change>,
    ) -> Counted {
        let mut known = None;
        let mut rest = 1.;
        let mut seen = Vec::with_capacity(contexts.len());
        let levels = self.levels.iter().zip(contexts).enumerate();
        for (tokens, (level, &context)) in levels.rev() {
            let (range, mut sum, mut gamma) = level.after(context);
            let change = more(tokens, context);
            if let Some(change) = change {
                sum += change.sum;
                gamma += change.gamma;
            }
            if sum == 0 {
                continue;
            }
            known.get_or_insert(Known { tokens, sum });
            let share = rest / f64::from(sum);
            seen.push((tokens, context, range, change, share));
            rest = share * gamma;
        }
        let mut p = vec![rest / self.vocabulary as f64; self.vocabulary];
        for (tokens, context, range, change, share) in seen.into_iter().rev() {
            if tokens == 0 {
                // Nearly all tokens, so one after the other.
                wide(|| {
                    let all = p.iter_mut().zip(unigrams);
                    all.for_each(|(p, discounted)| *p += share * discounted);
                });
                continue;
            }
            let level = &self.levels[tokens];
            let counts = &level.counts[range.clone()];
            for (token, &count) in level.tokens[range].iter().zip(counts) {
                p[*token as usize] += share * level.discounted(count);
            }
            for (token, more) in change.into_iter().flat_map(Change::counts) {
                let before = level.count(context, token);
                let gain = level.discounted(before + more) - level.discounted(before);
                p[token as usize] += share * gain;
            }
        }
        let known = known.unwrap_or_default();
        Counted { p, known }
    }

    /// The contexts at the beginning of a passage: for every length the index of the seen
    /// context, the empty one first.
    fn beginning(&self) -> Vec<u32> {
        vec![0]
    }

    /// The contexts after one more token.
    fn behind(&self, contexts: &[u32], token: u32) -> Vec<u32> {
        let longer = self
            .levels
            .iter()
            .zip(contexts)
            .map_while(|(level, &context)| level.find(context, token));
        std::iter::once(0)
            .chain(longer)
            .take(self.levels.len())
            .collect()
    }

    /// The probability of a token after these contexts.
    fn probability(&self, contexts: &[u32], token: u32) -> f64 {
        let mut p = 1. / self.vocabulary as f64;
        for (level, &context) in self.levels.iter().zip(contexts) {
            let (_, sum, gamma) = level.after(context);
            if sum > 0 {
                let own = level.discounted(level.count(context, token));
                p = (own + gamma * p) / f64::from(sum);
            }
        }
        p
    }

    /// The most probable token. It was seen after the longest context, or is the most
    /// probable after a shorter one: being seen only increases the probability of a
    /// token.
    fn best(&self, contexts: &[u32], known: &mut BTreeMap<(usize, u32), u32>) -> u32 {
        let Some((&context, shorter)) = contexts.split_last() else {
            return 0;
        };
        if let Some(&best) = known.get(&(shorter.len(), context)) {
            return best;
        }
        let mut best = self.best(shorter, known);
        let mut highest = self.probability(contexts, best);
        let level = &self.levels[shorter.len()];
        for &token in &level.tokens[level.range(context)] {
            let p = self.probability(contexts, token);
            if p > highest {
                (best, highest) = (token, p);
            }
        }
        known.insert((shorter.len(), context), best);
        best
    }

    /// Predicts the labels of some passages.
    pub fn predict(&self, passages: &Passages<'_>) -> Counts {
        let (mut nats, mut wrong, mut tokens) = (0., 0, 0);
        let mut known = BTreeMap::new();
        for passage in &passages.documents {
            let mut contexts = self.beginning();
            for (place, &token) in passage.iter().enumerate() {
                if place >= passages.window {
                    nats -= self.probability(&contexts, token).ln();
                    wrong += usize::from(self.best(&contexts, &mut known) != token);
                    tokens += 1;
                }
                contexts = self.behind(&contexts, token);
            }
        }
        Counts {
            wrong,
            labels: tokens,
            nats: Some(nats),
            characters: passages.characters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHABET: &str = " ,abcdr?";

    fn tokens(text: &str) -> Vec<u32> {
        text.chars()
            .map(|symbol| ALPHABET.find(symbol).unwrap() as u32)
            .collect()
    }

    // The numbers are from this Python program:
    //
    // from collections import Counter, defaultdict
    // from math import log
    //
    // train = ["abracadabra", "a cad, a bar", "cabaca rac bra"]
    // test, V, N, least = ["bra cadabar, d", "crab"], 8, 3, 1  # and 2
    // gram = {n: Counter(t[i - n:i] for t in train for i in range(n, len(t) + 1))
    //         for n in range(1, N + 1)}
    // count = {n: Counter(g[1:] for g in gram[n + 1]) for n in range(1, N)} | {N: gram[N]}
    //
    // def discount(n):
    //     n1, n2, n3, n4 = (list(count[n].values()).count(k) for k in (1, 2, 3, 4))
    //     y = n1 / (n1 + 2 * n2) if n1 else 0
    //     d = [k - (k + 1) * y * b / a if a else 0
    //          for k, a, b in ((1, n1, n2), (2, n2, n3), (3, n3, n4))]
    //     return [x if 0 < x <= k else k / 2 for k, x in enumerate(d, 1)]
    //
    // D = {n: discount(n) for n in count}
    //
    // def p(w, h, n):
    //     if n == 0:
    //         return 1 / V
    //     h = h[len(h) - n + 1:]
    //     lower = p(w, h[1:], n - 1)
    //     total = sum(c for g, c in count[n].items() if g[:-1] == h)
    //     if not total:
    //         return lower
    //     kept = {g: c - D[n][min(c, 3) - 1] for g, c in count[n].items()
    //             if g[:-1] == h and (n == 1 or gram[n][g] >= least)}
    //     return (kept.get(h + w, 0) + (total - sum(kept.values())) * lower) / total
    //
    // nats = right = 0
    // for t in test:
    //     for i in range(2, len(t)):
    //         h = t[max(0, i - N + 1):i]
    //         scores = {w: p(w, h, len(h) + 1) for w in " ,abcdr?"}
    //         nats -= log(scores[t[i]])
    //         right += t[i] == max(scores, key=scores.get)
    // print(nats, right, sum(scores.values()), {n: [round(x, 6) for x in D[n]] for n in D})
    // print([sum(n == 1 or c >= least for c in gram[n].values()) for n in gram])
    #[test]
    fn kneser_ney_agrees_with_the_equations() {
        let train = ["abracadabra", "a cad, a bar", "cabaca rac bra"].map(tokens);
        let test = ["bra cadabar, d", "crab"].map(tokens);
        let passages = Passages {
            documents: test.iter().map(Vec::as_slice).collect(),
            window: 2,
            characters: 14,
        };
        let discounts = [
            [0.333333, 1., 3.],
            [0.36, 2., 1.5],
            [0.714286, 1.464286, 3.],
        ];
        for (least, kept, nats, right) in [
            (1, [7, 17, 25], 22.18641143543692, 10),
            (2, [7, 9, 5], 27.638399901598056, 5),
        ] {
            let model = KneserNey::fit_frequent(&train.each_ref().map(Vec::as_slice), 3, 8, least);
            let lengths: Vec<usize> = model
                .levels
                .iter()
                .map(|level| level.tokens.len())
                .collect();
            assert_eq!(lengths, kept, "at least {least} times");
            for (level, expected) in model.levels.iter().zip(discounts) {
                for (found, expected) in level.discounts.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-6, "{:?}", level.discounts);
                }
            }
            let read = KneserNey::from_bytes(&model.to_bytes()).unwrap();
            for model in [model, read] {
                let found = model.predict(&passages);
                let apart = (found.nats.unwrap() - nats).abs();
                assert!(apart < 1e-9, "{found:?} at least {least} times");
                assert_eq!((found.wrong, found.labels), (14 - right, 14));
            }
        }
    }

    #[test]
    fn probabilities_sum_to_one_after_every_context() {
        let mut rng = crate::flow::random::stream(1, "ngram", 0);
        let text: Vec<u32> = (0..400)
            .map(|i| ((i % 7) * crate::flow::random::below(&mut rng, 3)) as u32 % 9)
            .collect();
        for (order, least) in (1..6).flat_map(|order| [1, 2, 5].map(|least| (order, least))) {
            let passages = [&text[..150], &[], &text[150..]];
            let model = KneserNey::fit_frequent(&passages, order, 11, least);
            let (mut contexts, mut seen) = (model.beginning(), Vec::new());
            for token in text.iter().copied().chain([10, 3, 10]) {
                let sum: f64 = (0..11)
                    .map(|token| model.probability(&contexts, token))
                    .sum();
                assert!((sum - 1.).abs() < 1e-12, "{sum} at order {order}");
                if contexts.len() == order {
                    // The same after the last tokens alone.
                    let counted = model.after(&seen[seen.len() - (order - 1)..]);
                    assert!(counted.known.tokens < order);
                    for (token, p) in (0..).zip(counted.p) {
                        let expected = model.probability(&contexts, token);
                        assert!((p - expected).abs() <= 1e-14 * expected, "{p} {expected}");
                    }
                }
                let best = model.best(&contexts, &mut BTreeMap::new());
                let highest = (0..11)
                    .map(|token| model.probability(&contexts, token))
                    .fold(0., f64::max);
                assert_eq!(model.probability(&contexts, best), highest, "order {order}");
                contexts = model.behind(&contexts, token);
                seen.push(token);
            }
        }
    }
}
