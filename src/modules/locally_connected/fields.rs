//! The positions of local receptive fields in an image.

use std::slice::{ChunksExact, ChunksExactMut};

use candle_core::Tensor;

use super::lanes::Pieces;
use super::simd;
use crate::error::{Error, Result};
use crate::kernels::Rows;

/// The largest total size of all fields. A larger size is assumed to be a typing error.
const LARGEST: usize = 1 << 28;

/// The receptive field of each location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Pixel indices within a channel: entry `l·field² + f` is pixel `f` of the field of
    /// location `l`. The index after the last pixel means a zero beyond the border.
    index: Vec<u32>,
    /// The channels, height and width of the images.
    pub(super) image: [usize; 3],
    /// Height and width of the grid of locations.
    pub(super) grid: [usize; 2],
    /// The height and width of a field.
    pub(super) field: usize,
    /// The distance of neighbouring fields in pixels.
    pub(super) stride: usize,
    /// The number of zeros around the images.
    pub(super) padding: usize,
}

impl Fields {
    /// Fields of `field×field` pixels, `stride` pixels apart, over images `[C, H, W]`
    /// with `padding` zeros around them.
    ///
    /// # Errors
    /// [`Error::Unfit`] if a field is larger than the image with its padding, or not
    /// larger than the padding; if the stride or the image size is 0; if there are too
    /// many fields.
    pub fn new(image: [usize; 3], field: usize, stride: usize, padding: usize) -> Result<Self> {
        let [channels, height, width] = image;
        // A field must not lie completely beyond the border.
        let most = height.min(width).saturating_add(padding.saturating_mul(2));
        if stride == 0 || image.contains(&0) || !(1..=most).contains(&field) || padding >= field {
            return Err(Error::unfit(
                "local receptive fields",
                format!(
                    "found fields of {field}×{field} pixels, {stride} apart, for images \
                     of {height}×{width} with {padding} zeros around them; expected \
                     `field` at most {most}, `padding` less than `field`, `stride` at \
                     least 1"
                ),
            ));
        }
        // With a single location, a larger stride makes no difference.
        let stride = stride.min(height.max(width).saturating_add(padding.saturating_mul(2)));
        let places = |size: usize| {
            size.saturating_add(padding.saturating_mul(2))
                .saturating_sub(field)
                / stride
                + 1
        };
        let (grid, area) = ([places(height), places(width)], field.saturating_mul(field));
        let entries = area
            .saturating_mul(channels)
            .saturating_mul(grid[0].saturating_mul(grid[1]));
        if entries.max(height.saturating_mul(width)) > LARGEST {
            return Err(Error::unfit(
                "local receptive fields",
                format!(
                    "{}×{} fields of {} numbers are too many; choose a smaller `field` \
                     or a larger `stride`",
                    grid[0],
                    grid[1],
                    area.saturating_mul(channels)
                ),
            ));
        }
        let mut index = Vec::with_capacity(area * grid[0] * grid[1]);
        for location in 0..grid[0] * grid[1] {
            let (top, left) = (location / grid[1] * stride, location % grid[1] * stride);
            for number in 0..area {
                let row = (top + number / field)
                    .checked_sub(padding)
                    .filter(|&row| row < height);
                let column = (left + number % field)
                    .checked_sub(padding)
                    .filter(|&column| column < width);
                let at = row
                    .zip(column)
                    .map_or(height * width, |(row, column)| row * width + column);
                index.push(at as u32);
            }
        }
        Ok(Self {
            index,
            image,
            grid,
            field,
            stride,
            padding,
        })
    }

    /// Height and width of the grid of locations.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// The size of a field, `C·field²`.
    pub fn numbers(&self) -> usize {
        self.image[0] * self.area()
    }

    /// The size of a field in one channel.
    pub(super) fn area(&self) -> usize {
        self.field * self.field
    }

    /// The number of pixels of an image, which is the number of columns of a channel.
    pub(super) fn pixels(&self) -> usize {
        self.image[1] * self.image[2]
    }

    /// The size of a field in as many channels as these columns make.
    pub(super) fn of_width(&self, columns: usize) -> usize {
        columns / self.pixels() * self.area()
    }

    /// Whether fields with this number of units use the form for few units (see
    /// [`simd`]).
    pub(super) fn is_narrow(&self, units: usize) -> bool {
        units <= simd::MOST_UNITS && Pieces::of(self).are_filled()
    }

    pub(super) fn locations(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Writes the fields of all rows at a location, `(R, F)`. `F` depends on the channels
    /// of the rows.
    pub(super) fn at(&self, location: usize, images: &Rows<'_>, out: &mut Vec<f32>) {
        let (area, width) = (self.area(), self.of_width(images.width));
        out.resize(images.rows * width, 0.);
        let index = &self.index[location * area..][..area];
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let channels = images.row(row).chunks_exact(self.pixels());
            let (fields, channels) = (out.chunks_exact_mut(area), channels);
            // With a size that the compiler knows, the positions stay in registers.
            match area {
                4 => gather::<4>(index, channels, fields),
                9 => gather::<9>(index, channels, fields),
                _ => gather_any(index, channels, fields),
            }
        }
    }

    /// All fields, `(L, R, F)`, with candle's operations.
    pub(super) fn plain(&self, images: &Tensor) -> Result<Tensor> {
        let (rows, channels) = (images.dim(0)?, self.image[0]);
        let index = Tensor::from_slice(&self.index, self.index.len(), images.device())?;
        let lines = images
            .reshape((rows * channels, self.pixels()))?
            .pad_with_zeros(1, 0, 1)?;
        let fields = lines.index_select(&index, 1)?.reshape((
            rows,
            channels,
            self.locations(),
            self.area(),
        ))?;
        Ok(fields.permute((2, 0, 1, 3))?.contiguous()?.reshape((
            self.locations(),
            rows,
            self.numbers(),
        ))?)
    }
}

/// As [`gather_any`], for an index of `N` pixels.
fn gather<const N: usize>(index: &[u32], channels: ChunksExact<f32>, fields: ChunksExactMut<f32>) {
    let index: [u32; N] = std::array::from_fn(|at| index[at]);
    gather_any(&index, channels, fields);
}

/// Writes these pixels of each channel.
#[inline(always)]
fn gather_any(index: &[u32], channels: ChunksExact<f32>, fields: ChunksExactMut<f32>) {
    for (channel, field) in channels.zip(fields) {
        for (out, &at) in field.iter_mut().zip(index) {
            *out = channel.get(at as usize).copied().unwrap_or(0.);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_do_not_fit_the_image_are_refused() {
        for (field, stride, padding) in [
            (10, 1, 0),
            (3, 0, 0),
            (0, 1, 0),
            (13, 1, 2),
            (3, 1, 3),
            (usize::MAX, 1, usize::MAX),
            (3, 1, usize::MAX / 2 + 1),
        ] {
            let error = Fields::new([1, 8, 9], field, stride, padding)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("8×9") && error.contains("`field` at most"),
                "{error}"
            );
        }
        let error = Fields::new([3, 10_000, 10_000], 99, 1, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains("too many"), "{error}");
        assert_eq!(Fields::new([1, 28, 28], 10, 6, 0).unwrap().grid(), [4, 4]);
        assert_eq!(
            Fields::new([1, 8, 9], 8, usize::MAX, 0).unwrap().grid(),
            [1, 1]
        );
    }
}
