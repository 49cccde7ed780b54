//! Baselines of a language model: unigrams and n-grams of its training part.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::KneserNey;
use crate::data::score::Counts;
use crate::data::text::Text;
use crate::flow::examples::Passages;

/// The frequencies of tokens, with add-one smoothing.
struct Unigrams {
    counts: Vec<u32>,
    sum: f64,
    /// The most frequent token.
    best: Option<usize>,
}

impl Unigrams {
    fn fit(passages: &[&[u32]], vocabulary: usize) -> Self {
        let mut counts = vec![1u32; vocabulary];
        let tokens = passages.iter().flat_map(|passage| passage.iter());
        tokens.for_each(|token| counts[*token as usize] += 1);
        let sum = counts.iter().map(|count| f64::from(*count)).sum();
        let best = (0..vocabulary).rev().max_by_key(|token| counts[*token]);
        Self { counts, sum, best }
    }

    fn predict(&self, passages: &Passages<'_>) -> Counts {
        let (mut nats, mut wrong, mut labels) = (0., 0, 0);
        for token in passages.labels() {
            nats -= (f64::from(self.counts[token as usize]) / self.sum).ln();
            wrong += usize::from(self.best != Some(token as usize));
            labels += 1;
        }
        Counts {
            wrong,
            labels,
            nats: Some(nats),
            characters: passages.characters,
        }
    }
}

/// Models that were counted on a training part, to compare a network with.
pub struct Baselines {
    unigrams: Option<Unigrams>,
    ngrams: Arc<KneserNey>,
}

impl Baselines {
    /// Counts unigrams, and the n-grams of a text for [`KneserNey`].
    pub fn fit(train: &Passages<'_>, text: &Text, vocabulary: usize) -> Self {
        let (documents, order) = (&train.documents, text.ngram);
        let ngrams = KneserNey::fit_frequent(documents, order, vocabulary, text.least);
        Self {
            unigrams: Some(Unigrams::fit(documents, vocabulary)),
            ngrams: Arc::new(ngrams),
        }
    }

    /// Takes n-grams that were counted before; counts unigrams where their training
    /// part is at hand.
    pub fn beside(ngrams: Arc<KneserNey>, train: Option<&Passages<'_>>) -> Self {
        let count = |train: &Passages<'_>| Unigrams::fit(&train.documents, ngrams.vocabulary());
        Self {
            unigrams: train.map(count),
            ngrams,
        }
    }

    /// The n-grams.
    pub fn ngrams(&self) -> &Arc<KneserNey> {
        &self.ngrams
    }

    /// Predicts the labels of some passages by each model.
    pub fn predict(&self, test: &Passages<'_>) -> BTreeMap<String, Counts> {
        let name = format!("kneser_ney_{}", self.ngrams.order());
        let (adaptive, fixed) = rayon::join(
            || self.ngrams.predict_and_count(test),
            || self.ngrams.predict(test),
        );
        let mut found = BTreeMap::from([(format!("{name}_adaptive"), adaptive), (name, fixed)]);
        let unigrams = self.unigrams.as_ref();
        found.extend(unigrams.map(|unigrams| ("unigram".into(), unigrams.predict(test))));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unigrams_use_add_one_smoothing() {
        let (train, test) = ([0, 0, 1], [0, 1, 2]);
        let passages = Passages {
            documents: vec![&test[..]],
            window: 0,
            characters: 3,
        };
        let found = Unigrams::fit(&[&train[..]], 8).predict(&passages);
        // 8 + 3 counts in total
        let logs = [3f64, 2., 1.].map(|count| (count / 11.).ln());
        let nats = -logs.iter().sum::<f64>();
        assert!((found.nats.unwrap() - nats).abs() < 1e-12);
        assert_eq!((found.wrong, found.labels), (2, 3));
    }
}
