//! Tokenizers: a thin wrapper of the crate `tokenizers` that never drops symbols
//! silently.

mod file;
mod stream;
mod train;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::OnceLock;

use rayon::prelude::*;
pub use stream::Stream;
pub use train::Units;

use crate::error::panic_message;
use crate::error::{Error, Result};
use crate::flow::random::fnv1a;
pub(super) use train::pieces;

/// Converts text to tokens and back. Token ids are the classes of a language model.
///
/// ```
/// use onward::data::text::tokenizer::{Tokenizer, Units};
/// let tokenizer = Tokenizer::train(Units::Char, &["abba"])?;
/// assert_eq!(tokenizer.vocabulary(), ["<unk>", "a", "b"]);
/// assert_eq!(tokenizer.encode("bad")?.ids, [2, 1, 0]); // 0 is the unknown token
/// assert_eq!(tokenizer.decode(&[2, 1])?, "ba");
/// # Ok::<(), onward::Error>(())
/// ```
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    vocabulary: Vec<String>,
    unknown: Option<u32>,
    /// A token and its text, which [`text_of`](Tokenizer::text_of) decodes another one
    /// behind.
    first: OnceLock<Option<(u32, String)>>,
}

/// A text as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub ids: Vec<u32>,
    /// For each token, the number of characters of the text before it.
    pub starts: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Tokenizer of {} tokens, {}",
            self.vocabulary.len(),
            self.fingerprint()
        )
    }
}

impl Tokenizer {
    /// The contents of `tokenizer.json`. A trained tokenizer always gives the same bytes;
    /// one from a file gives the bytes of that file.
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// The fingerprint of the tokenizer: a hash of [`to_json`](Self::to_json).
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", fnv1a(&self.json))
    }

    /// All tokens as written in the file, in the order of their ids.
    pub fn vocabulary(&self) -> &[String] {
        &self.vocabulary
    }

    /// The token for symbols that are not in the vocabulary, if there is one.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token of a text that is exactly one known token.
    pub fn token(&self, text: &str) -> Option<u32> {
        match self.encode(text).ok()?.ids[..] {
            [token] if Some(token) != self.unknown => Some(token),
            _ => None,
        }
    }

    /// The name and the token of what stands for the text before its beginning: line ends,
    /// or spaces, or else the first known token.
    pub fn filler(&self) -> (String, u32) {
        let named = [("line ends", "\n"), ("spaces", " ")].into_iter();
        let mut found = named.filter_map(|(name, text)| Some((name.into(), self.token(text)?)));
        found.next().unwrap_or_else(|| {
            let token = (0..).find(|token| Some(*token) != self.unknown());
            let token = token.unwrap_or(0);
            let name = format!("tokens {:?}", self.vocabulary()[token as usize]);
            (name, token)
        })
    }

    /// Encodes a text. A long text is cut between words or lines, and the pieces are
    /// encoded in parallel. A text with neither is cut too: a token that crosses the cut
    /// becomes two or more.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown symbol, if there is no unknown token.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let encoded: Vec<(Encoded, usize)> = pieces(text)
            .into_par_iter()
            .map(|piece| self.encode_piece(piece))
            .collect::<Result<_>>()?;
        let (mut whole, mut before) = (Encoded::default(), 0);
        for (piece, characters) in encoded {
            whole.ids.extend(piece.ids);
            whole
                .starts
                .extend(piece.starts.iter().map(|start| start + before as u32));
            before += characters;
        }
        Ok(whole)
    }

    /// The number of characters, tokens and unknown tokens of a text, which is encoded as by
    /// [`encode`](Self::encode).
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn count(&self, text: &str) -> Result<[usize; 3]> {
        let counts = pieces(text).into_par_iter().map(|piece| {
            let (Encoded { ids, .. }, characters) = self.encode_piece(piece)?;
            let unknown = ids.iter().filter(|id| Some(**id) == self.unknown);
            Ok([characters, ids.len(), unknown.count()])
        });
        counts.try_reduce(|| [0; 3], |a, b| Ok([0, 1, 2].map(|i| a[i] + b[i])))
    }

    /// Encodes one of the [`pieces`] of a text, with the number of its characters.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub(super) fn encode_piece(&self, text: &str) -> Result<(Encoded, usize)> {
        let encoding = unless_it_panics(|| self.inner.encode(text, false))?.map_err(|error| {
            let strange = text
                .chars()
                .find(|symbol| self.inner.encode(symbol.to_string(), false).is_err());
            let strange = strange.map_or(error.to_string(), |symbol| {
                format!("{symbol:?} is not in its vocabulary")
            });
            usage(format!("{strange}, and it has no unknown token"))
        })?;
        // From bytes to characters. No token starts before the previous one.
        let (mut at, mut characters) = (0, 0);
        let starts = encoding.get_offsets().iter().map(|&(start, _)| {
            if let Some(passed) = text.get(at..start) {
                (at, characters) = (start, characters + passed.chars().count());
            }
            characters as u32
        });
        let starts = starts.collect();
        let ids = encoding.get_ids().to_vec();
        Ok((
            Encoded { ids, starts },
            characters + text[at..].chars().count(),
        ))
    }

    /// Decodes tokens to text.
    ///
    /// # Errors
    /// [`Error::Usage`] for an id that is not a token.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary.len()) {
            return Err(usage(format!(
                "expected a token id below {}, found {id}",
                self.vocabulary.len()
            )));
        }
        unless_it_panics(|| self.inner.decode(ids, false))?.map_err(refused)
    }

    /// The text that a token adds to a text before it; a part of a character is `�`.
    ///
    /// [`decode`](Self::decode) of one token is the beginning of a text: some tokenizers,
    /// such as those of SentencePiece, then leave out the space that the token begins
    /// with.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn text_of(&self, id: u32) -> Result<String> {
        let behind = |(first, before): &(u32, String)| {
            let both = self.decode(&[*first, id]).ok()?;
            Some(both.strip_prefix(before)?.to_string())
        };
        let first = self.first.get_or_init(|| self.a_word()).as_ref();
        first
            .and_then(behind)
            .map_or_else(|| self.decode(&[id]), Ok)
    }

    /// The first token of letters and digits alone: whole characters that no decoder
    /// changes.
    fn a_word(&self) -> Option<(u32, String)> {
        let ids = 0..self.vocabulary.len() as u32;
        let mut texts = ids.filter_map(|id| Some((id, self.decode(&[id]).ok()?)));
        texts.find(|(_, text)| !text.is_empty() && text.chars().all(char::is_alphanumeric))
    }
}

/// Calls the library and turns its panics into errors. It panics on some invalid files.
fn unless_it_panics<R>(work: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        usage(format!(
            "cannot be used: the tokenizers library panicked: {}",
            panic_message(&*panic)
        ))
    })
}

fn usage(problem: String) -> Error {
    Error::usage("tokenizer", problem)
}

fn refused(error: impl std::fmt::Display) -> Error {
    usage(error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use super::*;

    pub const TEXT: &str =
        "The fox, the crow;\n\n  and the cheese: \"don't sing!\" said nobody.\tNaïve — \
         crow’s 狐狸 🦊\r\n";

    /// A tokenizer with spaces in front of words, as those of SentencePiece.
    pub(in crate::data::text) const SPACED: &str = r#"{"version":"1.0",
        "pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"},
        "decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"},
        "model":{"type":"WordLevel","unk_token":"<unk>",
            "vocab":{"<unk>":0,"▁the":1,"▁fox":2,"es":3,",":4}}}"#;

    /// A text of many lines, so that it is cut into pieces.
    fn long() -> String {
        let numbers = (0..20_000).map(|i| {
            format!(
                "{} line {i}{}",
                ["The", "狐狸"][i % 2],
                ["\n", "\n\n", " \n", ".\n"][i % 4]
            )
        });
        numbers.collect()
    }

    #[test]
    fn every_kind_restores_its_training_text() -> Result<()> {
        for units in [
            Units::Char,
            Units::Word(None),
            Units::Bpe(Some(256)),
            Units::Bpe(Some(262)),
        ] {
            let tokenizer = Tokenizer::train(units, &[TEXT])?;
            let ids = tokenizer.encode(TEXT)?.ids;
            assert_eq!(tokenizer.decode(&ids)?, TEXT, "{units:?}");
            let again = Tokenizer::from_json(tokenizer.to_json().into())?;
            assert_eq!(again.encode(TEXT)?.ids, ids, "{units:?}");
            assert_eq!(again.fingerprint(), tokenizer.fingerprint());
        }
        Ok(())
    }

    #[test]
    fn cutting_a_long_text_does_not_change_its_tokens() -> Result<()> {
        let kinds = [Units::Char, Units::Word(None), Units::Bpe(Some(300))];
        let bare = long().replace(' ', "_");
        let ends = [" \n ", "\r\n", "\n\u{3000}", "\t\t"].map(|end| bare.replace('\n', end));
        let marks = long().replace([' ', '\n'], "");
        let texts = [vec![long(), bare, marks], ends.to_vec()].concat();
        for (text, units) in texts
            .into_iter()
            .flat_map(|text| kinds.map(|units| (text.clone(), units)))
        {
            assert!(pieces(&text).len() > 3 && pieces(&text).concat() == text);
            let tokenizer = Tokenizer::train(units, &[&text])?;
            let whole = tokenizer.encode(&text)?;
            let uncut = tokenizer
                .inner
                .encode_char_offsets(text.as_str(), false)
                .unwrap();
            assert_eq!(whole.ids, uncut.get_ids(), "{units:?}");
            let starts: Vec<u32> = uncut
                .get_offsets()
                .iter()
                .map(|offsets| offsets.0 as u32)
                .collect();
            assert_eq!(whole.starts, starts, "{units:?}");
            assert_eq!(tokenizer.decode(&whole.ids)?, text, "{units:?}");
        }
        Ok(())
    }

    // One piece of a megabyte would need hundreds of megabytes of memory.
    #[test]
    fn a_text_without_white_space_is_cut_too() -> Result<()> {
        let mut rng = crate::flow::random::stream(1, "bases", 0);
        let mut base = |_| ['A', 'C', 'G', '狐'][crate::flow::random::below(&mut rng, 4)];
        let text: String = (0..150_000).map(&mut base).collect();
        let cut = pieces(&text);
        assert!(cut.len() > 2 && cut.concat() == text);
        assert!(cut.iter().all(|piece| piece.len() < 1 << 17));
        for units in [Units::Char, Units::Bpe(Some(300))] {
            let tokenizer = Tokenizer::train(units, &[&text])?;
            let Encoded { ids, starts } = tokenizer.encode(&text)?;
            assert_eq!(tokenizer.decode(&ids)?, text, "{units:?}");
            let uncut = tokenizer.inner.encode_char_offsets(text.as_str(), false);
            let uncut = uncut.unwrap();
            // From one cut to the next, the tokens are soon the same again.
            let known: HashSet<usize> = uncut.get_offsets().iter().map(|at| at.0).collect();
            let moved = starts.iter().filter(|at| !known.contains(&(**at as usize)));
            let most = if units == Units::Char {
                0
            } else {
                20 * cut.len()
            };
            let moved = moved.count();
            assert!(
                moved <= most,
                "{units:?}: {moved} tokens of other positions"
            );
            if units == Units::Char {
                assert_eq!(ids, uncut.get_ids());
            }
        }
        Ok(())
    }

    // Many merges are equally frequent here, so that a dependence on hash order is
    // detected.
    #[test]
    fn training_gives_the_same_bytes_every_time() -> Result<()> {
        let mut rng = crate::flow::random::stream(1, "words", 0);
        let word = |_| {
            (0..2 + crate::flow::random::below(&mut rng, 7))
                .map(|i| if i % 3 == 0 { 'a' } else { 'b' })
                .collect()
        };
        let words: Vec<String> = (0..300).map(word).collect();
        let text = words.join(" ");
        for units in [Units::Char, Units::Word(Some(5)), Units::Bpe(Some(262))] {
            let first = Tokenizer::train(units, &[&text, TEXT, TEXT])?;
            for _ in 0..20 {
                assert_eq!(
                    Tokenizer::train(units, &[&text, TEXT, TEXT])?.to_json(),
                    first.to_json()
                );
            }
        }
        Ok(())
    }

    #[test]
    fn unknown_symbols_become_the_unknown_token() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Char, &["abc"])?;
        assert_eq!(
            tokenizer.encode("a?\nc")?,
            Encoded {
                ids: vec![1, 0, 0, 3],
                starts: vec![0, 1, 2, 3]
            }
        );
        let tokenizer = Tokenizer::train(Units::Word(Some(3)), &["the fox, the fox, the crow"])?;
        assert_eq!(
            tokenizer.vocabulary(),
            ["<unk>", " fox", " the"].map(String::from)
        ); // as often as `,`, and before it
        let encoded = tokenizer.encode("the fox, the fox")?;
        assert_eq!(
            encoded,
            Encoded {
                ids: vec![0, 1, 0, 2, 1],
                starts: vec![0, 3, 7, 8, 12]
            }
        );
        assert_eq!(tokenizer.decode(&encoded.ids)?, "<unk> fox<unk> the fox");
        let closed = Tokenizer::characters("ab ")?;
        assert_eq!((closed.vocabulary().len(), closed.unknown()), (3, None));
        let error = closed.encode("a cab").unwrap_err().to_string();
        assert!(error.contains("'c' is not in its vocabulary"), "{error}");
        Ok(())
    }

    #[test]
    fn a_token_has_its_space_and_its_bytes() -> Result<()> {
        let texts = |tokenizer: &Tokenizer| -> Result<Vec<String>> {
            let ids = 0..tokenizer.vocabulary().len() as u32;
            ids.map(|id| tokenizer.text_of(id)).collect()
        };
        let spaced = Tokenizer::from_json(SPACED.into())?;
        assert_eq!(spaced.decode(&[2])?, "fox");
        assert_eq!(texts(&spaced)?, ["<unk>", " the", " fox", "es", ","]);
        let tokenizer = Tokenizer::train(Units::Word(None), &["the fox"])?;
        assert_eq!(texts(&tokenizer)?, ["<unk>", " fox", "the"]);
        let closed = Tokenizer::characters(" ,.")?;
        assert_eq!(texts(&closed)?, [" ", ",", "."]);
        let tokenizer = Tokenizer::train(Units::Bpe(Some(256)), &["é"])?;
        let ids = tokenizer.encode("é !")?.ids;
        let found: Result<Vec<String>> = ids.iter().map(|id| tokenizer.text_of(*id)).collect();
        assert_eq!(found?, ["\u{fffd}", "\u{fffd}", " ", "!"]);
        assert!(tokenizer.text_of(256).is_err());
        Ok(())
    }

    #[test]
    fn byte_pairs_without_a_number_are_as_many_as_the_text_gives() -> Result<()> {
        let few = Tokenizer::named("bpe", &[TEXT])?.vocabulary().len();
        assert!((257..400).contains(&few), "{few}");
        let words = (0..3000u32).map(|i| format!("{} ", i.wrapping_mul(2_654_435_761) % 4999));
        let text = words.collect::<String>().repeat(2);
        let size = Tokenizer::named("bpe", &[&text])?.vocabulary().len();
        assert_eq!(size, 1000);
        Ok(())
    }

    #[test]
    fn invalid_settings_are_refused_with_the_expected_values() {
        for (name, expected) in [
            ("bpe:255", "N from 256"),
            ("bpe:", "bpe:N"),
            ("word:1", "N from 2"),
            ("char:5", "expected char"),
            ("bpe:99999999999", "at most 1000000"),
            ("chr", "path of a tokenizer.json"),
            ("bpe:1000", "use bpe:2"),
            ("word:1000", "a vocabulary of 1000 words"),
        ] {
            let error = Tokenizer::named(name, &[TEXT]).unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains(expected),
                "{name}: {error}"
            );
        }
        assert!(Tokenizer::train(Units::Char, &[""]).is_err());
        assert!(Tokenizer::train(Units::Char, &["a"])
            .unwrap()
            .decode(&[7])
            .is_err());
    }

    #[test]
    fn line_ends_or_a_known_token_stand_for_the_text_before() -> Result<()> {
        let of = |alphabet: &str| Ok::<_, Error>(Tokenizer::characters(alphabet)?.filler());
        assert_eq!(of("ab\n ")?, ("line ends".into(), 2));
        assert_eq!(of("ab ")?, ("spaces".into(), 2));
        let with_unknown = Tokenizer::train(Units::Char, &["ab"])?;
        assert_eq!(with_unknown.filler(), ("tokens \"a\"".into(), 1));
        Ok(())
    }
}
