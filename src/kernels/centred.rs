//! Values less the mean over all units, or over all channels of a pixel.

use candle_core::Tensor;
use rayon::prelude::*;

use super::are_fast;
use super::fresh::fresh_rows;
use super::rows::{with_values, GRAIN};
use super::wide::Loop;
use crate::error::{Error, Result};

/// `x − mean x`, `x` of `(R, N, …)`, with the mean over the `N` units of a row, or over
/// the `N` channels of a pixel. The gradient of it goes back by the same function.
///
/// # Errors
/// Errors of candle.
pub fn centred(x: &Tensor) -> Result<Tensor> {
    let (rows, channels) = (x.dim(0)?, x.dim(1)?);
    if !are_fast([x]) {
        return Ok(x.broadcast_sub(&x.mean_keepdim(1)?)?);
    }
    let pixels = x.elem_count() / (rows * channels).max(1);
    let share = 1. / channels as f32;
    let out = with_values(x, |x| {
        let width = channels * pixels;
        fresh_rows(rows, width, |index, row| {
            row.copy_from_slice(&x[index * width..][..width]);
            if pixels == 1 {
                let mean = row.iter().sum::<f32>() * share;
                return row.iter_mut().for_each(|x| *x -= mean);
            }
            let means = means(row, pixels);
            for plane in row.chunks_exact_mut(pixels) {
                plane
                    .iter_mut()
                    .zip(&means)
                    .for_each(|(x, mean)| *x -= mean);
            }
        })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// The mean over the channels of each pixel of an image, `(N, P)`.
#[inline(always)]
fn means(image: &[f32], pixels: usize) -> Vec<f32> {
    let share = 1. / (image.len() / pixels) as f32;
    let mut means = vec![0f32; pixels];
    for plane in image.chunks_exact(pixels) {
        means.iter_mut().zip(plane).for_each(|(mean, x)| *mean += x);
    }
    means.iter_mut().for_each(|mean| *mean *= share);
    means
}

/// Windows of a map: `size` by `size` pixels, every `stride` pixels, on the map with a
/// border of zeros that is `border` pixels wide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// The height and width of a window.
    pub size: usize,
    /// The distance from one window to the next.
    pub stride: usize,
    /// The width of the border.
    pub border: usize,
}

impl Windows {
    /// A window for each pixel.
    pub const PIXELS: Self = Self {
        size: 1,
        stride: 1,
        border: 0,
    };

    /// The number of windows along `length` pixels.
    fn along(self, length: usize) -> Option<usize> {
        let last = (length + 2 * self.border).checked_sub(self.size)?;
        let steps = last.checked_div(self.stride)?;
        (self.size > 0).then_some(steps + 1)
    }
}

/// `max(0, x − mean x)^power`, the largest of each window: `(R, N, H, W)` to
/// `(R, N, …)`, with the mean over the `N` channels of a pixel. `power` is positive.
///
/// # Errors
/// [`Error::Shape`] if the maps are smaller than a window; errors of candle.
pub fn above_mean(x: &Tensor, windows: Windows, power: f64) -> Result<Tensor> {
    let (rows, channels, height, width) = x.dims4()?;
    let (Some(down), Some(across)) = (windows.along(height), windows.along(width)) else {
        let expected = format!("(R, N, H, W) with room for {windows:?}");
        return Err(Error::shape("largest of windows", x.dims(), expected));
    };
    if !are_fast([x]) {
        return above_mean_plain(x, windows, power);
    }
    let (image, out_image) = (channels * height * width, channels * down * across);
    let out = with_values(x, |x| {
        let mut out = vec![0f32; rows * out_image];
        // The powers are of what is left of the windows: a power of the largest is the
        // largest power.
        let images = out.par_chunks_mut(out_image.max(1)).enumerate();
        let least = GRAIN.div_ceil(image.max(1));
        images.with_min_len(least).for_each(|(row, out)| {
            let x = &x[row * image..][..image];
            Above {
                x,
                out,
                windows,
                sizes: [[height, width], [down, across]],
            }
            .wide();
            if power != 1. {
                out.iter_mut().for_each(|x| *x = x.powf(power as f32));
            }
        });
        out
    })?;
    Ok(Tensor::from_vec(
        out,
        (rows, channels, down, across),
        x.device(),
    )?)
}

/// The same with candle's operations.
fn above_mean_plain(x: &Tensor, windows: Windows, power: f64) -> Result<Tensor> {
    let Windows {
        size,
        stride,
        border,
    } = windows;
    let mut map = centred(x)?.relu()?;
    if windows != Windows::PIXELS {
        map = map.pad_with_zeros(2, border, border)?;
        map = map.pad_with_zeros(3, border, border)?;
        map = map.max_pool2d_with_stride(size, stride)?;
    }
    match power {
        1. => Ok(map),
        power => Ok(map.powf(power)?),
    }
}

/// The largest numbers above the mean in the windows of one image, `(N, P)`.
struct Above<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    windows: Windows,
    /// Heights and widths of a map and of what is made of it.
    sizes: [[usize; 2]; 2],
}

impl Loop for Above<'_> {
    #[inline(always)]
    fn run(self) {
        let Self {
            x,
            out,
            windows,
            sizes: [[height, width], [down, across]],
        } = self;
        let Windows {
            size,
            stride,
            border,
        } = windows;
        if out.is_empty() || x.is_empty() {
            return;
        }
        let means = means(x, height * width);
        // The largest of each column of a line of windows, between two borders.
        let mut line = vec![0f32; width + 2 * border];
        let maps = x.chunks_exact(height * width);
        for (map, out) in maps.zip(out.chunks_exact_mut(down * across)) {
            for (row, out) in out.chunks_exact_mut(across).enumerate() {
                let first = (row * stride).saturating_sub(border).min(height);
                let end = (row * stride + size).saturating_sub(border).min(height);
                let inside = &mut line[border..][..width];
                inside.fill(0.);
                for at in first..end {
                    let (map, means) = (&map[at * width..][..width], &means[at * width..]);
                    for ((most, x), mean) in inside.iter_mut().zip(map).zip(means) {
                        let above = x - mean;
                        *most = if above > *most { above } else { *most };
                    }
                }
                for (column, out) in out.iter_mut().enumerate() {
                    let window = &line[column * stride..][..size];
                    let larger = |most: f32, &x: &f32| if x > most { x } else { most };
                    *out = window.iter().fold(0., larger);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::random::normals;
    use candle_core::{DType, Device};

    #[test]
    fn the_mean_is_that_over_the_units() -> Result<()> {
        for shape in [vec![3, 4], vec![2, 3, 5], vec![2, 3, 2, 4], vec![2, 1, 3]] {
            let count: usize = shape.iter().product();
            let numbers: Vec<f64> = (0..count).map(|i| (i as f64).sin()).collect();
            let x = Tensor::from_vec(numbers, shape, &Device::Cpu)?;
            let expected = x.broadcast_sub(&x.mean_keepdim(1)?)?;
            for dtype in [DType::F32, DType::F64] {
                let found = centred(&x.to_dtype(dtype)?)?.to_dtype(DType::F64)?;
                let worst = (found - &expected)?.abs()?.flatten_all()?.max(0)?;
                assert!(worst.to_scalar::<f64>()? < 1e-6);
            }
        }
        Ok(())
    }

    fn bits(x: &Tensor) -> Result<Vec<u32>> {
        let numbers = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    }

    /// Also in the order of the definition, powers first.
    #[test]
    fn the_largest_above_the_mean_has_the_bits_of_candle() -> Result<()> {
        let four = Windows {
            size: 4,
            stride: 2,
            border: 1,
        };
        let three = Windows {
            size: 3,
            stride: 3,
            border: 0,
        };
        for windows in [four, three, Windows::PIXELS] {
            for shape in [[3, 5, 8, 7], [2, 300, 9, 16], [1, 2, 3, 3]] {
                let x = normals(&shape, 1)?;
                for power in [0.7, 1., 1.4] {
                    let found = bits(&above_mean(&x, windows, power)?)?;
                    assert_eq!(found, bits(&above_mean_plain(&x, windows, power)?)?);
                    let powers = centred(&x)?.relu()?.powf(power)?;
                    let side = windows.border;
                    let largest = powers
                        .pad_with_zeros(2, side, side)?
                        .pad_with_zeros(3, side, side)?
                        .max_pool2d_with_stride(windows.size, windows.stride)?;
                    assert_eq!(found, bits(&largest)?);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn maps_smaller_than_a_window_are_refused() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let x = Tensor::zeros((1, 2, 3, 5), dtype, &Device::Cpu)?;
            for (size, stride, is_right) in [(3, 2, true), (4, 2, false), (3, 0, false)] {
                let border = 0;
                let windows = Windows {
                    size,
                    stride,
                    border,
                };
                assert_eq!(above_mean(&x, windows, 1.).is_ok(), is_right);
            }
        }
        Ok(())
    }
}
