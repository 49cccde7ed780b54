//! Downloads of data sets, from a local server with the interface of Hugging Face's hub.

mod colours;
#[cfg(target_os = "linux")]
mod faults;
mod server;
#[path = "../program/shim.rs"]
mod shim;
mod tables;

use std::path::Path;
use std::process::Command;

use onward::candle_core::{DType, Device};
use onward::data::hub::Hub;
use onward::data::Room;
use onward::data::{idx, DataSet, Framing};
use onward::plugin;
use onward::settings::Pick;
use onward::{BuildContext, Error, Result, Vars};
use proptest::prelude::*;

use server::{mark, put, server};
use tables::{grey, parquet, png, rows, Row, SCHEMA};

const TINY: Hub = Hub {
    repository: "test/tiny",
    columns: ["image", "label"],
    shape: [1, 4, 5],
    train: &[6, 5, 4],
    test: &[2, 2, 1],
    content: None,
};

fn provide(hub: &Hub, cache: &Path) -> Result<()> {
    server();
    let looked = vec!["/nonexistent/tiny".into(), cache.join("tiny")];
    hub.provide(looked, Some(cache), "tiny", &idx::FILES, idx::write)
}

/// The files in the cache, except for the lock.
fn left(cache: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name != ".tiny.lock").collect()
}

#[test]
fn a_download_is_written_once_and_then_read_without_a_server() -> Result<()> {
    let cache = tempfile::tempdir().unwrap();
    let (train, test) = (rows(TINY.train), rows(TINY.test));
    put(
        "test/tiny",
        parquet(SCHEMA, &train, 4),
        parquet(SCHEMA, &test, 100),
    );
    provide(&TINY, cache.path())?;
    provide(
        &Hub {
            repository: "test/gone",
            ..TINY
        },
        cache.path(),
    )?;
    assert_eq!(left(cache.path()), ["tiny"]);
    assert_eq!(
        std::fs::read_dir(cache.path().join("tiny"))
            .unwrap()
            .count(),
        5,
        "expected four files and their checksums"
    );
    let (folder, room) = (cache.path().join("tiny"), Room::default());
    for (part, rows) in [("train", train), ("t10k", test)] {
        let (pixels, count, shape) =
            idx::read_images(&folder.join(format!("{part}-images-idx3-ubyte")), &room)?;
        assert_eq!((count, shape), (rows.len(), [4, 5]));
        let labels = idx::read_labels(&folder.join(format!("{part}-labels-idx1-ubyte")))?;
        let expected: Vec<u8> = rows.iter().map(|&(_, label)| label as u8).collect();
        assert_eq!(labels, expected);
        let first = |row: &Row| {
            image::load_from_memory(row.0.as_ref().unwrap())
                .unwrap()
                .into_bytes()
        };
        let expected: Vec<u8> = rows.iter().flat_map(first).collect();
        assert_eq!(pixels.in_memory(), Some(&expected[..]));
    }
    let classes = ["a", "b", "c"];
    idx::data_set(&[folder], "tiny", &classes, Framing::Object(0), &room)?;
    Ok(())
}

#[test]
fn concurrent_requests_download_data_once() {
    let cache = tempfile::tempdir().unwrap();
    put(
        "test/busy",
        parquet(SCHEMA, &rows(TINY.train), 4),
        parquet(SCHEMA, &rows(TINY.test), 4),
    );
    let hub = Hub {
        repository: "test/busy",
        ..TINY
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| provide(&hub, cache.path()).unwrap());
        }
    });
    assert_eq!(server().sent.lock().unwrap()["test/busy"], 2);
}

#[test]
fn unexpected_downloads_are_refused_and_nothing_is_kept() {
    let cache = tempfile::tempdir().unwrap();
    let good = || rows(TINY.train);
    let changed = |change: fn(&mut Row)| {
        let mut rows = good();
        change(&mut rows[7]);
        parquet(SCHEMA, &rows, 4)
    };
    let truncated = |by: usize| {
        let bytes = parquet(SCHEMA, &good(), 4);
        bytes[..bytes.len() - by].to_vec()
    };
    let named = |from: &str, to: &str| parquet(&SCHEMA.replace(from, to), &good(), 4);
    let cases: Vec<(&'static str, Vec<u8>, &str)> = vec![
        (
            "test/few",
            parquet(SCHEMA, &good()[1..], 4),
            "expected one table of 15 training images, found tables of",
        ),
        (
            "test/shape",
            changed(|row| row.0 = Some(png(image::GrayImage::new(4, 5)))),
            "row 7: an image of shape [1, 5, 4]",
        ),
        (
            "test/colours",
            changed(|row| row.0 = Some(png(image::RgbImage::new(5, 4)))),
            "row 7: an image of shape [3, 4, 5]",
        ),
        (
            "test/balance",
            parquet(SCHEMA, &rows(&[7, 4, 4]), 4),
            "7 images of class 0, expected 6",
        ),
        (
            "test/class",
            changed(|row| row.1 = 3),
            "row 7: class 3, expected 0 to 2",
        ),
        (
            "test/negative",
            changed(|row| row.1 = -1),
            "row 7: class -1",
        ),
        (
            "test/picture",
            changed(|row| row.0 = Some(b"no picture".to_vec())),
            "row 7: is no picture",
        ),
        (
            "test/half",
            changed(|row| row.0.as_mut().unwrap().truncate(50)),
            "row 7: cannot be decoded",
        ),
        (
            "test/null",
            changed(|row| row.0 = None),
            "3 values in a column of 4 rows",
        ),
        (
            "test/column",
            named("group image", "group picture"),
            "has no column image.bytes",
        ),
        (
            "test/kind",
            named("int64 label", "int64 digit"),
            "has no column label of type INT64; it has image.bytes",
        ),
        ("test/end", truncated(10), "cannot download test/end"),
        ("test/start", truncated(500), "cannot download test/start"),
        (
            "test/text",
            b"<html>sorry</html>".to_vec(),
            "cannot download test/text",
        ),
        ("test/lost", Vec::new(), "cannot download test/lost"),
    ];
    for (repository, train, expected) in cases {
        put(repository, train, parquet(SCHEMA, &rows(TINY.test), 4));
        let error = provide(&Hub { repository, ..TINY }, cache.path()).unwrap_err();
        assert!(matches!(error, Error::MissingData { .. }), "{error}");
        let error = error.to_string();
        for part in [
            expected,
            repository,
            "train-images-idx3-ubyte",
            "/nonexistent/tiny",
            "$ONWARD_DATA",
        ] {
            assert!(error.contains(part), "{part} is missing from\n{error}");
        }
        assert_eq!(left(cache.path()), [""; 0], "{repository}");
    }
    let error = provide(
        &Hub {
            repository: "test/unknown",
            ..TINY
        },
        cache.path(),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("not found"), "{error}");
    assert_eq!(left(cache.path()), [""; 0]);
}

#[test]
fn the_program_downloads_once_and_explains_a_failed_download() {
    let (home, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |endpoint: &str, name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
        command.args([
            "train",
            "progressive",
            "--quiet",
            "--data",
            "mnist",
            "--epochs",
            "1",
        ]);
        command
            .args(["--set", "hidden=[10]", "--set", "batch=1000", "--out"])
            .arg(out.path().join(name));
        command
            .env("HF_ENDPOINT", endpoint)
            .env("NO_PROXY", "127.0.0.1")
            .env("HOME", home.path());
        let output = command
            .env_remove("XDG_CACHE_HOME")
            .env_remove("ONWARD_DATA")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // No server listens on this port.
    let (code, message) = train("http://127.0.0.1:1", "refused");
    assert_eq!(code, Some(1), "{message}");
    for part in [
        "train-images-idx3-ubyte",
        ".cache/onward/mnist",
        "ylecun/mnist",
        "refused",
        "--data-dir",
    ] {
        assert!(message.contains(part), "{part} is missing from\n{message}");
    }
    assert!(
        !out.path().join("refused").exists() && !message.contains("panicked"),
        "{message}"
    );
    // The numbers of images per class of MNIST; all images of a class are identical.
    let pictures: Vec<Vec<u8>> = (0..10).map(|class| grey(28, 28, 20 * class)).collect();
    let table = |counts: [usize; 10]| {
        let labels: Vec<usize> = (0..10)
            .flat_map(|class| vec![class; counts[class]])
            .collect();
        let mixed = (0..labels.len()).map(|index| labels[index * 7919 % labels.len()]);
        let rows: Vec<Row> = mixed
            .map(|class| (Some(pictures[class].clone()), class as i64))
            .collect();
        parquet(SCHEMA, &rows, 1000)
    };
    let train_table = table([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    put(
        "ylecun/mnist",
        train_table,
        table([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    );
    // They are not those of MNIST, whatever their number: nothing is kept.
    let (code, message) = train(&server().endpoint, "first");
    assert_eq!(code, Some(1), "{message}");
    assert!(
        message.contains("the training images are not those of this data set"),
        "{message}"
    );
    let cached = home.path().join(".cache").join("onward");
    assert_eq!(std::fs::read_dir(&cached).unwrap().count(), 1, "the lock");
    assert_eq!(
        std::fs::read_dir(home.path().join(".cache"))
            .unwrap()
            .count(),
        1,
        "expected only the folder onward"
    );
}

/// With the real images in `$ONWARD_DATA`, as the server would send them.
#[test]
fn the_real_images_are_known_by_their_content() -> Result<()> {
    let Some(folder) = std::env::var_os("ONWARD_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: no MNIST in $ONWARD_DATA");
        return Ok(());
    };
    let folders = [folder.join("mnist"), folder];
    let table = |part: &str| -> Result<Vec<u8>> {
        let path = |kind: &str, rank: u8| {
            onward::data::find(&folders, "mnist", &format!("{part}-{kind}-idx{rank}-ubyte"))
        };
        let (pixels, count, _) = idx::read_images(&path("images", 3)?, &Room::default())?;
        let pixels = pixels.in_memory().expect("there is room");
        let labels = idx::read_labels(&path("labels", 1)?)?;
        let pictures = pixels.chunks(pixels.len() / count).map(|pixels| {
            png(image::GrayImage::from_raw(28, 28, pixels.to_vec()).expect("28×28 pixels"))
        });
        let rows: Vec<Row> = pictures
            .zip(labels)
            .map(|(picture, label)| (Some(picture), i64::from(label)))
            .collect();
        Ok(parquet(SCHEMA, &rows, 5000))
    };
    put("ylecun/mnist", table("train")?, table("t10k")?);
    let cache = tempfile::tempdir().unwrap();
    let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
    context.cache = Some(cache.path().into());
    let data = plugin::build(&Pick::<DataSet>::new("mnist"), &context)?;
    assert_eq!(data.train.len(), 50_000);
    Ok(())
}

#[test]
fn files_of_the_cache_that_changed_are_downloaded_again() -> Result<()> {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub {
        repository: "test/repaired",
        ..TINY
    };
    let tables = || [TINY.train, TINY.test].map(|counts| parquet(SCHEMA, &rows(counts), 4));
    let [train, test] = tables();
    put("test/repaired", train, test);
    provide(&hub, cache.path())?;
    let path = cache.path().join("tiny").join(idx::FILES[0]);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bad).unwrap();
    provide(&hub, cache.path())?;
    assert_eq!(std::fs::read(&path).unwrap(), good);
    std::fs::remove_file(&path).unwrap();
    provide(&hub, cache.path())?;
    assert_eq!(std::fs::read(&path).unwrap(), good);
    Ok(())
}

#[test]
fn other_images_and_marks_that_are_paths_are_refused() {
    let cache = tempfile::tempdir().unwrap();
    mark("test/marked", 0, "/tmp/");
    for (repository, content, expected) in [
        ("test/known", Some(["0"; 2]), "not those of this data set"),
        ("test/marked", None, "refused a file with the mark"),
    ] {
        put(
            repository,
            parquet(SCHEMA, &rows(TINY.train), 4),
            parquet(SCHEMA, &rows(TINY.test), 4),
        );
        let hub = Hub {
            repository,
            content,
            ..TINY
        };
        let error = provide(&hub, cache.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(left(cache.path()), [""; 0]);
    }
}

/// A server that changes its mind: what it says at first is plain, and leads out of the
/// cache when the client asks again.
#[test]
#[cfg(target_os = "linux")]
fn what_is_downloaded_stays_in_the_cache_whatever_a_server_says() {
    let (cache, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = format!("{}/", outside.path().display());
    for (repository, after) in [("test/turning", 2), ("test/turning-later", 3)] {
        put(
            repository,
            parquet(SCHEMA, &rows(TINY.train), 4),
            parquet(SCHEMA, &rows(TINY.test), 4),
        );
        mark(repository, after, &start);
        let error = provide(&Hub { repository, ..TINY }, cache.path()).unwrap_err();
        assert!(error.to_string().contains(repository), "{error}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(left(cache.path()), [""; 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]
    /// Changes or truncates the file: the result is the expected images or an error.
    #[test]
    fn a_changed_table_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let cache = tempfile::tempdir().unwrap();
        let mut bytes = parquet(SCHEMA, &rows(TINY.train), 4);
        changes.iter().for_each(|(index, value)| { let at = index.index(bytes.len()); bytes[at] = *value; });
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()).max(1));
        }
        put("test/changed", bytes, parquet(SCHEMA, &rows(TINY.test), 4));
        match provide(&Hub { repository: "test/changed", ..TINY }, cache.path()) {
            Ok(()) => prop_assert_eq!(left(cache.path()), ["tiny"]),
            Err(error) => {
                prop_assert!(!error.to_string().contains("thread panicked"), "{}", error);
                prop_assert_eq!(left(cache.path()), [""; 0]);
            }
        }
    }
}
