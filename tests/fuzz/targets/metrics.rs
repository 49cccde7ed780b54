//! The file `metrics.jsonl` of a run that is resumed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::run::observe::metrics::Metrics;

#[path = "../file.rs"]
mod file;

fuzz_target!(|bytes: &[u8]| {
    let folder = file::with(bytes).parent().expect("a folder").to_path_buf();
    let path = folder.join("metrics.jsonl");
    std::fs::write(&path, bytes).expect("a file");
    Metrics::after(&folder, (1, 2), &[]).expect("damaged lines are dropped");
    // Once more, nothing changes.
    let kept = std::fs::read(&path).expect("the kept lines");
    Metrics::after(&folder, (1, 2), &[]).expect("they are whole");
    assert_eq!(std::fs::read(&path).expect("the same"), kept);
});
