//! The binary files of CIFAR-10.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onward::data::cifar;
use onward::data::Room;

#[path = "../file.rs"]
mod file;

fuzz_target!(|bytes: &[u8]| {
    let path = file::with(bytes);
    let folder = path.parent().expect("a folder").to_path_buf();
    for name in cifar::FILES {
        let link = folder.join(name);
        if !link.exists() {
            std::fs::hard_link(&path, link).expect("a link");
        }
    }
    let _ = cifar::read(&[folder], "fuzzed", &Room::default());
});
