//! Models: the header of a safetensors file, its settings, its tensors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::Run;

fuzz_target!(|bytes: &[u8]| {
    let _ = Run::from_bytes(bytes, None);
});
