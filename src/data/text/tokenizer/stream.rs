//! Decoding token by token.

use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

use super::{unless_it_panics, Tokenizer};
use crate::error::Result;

impl Tokenizer {
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

#[cfg(test)]
mod tests {
    use super::super::{tests::TEXT, Units};
    use super::*;

    #[test]
    fn a_character_is_streamed_with_its_last_byte() -> Result<()> {
        let tokenizer = Tokenizer::train(Units::Bpe(Some(256)), &[TEXT])?;
        let ids = tokenizer.encode("狐!")?.ids;
        let mut stream = tokenizer.stream();
        let streamed = ids
            .iter()
            .map(|&id| stream.push(id))
            .collect::<Result<Vec<_>>>()?;
        assert_eq!(streamed, ["", "", "狐", "!"]);
        stream.push(ids[0])?;
        assert_eq!(stream.finish()?, "�");
        for units in [Units::Char, Units::Word(None), Units::Bpe(Some(260))] {
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
}
