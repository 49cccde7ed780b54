//! Pictures of any size, grey or colour: PNG, JPEG, WebP, BMP, TIFF and GIF.

mod colours;
mod decode;
mod folder;
mod ground;
mod listing;
mod memory;
mod object;
mod parts;
mod pieces;

use image::imageops::FilterType;
use image::{DynamicImage, Luma};

pub use self::colours::are_colourful;
pub(crate) use self::decode::{decode, FORMATS};
pub use self::decode::{open, Picture};
pub use self::folder::{data_set, Broken};
pub use self::listing::pictures_in;
pub use self::object::Contrast;
use self::object::{Found, Grey};
use crate::data::{Content, ExampleSpec, Framing};
use crate::error::{Error, Result};
use crate::flow::examples::{spread, Examples};

/// What can be seen in a picture.
pub enum Seen {
    /// An example.
    Example {
        /// Its bytes, channel by channel.
        bytes: Vec<u8>,
        /// The objects that it shows together: one, where it is not searched for objects.
        objects: usize,
    },
    /// Nothing: no object differs enough from the ground.
    Nothing(Contrast),
}

/// A picture as it is, which is not searched for objects.
fn whole(bytes: Vec<u8>) -> Seen {
    Seen::Example { bytes, objects: 1 }
}

/// Converts a picture to an example. If the examples show an object, it is searched in
/// the picture.
///
/// # Errors
/// [`Error::Usage`] if the examples are not images of one or three channels.
pub fn example(image: &DynamicImage, spec: &ExampleSpec) -> Result<Seen> {
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
                return Ok(whole(pixels));
            }
        }
        return Ok(
            match object::framed(grey(image), wide, tall, margin as u32) {
                Found::Object(framed, objects) => Seen::Example {
                    bytes: framed.into_raw(),
                    objects,
                },
                Found::Nothing(contrast) => Seen::Nothing(contrast),
            },
        );
    }
    let resized = image.resize_exact(wide, tall, FilterType::Triangle);
    if channels == 1 {
        return Ok(whole(resized.to_luma8().into_raw()));
    }
    let interleaved = resized.to_rgb8().into_raw();
    let channel = |channel| interleaved.iter().skip(channel).step_by(3).copied();
    Ok(whole((0..3).flat_map(channel).collect()))
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
    let batch = images.batch(&spread(images.len(), LOOKED_AT), None)?;
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
    let mut grey = image.to_luma32f();
    let brightest = grey.pixels().fold(0f32, |most, pixel| most.max(pixel.0[0]));
    if is_deep && brightest > 0. {
        let scale = 1. / brightest;
        for Luma([value]) in grey.pixels_mut() {
            *value *= scale;
        }
    }
    grey
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgba, RgbaImage};

    use super::decode::tests::encoded;
    use super::*;

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
            let Seen::Example { bytes: shown, .. } =
                example(&decode(&bytes).unwrap(), &spec).unwrap()
            else {
                panic!("a stroke is there");
            };
            assert!(
                shown[14 * 28 + 14] > 200 && shown[14 * 28 + 4] == 0,
                "{ink}"
            );
        }
    }
}
