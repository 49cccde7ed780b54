//! Images stored as bytes and decoded batch by batch.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use flate2::Crc;
use rand::Rng;
use rayon::prelude::*;

use super::pixels::Pixels;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples};
use crate::flow::random::below;
use crate::kernels;

/// Images of one shape `[C, H, W]`, each with a class, in memory or in files. Splitting is
/// cheap.
#[derive(Clone)]
pub struct Images {
    pixels: Pixels,
    /// Where each image is among the pixels; in their order, if nothing is said.
    places: Option<Arc<Vec<usize>>>,
    labels: Arc<Vec<u8>>,
    shape: [usize; 3],
    range: Range<usize>,
}

impl Images {
    /// Images in one array, each channel by channel and row by row. 0 is the background.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not one label for each image.
    pub fn new(pixels: Vec<u8>, labels: Vec<u8>, shape: [usize; 3]) -> Result<Self> {
        Self::of(pixels.into(), labels, shape)
    }

    /// The same with pixels that may be in files.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(pixels: Pixels, labels: Vec<u8>, shape: [usize; 3]) -> Result<Self> {
        let size: usize = shape.iter().product();
        let found = pixels.count(size);
        if found != Some(labels.len()) {
            let found = match (found, pixels.in_memory()) {
                (None, Some(bytes)) => format!("{} bytes", bytes.len()),
                (images, _) => format!("{} images", images.unwrap_or_default()),
            };
            let labels = labels.len();
            let problem = format!("found {found} for {labels} labels of images of shape {shape:?}");
            return Err(Error::usage("images", problem));
        }
        let range = 0..labels.len();
        Ok(Self {
            pixels,
            places: None,
            labels: labels.into(),
            shape,
            range,
        })
    }

    /// The shape of an image, `[C, H, W]`.
    pub fn shape(&self) -> &[usize; 3] {
        &self.shape
    }

    /// The classes of the images.
    pub fn labels(&self) -> &[u8] {
        &self.labels[self.range.clone()]
    }

    /// The bytes of one image, channel by channel and row by row.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read from its file.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        self.pixels.image(self.place(index), self.size())
    }

    /// The bytes of all images, one after the other. This copies all of them.
    ///
    /// # Errors
    /// As [`image`](Self::image).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.range.len() * self.size());
        for index in 0..self.range.len() {
            bytes.extend_from_slice(&self.image(index)?);
        }
        Ok(bytes)
    }

    /// The bytes of an image.
    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where an image is among the pixels.
    fn place(&self, index: usize) -> usize {
        let index = self.range.start + index;
        self.places.as_ref().map_or(index, |places| places[index])
    }

    /// All but the last `count` images, and the last `count`.
    pub fn split_last(&self, count: usize) -> (Self, Self) {
        let middle = self.range.end - count.min(self.range.len());
        let part = |range| Self {
            range,
            ..self.clone()
        };
        (part(self.range.start..middle), part(middle..self.range.end))
    }

    /// The images at these places.
    pub fn select(&self, indices: &[usize]) -> Self {
        let places: Vec<usize> = indices.iter().map(|&index| self.place(index)).collect();
        let labels: Vec<u8> = indices.iter().map(|&index| self.labels()[index]).collect();
        Self {
            pixels: self.pixels.clone(),
            range: 0..labels.len(),
            places: Some(places.into()),
            labels: labels.into(),
            shape: self.shape,
        }
    }

    fn labels_at(&self, indices: &[usize]) -> Vec<u32> {
        let labels = self.labels();
        let label = |&index: &usize| u32::from(labels[index]);
        indices.iter().map(label).collect()
    }
}

impl Examples for Images {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        let [channels, height, width] = self.shape;
        let mut values = vec![0f32; indices.len() * self.size()];
        let moves = augment.and_then(|augment| moves(indices.len(), augment));
        let read = |(place, values): (usize, &mut [f32])| -> Result<()> {
            let by = moves.as_ref().map_or([0; 3], |moves| moves[place]);
            let image = self.image(indices[place])?;
            moved_into(&image, values, self.shape, by, decode);
            Ok(())
        };
        if self.pixels.in_memory().is_some() {
            let mut images = values.chunks_exact_mut(self.size()).enumerate();
            images.try_for_each(read)?;
        } else {
            // A disk is fast only if it is asked for several images at a time.
            let images = values.par_chunks_exact_mut(self.size()).enumerate();
            images.try_for_each(read)?;
        }
        let shape = (indices.len(), channels, height, width);
        let images = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Batch::new(images, self.labels_at(indices))
    }

    fn labels(&self, indices: &[usize]) -> Result<Vec<u32>> {
        Ok(self.labels_at(indices))
    }

    fn fingerprint(&self) -> Result<u32> {
        let mut crc = Crc::new();
        crc.update(format!("{:?}", self.shape).as_bytes());
        for index in 0..self.range.len() {
            crc.update(&self.image(index)?);
        }
        crc.update(self.labels());
        Ok(crc.sum())
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn Examples>>> {
        let count = self.range.len() * self.size();
        let is_in_memory = self.pixels.in_memory().is_some();
        if !device.is_cuda() || !is_in_memory || count as u64 > kernels::cuda::free(device)? / 2 {
            return Ok(None);
        }
        Ok(Some(Arc::new(OnGpu {
            pixels: Tensor::from_vec(self.to_bytes()?, count, device)?,
            images: self.clone(),
        })))
    }
}

/// How far each image of a batch is moved: pixels down and to the right, and 1 for a
/// mirrored image. `None` without augmentation.
pub(super) fn moves(count: usize, augment: &Augment<'_>) -> Option<Vec<[i32; 3]>> {
    let (shift, step) = (augment.shift, augment.step);
    if shift == 0 && !augment.flip {
        return None;
    }
    let mut moves = vec![[0; 3]; count];
    if shift > 0 {
        let mut rng = step.stream("shift");
        let mut draw = || below(&mut rng, 2 * shift + 1) as i32 - shift as i32;
        for [down, right, _] in &mut moves {
            (*down, *right) = (draw(), draw());
        }
    }
    if augment.flip {
        let mut rng = step.stream("flip");
        for [_, _, mirrored] in &mut moves {
            *mirrored = below(&mut rng, 2) as i32;
        }
    }
    Some(moves)
}

/// Copies an image to `values`, which are zeros: moved down and to the right by pixels,
/// then mirrored if the last number is 1. `convert` writes a part of a line.
pub(super) fn moved_into<T>(
    image: &[T],
    values: &mut [f32],
    [channels, height, width]: [usize; 3],
    [down, right, mirrored]: [i32; 3],
    convert: impl Fn(&[T], &mut [f32]),
) {
    let (rows, from_row) = overlap(height, down as isize);
    let (columns, from_column) = overlap(width, right as isize);
    for channel in 0..channels {
        for row in rows.clone() {
            let to = (channel * height + row) * width + columns.start;
            let from = (channel * height + row - rows.start + from_row) * width + from_column;
            convert(
                &image[from..][..columns.len()],
                &mut values[to..][..columns.len()],
            );
        }
    }
    if mirrored == 1 {
        values.chunks_exact_mut(width).for_each(<[f32]>::reverse);
    }
}

/// Images whose bytes are on a GPU. Their batches are decoded and augmented there.
#[cfg(feature = "cuda")]
struct OnGpu {
    pixels: Tensor,
    images: Images,
}

#[cfg(feature = "cuda")]
impl Examples for OnGpu {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        let device = self.pixels.device();
        let index: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
        let index = Tensor::from_vec(index, indices.len(), device)?;
        let moves = augment.and_then(|augment| moves(indices.len(), augment));
        // Sent as the bits of unsigned numbers: candle has no signed ones of 32 bits
        // here.
        let upload = |moves: Vec<[i32; 3]>| {
            let bits: Vec<u32> = moves.into_iter().flatten().map(|by| by as u32).collect();
            Tensor::from_vec(bits, (indices.len(), 3), device)
        };
        let moves = moves.map(upload).transpose()?;
        let shape = self.images.shape;
        let images = kernels::cuda::images(&self.pixels, &index, moves.as_ref(), shape)?;
        Batch::new(images, self.images.labels_at(indices))
    }
}

/// Shifts each of the images `(B, C, H, W)` by up to `by` pixels in both directions. The
/// border is filled with zeros.
///
/// # Errors
/// Errors of candle.
pub fn moved(images: &Tensor, by: usize, rng: &mut impl Rng) -> Result<Tensor> {
    let (count, channels, height, width) = images.dims4()?;
    let mut draw = || below(rng, 2 * by + 1) as i32 - by as i32;
    let moves: Vec<_> = (0..count).map(|_| [draw(), draw(), 0]).collect();
    let shape = [channels, height, width];
    if !kernels::is_fast(images) {
        return moved_plainly(images, shape, &moves);
    }
    let size: usize = shape.iter().product();
    let moved = kernels::with_values(images, |images| {
        let mut moved = vec![0f32; images.len()];
        let pairs = moved.par_chunks_mut(size.max(1)).zip(&moves).enumerate();
        pairs.for_each(|(index, (moved, by))| {
            let image = &images[index * size..][..size];
            moved_into(image, moved, shape, *by, |from, to| {
                to.copy_from_slice(from)
            });
        });
        moved
    })?;
    Ok(Tensor::from_vec(moved, images.shape(), images.device())?)
}

/// The same with candle's operations.
fn moved_plainly(images: &Tensor, shape: [usize; 3], moves: &[[i32; 3]]) -> Result<Tensor> {
    let [channels, height, width] = shape;
    let mut moved = Vec::with_capacity(moves.len());
    for (index, [down, right, _]) in moves.iter().enumerate() {
        let (rows, from_row) = overlap(height, *down as isize);
        let (columns, from_column) = overlap(width, *right as isize);
        let seen = images.get(index)?.narrow(1, from_row, rows.len())?;
        let seen = seen.narrow(2, from_column, columns.len())?;
        let seen = seen.pad_with_zeros(1, rows.start, height - rows.end)?;
        moved.push(seen.pad_with_zeros(2, columns.start, width - columns.end)?);
    }
    Ok(Tensor::stack(&moved, 0)?.reshape((moves.len(), channels, height, width))?)
}

fn decode(bytes: &[u8], values: &mut [f32]) {
    values
        .iter_mut()
        .zip(bytes)
        .for_each(|(value, &byte)| *value = f32::from(byte) / 255.);
}

/// The range that a line of `size` pixels covers after a shift by `by`, and its first
/// pixel that stays visible.
fn overlap(size: usize, by: isize) -> (Range<usize>, usize) {
    let by_abs = by.unsigned_abs().min(size);
    if by >= 0 {
        (by_abs..size, 0)
    } else {
        (0..size - by_abs, by_abs)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::flow::step::Step;

    fn four() -> Images {
        let pixels = (1..=24).map(|pixel| pixel * 10).collect();
        Images::new(pixels, vec![0, 1, 2, 3], [1, 2, 3]).unwrap()
    }

    #[test]
    fn a_batch_is_decoded_in_the_order_asked_for() -> Result<()> {
        let batch = four().batch(&[3, 0], None)?;
        assert_eq!(batch.labels()?, [3, 0]);
        assert_eq!(batch.shape(), [1, 2, 3]);
        assert_eq!(
            batch.rows().to_vec2::<f32>()?[1][..2],
            [10. / 255., 20. / 255.]
        );
        Ok(())
    }

    #[test]
    fn the_last_images_can_be_split_off() {
        let (first, last) = four().split_last(1);
        assert_eq!(
            (first.labels(), last.labels()),
            (&[0u8, 1, 2][..], &[3u8][..])
        );
    }

    #[test]
    fn half_of_the_images_are_mirrored() -> Result<()> {
        let images = Images::new([1, 2, 3, 4, 5, 6].repeat(400), vec![0; 400], [1, 2, 3])?;
        let step = Step::first(1);
        let augment = Augment {
            shift: 0,
            flip: true,
            step: &step,
        };
        let rows = images
            .batch(&(0..400).collect::<Vec<_>>(), Some(&augment))?
            .rows()
            .to_vec2::<f32>()?;
        let bytes = |row: &Vec<f32>| {
            row.iter()
                .map(|x| (x * 255.).round() as u8)
                .collect::<Vec<_>>()
        };
        let mirrored = rows
            .iter()
            .filter(|row| bytes(row) == [3, 2, 1, 6, 5, 4])
            .count();
        let same = rows
            .iter()
            .filter(|row| bytes(row) == [1, 2, 3, 4, 5, 6])
            .count();
        assert!(
            mirrored + same == 400 && (150..250).contains(&mirrored),
            "{mirrored}"
        );
        Ok(())
    }

    #[test]
    fn a_shift_moves_pixels_and_fills_with_zeros() -> Result<()> {
        let images = Images::new((1..=9).collect(), vec![0], [1, 3, 3])?;
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..200 {
            let step = Step {
                index,
                ..Step::first(1)
            };
            let batch = images.batch(
                &[0],
                Some(&Augment {
                    shift: 1,
                    flip: false,
                    step: &step,
                }),
            )?;
            let moved: Vec<u8> = batch
                .rows()
                .flatten_all()?
                .to_vec1::<f32>()?
                .iter()
                .map(|x| (x * 255.).round() as u8)
                .collect();
            seen.insert(moved);
        }
        assert_eq!(seen.len(), 9);
        assert!(seen.contains(&vec![0, 0, 0, 0, 1, 2, 0, 4, 5])); // down and right
        assert!(seen.contains(&vec![5, 6, 0, 8, 9, 0, 0, 0, 0])); // up and left
        Ok(())
    }

    /// Also by more than the image is wide.
    #[test]
    fn both_ways_to_move_an_image_have_the_same_bits() -> Result<()> {
        let images = crate::flow::random::normals(&[9, 2, 3, 5], 1)?;
        for by in [1, 2, 7] {
            let move_all = |images: &Tensor| -> Result<Vec<f64>> {
                let mut rng = crate::flow::random::stream(by as u64, "test", 0);
                let moved = moved(images, by, &mut rng)?.to_dtype(DType::F64)?;
                Ok(moved.flatten_all()?.to_vec1()?)
            };
            let plain = move_all(&images.to_dtype(DType::F64)?)?;
            assert_eq!(move_all(&images)?, plain);
            assert!(plain.contains(&0.));
        }
        Ok(())
    }

    #[test]
    fn tensors_are_moved_like_bytes() -> Result<()> {
        let images =
            Images::new((1..=18).collect(), vec![0, 1], [1, 3, 3])?.batch(&[0, 1], None)?;
        let moved = moved(
            images.examples(),
            1,
            &mut crate::flow::random::stream(1, "test", 0),
        )?;
        assert_eq!(moved.dims(), [2, 1, 3, 3]);
        for (image, moved) in images
            .rows()
            .to_vec2::<f32>()?
            .iter()
            .zip(moved.flatten_from(1)?.to_vec2::<f32>()?)
        {
            let places = (-1isize..=1).flat_map(|down| (-1..=1).map(move |right| (down, right)));
            let shifted = places.map(|(down, right)| -> Vec<f32> {
                (0..9isize)
                    .map(|i| {
                        let (row, column) = (i / 3 - down, i % 3 - right);
                        let inside = (0..3).contains(&row) && (0..3).contains(&column);
                        if inside {
                            image[(row * 3 + column) as usize]
                        } else {
                            0.
                        }
                    })
                    .collect()
            });
            assert!(
                shifted.into_iter().any(|shifted| shifted == moved),
                "{moved:?}"
            );
        }
        Ok(())
    }
}
