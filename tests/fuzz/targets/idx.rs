//! IDX files, plain or compressed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::data::idx;
use onward::data::Room;

#[path = "../file.rs"]
mod file;

fuzz_target!(|bytes: &[u8]| {
    let path = file::with(bytes);
    let _ = idx::read_images(&path, &Room::default());
    let _ = idx::read_images(&path, &Room::default().at_most(0));
    let _ = idx::read_labels(&path);
});
