//! `tokenizer.json`, and the encoding and decoding of text with it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::Tokenizer;

fuzz_target!(|text: &str| {
    let Ok(tokenizer) = Tokenizer::from_json(text.into()) else {
        return;
    };
    if let Ok(encoded) = tokenizer.encode("The fox, and the crow: é漢\n") {
        let _ = tokenizer.decode(&encoded.ids);
    }
});
