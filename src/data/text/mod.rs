//! Text: documents, their division into parts, and windows of tokens with the next token
//! as label.

pub mod context;
mod files;
pub mod mixture;
mod needs;
pub mod ngram;
mod passage;
mod reading;
pub mod tokenizer;
mod windows;

use std::sync::Arc;

pub use self::files::{apart, distinct, files, files_if_any, room_beside_counts, size};
pub use self::passage::{paragraphs, Passage};
pub use self::reading::{normalised, read, read_or_stdin};
pub use self::windows::Windows;
use crate::data::text::tokenizer::Tokenizer;
use crate::data::{Content, DataSet, ExampleSpec, Room};
use crate::error::{notify, Error, Result};
use crate::flow::examples::Examples;

/// The number of documents from which whole documents are assigned to the parts. Fewer
/// documents are cut.
const DEALT: usize = 20;

/// The data of a text data set besides its examples.
#[derive(Clone, Debug)]
pub struct Text {
    /// The tokenizer of the text.
    pub tokenizer: Arc<Tokenizer>,
    /// The length in tokens of the n-gram baseline in the test evaluation.
    pub ngram: usize,
    /// How often its n-grams of two tokens and more have to occur.
    pub least: usize,
}

/// A text in three parts, each with passages. No window crosses the border of a passage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The passages for training, also of the tokenizer.
    pub train: Vec<Passage>,
    /// The passages for choosing between settings.
    pub validation: Vec<Passage>,
    /// The passages for the final evaluation, used once.
    pub test: Vec<Passage>,
}

impl Parts {
    /// Divides documents. If no test part is given, it is their last tenth. If no
    /// validation part is given, it is a tenth of the rest, in stretches spread over it:
    /// the end of a text is often unlike the rest.
    ///
    /// From 20 documents on, whole documents are assigned. Fewer are each cut in the same
    /// proportions, after white space. The division of the same documents is always the
    /// same.
    pub fn new(
        documents: Vec<Passage>,
        validation: Option<Vec<Passage>>,
        test: Option<Vec<Passage>>,
    ) -> Self {
        let dealt = documents.len() >= DEALT;
        let (rest, test) = match test {
            Some(test) => (documents, test),
            None => hold_out(documents, dealt),
        };
        let (train, validation) = match validation {
            Some(validation) => (rest, validation),
            None => scatter(rest, dealt),
        };
        Self {
            train,
            validation,
            test,
        }
    }

    /// The texts for training.
    pub fn to_train(&self) -> Vec<&str> {
        self.train.iter().map(|text| &**text).collect()
    }
}

/// Splits off the last tenth of some documents.
fn hold_out(mut documents: Vec<Passage>, dealt: bool) -> (Vec<Passage>, Vec<Passage>) {
    if dealt {
        let test = documents.split_off(documents.len() - documents.len() / 10);
        return (documents, test);
    }
    let halves = documents.iter().map(|text| {
        let middle = behind_space(text, text.len() - text.len() / 10);
        (text.slice(0..middle), text.slice(middle..text.len()))
    });
    halves.unzip()
}

/// Splits off every tenth stretch of some documents, beginning with the sixth.
fn scatter(documents: Vec<Passage>, dealt: bool) -> (Vec<Passage>, Vec<Passage>) {
    let is_taken = |place: usize| place % 10 == 5;
    if dealt {
        let (taken, left): (Vec<_>, Vec<_>) = documents
            .into_iter()
            .enumerate()
            .partition(|(place, _)| is_taken(*place));
        let bare = |documents: Vec<(usize, Passage)>| {
            documents.into_iter().map(|(_, text)| text).collect()
        };
        return (bare(left), bare(taken));
    }
    let (mut left, mut taken) = (Vec::new(), Vec::new());
    for text in &documents {
        // Many stretches, but long ones: the first window of a stretch is never
        // predicted.
        let stretch = (text.len() / 200)
            .clamp(500, 20_000)
            .min(text.len() / 10)
            .max(1);
        let (mut start, mut place) = (0, 0);
        while start < text.len() {
            let count = if is_taken(place) {
                1
            } else {
                (0..10).find(|&more| is_taken(place + more)).unwrap_or(1)
            };
            place += count;
            // The remainder at the end belongs to the last stretch.
            let wanted = if (place + 1) * stretch > text.len() {
                text.len()
            } else {
                place * stretch
            };
            let end = behind_space(text, wanted).max(start);
            let part = if is_taken(place - count) {
                &mut taken
            } else {
                &mut left
            };
            part.push(text.slice(start..end));
            start = end;
        }
    }
    (left, taken)
}

/// The first position from byte `wanted` on that follows white space, if there is one
/// nearby; else `wanted`.
fn behind_space(text: &str, wanted: usize) -> usize {
    let wanted = (wanted.min(text.len())..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len());
    if wanted == 0 || wanted == text.len() || text[..wanted].ends_with(char::is_whitespace) {
        return wanted;
    }
    let space = text[wanted..]
        .char_indices()
        .take(200)
        .find(|(_, symbol)| symbol.is_whitespace());
    space.map_or(wanted, |(at, symbol)| wanted + at + symbol.len_utf8())
}

/// The number of tokens in an example of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The tokens that always are there: as many tokens at the beginning of a passage
    /// are not predicted.
    pub window: usize,
    /// The tokens before these, as far as there are any.
    pub before: usize,
}

impl Reach {
    /// The number of tokens in an example, `K`.
    pub fn tokens(self) -> usize {
        self.before + self.window
    }
}

/// Makes a data set of windows: an example is the tokens of the window and those before
/// it, `(B, K)` of `u32`, and its class the next token.
///
/// # Errors
/// [`Error::Usage`] if a part has no passage longer than the window, or only unknown
/// tokens to predict, or if the memory is too small to train on it and to count its
/// n-grams; errors of [`Windows::new`].
pub fn data_set(parts: &Parts, text: Text, reach: Reach, room: &Room) -> Result<DataSet> {
    let Reach { window, before } = reach;
    let part = |name: &str, documents: &[Passage]| -> Result<Arc<Windows>> {
        let windows = Windows::new(documents, &text.tokenizer, window, room)?.with_before(before);
        if windows.is_empty() {
            let longest = windows.longest;
            return Err(Error::usage(
                "data",
                format!(
                    "the {name} part has no passage of more than {window} tokens, and the \
                     longest has {longest}; use a smaller `data.window` or more text"
                ),
            ));
        }
        let all: usize = windows.tokens.len();
        if windows.characters == 0 {
            return Err(Error::usage(
                "data",
                format!(
                    "every token to predict in the {name} part is unknown to the \
                     tokenizer; use a tokenizer trained on similar text, or a larger \
                     vocabulary"
                ),
            ));
        }
        if windows.short > 0 {
            let (short, count) = (windows.short, documents.len());
            notify(format_args!(
                "warning: {short} of {count} passages of the {name} part are not longer \
                 than the window; they are skipped"
            ));
        }
        if windows.unknown > 0 {
            notify(format_args!(
                "warning: {} of {all} tokens of the {name} part are unknown to the \
                 tokenizer",
                windows.unknown
            ));
        }
        if is_lossy(documents, &text.tokenizer)? {
            notify(format_args!(
                "warning: the tokenizer does not preserve the text of the {name} part; \
                 bits per character are too low, because they cover only the preserved \
                 text"
            ));
        }
        Ok(Arc::new(windows))
    };
    let (train, validation) = (
        part("training", &parts.train)?,
        part("validation", &parts.validation)?,
    );
    let test = part("test", &parts.test)?;
    let parts = [&train, &validation, &test];
    if !room.is_closed() {
        let tokens: u64 = parts.map(|part| part.tokens.bytes_in_memory()).iter().sum();
        let free = room.free_before().map(|free| free.saturating_sub(tokens));
        needs::check(&train, &test, &text, free)?;
    }
    let in_files: u64 = parts.map(|part| part.tokens.bytes_in_file()).iter().sum();
    if in_files > 0 {
        room.say_temporary("the text", "the tokens take", in_files);
    }
    let classes = text.tokenizer.vocabulary().to_vec();
    let spec = ExampleSpec {
        before,
        ..ExampleSpec::new(&[reach.tokens()], classes, Content::Text)
    };
    Ok(DataSet {
        spec,
        train,
        validation,
        test,
        text: Some(text),
    })
}

/// Whether decoding changes what the tokenizer knows of a text, such as white space, case
/// or accents.
fn is_lossy(documents: &[Passage], tokenizer: &Tokenizer) -> Result<bool> {
    // The beginning is enough.
    for document in documents.iter().take(100) {
        let text: String = document.chars().take(1000).collect();
        let ids = tokenizer.encode(&text)?.ids;
        let known = ids.split(|id| Some(*id) == tokenizer.unknown());
        // What is between two unknown tokens is a part of the text.
        let mut rest = &text[..];
        for known in known.filter(|known| !known.is_empty()) {
            let decoded = tokenizer.decode(known)?;
            let Some(at) = rest.find(&decoded) else {
                return Ok(true);
            };
            rest = &rest[at + decoded.len()..];
        }
        let has_unknown = ids.iter().any(|id| Some(*id) == tokenizer.unknown());
        if !has_unknown && tokenizer.decode(&ids)? != text {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::text::tokenizer::Units;

    pub(super) fn passages(texts: &[&str]) -> Vec<Passage> {
        texts.iter().map(|text| Passage::from(*text)).collect()
    }

    /// A text of different words.
    fn prose(words: usize) -> String {
        (0..words)
            .map(|word| format!("word{word}{}", if word % 7 == 0 { "\n" } else { " " }))
            .collect()
    }

    #[test]
    fn a_text_is_cut_after_white_space_and_nothing_is_lost() {
        let (parts, text) = (
            Parts::new(vec![prose(20_000).into()], None, None),
            prose(20_000),
        );
        let size = |part: &[Passage]| {
            part.iter().map(|text| text.len()).sum::<usize>() as f64 / text.len() as f64
        };
        assert!(
            (size(&parts.test) - 0.1).abs() < 1e-3,
            "{}",
            size(&parts.test)
        );
        assert!(
            (size(&parts.validation) - 0.09).abs() < 0.01,
            "{}",
            size(&parts.validation)
        );
        assert_eq!(parts.validation.len(), 20);
        let all = [&parts.train[..], &parts.validation, &parts.test].concat();
        assert!(all.iter().all(|part| part.ends_with(char::is_whitespace)));
        // In order of position they form the text.
        let place = |part: &Passage| (text.find(&**part).unwrap(), part.to_string());
        let mut places: Vec<(usize, String)> = all.iter().map(place).collect();
        places.sort();
        let joined: String = places.into_iter().map(|(_, part)| part).collect();
        assert_eq!(joined, text);
        assert!(text.ends_with(&*parts.test[0]));
    }

    #[test]
    fn texts_of_any_length_can_be_divided() {
        for length in 0..60 {
            for text in ["é".repeat(length), prose(length), " \n".repeat(length)] {
                let parts = Parts::new(vec![text.as_str().into()], None, None);
                let all = [&parts.train[..], &parts.validation, &parts.test].concat();
                let lengths = all.iter().map(|part| part.len());
                assert_eq!(lengths.sum::<usize>(), text.len());
            }
        }
    }

    #[test]
    fn many_documents_are_assigned_whole() {
        let document = |number: usize| Passage::from(format!("document {number}"));
        let documents: Vec<Passage> = (0..40).map(document).collect();
        let parts = Parts::new(documents.clone(), None, None);
        assert_eq!(parts.test, documents[36..]);
        assert_eq!(parts.validation, [5, 15, 25, 35].map(document));
        assert_eq!(parts.train.len(), 32);
        let given = Parts::new(
            documents.clone(),
            Some(passages(&["v"])),
            Some(passages(&["t"])),
        );
        assert_eq!(
            (given.train, given.validation, given.test),
            (documents, passages(&["v"]), passages(&["t"]))
        );
    }

    #[test]
    fn a_text_shorter_than_the_window_is_refused() -> Result<()> {
        let tokenizer = Arc::new(Tokenizer::train(Units::Char, &["abc "])?);
        let parts = Parts::new(vec!["abc ".repeat(30).into()], None, None);
        let text = Text {
            tokenizer,
            ngram: 3,
            least: 1,
        };
        let room = Room::default();
        let reach = |window| Reach { window, before: 9 };
        let data = data_set(&parts, text.clone(), reach(4), &room)?;
        assert_eq!((&data.spec.shape[..], data.spec.window()), (&[13][..], 4));
        let refused = |parts: &Parts, window: usize| {
            let error = data_set(parts, text.clone(), reach(window), &room).err();
            error.unwrap().to_string()
        };
        let error = refused(&parts, 40);
        assert!(
            error.contains("no passage of more than 40 tokens"),
            "{error}"
        );
        assert!(Windows::new(&parts.train, &text.tokenizer, 0, &room).is_err());
        let error = refused(&Parts::new(passages(&["a"]), None, None), 10);
        let expected = "more than 10 tokens, and the longest has 1; use a smaller `data.window`";
        assert!(error.contains(expected), "{error}");
        Ok(())
    }
}
