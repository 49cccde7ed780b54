use super::*;
use proptest::prelude::*;
use std::io::Write;

use crate::data::Split;

fn images(count: u32, height: u32, width: u32, pixels: &[u8]) -> Vec<u8> {
    let header = [IMAGES, count, height, width]
        .map(u32::to_be_bytes)
        .concat();
    [&header, pixels].concat()
}

fn labels(count: u32, labels: &[u8]) -> Vec<u8> {
    [&[LABELS, count].map(u32::to_be_bytes).concat(), labels].concat()
}

/// A folder with six training and two test images of 2×2 pixels.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 6), ("t10k", 2)] {
        let pixels: Vec<u8> = (0..4 * count as u8).collect();
        put(
            &folder,
            &format!("{part}-images-idx3-ubyte"),
            &images(count, 2, 2, &pixels),
        );
        let classes: Vec<u8> = (0..count as u8).map(|index| index % 3).collect();
        put(
            &folder,
            &format!("{part}-labels-idx1-ubyte"),
            &labels(count, &classes),
        );
    }
    folder
}

fn put(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) {
    std::fs::write(folder.path().join(name), bytes).unwrap();
}

fn read(folder: &tempfile::TempDir) -> Result<DataSet> {
    data_set(
        &[folder.path().to_path_buf()],
        "test",
        &[],
        Framing::Object(4),
        &Room::default(),
    )
}

fn message(folder: &tempfile::TempDir) -> String {
    read(folder).expect_err("must be refused").to_string()
}

#[test]
fn four_files_make_three_parts() -> Result<()> {
    let data = read(&folder())?;
    assert_eq!(
        (data.train.len(), data.validation.len(), data.test.len()),
        (5, 1, 2)
    );
    assert_eq!(
        (data.spec.shape, data.spec.classes.len()),
        (vec![1, 2, 2], 3)
    );
    Ok(())
}

#[test]
fn images_that_stay_in_their_file_are_the_same() -> Result<()> {
    let folder = folder();
    let sorted: Vec<u8> = (0..60).map(|index| index / 20).collect();
    let pixels: Vec<u8> = (0..240).collect();
    put(
        &folder,
        "train-images-idx3-ubyte",
        &images(60, 2, 2, &pixels),
    );
    put(&folder, "train-labels-idx1-ubyte", &labels(60, &sorted));
    let read = |most: u64| {
        let (folders, room) = ([folder.path().into()], Room::default().at_most(most));
        data_set(&folders, "test", &[], Framing::Whole, &room)
    };
    // The last has room for the test images alone.
    let [memory, file, both] = [u64::MAX, 0, 8].map(|most| read(most).unwrap());
    let step = crate::flow::step::Step::first(7);
    let augment = crate::data::Augment {
        shift: 1,
        flip: true,
        step: &step,
    };
    for split in [Split::Train, Split::Validation, Split::Test] {
        let expected = memory.split(split);
        let indices: Vec<usize> = (0..expected.len()).rev().collect();
        for data in [&file, &both] {
            let found = data.split(split);
            assert_eq!(found.fingerprint()?, expected.fingerprint()?);
            for augment in [None, Some(&augment)] {
                let [a, b] = [found, expected].map(|part| part.batch(&indices, augment));
                let (a, b) = (a?, b?);
                assert_eq!(a.rows().to_vec2::<f32>()?, b.rows().to_vec2::<f32>()?);
                assert_eq!(a.labels()?, b.labels()?);
                assert_eq!(found.labels(&indices)?, b.labels()?);
            }
        }
    }
    // The same faults are found as in memory.
    for (bytes, says) in [
        (&pixels[1..], "found only 239"),
        (&[0; 241][..], "found more"),
    ] {
        put(&folder, "train-images-idx3-ubyte", &images(60, 2, 2, bytes));
        let error = read(0).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{error}");
    }
    Ok(())
}

#[test]
fn images_that_are_sorted_by_class_are_divided_at_random() -> Result<()> {
    let folder = folder();
    let classes = |examples: &dyn crate::data::Examples| -> Result<BTreeSet<u32>> {
        let all: Vec<usize> = (0..examples.len()).collect();
        let batch = examples.batch(&all, None)?;
        Ok(batch.labels()?.iter().copied().collect())
    };
    // Of 3 classes: in order, from the last one down, and two sorted files behind each
    // other.
    let orders: [&dyn Fn(u8) -> u8; 3] = [&|at| at / 40, &|at| 2 - at / 40, &|at| at % 60 / 20];
    let count = 120u32;
    for class_at in orders {
        let sorted: Vec<u8> = (0..count as u8).map(class_at).collect();
        put(
            &folder,
            "train-images-idx3-ubyte",
            &images(count, 2, 2, &[7; 480]),
        );
        put(&folder, "train-labels-idx1-ubyte", &labels(count, &sorted));
        let data = read(&folder)?;
        assert_eq!((data.train.len(), data.validation.len()), (100, 20));
        assert_eq!(classes(&*data.train)?.len(), 3);
        assert_eq!(classes(&*data.validation)?.len(), 3);
    }
    Ok(())
}

#[test]
fn zeros_behind_a_compressed_file_are_ignored() -> Result<()> {
    let folder = folder();
    let name = "train-images-idx3-ubyte";
    let plain = std::fs::read(folder.path().join(name)).unwrap();
    // Two streams, one after the other, and zeros.
    let mut packed = Vec::new();
    for part in plain.chunks(20) {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        packed.extend(encoder.finish().unwrap());
    }
    packed.extend([0; 100]);
    put(&folder, name, &packed);
    assert_eq!(read(&folder)?.train.len(), 5);
    packed.truncate(packed.len() - 110);
    put(&folder, name, &packed);
    assert!(
        message(&folder).contains("cannot be decompressed"),
        "{}",
        message(&folder)
    );
    Ok(())
}

#[test]
fn compressed_files_are_recognised_by_content() -> Result<()> {
    let folder = folder();
    for name in ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        let plain = folder.path().join(name);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&std::fs::read(&plain).unwrap()).unwrap();
        let packed = packed.finish().unwrap();
        if name.starts_with("train") {
            std::fs::remove_file(&plain).unwrap();
            put(&folder, &format!("{name}.gz"), &packed);
        } else {
            put(&folder, name, &packed);
        }
    }
    assert_eq!(read(&folder)?.train.len(), 5);
    Ok(())
}

#[test]
fn an_invalid_file_is_refused_with_the_reason() {
    let huge = images(1_000_000_000, 28, 28, &[0; 100]);
    let cases: [(&str, Vec<u8>, &str); 14] = [
        (
            "train-images-idx3-ubyte",
            images(6, 2, 2, &[0; 23]),
            "24 bytes; found only 23",
        ),
        (
            "train-images-idx3-ubyte",
            images(6, 2, 2, &[0; 25]),
            "24 bytes; found more",
        ),
        (
            "train-images-idx3-ubyte",
            huge,
            "784000000000 bytes; found only 100",
        ),
        (
            "train-images-idx3-ubyte",
            images(u32::MAX, u32::MAX, u32::MAX, &[]),
            "impossible",
        ),
        ("train-images-idx3-ubyte", images(6, 0, 2, &[]), "0 by 2"),
        (
            "train-images-idx3-ubyte",
            b"PK".to_vec(),
            "found the end of the file",
        ),
        (
            "train-images-idx3-ubyte",
            labels(24, &[0; 24]),
            "begins with 2049, a file of labels;",
        ),
        (
            "train-images-idx3-ubyte",
            [0x0308_0000u32, 6].map(u32::to_be_bytes).concat(),
            "the bytes in the other order;",
        ),
        (
            "train-images-idx3-ubyte",
            b"<html>404".to_vec(),
            "the letters <htm;",
        ),
        (
            "train-labels-idx1-ubyte",
            labels(6, &[1; 6]),
            "all training images have the label 1",
        ),
        (
            "train-images-idx3-ubyte",
            [2052u32, 6].map(u32::to_be_bytes).concat(),
            "begins with 2052, bytes in 4 dimensions;",
        ),
        (
            "train-images-idx3-ubyte",
            [0x0d03u32, 6].map(u32::to_be_bytes).concat(),
            "numbers with a fraction, of 32 bits in 3 dimensions;",
        ),
        (
            "train-labels-idx1-ubyte",
            labels(5, &[0; 5]),
            "5 labels for the 6 images",
        ),
        (
            "t10k-images-idx3-ubyte",
            images(2, 1, 4, &[0; 8]),
            "[1, 2, 2]",
        ),
    ];
    for (name, bytes, expected) in cases {
        let folder = folder();
        put(&folder, name, &bytes);
        let message = message(&folder);
        assert!(
            message.contains(name) && message.contains(expected),
            "{expected} is missing from: {message}"
        );
    }
    let folder = folder();
    put(&folder, "t10k-labels-idx1-ubyte", &labels(2, &[0, 9]));
    assert!(message(&folder).contains("label 9"), "{}", message(&folder));
    std::fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
    assert!(
        message(&folder).contains("t10k-labels-idx1-ubyte, plain or .gz"),
        "{}",
        message(&folder)
    );
}

proptest! {
    /// Reading never panics, whichever byte is changed and wherever the file is cut.
    #[test]
    fn a_damaged_file_is_read_or_refused(
        file in 0..4usize, place in 0..40usize, byte in any::<u8>(), cut in proptest::option::of(0..40usize),
    ) {
        let folder = folder();
        let name = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte"][file];
        let path = folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let length = bytes.len();
        bytes[place % length] = byte;
        bytes.truncate(cut.unwrap_or(length));
        std::fs::write(&path, bytes).unwrap();
        let _ = read(&folder);
    }
}
