//! Decoding of picture files, within limits.

use std::io::Cursor;
use std::ops::Deref;
use std::path::Path;

use image::error::LimitErrorKind;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use image::{Pixel, Rgba, RgbaImage};

use super::memory::Share;
use crate::disk;
use crate::error::{Error, Result};

/// The largest width and height in pixels. A header with more is damaged or malicious.
const LONGEST: u32 = 20_000;
/// The largest file in bytes.
const LARGEST: u64 = 1 << 30;
/// The most bytes that a decoded picture may take.
const MOST: u64 = 1 << 30;

/// The bytes that the pixels of a file of this size can take. One of some kilobytes may
/// be blank; beyond that, no format stores more than about a thousand bytes in one.
fn promised(file: usize) -> u64 {
    ((64 << 20) + 1040 * file as u64).min(MOST)
}

/// The formats that are read, as users know them.
pub(crate) const FORMATS: &str = "PNG, JPEG, WebP, BMP, TIFF or GIF";

/// A decoded picture, whose memory is counted as long as it is there.
#[derive(Debug)]
pub struct Picture {
    image: DynamicImage,
    _share: Share,
}

impl Deref for Picture {
    type Target = DynamicImage;

    fn deref(&self) -> &DynamicImage {
        &self.image
    }
}

/// A picture that is in memory already.
impl From<DynamicImage> for Picture {
    fn from(image: DynamicImage) -> Self {
        Self {
            image,
            _share: Share::default(),
        }
    }
}

/// Reads a picture, recognised by its content. Transparent parts become white, or black
/// where the picture could not be seen on white.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Data`] if it is of none of the formats,
/// breaks off, is damaged or too large.
pub fn open(path: &Path) -> Result<Picture> {
    decode(&disk::read(path, LARGEST)?).map_err(|problem| Error::data(path, problem))
}

/// Decodes a picture from the bytes of a file, or returns a message; see [`open`].
pub(crate) fn decode(bytes: &[u8]) -> Result<Picture, String> {
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
    limits.max_alloc = Some(MOST);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let share = share(&decoder, bytes.len())?;
    // Cameras store the orientation instead of rotating the picture.
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    if image.color().has_alpha() {
        image = on_ground(image.into_rgba8());
    }
    Ok(Picture {
        image,
        _share: share,
    })
}

/// The memory for a picture, before it is decoded.
fn share(decoder: &impl ImageDecoder, file: usize) -> Result<Share, String> {
    const MB: u64 = 1_000_000;
    let (size, (width, height)) = (decoder.total_bytes(), decoder.dimensions());
    let picture = format!("has {width}×{height} pixels, {} MB decoded", size / MB);
    let promised = promised(file);
    if size > promised {
        let promised = promised / MB;
        return Err(format!(
            "{picture}, expected at most {promised} MB for its file; scale it down"
        ));
    }
    // A progressive JPEG is held three times, as numbers of two bytes and as pixels; the
    // brightness takes four bytes a pixel.
    let pixels = u64::from(width) * u64::from(height);
    let needed = 3 * size + 4 * pixels + file as u64;
    Share::take(needed).map_err(|free| {
        let [needed, free] = [needed, free].map(|bytes| bytes / MB);
        format!(
            "{picture}; reading it takes {needed} MB, half of the free memory is {free} MB; \
             scale it down, or free some memory"
        )
    })
}

fn damaged(error: ImageError) -> String {
    match &error {
        ImageError::Limits(limit) if limit.kind() == LimitErrorKind::DimensionError => {
            format!("is wider or higher than {LONGEST} pixels; scale it down")
        }
        _ => format!("cannot be decoded: {error}"),
    }
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
/// white strokes from a drawing program. It is changed in place: it may be large.
fn on_ground(mut image: RgbaImage) -> DynamicImage {
    let on = |value: u8, pixel: &Rgba<u8>| {
        let mut ground = Rgba([value, value, value, 255]);
        ground.blend(pixel);
        ground
    };
    let contrast = |value: u8| {
        let values = image.pixels().map(|pixel| on(value, pixel).to_luma().0[0]);
        let (least, most) = values.fold((255, 0), |(least, most), value| {
            (value.min(least), value.max(most))
        });
        most.saturating_sub(least)
    };
    let (white, black) = (contrast(255), contrast(0));
    let value = if white < 32 && black > white { 0 } else { 255 };
    for pixel in image.pixels_mut() {
        *pixel = on(value, pixel);
    }
    image.into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    /// The file of a picture.
    pub fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
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
    fn a_large_photograph_is_read_though_its_file_is_small() {
        let image = DynamicImage::ImageRgb8(image::RgbImage::from_pixel(
            8000,
            6000,
            image::Rgb([250, 248, 240]),
        ));
        let bytes = encoded(&image, ImageFormat::Jpeg);
        assert!(bytes.len() < 2_000_000, "{}", bytes.len());
        let read = decode(&bytes).unwrap();
        assert_eq!((read.width(), read.height()), (8000, 6000));
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
