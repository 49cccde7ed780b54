//! PNG and JPEG images of any size, grey or colour.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::imageops::{self, FilterType};
use image::{
    DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader, Limits, Luma, Rgba, RgbaImage,
};

use crate::data::images::Images;
use crate::data::{Content, DataSet, ExampleSpec, Framing};
use crate::error::{notify, Error, Result};
use crate::flow::random::{shuffled, stream};

/// The largest width and height in pixels. A header with more is damaged or malicious.
const LONGEST: u32 = 20_000;

crate::choices! {
    /// The handling of images that cannot be read.
    pub enum Broken {
        /// Refuse the data set, with the number of broken images and the first of them.
        Refuse = "refuse",
        /// Skip broken images, with a warning that states their number.
        Skip = "skip",
    }
}

/// Reads a PNG or JPEG file, recognised by its content. Transparent parts become white.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Data`] if it is neither PNG nor JPEG,
/// damaged or too large.
pub fn open(path: &Path) -> Result<DynamicImage> {
    let file = BufReader::new(File::open(path).map_err(Error::file("read", path))?);
    let image = decode(file).map_err(|problem| Error::data(path, problem))?;
    if !image.color().has_alpha() {
        return Ok(image);
    }
    let mut white = RgbaImage::from_pixel(image.width(), image.height(), Rgba([255; 4]));
    imageops::overlay(&mut white, &image.to_rgba8(), 0, 0);
    Ok(DynamicImage::ImageRgba8(white))
}

/// Decodes an image from the bytes of a PNG or JPEG file, or returns a message.
pub(crate) fn decode(bytes: impl BufRead + Seek) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(bytes)
        .with_guessed_format()
        .map_err(|error| format!("cannot be read: {error}"))?;
    if reader.format().is_none() {
        return Err("is neither PNG nor JPEG".into());
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST), Some(LONGEST));
    reader.limits(limits.clone());
    let decoded = || {
        let mut decoder = reader.into_decoder()?;
        limits.reserve(decoder.total_bytes())?;
        // Cameras store the orientation instead of rotating the image.
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    decoded().map_err(|error: ImageError| format!("cannot be decoded: {error}"))
}

/// Converts an image to the bytes of an example, channel by channel.
///
/// # Errors
/// [`Error::Usage`] if the examples are not images of one or three channels.
pub fn example(image: &DynamicImage, spec: &ExampleSpec) -> Result<Vec<u8>> {
    let &[channels @ (1 | 3), height, width] = &spec.shape[..] else {
        return Err(Error::usage(
            "picture",
            format!(
                "expected images (channels, height, width) of 1 or 3 channels, found \
                 shape {:?}",
                spec.shape
            ),
        ));
    };
    let (tall, wide) = (height as u32, width as u32);
    if let (Content::Picture(Framing::Object(margin)), 1) = (spec.content, channels) {
        return Ok(object(&image.to_luma8(), wide, tall, margin as u32).into_raw());
    }
    let resized = image.resize_exact(wide, tall, FilterType::Triangle);
    if channels == 1 {
        return Ok(resized.to_luma8().into_raw());
    }
    let interleaved = resized.to_rgb8().into_raw();
    Ok((0..3)
        .flat_map(|channel| interleaved.iter().skip(channel).step_by(3).copied())
        .collect())
}

/// Frames the object in an image: light on dark, within a margin, with its centre of mass
/// in the middle.
fn object(image: &GrayImage, width: u32, height: u32, margin: u32) -> GrayImage {
    let mut image = image.clone();
    if light_border(&image) {
        imageops::invert(&mut image);
    }
    let (low, high) = image.pixels().fold((255, 0), |(low, high), &Luma([v])| {
        (low.min(v), high.max(v))
    });
    let mut canvas = GrayImage::new(width, height);
    if high - low < 16 {
        return canvas; // no visible object
    }
    image.pixels_mut().for_each(|pixel| {
        pixel.0[0] = (u32::from(pixel.0[0] - low) * 255 / u32::from(high - low)) as u8;
    });
    let inked = |pixel: &Luma<u8>| pixel.0[0] > 64;
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (x, y, _) in image
        .enumerate_pixels()
        .filter(|(_, _, pixel)| inked(pixel))
    {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
    }
    let cut = imageops::crop_imm(&image, left, top, right - left, bottom - top).to_image();
    let room = |side: u32| f64::from(side.saturating_sub(2 * margin).max(1));
    let scale = (room(width) / f64::from(cut.width())).min(room(height) / f64::from(cut.height()));
    let side = |length: u32, most: u32| ((f64::from(length) * scale).round() as u32).clamp(1, most);
    let small = imageops::resize(
        &cut,
        side(cut.width(), width),
        side(cut.height(), height),
        FilterType::Triangle,
    );
    let (mut mass, mut x_sum, mut y_sum) = (0., 0., 0.);
    for (x, y, &Luma([value])) in small.enumerate_pixels() {
        let value = f64::from(value);
        (mass, x_sum, y_sum) = (
            mass + value,
            x_sum + value * (f64::from(x) + 0.5),
            y_sum + value * (f64::from(y) + 0.5),
        );
    }
    let place = |side: u32, length: u32, centre: f64| {
        (f64::from(side) / 2. - centre)
            .round()
            .clamp(0., f64::from(side - length)) as i64
    };
    let (x, y) = (
        place(width, small.width(), x_sum / mass),
        place(height, small.height(), y_sum / mass),
    );
    imageops::overlay(&mut canvas, &small, x, y);
    canvas
}

/// Whether most of the border is light, as with ink on paper.
fn light_border(image: &GrayImage) -> bool {
    let (width, height) = image.dimensions();
    let on_border = |x: u32, y: u32| x == 0 || y == 0 || x + 1 == width || y + 1 == height;
    let border = image
        .enumerate_pixels()
        .filter(|&(x, y, _)| on_border(x, y))
        .map(|(_, _, pixel)| pixel.0[0]);
    let (light, all) = border.fold((0u32, 0u32), |(light, all), value| {
        (light + u32::from(value > 127), all + 1)
    });
    2 * light > all
}

/// Reads a data set from folders, one per class: `<dir>/<class>/<image>`, resized to
/// `shape`.
///
/// If `<dir>/train/` and `<dir>/test/` exist, these are the parts. Otherwise a random
/// sixth of all images is the test part; it stays the same as long as the files do. A
/// sixth of the remaining training images is the validation part.
///
/// # Errors
/// [`Error::File`] and [`Error::Data`] for folders that cannot be read or have no classes
/// or images, and for broken images, unless `broken` is `skip`.
pub fn data_set(dir: &Path, shape: [usize; 3], broken: Broken) -> Result<DataSet> {
    let parted = dir.join("train").is_dir() && dir.join("test").is_dir();
    let classes = folders_in(&if parted {
        dir.join("train")
    } else {
        dir.to_path_buf()
    })?;
    if classes.len() < 2 || classes.len() > 256 {
        return Err(Error::data(
            dir,
            format!(
                "found {} folders, expected one for each class, 2 to 256",
                classes.len()
            ),
        ));
    }
    let spec = ExampleSpec::new(&shape, classes, Content::Picture(Framing::Whole));
    let (train, test) = if parted {
        if folders_in(&dir.join("test"))? != spec.classes {
            return Err(Error::data(
                dir.join("test"),
                "expected the same class folders as in the training part",
            ));
        }
        (
            listed(&dir.join("train"), &spec)?,
            listed(&dir.join("test"), &spec)?,
        )
    } else {
        let every_sixth = |(index, _): &(usize, (PathBuf, u8))| index % 6 == 5;
        let all = listed(dir, &spec)?.into_iter().enumerate();
        let (test, train): (Vec<_>, Vec<_>) = all.partition(every_sixth);
        let bare = |files: Vec<(usize, (PathBuf, u8))>| {
            files.into_iter().map(|(_, file)| file).collect::<Vec<_>>()
        };
        (bare(train), bare(test))
    };
    let (train, test) = (
        read(dir, train, &spec, broken)?,
        read(dir, test, &spec, broken)?,
    );
    if train.labels().len() < 6 || test.labels().is_empty() {
        return Err(Error::data(
            dir,
            format!(
                "found {} images, expected at least 6 for training and 1 for testing",
                train.labels().len() + test.labels().len()
            ),
        ));
    }
    let (train, validation) = train.split_last(train.labels().len() / 6);
    Ok(DataSet {
        spec,
        train: Arc::new(train),
        validation: Arc::new(validation),
        test: Arc::new(test),
        text: None,
    })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::file("read", dir))?;
    let mut paths = entries
        .map(|entry| {
            entry
                .map(|entry| entry.path())
                .map_err(Error::file("read", dir))
        })
        .collect::<Result<Vec<_>>>()?;
    paths.retain(|path| {
        path.file_name()
            .is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    });
    paths.sort();
    Ok(paths)
}

fn folders_in(dir: &Path) -> Result<Vec<String>> {
    let folders = entries(dir)?.into_iter().filter(|path| path.is_dir());
    Ok(folders
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect())
}

/// All images with their classes, in a fixed random order.
fn listed(dir: &Path, spec: &ExampleSpec) -> Result<Vec<(PathBuf, u8)>> {
    let mut files = Vec::new();
    for (class, name) in spec.classes.iter().enumerate() {
        let is_picture = |path: &PathBuf| {
            let ending = path
                .extension()
                .map(|ending| ending.to_string_lossy().to_lowercase());
            ending.is_some_and(|ending| ["png", "jpg", "jpeg"].contains(&ending.as_str()))
        };
        let pictures: Vec<PathBuf> = entries(&dir.join(name))?
            .into_iter()
            .filter(is_picture)
            .collect();
        if pictures.is_empty() {
            return Err(Error::data(
                dir.join(name),
                "found no .png, .jpg or .jpeg files",
            ));
        }
        files.extend(pictures.into_iter().map(|path| (path, class as u8)));
    }
    let order = shuffled(&mut stream(0, "test part", 0), files.len());
    Ok(order
        .into_iter()
        .map(|index| files[index].clone())
        .collect())
}

fn read(
    dir: &Path,
    files: Vec<(PathBuf, u8)>,
    spec: &ExampleSpec,
    broken: Broken,
) -> Result<Images> {
    use rayon::prelude::*;
    let all = files.len();
    let decoded: Vec<Result<Vec<u8>>> = files
        .par_iter()
        .map(|(path, _)| example(&open(path)?, spec))
        .collect();
    let (mut pixels, mut labels, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for (decoded, (_, class)) in decoded.into_iter().zip(&files) {
        match decoded {
            Ok(bytes) => {
                pixels.extend(bytes);
                labels.push(*class);
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    if let Some(first) = faults.first() {
        let problem = format!(
            "{} of {all} images cannot be read; the first error: {first}",
            faults.len()
        );
        if broken == Broken::Refuse {
            return Err(Error::data(
                dir,
                format!("{problem}; repair them, or skip them with broken=skip"),
            ));
        }
        notify(format_args!(
            "warning: {}: {problem}; they are skipped",
            dir.display()
        ));
    }
    Images::new(
        pixels,
        labels,
        [spec.shape[0], spec.shape[1], spec.shape[2]],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(framing: Framing) -> ExampleSpec {
        let classes = vec!["a".into(), "b".into()];
        ExampleSpec::new(&[1, 28, 28], classes, Content::Picture(framing))
    }

    /// A bar in a corner of a large image.
    fn bar(paper: u8, ink: u8) -> DynamicImage {
        let inside = |x: u32, y: u32| (20..40).contains(&x) && (30..130).contains(&y);
        DynamicImage::ImageLuma8(GrayImage::from_fn(300, 200, |x, y| {
            Luma([if inside(x, y) { ink } else { paper }])
        }))
    }

    #[test]
    fn dark_on_light_and_light_on_dark_are_framed_alike() -> Result<()> {
        let spec = spec(Framing::Object(4));
        let ink = example(&bar(250, 10), &spec)?;
        assert_eq!(ink, example(&bar(5, 240), &spec)?);
        let rows: Vec<usize> = (0..28)
            .filter(|row| ink[row * 28..][..28].iter().any(|&v| v > 128))
            .collect();
        let columns: Vec<usize> = (0..28)
            .filter(|column| (0..28).any(|row| ink[row * 28 + column] > 128))
            .collect();
        assert_eq!((rows[0], rows.len()), (4, 20));
        assert_eq!((columns[0], columns.len()), (12, 4));
        Ok(())
    }

    #[test]
    fn an_empty_page_is_an_empty_example() -> Result<()> {
        assert_eq!(
            example(&bar(200, 200), &spec(Framing::Object(4)))?,
            vec![0; 784]
        );
        Ok(())
    }

    fn folder(sizes: &[(u32, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (class, value) in [("dark", 20u8), ("light", 220)] {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            for (index, &(width, height)) in sizes.iter().enumerate() {
                let image = GrayImage::from_pixel(width, height, Luma([value]));
                let ending = if index % 2 == 0 { "png" } else { "JPG" };
                image
                    .save(folder.path().join(class).join(format!("{index}.{ending}")))
                    .unwrap();
            }
        }
        folder
    }

    #[test]
    fn an_image_is_rotated_by_its_exif_orientation() {
        let mut bytes = Vec::new();
        let image = GrayImage::from_fn(40, 20, |x, _| Luma([if x < 20 { 0 } else { 255 }]));
        image
            .write_to(
                &mut std::io::Cursor::new(&mut bytes),
                image::ImageFormat::Jpeg,
            )
            .unwrap();
        // After the start marker: one tag, the orientation, a quarter turn to the right.
        let tag = [0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0];
        let exif = [b"Exif\0\0II*\0\x08\0\0\0\x01\0".as_slice(), &tag, &[0; 4]].concat();
        let header = [0xff, 0xe1, 0, exif.len() as u8 + 2];
        bytes.splice(2..2, header.into_iter().chain(exif));
        let image = decode(std::io::Cursor::new(bytes)).unwrap().to_luma8();
        assert_eq!(image.dimensions(), (20, 40));
        assert!(image.get_pixel(10, 5).0[0] < 50 && image.get_pixel(10, 35).0[0] > 200);
    }

    #[test]
    fn pictures_of_any_size_become_examples() -> Result<()> {
        let folder = folder(&[(5, 9), (40, 30), (28, 28), (1, 1), (60, 7), (8, 8)]);
        let data = data_set(folder.path(), [3, 4, 6], Broken::Refuse)?;
        assert_eq!(data.spec.classes, ["dark", "light"]);
        assert_eq!(
            (data.train.len(), data.validation.len(), data.test.len()),
            (9, 1, 2)
        );
        let batch = data.train.batch(&[0, 1, 2, 3, 4, 5, 6, 7, 8], None)?;
        let rows = batch.rows().to_vec2::<f32>()?;
        for (row, &label) in rows.iter().zip(batch.labels()?) {
            let expected = [20., 220.][label as usize] / 255.;
            assert!(
                row.len() == 72 && row.iter().all(|value| (value - expected).abs() < 0.02),
                "{label}: {row:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_broken_picture_is_an_error_unless_skipping_is_set() -> Result<()> {
        let folder = folder(&[(8, 8); 8]);
        std::fs::write(
            folder.path().join("dark").join("0.png"),
            b"\x89PNG\r\n\x1a\nnothing",
        )
        .unwrap();
        std::fs::write(folder.path().join("dark").join("1.JPG"), b"hello").unwrap();
        let error = data_set(folder.path(), [1, 4, 4], Broken::Refuse)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("images cannot be read") && error.contains("broken=skip"),
            "{error}"
        );
        let data = data_set(folder.path(), [1, 4, 4], Broken::Skip)?;
        assert_eq!(
            data.train.len() + data.validation.len() + data.test.len(),
            14
        );
        Ok(())
    }

    #[test]
    fn a_folder_without_classes_or_pictures_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = data_set(empty.path(), [1, 4, 4], Broken::Refuse)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("one for each class"), "{error}");
        let folder = folder(&[(8, 8); 4]);
        std::fs::create_dir(folder.path().join("other")).unwrap();
        let error = data_set(folder.path(), [1, 4, 4], Broken::Refuse)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("found no .png"), "{error}");
    }
}
