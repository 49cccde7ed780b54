//! N-grams that go on counting in the text that they read.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Counted, KneserNey};
use crate::data::score::Counts;
use crate::flow::examples::Passages;

/// Reads one text, token by token, and counts what it has read.
///
/// The counts are those of [`KneserNey::fit`] on the training passages and on the text so
/// far; the discounts stay those of the training passages. So a name that the training
/// part never had is known after its first occurrence.
///
/// Where n-grams were left out ([`KneserNey::fit_frequent`]), the counts differ: an
/// n-gram of the text that was left out counts from 0 on, as if it were new. The n-gram
/// without its first token then counts that token a second time.
///
/// It forgets all counts of the text after four million different n-grams, which is about
/// a million tokens. So a long text takes at most some 300 MB.
///
/// ```
/// use std::sync::Arc;
/// use onward_core::data::text::ngram::{KneserNey, Reader};
///
/// let ngrams = Arc::new(KneserNey::fit(&[&[0, 1, 0, 1, 0]], 2, 3));
/// let mut reader = Reader::new(ngrams);
/// reader.read(0);
/// let before = reader.next_token().p[2];
/// [2, 0].map(|token| reader.read(token));
/// assert!(reader.next_token().p[2] > before);
/// ```
///
/// # Reference
/// Kuhn and De Mori, "A cache-based natural language model for speech recognition", IEEE
/// Transactions on Pattern Analysis and Machine Intelligence 12, 1990; counts that go on
/// as in Cleary and Witten, "Data compression using adaptive coding and partial string
/// matching", IEEE Transactions on Communications 32, 1984.
pub struct Reader {
    ngrams: Arc<KneserNey>,
    /// What the text adds to the n-grams of each length.
    added: Vec<Added>,
    /// The count of every token after the empty context, less its discount.
    unigrams: Vec<f64>,
    /// The n-grams that end at the last token, by length, the empty one first.
    contexts: Vec<u32>,
    /// The number of n-grams that were counted, and from which number on they are forgotten.
    counted: usize,
    limit: usize,
}

/// The n-grams that are counted before all are forgotten.
const LIMIT: usize = 1 << 22;

/// About how many bytes each of them takes.
const BYTES: u64 = 64;

#[derive(Default)]
struct Added {
    /// N-grams that the training part does not have, by context and token. Their indices
    /// follow those of the others.
    new: HashMap<(u32, u32), u32>,
    changes: HashMap<u32, Change>,
}

/// What the text adds to the counts after a context.
#[derive(Default)]
pub(super) struct Change {
    pub sum: u32,
    pub gamma: f64,
    /// A token and its additional count: most contexts have no other.
    first: (u32, u32),
    #[allow(
        clippy::box_collection,
        reason = "most contexts have no more, and a pointer is smaller than a vector"
    )]
    more: Option<Box<Vec<(u32, u32)>>>,
}

impl Change {
    /// Tokens and their additional counts.
    pub fn counts(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let more = self.more.iter().flat_map(|more| more.iter().copied());
        std::iter::once(self.first).chain(more)
    }

    /// The additional count of a token.
    fn of(&mut self, token: u32) -> &mut u32 {
        if self.sum == 0 {
            self.first = (token, 0);
        }
        if self.first.0 == token {
            return &mut self.first.1;
        }
        // Sorted, since a short context has many tokens.
        let more = self.more.get_or_insert_default();
        let place = more.binary_search_by_key(&token, |count| count.0);
        let place = place.unwrap_or_else(|place| {
            more.insert(place, (token, 0));
            place
        });
        &mut more[place].1
    }
}

impl Reader {
    /// At the beginning of a text.
    pub fn new(ngrams: Arc<KneserNey>) -> Self {
        let contexts = ngrams.beginning();
        let mut reader = Self {
            ngrams,
            added: Vec::new(),
            unigrams: Vec::new(),
            contexts,
            counted: 0,
            limit: LIMIT,
        };
        reader.forget();
        reader
    }

    /// Forgets what was counted, but not the last tokens.
    fn forget(&mut self) {
        let levels = &self.ngrams.levels;
        self.added = levels.iter().map(|_| Added::default()).collect();
        self.unigrams = self.ngrams.unigrams().to_vec();
        let known = self.contexts.iter().skip(1).zip(levels);
        let known = known.take_while(|(context, level)| (**context as usize) < level.tokens.len());
        self.contexts.truncate(1 + known.count());
        self.counted = 0;
    }

    /// Reads and counts the next token.
    pub fn read(&mut self, token: u32) {
        if self.counted >= self.limit {
            self.forget();
        }
        let longest = self.contexts.len().min(self.ngrams.order());
        let mut ending = vec![0; longest + 1];
        // A shorter n-gram counts the different tokens before it, so that it gains one
        // where a longer one is new.
        let mut counts = longest == self.ngrams.order();
        for length in (1..=longest).rev() {
            let context = self.contexts[length - 1];
            if counts {
                self.count(length - 1, context, token);
            }
            let found = self.find(length - 1, context, token);
            counts = found.is_none();
            ending[length] = found.unwrap_or_else(|| {
                let new = &mut self.added[length - 1].new;
                let index = (self.ngrams.levels[length - 1].tokens.len() + new.len()) as u32;
                new.insert((context, token), index);
                index
            });
        }
        ending.truncate(self.ngrams.order());
        self.contexts = ending;
    }

    /// The most bytes that reading so many tokens takes, about.
    pub(crate) fn bytes_for(tokens: usize, order: usize) -> u64 {
        tokens.saturating_mul(order).min(LIMIT) as u64 * BYTES
    }

    /// Moves past the next token without counting it, such as one that was generated.
    ///
    /// Do not call [`read`](Self::read) afterwards: n-grams that begin with passed tokens
    /// may be unknown, and then only shorter ones would be counted.
    pub fn pass(&mut self, token: u32) {
        let longer = self.contexts.iter().enumerate();
        let longer = longer.map_while(|(level, &context)| self.find(level, context, token));
        let ending = std::iter::once(0).chain(longer);
        self.contexts = ending.take(self.ngrams.order()).collect();
    }

    /// The probability of every token after the text so far.
    pub fn next_token(&self) -> Counted {
        let more = |tokens: usize, context| self.added[tokens].changes.get(&context);
        self.ngrams
            .interpolated(&self.contexts, &self.unigrams, more)
    }

    fn find(&self, level: usize, context: u32, token: u32) -> Option<u32> {
        let found = self.ngrams.levels[level].find(context, token);
        found.or_else(|| self.added[level].new.get(&(context, token)).copied())
    }

    fn count(&mut self, tokens: usize, context: u32, token: u32) {
        let Self { ngrams, added, .. } = self;
        let (level, change) = (&ngrams.levels[tokens], &mut added[tokens].changes);
        let change = change.entry(context).or_default();
        let more = change.of(token);
        self.counted += usize::from(*more == 0);
        let before = level.count(context, token) + *more;
        *more += 1;
        change.sum += 1;
        change.gamma += level.discount(before + 1) - level.discount(before);
        if tokens == 0 {
            self.unigrams[token as usize] = level.discounted(before + 1);
        }
    }
}

/// Reads passages window by window.
pub struct PassageReader<'a> {
    passages: Passages<'a>,
    ngrams: Arc<KneserNey>,
    reader: Reader,
    passage: usize,
    /// The number of tokens of the passage that were read.
    place: usize,
    /// The index of its first window.
    first: usize,
}

impl<'a> PassageReader<'a> {
    /// At the first window.
    pub fn new(passages: Passages<'a>, ngrams: Arc<KneserNey>) -> Self {
        Self {
            passages,
            reader: Reader::new(ngrams.clone()),
            ngrams,
            passage: 0,
            place: 0,
            first: 0,
        }
    }

    /// The probability of every token after the window with this index, below the number
    /// of windows. All of its passage before has been read.
    pub fn at(&mut self, index: usize) -> Counted {
        let window = self.passages.window;
        if index < self.first || index - self.first + window < self.place {
            (self.passage, self.first) = (0, 0);
            self.begin();
        }
        while index - self.first >= self.passages.documents[self.passage].len() - window {
            self.first += self.passages.documents[self.passage].len() - window;
            self.passage += 1;
            self.begin();
        }
        let end = index - self.first + window;
        for token in &self.passages.documents[self.passage][self.place..end] {
            self.reader.read(*token);
        }
        self.place = end;
        self.reader.next_token()
    }

    fn begin(&mut self) {
        (self.reader, self.place) = (Reader::new(self.ngrams.clone()), 0);
    }
}

impl KneserNey {
    /// Predicts the labels of some passages. Each token of a passage is counted after
    /// it was predicted; the next passage begins without these counts.
    pub fn predict_and_count(self: &Arc<Self>, passages: &Passages<'_>) -> Counts {
        let (mut nats, mut wrong, mut labels) = (0., 0, 0);
        for passage in &passages.documents {
            let mut reader = Reader::new(self.clone());
            for (place, &token) in passage.iter().enumerate() {
                if place >= passages.window {
                    let p = reader.next_token().p;
                    // The first of equals, as in the prediction without counting.
                    let best = (0..p.len()).rev().max_by(|a, b| p[*a].total_cmp(&p[*b]));
                    nats -= p[token as usize].ln();
                    wrong += usize::from(best != Some(token as usize));
                    labels += 1;
                }
                reader.read(token);
            }
        }
        Counts {
            wrong,
            labels,
            nats: Some(nats),
            characters: passages.characters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::random::{below, stream};

    fn text(seed: u64, tokens: usize, of: usize) -> Vec<u32> {
        let mut rng = stream(seed, "reader", 0);
        let token = |i: usize| ((i % 5) * below(&mut rng, 3)) as u32 % of as u32;
        (0..tokens).map(token).collect()
    }

    /// The same with the discounts of another model.
    fn with_discounts(mut model: KneserNey, of: &KneserNey) -> KneserNey {
        for (level, of) in model.levels.iter_mut().zip(&of.levels) {
            level.discounts = of.discounts;
            level
                .contexts
                .iter_mut()
                .for_each(|context| context.sum = 0);
            level.sum_up();
        }
        model
    }

    #[test]
    fn counts_go_on_as_if_the_text_had_been_counted_before() {
        for order in [1, 2, 3, 5] {
            // The text has tokens that the training part does not have.
            let (train, read) = (text(1, 60, 5), text(2, 40, 8));
            let ngrams = Arc::new(KneserNey::fit(&[&train], order, 9));
            let mut reader = Reader::new(ngrams.clone());
            for place in 0..=read.len() {
                let whole = KneserNey::fit(&[&train, &read[..place]], order, 9);
                let whole = with_discounts(whole, &ngrams);
                let (expected, found) = (whole.after(&read[..place]), reader.next_token());
                assert_eq!(found.known, expected.known, "{order}, {place}");
                for (found, expected) in found.p.iter().zip(&expected.p) {
                    assert!((found - expected).abs() < 1e-12, "{order}, {place}");
                }
                if let Some(token) = read.get(place) {
                    reader.read(*token);
                }
            }
        }
    }

    #[test]
    fn tokens_that_are_passed_change_no_count() {
        let (train, read) = (text(1, 60, 5), text(2, 40, 8));
        let ngrams = Arc::new(KneserNey::fit(&[&train], 3, 9));
        let mut reader = Reader::new(ngrams.clone());
        for place in 0..=read.len() {
            assert_eq!(
                reader.next_token().p,
                ngrams.after(&read[..place]).p,
                "{place}"
            );
            if let Some(token) = read.get(place) {
                reader.pass(*token);
            }
        }
    }

    #[test]
    fn a_reader_that_forgets_begins_anew_after_its_last_tokens() {
        let (train, read) = (text(1, 60, 5), text(2, 40, 8));
        let ngrams = Arc::new(KneserNey::fit(&[&train], 3, 9));
        let mut reader = Reader::new(ngrams.clone());
        reader.limit = 12;
        let mut times = 0;
        for place in 0..read.len() {
            let before = reader.counted;
            reader.read(read[place]);
            if reader.counted < before {
                times += 1;
                let mut other = Reader::new(ngrams.clone());
                read[..place].iter().for_each(|token| other.pass(*token));
                other.read(read[place]);
                assert_eq!(reader.next_token().p, other.next_token().p, "{place}");
            }
            let sum: f64 = reader.next_token().p.iter().sum();
            assert!((sum - 1.).abs() < 1e-12, "{sum} at {place}");
        }
        assert!(times > 1, "{times}");
    }

    #[test]
    fn passages_are_read_from_their_beginning_in_any_order() {
        let ngrams = Arc::new(KneserNey::fit(&[&text(1, 60, 5)], 3, 9));
        let documents = [text(2, 12, 8), text(3, 6, 8), text(4, 20, 8)];
        let window = 4;
        let passages = || Passages {
            documents: documents.iter().map(Vec::as_slice).collect(),
            window,
            characters: 0,
        };
        let mut expected = Vec::new();
        for document in &documents {
            for end in window..document.len() {
                let mut reader = Reader::new(ngrams.clone());
                document[..end].iter().for_each(|token| reader.read(*token));
                expected.push(reader.next_token().p);
            }
        }
        let mut reader = PassageReader::new(passages(), ngrams.clone());
        let indices = (0..expected.len()).chain([9, 3, 3, 0, expected.len() - 1]);
        for index in indices {
            assert!(reader.at(index).p == expected[index], "{index}");
        }
        let found = ngrams.predict_and_count(&passages());
        let labels = documents.iter().flat_map(|document| &document[window..]);
        let nats: f64 = labels
            .zip(&expected)
            .map(|(l, p)| -p[*l as usize].ln())
            .sum();
        assert_eq!(found.labels, expected.len());
        assert!((found.nats.unwrap() - nats).abs() < 1e-9);
    }
}
