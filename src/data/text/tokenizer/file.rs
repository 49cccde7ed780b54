//! Reading a `tokenizer.json`.

use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{ModelWrapper, PostProcessorWrapper};

use super::{refused, unless_it_panics, usage, Tokenizer};
use crate::disk;
use crate::error::{Error, Result};

impl Tokenizer {
    /// Reads a tokenizer from the contents of a `tokenizer.json`, made here or by another
    /// program. Post-processing with special tokens, truncation and padding are ignored.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is not a tokenizer, if most of its numbers have no token,
    /// or if it would drop symbols silently.
    pub fn from_json(json: String) -> Result<Self> {
        // Some editors write a byte order mark.
        let json = json
            .strip_prefix('\u{feff}')
            .map_or(json.clone(), String::from);
        // Checked first, because the library assumes valid JSON in some places.
        let read = serde_json::from_str::<serde_json::Value>(&json);
        let description = read.map_err(|error| {
            usage(format!(
                "not a valid tokenizer.json: it is not JSON: {error}"
            ))
        })?;
        if !description["model"].is_object() {
            let found = match description["model_type"].is_string() {
                true => "the configuration of a model, config.json",
                false => "JSON without `model`, as vocab.json and other files beside it",
            };
            return Err(usage(format!(
                "not a valid tokenizer.json: found {found}; expected the tokenizer.json of \
                 Hugging Face's tokenizers"
            )));
        }
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
        // Tokenizers of real models have numbers without a token, and tokens of one
        // number.
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
            first: OnceLock::new(),
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // A number without a token, as in the files of real models, and a byte order
        // mark.
        let gap = r#"{"version":"1.0","model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":2}}}"#;
        let tokenizer = Tokenizer::from_json(format!("\u{feff}{gap}")).unwrap();
        assert_eq!(tokenizer.vocabulary(), ["?", "<unused 1>", "a"]);
        for (other, expected) in [
            (r#"{"a": 0, "b": 1}"#, "JSON without `model`"),
            (r#"{"model_type": "gpt2"}"#, "config.json"),
            ("[1, 2]", "JSON without `model`"),
        ] {
            let error = Tokenizer::from_json(other.into()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Tokenizer::from_json("fox".into())
            .unwrap_err()
            .to_string()
            .contains("not a valid tokenizer.json"));
    }
}
