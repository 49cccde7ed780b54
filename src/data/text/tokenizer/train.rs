//! Training of tokenizers.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::bpe::{BpeTrainerBuilder, BPE};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, OffsetReferential, OffsetType, PostProcessorWrapper,
    PreTokenizedString, PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior, TokenizerImpl,
};

use super::{refused, usage, Tokenizer};
use crate::error::{nearest, Error, Result};

/// The token for symbols that are not in the vocabulary.
const UNKNOWN: &str = "<unk>";

/// The pattern of a word with the space before it, or of a single other character. The
/// latter includes the space before it unless it is white space. [`UNKNOWN`] in a text,
/// as in WikiText, is one word.
const WORDS: &str = r"(?s) ?<unk>| ?\w+(?:['’]\w+)*| ?[^\w\s]|.";

/// The approximate size in bytes of the pieces of a text for encoding, which limits the
/// memory per piece.
const PIECE: usize = 1 << 16;

/// The tokens of a byte-level BPE whose size is not given.
const MERGED: usize = 1000;

/// The largest size of a vocabulary.
const LARGEST: usize = 1_000_000;

/// The units of a tokenizer that is trained here: `char`, `word`, `word:N`, `bpe` or
/// `bpe:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Characters. Characters that are not in the training text are unknown.
    Char,
    /// Words, each with the space before it, and all other characters one by one: all of
    /// them, or this many of the most frequent. All other words are unknown and are
    /// decoded as `<unk>`. The rest is decoded exactly.
    Word(Option<usize>),
    /// Byte-level BPE, as in GPT-2, with this many tokens, or with 1000 if the text gives
    /// as many: the 256 bytes, and merges of two tokens that occur at least twice.
    /// Nothing is unknown, and every text is decoded exactly.
    Bpe(Option<usize>),
}

impl FromStr for Units {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = format!(
            "char, word, word:N (N from 2), bpe or bpe:N (N from 256), N at most {LARGEST}"
        );
        let (kind, size) = text.split_once(':').map_or((text, None), |(kind, size)| {
            (kind, Some(size.parse::<usize>()))
        });
        Ok(match (kind, size) {
            ("char", None) => Self::Char,
            ("word", None) => Self::Word(None),
            ("word", Some(Ok(size @ 2..=LARGEST))) => Self::Word(Some(size)),
            ("bpe", None) => Self::Bpe(None),
            ("bpe", Some(Ok(size @ 256..=LARGEST))) => Self::Bpe(Some(size)),
            _ => return Err(unfit(text, expected)),
        })
    }
}

fn unfit(value: &str, expected: String) -> Error {
    Error::refused("tokenizer", format!("{value:?}"), expected)
}

impl Tokenizer {
    /// Trains a tokenizer on some texts. The result is always the same.
    ///
    /// # Errors
    /// [`Error::Usage`] if the texts are too short for a vocabulary of that size.
    pub fn train(units: Units, texts: &[&str]) -> Result<Self> {
        match units {
            Units::Char => {
                let mut counts: BTreeMap<char, usize> = BTreeMap::new();
                texts
                    .iter()
                    .flat_map(|text| text.chars())
                    .for_each(|symbol| *counts.entry(symbol).or_default() += 1);
                if counts.is_empty() {
                    return Err(usage("expected text for training, found none".into()));
                }
                Self::of_words(counts.into_keys().map(String::from), Some(UNKNOWN), "(?s).")
            }
            Units::Word(most) => {
                let counts = words(texts)?;
                let wanted = most.unwrap_or(counts.len() + 1);
                if counts.is_empty() || wanted > counts.len() + 1 {
                    let found = counts.len();
                    let problem = format!(
                        "expected text for a vocabulary of {wanted} words, found {found} words \
                         and <unk>; use at most word:{}, or more text",
                        found + 1
                    );
                    return Err(usage(problem));
                }
                // Sorted by frequency, then alphabetically.
                let mut order: Vec<(String, usize)> = counts.into_iter().collect();
                order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                let kept = order.into_iter().map(|(word, _)| word).take(wanted - 1);
                Self::of_words(kept, Some(UNKNOWN), WORDS)
            }
            Units::Bpe(size) => Self::of_bytes(texts, size),
        }
    }

    /// A tokenizer of exactly these characters, in this order, without an unknown token.
    ///
    /// # Errors
    /// [`Error::Usage`] if `alphabet` is empty.
    pub fn characters(alphabet: &str) -> Result<Self> {
        if alphabet.is_empty() {
            return Err(usage(
                "expected an alphabet of at least one character, found none".into(),
            ));
        }
        Self::of_words(alphabet.chars().map(String::from), None, "(?s).")
    }

    fn of_words(
        words: impl Iterator<Item = String>,
        unknown: Option<&str>,
        pattern: &str,
    ) -> Result<Self> {
        let words = unknown.map(String::from).into_iter().chain(words);
        let vocabulary = words.zip(0..).collect();
        let model = WordLevel::builder()
            .vocab(vocabulary)
            .unk_token(UNKNOWN.into())
            .build()
            .map_err(refused)?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner
            .with_pre_tokenizer(Some(split(pattern)?))
            .with_decoder(Some(Fuse::new()));
        Self::from_json(inner.to_string(true).map_err(refused)?)
    }

    fn of_bytes(texts: &[&str], wanted: Option<usize>) -> Result<Self> {
        type Bytes = TokenizerImpl<
            BPE,
            NormalizerWrapper,
            PreTokenizerWrapper,
            PostProcessorWrapper,
            DecoderWrapper,
        >;
        let alphabet = ByteLevel::alphabet().into_iter().collect();
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .min_frequency(2)
            .vocab_size(wanted.unwrap_or(MERGED));
        let mut inner = Bytes::new(BPE::default());
        let bytes = ByteLevel::new(false, false, true);
        inner
            .with_pre_tokenizer(Some(bytes))
            .with_decoder(Some(bytes));
        let pieces: Vec<&str> = texts.iter().flat_map(|text| pieces(text)).collect();
        inner
            .train(
                &mut trainer.initial_alphabet(alphabet).build(),
                pieces.into_iter(),
            )
            .map_err(refused)?;
        let reached = inner.get_vocab_size(true);
        if let Some(size) = wanted.filter(|size| reached < *size) {
            let problem = format!(
                "bpe:{size} needs {size} tokens, but the training text gives {reached}: \
                 256 bytes, and merges that occur at least twice; use bpe:{reached} \
                 (--vocab {reached}) or less, or more text"
            );
            return Err(usage(problem));
        }
        Self::from_json(inner.to_string(true).map_err(refused)?)
    }

    /// The tokenizer of a setting `tokenizer`: [`Units`], trained on some texts, or the
    /// path of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is neither; errors of [`Tokenizer::train`] and
    /// [`Tokenizer::open`].
    pub fn named(name: &str, texts: &[&str]) -> Result<Self> {
        match name.parse() {
            Ok(units) => Self::train(units, texts),
            Err(_) if Path::new(name).is_file() => Self::open(Path::new(name)),
            Err(Error::Setting { expected, .. }) => {
                let known = ["char", "word", "bpe"];
                let kind = name.split(':').next().unwrap_or(name);
                let near = match known.contains(&kind) {
                    true => String::new(), // its number is wrong
                    false => nearest(kind, &known.map(String::from)),
                };
                let expected = format!("{expected}; or the path of a tokenizer.json that exists");
                Err(unfit(name, expected + &near))
            }
            Err(error) => Err(error),
        }
    }
}

fn split(pattern: &str) -> Result<Split> {
    Split::new(
        SplitPattern::Regex(pattern.into()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(refused)
}

/// The number of occurrences of each word.
fn words(texts: &[&str]) -> Result<BTreeMap<String, usize>> {
    let split = split(WORDS)?;
    let pieces: Vec<&str> = texts.iter().flat_map(|text| pieces(text)).collect();
    let counted = pieces.into_par_iter().map(|piece| {
        let mut words = PreTokenizedString::from(piece);
        split.pre_tokenize(&mut words).map_err(refused)?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            *counts.entry(word.into()).or_default() += 1;
        }
        counts.remove(UNKNOWN);
        Ok(counts)
    });
    counted.try_reduce(BTreeMap::new, |mut all, some| {
        some.into_iter()
            .for_each(|(word, count)| *all.entry(word).or_default() += count);
        Ok(all)
    })
}

/// Splits a text into pieces of less than twice [`PIECE`], as far as possible at
/// positions where no token can cross.
///
/// A piece begins with a space before a word, or after a line break with non-white
/// characters on both sides. If there is no such position, it begins with any white space
/// before another character. Tokenizers trained here never cross such positions: they
/// join at most one white-space character, to the following text. Other tokenizers may
/// join white space to the preceding text, but rarely across positions of the first kind.
///
/// A stretch without such white space is cut between a letter or digit and a punctuation
/// mark, which words and byte-level BPE do not join either, or else between any two
/// characters. Then a word or a merge that crosses the cut becomes two tokens or more.
/// Tokenizers from a file may join characters across either cut, and those that put a
/// space before a text put one there.
pub(in crate::data::text) fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(end) = cut(rest) {
        let (piece, more) = rest.split_at(end);
        pieces.push(piece);
        rest = more;
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// The end of the first piece of a text that has more than one.
fn cut(text: &str) -> Option<usize> {
    let first = |border: fn(Around) -> bool| {
        let mut near = PIECE..text.len().min(2 * PIECE);
        near.find(|at| around(text, *at).is_some_and(border))
    };
    let is_long = text.len() >= 2 * PIECE;
    first(is_before_word)
        .or_else(|| first(is_white_before_black))
        .or_else(|| first(is_mark_behind_word).filter(|_| is_long))
        .or_else(|| first(|_| true).filter(|_| is_long))
}

/// Two symbols before a position and two behind it.
type Around = [Option<char>; 4];

fn around(text: &str, at: usize) -> Option<Around> {
    let mut before = text.get(..at)?.chars().rev();
    let mut behind = text.get(at..)?.chars();
    let (last, first) = (before.next(), behind.next());
    Some([before.next(), last, first, behind.next()])
}

fn is_black(symbol: Option<char>) -> bool {
    symbol.is_some_and(|symbol| !symbol.is_whitespace())
}

fn is_before_word(symbols: Around) -> bool {
    match symbols {
        [_, _, Some(' '), second] => is_black(second),
        [before, Some('\n'), first, _] => is_black(before) && is_black(first),
        _ => false,
    }
}

fn is_white_before_black([_, _, first, second]: Around) -> bool {
    first.is_some_and(char::is_whitespace) && is_black(second)
}

fn is_mark_behind_word([_, last, first, _]: Around) -> bool {
    // The others may be within a word or within `<unk>`.
    let is_mark = |symbol: char| {
        "，。、；：！？".contains(symbol)
            || symbol.is_ascii_punctuation() && !"'_>".contains(symbol)
    };
    last.is_some_and(char::is_alphanumeric) && first.is_some_and(is_mark)
}
