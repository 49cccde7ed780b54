//! Whether a training on a text, and the counts of its n-grams, fit into memory.

use super::ngram::{KneserNey, Reader};
use super::windows::Windows;
use super::Text;
use crate::error::{Error, Result};
use crate::flow::examples::Examples;

/// The most bytes that n-grams are sorted in.
const SORTING: u64 = 70 << 20;

/// Refuses a text that is too large for the memory to train on it and to count its n-grams,
/// where `free` bytes are free beside its tokens: the system would kill the process without
/// a message, after the training.
///
/// # Errors
/// [`Error::Usage`] with what is needed and what is free.
pub(super) fn check(train: &Windows, test: &Windows, text: &Text, free: Option<u64>) -> Result<()> {
    let (Some(free), Some(passages)) = (free, train.passages()) else {
        return Ok(());
    };
    let tokens = train.tokens.len();
    // The order of the examples, the places that are sorted, and a reader of the test part.
    let other = (4 * train.len() + 32 * tokens.min(SORTING as usize / 32)) as u64
        + Reader::bytes_for(test.tokens.len(), text.ngram);
    let counts = KneserNey::estimated_bytes(
        &passages.documents,
        text.ngram,
        text.tokenizer.vocabulary().len(),
        text.least,
        free / 4,
    );
    // The estimate may be too low.
    let needed = other + counts + counts / 4;
    if needed <= free {
        return Ok(());
    }
    let [needed, free] = [needed, free].map(|bytes| bytes >> 20);
    let rarer = match text.least {
        1 => ", raise `data.ngram_least` to 2",
        _ => "",
    };
    let problem = format!(
        "has {tokens} tokens to train on; to train and to count its n-grams takes about {needed} \
         MB of memory, and {free} MB are free; use a part of it{rarer}, or lower `data.ngram`"
    );
    Err(Error::usage("the text", problem))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::text::tokenizer::{Tokenizer, Units};
    use crate::data::Room;
    use crate::flow::random::{below, stream};

    #[test]
    fn a_text_whose_counts_do_not_fit_is_refused() -> Result<()> {
        let mut rng = stream(1, "needs", 0);
        let letter = |_| char::from(b'a' + below(&mut rng, 26) as u8);
        let letters: String = (0..300_000).map(letter).collect();
        let tokenizer = Arc::new(Tokenizer::train(Units::Char, &[&letters])?);
        let windows = |text: &str| Windows::new(&[text.into()], &tokenizer, 4, &Room::default());
        let (train, test) = (windows(&letters)?, windows(&letters[..1000])?);
        let check = |ngram, least, megabytes: u64| {
            let tokenizer = tokenizer.clone();
            let text = Text {
                tokenizer,
                ngram,
                least,
            };
            super::check(&train, &test, &text, Some(megabytes << 20))
        };
        // Nearly all n-grams of more than four random letters are different.
        assert!(check(6, 1, 100).is_ok());
        assert!(check(6, 2, 16).is_ok());
        let refused = |ngram, least, megabytes, expected: &str| {
            let error = check(ngram, least, megabytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(
            6,
            1,
            16,
            "has 300000 tokens to train on; to train and to count",
        );
        refused(6, 1, 16, "a part of it, raise `data.ngram_least` to 2");
        refused(9, 2, 9, "a part of it, or lower `data.ngram`");
        Ok(())
    }
}
