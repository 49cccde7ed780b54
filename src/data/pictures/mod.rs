//! Pictures of any size, grey or colour: PNG, JPEG, WebP, BMP, TIFF and GIF.

mod colours;
mod folder;
mod object;
mod parts;

use std::io::Cursor;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use image::{Luma, Rgba, RgbaImage};

pub use self::colours::are_colourful;
pub use self::folder::{data_set, pictures_in, Broken};
use self::object::Grey;
use crate::data::{Content, ExampleSpec, Framing};
use crate::disk;
use crate::error::{Error, Result};
use crate::flow::examples::Examples;
use crate::kernels::memory;

/// The largest width and height in pixels. A header with more is damaged or malicious.
const LONGEST: u32 = 20_000;
/// The largest file in bytes.
const LARGEST: u64 = 1 << 30;

/// The bytes that a decoded picture may take, given those of its file. A photograph takes
/// 10 to 20 times its file; a file that promises far more is malicious, or a drawing that
/// is larger than any use here.
fn room(file: usize) -> u64 {
    let free = memory::available().unwrap_or(u64::MAX);
    let promised = (64 << 20) + 64 * file as u64;
    promised.min(1 << 30).min(free / 4)
}

/// Held while a picture of more than [`MEDIUM`] bytes is decoded: many threads together
/// would take many times the memory.
static LARGE: Mutex<()> = Mutex::new(());
const MEDIUM: u64 = 16 << 20;

/// The formats that are read, as users know them.
pub(crate) const FORMATS: &str = "PNG, JPEG, WebP, BMP, TIFF or GIF";

/// Reads a picture, recognised by its content. Transparent parts become white, or black
/// where the picture could not be seen on white.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Data`] if it is of none of the formats,
/// breaks off, is damaged or too large.
pub fn open(path: &Path) -> Result<DynamicImage> {
    decode(&disk::read(path, LARGEST)?).map_err(|problem| Error::data(path, problem))
}

/// Decodes a picture from the bytes of a file, or returns a message; see [`open`].
pub(crate) fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| format!("cannot be read: {error}"))?;
    match reader.format() {
        None if bytes.is_empty() => return Err("is empty".into()),
        None => return Err(format!("is no picture, expected {FORMATS}")),
        // The decoder fills what is missing with grey.
        Some(ImageFormat::Jpeg) if !is_whole_jpeg(bytes) => {
            return Err("breaks off: the end of the JPEG is missing".into());
        }
        Some(_) => (),
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST), Some(LONGEST));
    reader.limits(limits);
    let damaged = |error: ImageError| format!("cannot be decoded: {error}");
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (size, room) = (decoder.total_bytes(), room(bytes.len()));
    if size > room {
        let [size, room] = [size, room].map(|bytes| bytes >> 20);
        return Err(format!(
            "takes {size} MB when it is decoded, expected at most {room} MB; scale it down"
        ));
    }
    let is_large = size > MEDIUM;
    let _one_at_a_time = is_large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    // Cameras store the orientation instead of rotating the picture.
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(match image.color().has_alpha() {
        true => on_ground(&image.to_rgba8()),
        false => image,
    })
}

/// Whether a JPEG has its end marker: after the headers, in the compressed data.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (0xff, 0xd9) => return true,
            // Escaped data, restart markers, fill bytes, markers without a body.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, 0xff) => at += 1,
            (0xff, _) => {
                let Some(length) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
            _ => at += 1,
        }
    }
    false
}

/// A picture with transparent parts on white; on black if more can be seen there, as with
/// white strokes from a drawing program.
fn on_ground(image: &RgbaImage) -> DynamicImage {
    let on = |value: u8| {
        let mut ground = RgbaImage::from_pixel(
            image.width(),
            image.height(),
            Rgba([value, value, value, 255]),
        );
        imageops::overlay(&mut ground, image, 0, 0);
        DynamicImage::ImageRgba8(ground)
    };
    let contrast = |image: &DynamicImage| {
        let grey = image.to_luma8();
        let values = || grey.pixels().map(|pixel| pixel.0[0]);
        values().max().unwrap_or(0) - values().min().unwrap_or(0)
    };
    let (white, black) = (on(255), on(0));
    let is_better_on_black = contrast(&white) < 32 && contrast(&black) > contrast(&white);
    if is_better_on_black {
        black
    } else {
        white
    }
}

/// Converts a picture to the bytes of an example, channel by channel. `None` if the
/// examples show an object and nothing can be seen in the picture.
///
/// # Errors
/// [`Error::Usage`] if the examples are not images of one or three channels.
pub fn example(image: &DynamicImage, spec: &ExampleSpec) -> Result<Option<Vec<u8>>> {
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
        if (image.width(), image.height()) == (wide, tall) {
            let pixels = image.to_luma8().into_raw();
            if object::is_framed(&pixels, width, height, margin) {
                return Ok(Some(pixels));
            }
        }
        let framed = object::framed(&grey(image), wide, tall, margin as u32);
        return Ok(framed.map(image::GrayImage::into_raw));
    }
    let resized = image.resize_exact(wide, tall, FilterType::Triangle);
    if channels == 1 {
        return Ok(Some(resized.to_luma8().into_raw()));
    }
    let interleaved = resized.to_rgb8().into_raw();
    let channel = |channel| interleaved.iter().skip(channel).step_by(3).copied();
    Ok(Some((0..3).flat_map(channel).collect()))
}

/// The framing that other pictures need before they are classified: that of MNIST if nine
/// of ten images have it, else none.
///
/// # Errors
/// Errors of the examples.
pub fn framing_of(images: &dyn Examples, spec: &ExampleSpec) -> Result<Framing> {
    let &[1, height, width] = &spec.shape[..] else {
        return Ok(Framing::Whole);
    };
    let step = images.len().div_ceil(LOOKED_AT).max(1);
    let indices: Vec<usize> = (0..images.len()).step_by(step).collect();
    let batch = images.batch(&indices, None)?;
    let values = batch.examples().flatten_from(1)?.to_vec2::<f32>()?;
    let is_framed = |values: &&Vec<f32>| {
        let pixels = values.iter().map(|value| (value * 255.).round() as u8);
        object::is_framed(&pixels.collect::<Vec<_>>(), width, height, MNIST_MARGIN)
    };
    let framed = values.iter().filter(is_framed).count();
    Ok(match 10 * framed >= 9 * values.len() {
        true => Framing::Object(MNIST_MARGIN),
        false => Framing::Whole,
    })
}

/// The images that are looked at.
const LOOKED_AT: usize = 500;

/// The margin of MNIST's images in pixels.
const MNIST_MARGIN: usize = 4;

/// The brightness of a picture. Of more than 8 bits, the brightest pixel is 1: cameras
/// store 12 bits in 16.
fn grey(image: &DynamicImage) -> Grey {
    let is_deep = image.color().bytes_per_pixel() > image.color().channel_count();
    let grey = image.to_luma32f();
    let brightest = grey.pixels().fold(0f32, |most, pixel| most.max(pixel.0[0]));
    let scale = match is_deep && brightest > 0. {
        true => 1. / brightest,
        false => 1.,
    };
    let values = grey.pixels().map(|&Luma([value])| value * scale);
    Grey::from_vec(image.width(), image.height(), values.collect()).expect("as many pixels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::GrayImage;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        image
            .write_to(&mut Cursor::new(&mut bytes), format)
            .unwrap();
        bytes
    }

    #[test]
    fn every_format_is_read_by_its_content() {
        let image = DynamicImage::ImageRgb8(image::RgbImage::from_fn(9, 7, |x, y| {
            image::Rgb([(x * 20) as u8, (y * 30) as u8, 99])
        }));
        for format in [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::WebP,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::Gif,
        ] {
            let read = decode(&encoded(&image, format)).unwrap();
            assert_eq!((read.width(), read.height()), (9, 7), "{format:?}");
        }
        assert!(decode(b"hello").unwrap_err().contains("is no picture"));
        assert!(decode(b"").unwrap_err().contains("is empty"));
    }

    #[test]
    fn a_picture_that_breaks_off_is_refused() {
        let image = DynamicImage::ImageLuma8(GrayImage::from_fn(90, 90, |x, y| {
            Luma([(x * y % 251) as u8])
        }));
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let whole = encoded(&image, format);
            assert!(decode(&whole).is_ok());
            // Programs append their own data.
            assert!(decode(&[&whole[..], b"more"].concat()).is_ok());
            for share in [10, 50, 90, 99] {
                let cut = &whole[..whole.len() * share / 100];
                assert!(decode(cut).is_err(), "{format:?}, {share}%");
            }
        }
    }

    #[test]
    fn strokes_on_a_transparent_ground_can_be_seen() {
        for ink in [0, 255] {
            let drawn = RgbaImage::from_fn(40, 40, |x, _| {
                Rgba([ink, ink, ink, if (18..22).contains(&x) { 255 } else { 0 }])
            });
            let bytes = encoded(&DynamicImage::ImageRgba8(drawn), ImageFormat::Png);
            let classes = vec!["a".into(), "b".into()];
            let object = Content::Picture(Framing::Object(4));
            let spec = ExampleSpec::new(&[1, 28, 28], classes, object);
            let shown = example(&decode(&bytes).unwrap(), &spec).unwrap();
            let shown = shown.expect("a stroke is there");
            assert!(
                shown[14 * 28 + 14] > 200 && shown[14 * 28 + 4] == 0,
                "{ink}"
            );
        }
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
        let image = decode(&bytes).unwrap().to_luma8();
        assert_eq!(image.dimensions(), (20, 40));
        assert!(image.get_pixel(10, 5).0[0] < 50 && image.get_pixel(10, 35).0[0] > 200);
    }
}
