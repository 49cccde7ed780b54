//! Corrupted files: each is read or refused, without a panic.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use onward::data::text::tokenizer::Units;
use onward::data::Room;
use onward::data::{cifar, idx, pictures, text};
use onward::run::observe::metrics::Metrics;
use onward::{Result, Run, Tokenizer};
use proptest::prelude::*;

/// Changes some bytes, and truncates the file if `end` is given.
fn changed(
    bytes: &[u8],
    changes: &[(prop::sample::Index, u8)],
    end: Option<prop::sample::Index>,
) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    changes.iter().for_each(|(index, value)| {
        let at = index.index(bytes.len());
        bytes[at] = *value;
    });
    let end = end.map_or(bytes.len(), |end| end.index(bytes.len()));
    bytes.truncate(end);
    bytes
}

fn changes() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>)>
{
    let change = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    (
        change,
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    )
}

/// A run that all tests share; it is trained once.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let data: onward::export::Table = "name = \"digits\"\nsize = 100".parse().unwrap();
        let run = Run::builder("progressive")
            .set("data", data)
            .set("hidden", vec![8, 8])
            .set("epochs", 1);
        run.out(&path).build().unwrap().fit(&mut ()).unwrap();
        (folder, path)
    });
    path
}

/// A copy of this run with another content of one file.
fn with(file: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.toml", "model.safetensors"] {
        std::fs::copy(trained().join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join(file), bytes).unwrap();
    folder
}

fn picture(format: image::ImageFormat) -> Vec<u8> {
    let image =
        image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8 * 9, y as u8 * 15, 77]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::from(image)
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["a = [", "a = {b = "] {
        let text = format!("a = {}", open.trim_start_matches("a = ").repeat(100_000));
        let folder = with("config.toml", text.as_bytes());
        assert!(Run::open(folder.path()).is_err());
    }
    let nested = "[".repeat(100_000);
    let header = format!("{{\"__metadata__\":{nested}");
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let folder = with("model.safetensors", &bytes);
    assert!(Run::open(folder.path())
        .unwrap()
        .without_data()
        .build()
        .is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn a_changed_picture_is_decoded_or_refused((changes, end) in changes(), jpeg in any::<bool>()) {
        let format = if jpeg { image::ImageFormat::Jpeg } else { image::ImageFormat::Png };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        std::fs::write(&path, changed(&picture(format), &changes, end)).unwrap();
        let _: Result<_> = pictures::open(&path);
    }

    #[test]
    fn a_changed_checkpoint_is_refused((changes, end) in changes(), state in any::<bool>()) {
        let name = if state { "state.safetensors" } else { "model.safetensors" };
        let good = std::fs::read(trained().join(name)).unwrap();
        let bytes = changed(&good, &changes, end);
        let folder = with(name, &bytes);
        if state {
            // With a model of the same epoch, the state would not be read.
            std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        }
        let restored = Run::open(folder.path()).and_then(|run| run.without_data().build());
        prop_assert_eq!(restored.is_ok(), bytes == good);
    }

    /// Changes the header alone: it is a small part of a file, and the parsed part.
    #[test]
    fn a_changed_header_is_restored_or_refused((changes, _) in changes()) {
        let good = std::fs::read(trained().join("model.safetensors")).unwrap();
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let bytes = [&changed(&good[..header], &changes, None), &good[header..]].concat();
        let folder = with("model.safetensors", &bytes);
        let _: Result<_> = Run::open(folder.path()).and_then(|run| run.without_data().build());
    }

    #[test]
    fn a_changed_configuration_is_resolved_or_refused((changes, end) in changes()) {
        let good = std::fs::read(trained().join("config.toml")).unwrap();
        let folder = with("config.toml", &changed(&good, &changes, end));
        if let Ok(config) = Run::open(folder.path()).and_then(|run| run.config()) {
            // An accepted configuration is written back unchanged.
            let again = with("config.toml", config.to_toml().as_bytes());
            prop_assert_eq!(Run::open(again.path()).unwrap().config().unwrap(), config);
        }
    }

    #[test]
    fn a_changed_tokenizer_encodes_text_or_is_refused((changes, end) in changes(), bpe in any::<bool>()) {
        static GOOD: OnceLock<[String; 2]> = OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let units = [Units::Char, "bpe:260".parse().unwrap()];
            units.map(|units| Tokenizer::train(units, &["the fox and the crow, the crow and the cheese"]).unwrap().to_json().into())
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, changed(good[usize::from(bpe)].as_bytes(), &changes, end)).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(&path) {
            let _: Result<_> = tokenizer.encode("the crow? ä").and_then(|encoded| tokenizer.decode(&encoded.ids));
        }
    }

    #[test]
    fn a_changed_text_is_read_or_refused((changes, end) in changes()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let bytes = changed("Ein Rabe saß auf einem Baum.\n\nDie Füchsin kam.".as_bytes(), &changes, end);
        std::fs::write(&path, &bytes).unwrap();
        prop_assert_eq!(text::read(&path, &Room::default()).is_ok(), std::str::from_utf8(&bytes).is_ok_and(|text| !text.trim().is_empty()));
    }

    #[test]
    fn changed_metrics_do_not_prevent_resuming((changes, end) in changes()) {
        let good = std::fs::read(trained().join("metrics.jsonl")).unwrap();
        let folder = with("metrics.jsonl", &changed(&good, &changes, end));
        prop_assert!(Metrics::after(folder.path(), (1, 2), &[]).is_ok());
    }

    #[test]
    fn a_changed_compressed_file_is_read_or_refused((changes, end) in changes()) {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut packed, &[&[0, 0, 8, 1, 0, 0, 0, 200][..], &[3; 200]].concat()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.gz");
        std::fs::write(&path, changed(&packed.finish().unwrap(), &changes, end)).unwrap();
        let _: Result<_> = idx::read_labels(&path);
    }

    #[test]
    fn colour_images_of_any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let folder = tempfile::tempdir().unwrap();
        cifar::FILES.iter().for_each(|file| std::fs::write(folder.path().join(file), &bytes).unwrap());
        for room in [Room::default(), Room::default().at_most(0)] {
            prop_assert!(cifar::read(&[folder.path().into()], "test", &room).is_err());
        }
    }

    #[test]
    fn an_idx_file_of_any_bytes_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..40), magic in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let start = if magic { &[0, 0, 8, 3][..] } else { &[] };
        std::fs::write(&path, [start, &bytes].concat()).unwrap();
        for room in [Room::default(), Room::default().at_most(0)] {
            let _: Result<_> = idx::read_images(&path, &room);
        }
        let _: Result<_> = idx::read_labels(&path);
    }
}
