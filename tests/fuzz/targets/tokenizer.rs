//! `tokenizer.json`, and the encoding and decoding of text with it.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use onward::Tokenizer;

fuzz_target!(|text: &str| {
    // The library panics on some damaged files, and the program makes errors of that. A
    // panic that is not caught still ends the fuzzing.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let Ok(tokenizer) = Tokenizer::from_json(text.into()) else {
        return;
    };
    if let Ok(encoded) = tokenizer.encode("The fox, and the crow: é漢\n") {
        let _ = tokenizer.decode(&encoded.ids);
    }
});
