//! Text to tokens and back: a thin wrapper of the crate `tokenizers` that loses nothing in silence.

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

use crate::error::panic_message;
use crate::error::{Error, Result};
use crate::flow::random::fnv1a;
use train::pieces;

/// Cuts text into tokens, whose numbers are the classes of a language model, and makes text of them again.
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
    /// For each token how many characters of the text stand before it.
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
    /// The tokenizer in the text of a `tokenizer.json`, made here or by any other program. What it says of special
    /// tokens around a text, of cutting texts short and of filling them up is left out.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it is none, if the numbers of its tokens have gaps, or if it would lose symbols in
    /// silence.
    pub fn from_json(json: String) -> Result<Self> {
        // First of all: the library takes it for granted, in places, that this is JSON.
        let description: serde_json::Value =
            serde_json::from_str(&json).map_err(|error| usage(format!("is none: {error}")))?;
        let mut without = description.clone();
        // Random merges are for training; here a text has to be the same tokens every time.
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
        let mut inner = parsed.map_err(|error| usage(format!("is none: {error}")))?;
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
        if let Some((place, (id, _))) = named
            .iter()
            .enumerate()
            .find(|(place, (id, _))| *place != *id as usize)
        {
            return Err(usage(format!(
                "the numbers of its tokens have a gap or a double: {id} is number {place}"
            )));
        }
        if named.len() < 2 {
            return Err(usage(format!(
                "a vocabulary of {} leaves nothing to predict",
                named.len()
            )));
        }
        let vocabulary: Vec<String> = named.into_iter().map(|(_, token)| token).collect();
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
        // With all bytes there it may still not look at bytes: a symbol that nobody has tells.
        let strange = unless_it_panics(|| inner.encode("\u{10fffd}", false))?;
        let is_lost = strange.is_ok_and(|encoding| encoding.get_ids().is_empty());
        if matches!(inner.get_model(), ModelWrapper::BPE(_))
            && unknown.is_none()
            && (!bytes || is_lost)
        {
            let problem = "symbols that it does not know would be lost: it has no unknown token and not all bytes";
            return Err(usage(problem.into()));
        }
        Ok(Self {
            inner,
            json,
            vocabulary,
            unknown,
        })
    }

    /// The tokenizer in a file `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; [`Error::Data`] if it holds no tokenizer that can be used.
    pub fn open(path: &Path) -> Result<Self> {
        let json = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        Self::from_json(json).map_err(|error| Error::data(path, error.to_string()))
    }

    /// The text of `tokenizer.json`: of one that was trained the same bytes every time, of one that was read those
    /// that were read.
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// What tells this tokenizer from others: a hash of [`to_json`](Self::to_json).
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", fnv1a(&self.json))
    }

    /// All tokens as the file writes them, by their numbers.
    pub fn vocabulary(&self) -> &[String] {
        &self.vocabulary
    }

    /// The token of symbols that the vocabulary does not have, if there is one.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token that a text is, if it is just one.
    pub fn token(&self, text: &str) -> Option<u32> {
        match self.encode(text).ok()?.ids[..] {
            [token] if Some(token) != self.unknown => Some(token),
            _ => None,
        }
    }

    /// The tokens of a text; a long one is cut between words or lines, and the pieces are encoded side by side.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a symbol that is not known, if there is no unknown token.
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
        // From bytes to characters; no token starts before the one before it.
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

    /// The text that some tokens stand for.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a number that is none of a token.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary.len()) {
            return Err(usage(format!(
                "{id} is no token; there are {}",
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

/// Decodes token by token, each character as soon as all of its bytes are there.
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
    /// What the text goes on with after one more token; nothing while a character is not complete.
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
            // What was given out has come to read otherwise, as bytes do that turn out to be no character: it stands.
            Err(_) => {
                let held = [std::mem::take(&mut self.held), vec![id]].concat();
                self.inner = self.tokenizer.inner.decode_stream(false);
                self.tokenizer.decode(&held)
            }
        }
    }

    /// What is left at the end: of a character that was not completed, `�`.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        self.tokenizer.decode(&self.held)
    }
}

/// What the library makes of a file; it takes some of what a file says for granted, and panics where that is not so.
fn unless_it_panics<R>(work: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        usage(format!(
            "cannot be worked with: the library that reads it panicked: {}",
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
        "The fox, the crow;\n\n  and the cheese: \"don't sing!\" said nobody.\tNaïve — crow’s 狐狸 🦊\r\n";

    /// Many lines, so that it is cut into pieces.
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
    fn every_kind_gives_back_a_text_that_it_was_trained_on() -> Result<()> {
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
    fn a_long_text_is_cut_where_no_token_notices() -> Result<()> {
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
    fn a_file_that_the_library_stumbles_over_is_refused() {
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
        // This one can be read, and encodes.
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

    // Many merges are equally frequent here, so that an order of hashes would show.
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
    fn what_is_unknown_becomes_the_unknown_token_and_nothing_vanishes() -> Result<()> {
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
    fn a_character_is_streamed_when_its_last_byte_is_there() -> Result<()> {
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

    /// Bytes that fall back, as in the files of Llama: a run of them that is no text turns into marks, and with it what was
    /// given out already.
    #[test]
    fn bytes_that_turn_out_to_be_no_text_do_not_end_a_stream() -> Result<()> {
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
    fn what_cannot_be_is_refused_with_what_could() {
        for (name, expected) in [
            ("bpe:255", "N from 256"),
            ("bpe", "bpe:N"),
            ("word:1", "N from 2"),
            ("char:5", "expected char"),
            ("bpe:99999999999", "at most 1000000"),
            ("chr", "path of a tokenizer.json"),
            ("bpe:1000", "use bpe:2"),
            ("word:1000", "1000 words wanted"),
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
    fn a_file_of_another_program_is_read_and_one_that_would_lose_symbols_refused() {
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
        ); // and is not cut short
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
                r#"{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":2}}"#,
                "gap",
            ),
            (
                r#"{"type":"WordLevel","unk_token":"?","vocab":{"?":0}}"#,
                "nothing to predict",
            ),
            (r#"{"type":"Telepathy"}"#, "is none"),
        ] {
            let error = open(model).unwrap_err().to_string();
            assert!(error.contains(expected), "{model}: {error}");
        }
        assert!(Tokenizer::from_json("fox".into())
            .unwrap_err()
            .to_string()
            .contains("is none"));
    }
}
