//! Tables of images, as they are downloaded.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use onward::data::hub::{images_of_table, Hub};

#[path = "../file.rs"]
mod file;

const HUB: Hub = Hub {
    repository: "fuzzed",
    columns: ["image", "label"],
    shape: [1, 2, 2],
    train: &[2, 2],
    test: &[1, 1],
    content: None,
};

fuzz_target!(|bytes: &[u8]| {
    // The library panics on some damaged files, and the program makes errors of that. A
    // panic that is not caught still ends the fuzzing.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let file = std::fs::File::open(file::with(bytes)).expect("a file");
    let _ = images_of_table(file, &HUB, HUB.train);
});
