//! Faults of a download: kills and errors of the disk at the calls that change the cache.
//!
//! By default a part of the calls is tried; with `ONWARD_FAULTS=all` every call, and a
//! table is printed: `ONWARD_FAULTS=all cargo test --features hub --test hub faults --
//! --nocapture`.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use onward::data::hub::Hub;
use onward::data::idx;

use crate::server::{put, server};
use crate::shim::{shim, ERRORS, KILLS};
use crate::tables::{parquet, rows, SCHEMA};
use crate::{left, TINY};

const HUB: Hub = Hub {
    repository: "test/faulty",
    ..TINY
};
/// Names the cache to the process that downloads.
const CACHE: &str = "ONWARD_TEST_CACHE";

/// The process that downloads: this test alone, started by the one below.
#[test]
fn download_in_a_process_of_its_own() {
    let Some(cache) = std::env::var_os(CACHE) else {
        return;
    };
    let cache = Path::new(&cache);
    let looked = vec![cache.join("tiny")];
    if let Err(error) = HUB.provide(looked, Some(cache), "tiny", &idx::FILES, idx::write) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn download(cache: &Path, faults: &[(&str, String)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::download_in_a_process_of_its_own"])
        .args(["--nocapture", "--test-threads=1"])
        .env("HF_ENDPOINT", &server().endpoint)
        .env("NO_PROXY", "127.0.0.1")
        .env(CACHE, cache)
        .envs(faults.iter().map(|(key, value)| (key, value)))
        .output()
        .unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    });
    entries.collect()
}

#[test]
fn a_fault_at_any_call_of_a_download_keeps_whole_data_or_none() {
    let base = tempfile::tempdir().unwrap();
    let Some(shim) = shim(base.path()) else {
        return;
    };
    let [train, test] = [TINY.train, TINY.test].map(|counts| parquet(SCHEMA, &rows(counts), 4));
    put(HUB.repository, train, test);
    let loaded = |cache: &Path| {
        let shim = shim.to_str().unwrap().to_string();
        let cache = cache.to_str().unwrap().to_string();
        vec![("LD_PRELOAD", shim), ("FAULT_DIR", cache)]
    };
    let (whole, log) = (base.path().join("whole"), base.path().join("log"));
    let mut environment = loaded(&whole);
    environment.push(("FAULT_LOG", log.to_str().unwrap().into()));
    let output = download(&whole, &environment);
    assert!(output.status.success(), "{output:?}");
    let expected = files(&whole.join("tiny"));
    let count = std::fs::read_to_string(&log).unwrap().lines().count();
    assert!(count > 30, "{count} calls");

    let all = std::env::var("ONWARD_FAULTS").is_ok_and(|value| value == "all");
    let every = if all { 1 } else { 9 };
    let kinds = KILLS.map(|kind| (kind, kind)).into_iter().chain(ERRORS);
    for (place, (name, kind)) in kinds.enumerate() {
        let (mut tried, mut ended) = (0, 0);
        for at in (1 + place % every..=count).step_by(every) {
            let what = format!("{name} at call {at}");
            let cache = base.path().join(format!("cache-{place}-{at}"));
            let mut environment = loaded(&cache);
            environment.push(("FAULT_AT", at.to_string()));
            environment.push(("FAULT_KIND", kind.into()));
            let output = download(&cache, &environment);
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(!message.contains("panicked"), "{what}: {message}");
            tried += 1;
            if output.status.success() {
                assert_eq!(files(&cache.join("tiny")), expected, "{what}");
            } else {
                ended += 1;
                let is_killed = output.status.signal() == Some(9);
                let says_what = ["cannot", "tiny"].iter().all(|part| message.contains(part));
                assert!(is_killed || says_what, "{what}: {message}");
                let kept = cache.join("tiny");
                assert!(!kept.exists() || files(&kept) == expected, "{what}");
            }
            // The next try cleans up.
            let output = download(&cache, &[]);
            assert!(output.status.success(), "{what}: {output:?}");
            assert_eq!(files(&cache.join("tiny")), expected, "{what}");
            assert_eq!(left(&cache), ["tiny"], "{what}");
            std::fs::remove_dir_all(&cache).unwrap();
        }
        println!("{name:12} {tried:4} tried, {ended:4} ended the download");
    }
}
