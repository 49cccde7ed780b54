//! Pictures: PNG, JPEG, WebP, BMP, TIFF, GIF, and their preparation for a network.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::data::pictures;
use onward::data::{Content, ExampleSpec, Framing};

#[path = "../file.rs"]
mod file;

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = pictures::open(&file::with(bytes)) else {
        return;
    };
    let classes = || vec!["a".to_string(), "b".to_string()];
    let kinds = [
        ([1, 28, 28], Framing::Object(4)),
        ([3, 32, 32], Framing::Whole),
    ];
    for (shape, framing) in kinds {
        let spec = ExampleSpec::new(&shape, classes(), Content::Picture(framing));
        let _ = pictures::example(&picture, &spec);
    }
});
