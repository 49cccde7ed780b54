//! Images in colour.

use std::path::Path;

use onward::candle_core::{DType, Device};
use onward::data::hub::Hub;
use onward::data::images::Images;
use onward::data::{cifar, DataSet};
use onward::plugin;
use onward::settings::Pick;
use onward::{BuildContext, Result, Vars};

use crate::server::{put, server};
use crate::tables::{parquet, png, Row, SCHEMA};

#[test]
fn colour_images_are_written_channel_by_channel() -> Result<()> {
    fn write(folder: &Path, train: &Images, test: &Images) -> Result<()> {
        assert_eq!((train.labels(), test.labels()), (&[0, 1][..], &[1][..]));
        assert_eq!(train.image(0)?[..6], [1, 1, 2, 2, 3, 3]);
        std::fs::write(folder.join("whole.bin"), test.to_bytes()?).map_err(|_| unreachable!())
    }
    let cache = tempfile::tempdir().unwrap();
    let row = |label| {
        (
            Some(png(image::RgbImage::from_pixel(
                2,
                1,
                image::Rgb([1, 2, 3]),
            ))),
            label,
        )
    };
    let schema = SCHEMA.replace("group image", "group img");
    put(
        "test/colour",
        parquet(&schema, &[row(0), row(1)], 1),
        parquet(&schema, &[row(1)], 1),
    );
    let hub = Hub {
        repository: "test/colour",
        columns: ["img", "label"],
        shape: [3, 1, 2],
        train: &[1, 1],
        test: &[0, 1],
        content: None,
    };
    let looked = vec![cache.path().join("colour")];
    hub.provide(looked, Some(cache.path()), "colour", &["whole.bin"], write)?;
    assert_eq!(
        std::fs::read(cache.path().join("colour").join("whole.bin")).unwrap(),
        [1, 1, 2, 2, 3, 3]
    );
    Ok(())
}

/// Downloads a CIFAR-10 of identical images: rows are rows, and red is the first channel.
#[test]
fn cifar_10_keeps_its_axes_and_channels() -> Result<()> {
    let cache = tempfile::tempdir().unwrap();
    let picture = png(image::RgbImage::from_fn(32, 32, |x, y| {
        image::Rgb([x as u8, 100 + y as u8, 7])
    }));
    let table = |each: usize| {
        let rows: Vec<Row> = (0..10 * each)
            .map(|index| (Some(picture.clone()), (index % 10) as i64))
            .collect();
        parquet(&SCHEMA.replace("group image", "group img"), &rows, 5000)
    };
    put("test/cifar10", table(5000), table(1000));
    // The same tables as those of CIFAR-10, but for the content.
    let hub = Hub {
        repository: "test/cifar10",
        columns: ["img", "label"],
        shape: cifar::SHAPE,
        train: &[5000; 10],
        test: &[1000; 10],
        content: None,
    };
    server();
    let folder = cache.path().join("cifar-10");
    hub.provide(
        vec![folder.clone()],
        Some(cache.path()),
        "cifar-10",
        &cifar::FILES,
        cifar::write,
    )?;
    let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
    context.data_dirs = vec![folder];
    let data = plugin::build(&Pick::<DataSet>::new("cifar-10"), &context)?;
    assert_eq!(
        (data.train.len(), data.validation.len(), data.test.len()),
        (41_667, 8_333, 10_000)
    );
    for part in [&data.train, &data.validation, &data.test] {
        let batch = part.batch(&[3], None)?;
        assert_eq!(batch.examples().dims(), [1, 3, 32, 32]);
        let pixels = (batch.examples().squeeze(0)? * 255.)?
            .round()?
            .to_vec3::<f32>()?;
        assert_eq!(
            [pixels[0][5][9], pixels[1][5][9], pixels[2][5][9]],
            [9., 105., 7.]
        );
    }
    assert_eq!(
        std::fs::read_dir(cache.path().join("cifar-10"))
            .unwrap()
            .count(),
        cifar::FILES.len() + 1,
        "expected the files and their checksums"
    );
    Ok(())
}
