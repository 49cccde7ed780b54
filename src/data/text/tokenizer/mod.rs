//! Tokenizers: a thin wrapper of the crate `tokenizers` that never drops symbols
//! silently.

mod train;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

pub use train::Units;

use crate::disk;
use crate::error::panic_message;
use crate::error::{Error, Result};
use crate::flow::random::fnv1a;
use train::pieces;

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
    /// Reads a tokenizer from the contents of a `tokenizer.json`, made here or by another
    /// program. Post-processing with special tokens, truncation and padding are ignored.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is not a tokenizer, if most of its numbers have no token, or
    /// if it would drop symbols silently.
    pub fn from_json(json: String) -> Result<Self> {
        // Some editors write a byte order mark.
        let json = json
            .strip_prefix('\u{feff}')
            .map_or(json.clone(), String::from);
        // Checked first, because the library assumes valid JSON in some places.
        let description: serde_json::Value = serde_json::from_str(&json)
            .map_err(|error| usage(format!("not a valid tokenizer.json: {error}")))?;
        let mut without = description.clone();
        // Random merges are for training. Here a text must always give the same tokens.
        let dropout = without
            .get_mut("model")
            .and_then(|model| model.get_mut("dropout"));
        let is_random = dropout
            .map(serde_json::Value::take)
            .is_some_and(|dropout| !dropout.is_null());
        let text = if is_random {
            without.to_string()
        } else {
            json.clone()
        };
        let parsed = unless_it_panics(|| tokenizers::Tokenizer::from_str(&text))?;
        let mut inner =
            parsed.map_err(|error| usage(format!("not a valid tokenizer.json: {error}")))?;
        inner
            .with_post_processor(None::<PostProcessorWrapper>)
            .with_padding(None);
        inner.with_truncation(None).map_err(refused)?;
        let mut named: Vec<(u32, String)> = inner
            .get_vocab(true)
            .into_iter()
            .map(|(token, id)| (id, token))
            .collect();
        named.sort();
        // Tokenizers of real models have numbers without a token, and tokens of one number.
        named.dedup_by_key(|(id, _)| *id);
        let largest = named.last().map_or(0, |(id, _)| *id as usize);
        if largest >= 2 * named.len() + 1000 {
            return Err(usage(format!(
                "has {} tokens, but numbers up to {largest}; expected few numbers without a \
                 token",
                named.len()
            )));
        }
        if named.len() < 2 {
            return Err(usage(format!(
                "expected a vocabulary of at least 2 tokens, found {}",
                named.len()
            )));
        }
        let unused = |id| format!("<unused {id}>");
        let mut vocabulary: Vec<String> = (0..=largest).map(unused).collect();
        for (id, token) in named {
            vocabulary[id as usize] = token;
        }
        let model = &description["model"];
        let unknown = match &model["unk_token"] {
            serde_json::Value::String(token) => inner.token_to_id(token),
            _ => model["unk_id"]
                .as_u64()
                .and_then(|id| u32::try_from(id).ok()),
        };
        let alphabet = || {
            ByteLevel::alphabet()
                .into_iter()
                .all(|byte| inner.token_to_id(&byte.to_string()).is_some())
        };
        let fallback =
            || (0..=255).all(|byte| inner.token_to_id(&format!("<0x{byte:02X}>")).is_some());
        let bytes = if model["byte_fallback"].as_bool() == Some(true) {
            fallback()
        } else {
            alphabet()
        };
        // A vocabulary with all bytes may still not be used for bytes. An unassigned
        // symbol shows it.
        let strange = unless_it_panics(|| inner.encode("\u{10fffd}", false))?;
        let is_lost = strange.is_ok_and(|encoding| encoding.get_ids().is_empty());
        if matches!(inner.get_model(), ModelWrapper::BPE(_))
            && unknown.is_none()
            && (!bytes || is_lost)
        {
            let problem = "unknown symbols would be lost: the tokenizer has no unknown \
                           token and does not encode all bytes";
            return Err(usage(problem.into()));
        }
        Ok(Self {
            inner,
            json,
            vocabulary,
            unknown,
        })
    }

    /// Reads a tokenizer from a file `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; [`Error::Data`] if it has no usable
    /// tokenizer.
    pub fn open(path: &Path) -> Result<Self> {
        let json = disk::read_text(path)?;
        Self::from_json(json).map_err(|error| Error::data(path, error.to_string()))
    }

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

    /// Encodes a text. A long text is cut between words or lines, and the pieces are
    /// encoded in parallel.
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

    fn encode_piece(&self, text: &str) -> Result<(Encoded, usize)> {
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

    /// Decodes token by token.
    pub fn stream(&self) -> Stream<'_> {
        Stream {
            tokenizer: self,
            inner: self.inner.decode_stream(false),
            held: Vec::new(),
        }
    }
}

/// A streaming decoder. It returns each character as soon as all of its bytes are
/// complete.
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    inner: tokenizers::DecodeStream<
        'a,
        ModelWrapper,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >,
    held: Vec<u32>,
}

impl Stream<'_> {
    /// The text added by one more token; empty while a character is incomplete.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        if id as usize >= self.tokenizer.vocabulary.len() {
            return self.tokenizer.decode(&[id]);
        }
        match unless_it_panics(|| self.inner.step(id))? {
            Ok(Some(text)) => {
                self.held.clear();
                Ok(text)
            }
            Ok(None) => {
                self.held.push(id);
                Ok(String::new())
            }
            // The new token changes text that was already returned, such as bytes that
            // form no character. Returned text is kept.
            Err(_) => {
                let held = [std::mem::take(&mut self.held), vec![id]].concat();
                self.inner = self.tokenizer.inner.decode_stream(false);
                self.tokenizer.decode(&held)
            }
        }
    }

    /// The remaining text at the end: `�` for an incomplete character.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        self.tokenizer.decode(&self.held)
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
mod tests {
    use super::*;

    const TEXT: &str =
        "The fox, the crow;\n\n  and the cheese: \"don't sing!\" said nobody.\tNaïve — \
         crow’s 狐狸 🦊\r\n";

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
            Units::Bpe(256),
            Units::Bpe(262),
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
        let kinds = [Units::Char, Units::Word(None), Units::Bpe(300)];
        let bare = long().replace(' ', "_");
        let ends = [" \n ", "\r\n", "\n\u{3000}", "\t\t"].map(|end| bare.replace('\n', end));
        let texts = [vec![long(), bare], ends.to_vec()].concat();
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

    #[test]
    fn a_file_on_which_the_library_panics_is_refused() {
        let bpe = |vocab: &str, merges: &str| {
            format!(
                r#"{{"version":"1.0","model":{{"type":"BPE","unk_token":"?","vocab":{vocab},"merges":{merges}}}}}"#
            )
        };
        let long = bpe(r#"{"?":0,"a":1,"b":2}"#, r#"["a b"]"#);
        let precompiled = r#"{"version":"1.0","normalizer":{"type":"Precompiled","precompiled_charsmap":"!!"},
            "model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":1}}}"#;
        for json in [long, precompiled.into()] {
            let error = Tokenizer::from_json(json).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{error}");
        }
        // This file can be read and encodes, but does not decode.
        let strip = r#"{"version":"1.0","decoder":{"type":"Strip","content":"a","start":0,"stop":2},
            "model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":1}}}"#;
        let tokenizer = Tokenizer::from_json(strip.into()).unwrap();
        for error in [
            tokenizer.decode(&[1]).unwrap_err(),
            tokenizer.stream().push(1).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Usage { .. }), "{error}");
        }
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
        for units in [Units::Char, Units::Word(Some(5)), Units::Bpe(262)] {
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
    fn a_character_is_streamed_with_its_last_byte() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Bpe(256), &[TEXT])?;
        let ids = tokenizer.encode("狐!")?.ids;
        let mut stream = tokenizer.stream();
        let streamed = ids
            .iter()
            .map(|&id| stream.push(id))
            .collect::<Result<Vec<_>>>()?;
        assert_eq!(streamed, ["", "", "狐", "!"]);
        stream.push(ids[0])?;
        assert_eq!(stream.finish()?, "�");
        for units in [Units::Char, Units::Word(None), Units::Bpe(260)] {
            let tokenizer = Tokenizer::train(units, &[TEXT])?;
            let mut stream = tokenizer.stream();
            let ids = tokenizer.encode(TEXT)?.ids;
            let text = ids
                .iter()
                .map(|&id| stream.push(id))
                .collect::<Result<String>>()?;
            assert_eq!(text + &stream.finish()?, TEXT);
        }
        Ok(())
    }

    /// Byte fallback, as in the files of Llama: a run of invalid bytes turns into
    /// replacement characters, including bytes that were already returned.
    #[test]
    fn invalid_bytes_do_not_end_a_stream() -> Result<()> {
        let mut vocab: serde_json::Map<_, _> = (0..256usize)
            .map(|byte| (format!("<0x{byte:02X}>"), byte.into()))
            .collect();
        vocab.insert("▁a".into(), 256.into());
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": [],
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
                { "type": "ByteFallback" },
                { "type": "Fuse" },
            ] },
            "model": { "type": "BPE", "byte_fallback": true, "vocab": vocab, "merges": [] },
        });
        let tokenizer = Tokenizer::from_json(json.to_string())?;
        let mut stream = tokenizer.stream();
        let text = [0x0a, 0xe7, 256, 256]
            .into_iter()
            .map(|id| stream.push(id))
            .collect::<Result<String>>()?;
        assert_eq!(text, "\n� a a");
        Ok(())
    }

    #[test]
    fn invalid_settings_are_refused_with_the_expected_values() {
        for (name, expected) in [
            ("bpe:255", "N from 256"),
            ("bpe", "bpe:N"),
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
    fn files_of_other_programs_are_read_unless_they_would_lose_symbols() {
        let open = |model: &str| {
            let json = format!(
                r#"{{"version":"1.0","truncation":{{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0}},
                "padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,
                "decoder":{{"type":"Fuse"}},"model":{model}}}"#
            );
            Tokenizer::from_json(json)
        };
        let tokenizer = open(
            r#"{"type":"BPE","unk_token":"?","vocab":{"?":0,"a":1,"b":2,"ab":3},"merges":["a b"]}"#,
        );
        assert_eq!(
            tokenizer.unwrap().encode("abxaba").unwrap().ids,
            [3, 0, 3, 1]
        ); // not truncated
        let random = r#"{"type":"BPE","dropout":0.5,"unk_token":"?","vocab":{"?":0,"a":1,"b":2,"ab":3},"merges":["a b"]}"#;
        let ids = open(random).unwrap().encode(&"ab".repeat(50)).unwrap().ids;
        assert_eq!(ids, [3; 50]);
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let vocab: serde_json::Map<_, _> = alphabet
            .iter()
            .enumerate()
            .map(|(id, byte)| (byte.to_string(), id.into()))
            .collect();
        let bytes_that_nobody_looks_at =
            serde_json::json!({ "type": "BPE", "vocab": vocab, "merges": [] }).to_string();
        for (model, expected) in [
            (
                r#"{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}"#,
                "would be lost",
            ),
            (
                r#"{"type":"BPE","byte_fallback":true,"vocab":{"a":0,"b":1},"merges":[]}"#,
                "would be lost",
            ),
            (&bytes_that_nobody_looks_at, "would be lost"),
            (
                r#"{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":90000}}"#,
                "numbers up to 90000",
            ),
            (
                r#"{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}"#,
                "at least 2 tokens",
            ),
            (r#"{"type":"Telepathy"}"#, "not a valid tokenizer.json"),
        ] {
            let error = open(model).unwrap_err().to_string();
            assert!(error.contains(expected), "{model}: {error}");
        }
        // A number without a token, as in the files of real models, and a byte order mark.
        let gap = r#"{"version":"1.0","model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":2}}}"#;
        let tokenizer = Tokenizer::from_json(format!("\u{feff}{gap}")).unwrap();
        assert_eq!(tokenizer.vocabulary(), ["?", "<unused 1>", "a"]);
        assert!(Tokenizer::from_json("fox".into())
            .unwrap_err()
            .to_string()
            .contains("not a valid tokenizer.json"));
    }
}
