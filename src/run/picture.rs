//! Pictures of a run: examples, their views, and the weights of the first layer.

use candle_core::{DType, Device, Tensor};
use image::{imageops, Rgb, RgbImage};

use crate::data::{Content, ExampleSpec};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::views::Role;
use crate::run::Run;

/// Pixels between images.
const GAP: u32 = 2;
/// Small images are enlarged by a whole factor, up to this width in pixels.
const WIDE: u32 = 56;
const GROUND: Rgb<u8> = Rgb([40, 44, 60]);

/// Draws rows of `count` images: training examples, their positive views, their negative
/// views, the masks of the negative views, and `2·count` weight images of the first
/// layer.
///
/// A mask shows the pixels that a negative view takes from its example. It is the
/// negative view of a white example among black ones. A weight image shows the weights of
/// a unit, from black for the lowest to white for the highest, with the same grey for 0
/// in all units. Rows without content, such as negative views of a rule without
/// negatives, are left out.
///
/// # Errors
/// [`Error::Usage`] if the data are not images of one or three channels; errors of the
/// sampler.
pub fn sheet(run: &Run, count: usize) -> Result<RgbImage> {
    run.check_images()?;
    let image = Shape::of(&run.data().spec)?;
    let train = run.data().train.clone();
    let count = count.clamp(1, train.len().max(1));
    // At least two examples, since a sampler may mix them.
    let indices: Vec<usize> = (0..count.max(2).min(train.len())).collect();
    let batch = train.batch(&indices, None)?.to(&run.device, run.dtype)?;
    let mut rows = vec![image.grey_or_colour(&batch.rows().narrow(0, 0, count)?)?];
    let Seen { positive, negative } = views(run, &batch)?;
    for views in [Some(&positive), negative.as_ref()].into_iter().flatten() {
        rows.push(image.grey_or_colour(&views.narrow(0, 0, count)?)?);
    }
    if negative.is_some() {
        rows.push(image.grey_or_colour(&masks(run, &batch, count)?)?);
    }
    let first = run.architecture().net().blocks.first();
    if let Some(features) = first
        .map(|block| block.weight_images())
        .transpose()?
        .flatten()
    {
        let features = features.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let units = (2 * count).min(features.dim(0)?);
        let drawn = image.features(&features.narrow(0, 0, units)?)?;
        rows.extend(drawn.chunks(count).map(<[RgbImage]>::to_vec));
    }
    Ok(composed(&rows))
}

/// The shape of an example as an image.
#[derive(Clone, Copy)]
struct Shape {
    channels: usize,
    height: usize,
    width: usize,
}

impl Shape {
    fn of(kind: &ExampleSpec) -> Result<Self> {
        match (kind.content, &kind.shape[..]) {
            (Content::Picture(_), &[channels @ (1 | 3), height, width]) => Ok(Self {
                channels,
                height,
                width,
            }),
            _ => Err(Error::usage(
                "picture",
                format!(
                    "expected images (channels, height, width) of 1 or 3 channels, \
                     found shape {:?}",
                    kind.shape
                ),
            )),
        }
    }

    fn numbers(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Draws each row of `(R, D)`, from black for 0 to white for 1. Columns after the
    /// pixels are left out.
    fn grey_or_colour(self, rows: &Tensor) -> Result<Vec<RgbImage>> {
        let rows = rows
            .narrow(1, 0, self.numbers())?
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?;
        Ok(rows
            .to_vec2::<f32>()?
            .iter()
            .map(|row| self.draw(row, |value| value))
            .collect())
    }

    fn draw(self, values: &[f32], level: impl Fn(f32) -> f32) -> RgbImage {
        let plane = self.height * self.width;
        RgbImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            let at = y as usize * self.width + x as usize;
            let channel = |index: usize| {
                let value = values[index.min(self.channels - 1) * plane + at];
                (level(value).clamp(0., 1.) * 255.).round() as u8
            };
            Rgb([channel(0), channel(1), channel(2)])
        })
    }

    /// Draws the weights of each unit, `(N, …)`, for the whole image or for a field of
    /// it.
    fn features(self, features: &Tensor) -> Result<Vec<RgbImage>> {
        let shape = match features.dims() {
            &[_, channels @ (1 | 3), height, width] => Self {
                channels,
                height,
                width,
            },
            // Of another number of channels, only the first is drawn.
            &[_, _, height, width] => Self {
                channels: 1,
                height,
                width,
            },
            dims if dims[1..].iter().product::<usize>() >= self.numbers() => self,
            dims => {
                return Err(Error::shape(
                    "weights of the first layer",
                    dims.to_vec(),
                    format!("at least {} weights per unit", self.numbers()),
                ));
            }
        };
        let features = features.flatten_from(1)?.to_vec2::<f32>()?;
        let used = features
            .iter()
            .flat_map(|feature| &feature[..shape.numbers()]);
        let largest = used.fold(f32::MIN_POSITIVE, |largest, weight| {
            largest.max(weight.abs())
        });
        let level = |weight: f32| 0.5 + 0.5 * weight / largest;
        Ok(features
            .iter()
            .map(|feature| shape.draw(feature, level))
            .collect())
    }
}

/// The first positive and the first negative view of every example, `(B, D)`.
struct Seen {
    positive: Tensor,
    negative: Option<Tensor>,
}

/// The first positive and the first negative view of every example of a batch.
fn views(run: &Run, batch: &Batch) -> Result<Seen> {
    let views = run.views(batch, &run.prepare(batch)?)?;
    let rows = views.input.join()?.flatten_from(1)?;
    let view = |index: usize| rows.narrow(0, index * batch.size(), batch.size());
    let negative = views
        .targets
        .roles()
        .iter()
        .position(|role| *role == Role::Negative);
    Ok(Seen {
        positive: view(0)?,
        negative: negative.map(view).transpose()?,
    })
}

/// The masks of the negative views, `(count, D)`: view `i` is made from a batch in which
/// only example `i` is white.
fn masks(run: &Run, batch: &Batch, count: usize) -> Result<Tensor> {
    let mut masks = Vec::with_capacity(count);
    for index in 0..count {
        let white = Tensor::ones(
            (1, batch.rows().dim(1)?),
            batch.rows().dtype(),
            batch.device(),
        )?;
        let black = batch.rows().zeros_like()?;
        let examples = black.slice_assign(&[index..index + 1, 0..white.dim(1)?], &white)?;
        let examples = examples.reshape(batch.examples().shape())?;
        let lit = match batch.labels() {
            Ok(labels) => Batch::new(examples, labels.to_vec())?,
            Err(_) => Batch::unlabelled(examples)?,
        };
        masks.push(
            views(run, &lit)?
                .negative
                .map(|negative| negative.narrow(0, index, 1)),
        );
    }
    let masks = masks.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&masks, 0)?)
}

/// Composes rows of images on one background, each enlarged by a whole factor.
fn composed(rows: &[Vec<RgbImage>]) -> RgbImage {
    let enlarged = |image: &RgbImage| {
        let times = (WIDE / image.width().max(1)).max(1);
        imageops::resize(
            image,
            image.width() * times,
            image.height() * times,
            imageops::FilterType::Nearest,
        )
    };
    let rows: Vec<Vec<RgbImage>> = rows
        .iter()
        .map(|row| row.iter().map(enlarged).collect())
        .collect();
    let width =
        |row: &Vec<RgbImage>| row.iter().map(|image| image.width() + GAP).sum::<u32>() + GAP;
    let height = |row: &Vec<RgbImage>| row.iter().map(RgbImage::height).max().unwrap_or(0) + GAP;
    let size = (
        rows.iter().map(width).max().unwrap_or(GAP),
        rows.iter().map(height).sum::<u32>() + GAP,
    );
    let mut sheet = RgbImage::from_pixel(size.0, size.1, GROUND);
    let mut top = GAP;
    for row in &rows {
        let mut left = GAP;
        for image in row {
            imageops::replace(&mut sheet, image, left.into(), top.into());
            left += image.width() + GAP;
        }
        top += height(row);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_weights_have_the_same_grey_in_all_units() -> Result<()> {
        let shape = Shape {
            channels: 1,
            height: 1,
            width: 2,
        };
        // The column of 9 is not a pixel.
        let weights = Tensor::new(&[[-2f32, 0., 9.], [1., 2., 9.]], &Device::Cpu)?;
        let drawn = shape.features(&weights)?;
        let grey = |image: &RgbImage| [image.get_pixel(0, 0)[0], image.get_pixel(1, 0)[0]];
        assert_eq!((grey(&drawn[0]), grey(&drawn[1])), ([0, 128], [191, 255]));
        assert!(shape
            .features(&Tensor::new(&[[1f32]], &Device::Cpu)?)
            .is_err());
        Ok(())
    }

    #[test]
    fn rows_are_placed_below_each_other() {
        let image = |side: u32| RgbImage::from_pixel(side, side, Rgb([255; 3]));
        let sheet = composed(&[vec![image(28), image(28)], vec![image(8)]]);
        assert_eq!((sheet.width(), sheet.height()), (2 * 58 + 2, 2 * 58 + 2));
        assert_eq!(
            (sheet.get_pixel(60, 2)[0], sheet.get_pixel(59, 2)),
            (255, &GROUND)
        );
        assert_eq!(
            (sheet.get_pixel(57, 115)[0], sheet.get_pixel(58, 115)),
            (255, &GROUND)
        );
    }
}
