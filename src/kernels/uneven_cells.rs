//! Means over cells of different sizes, which may overlap.

use std::ops::Range;

use candle_core::Tensor;

use super::are_fast;
use super::fresh::fresh_rows;
use super::rows::{for_long_rows, is_fast, with_values};
use crate::error::{Error, Result};

/// The number of pixels along a side of a map, and that of cells.
pub(crate) type Side = (usize, usize);

/// The pixels of a cell along a side: from `⌊i·pixels/cells⌋` up to
/// `⌈(i + 1)·pixels/cells⌉`.
fn place((pixels, cells): Side, cell: usize) -> Range<usize> {
    cell * pixels / cells..((cell + 1) * pixels).div_ceil(cells)
}

/// Calls `f` with each cell of a map, the range of its pixels in each of its lines, and
/// the share of a pixel in its mean.
fn each_cell([down, across]: [Side; 2], mut f: impl FnMut(usize, Range<usize>, f64)) {
    for (row, column) in (0..down.1).flat_map(|row| (0..across.1).map(move |c| (row, c))) {
        let (lines, columns) = (place(down, row), place(across, column));
        let share = 1. / (lines.len() * columns.len()) as f64;
        for line in lines {
            let first = line * across.0;
            let pixels = first + columns.start..first + columns.end;
            f(row * across.1 + column, pixels, share);
        }
    }
}

/// The share of each pixel in the mean of each cell: a matrix `(H·W, cells)`.
pub(crate) fn shares_of_cells(sides: [Side; 2]) -> Vec<f32> {
    let cells = sides[0].1 * sides[1].1;
    let mut shares = vec![0.; sides[0].0 * sides[1].0 * cells];
    each_cell(sides, |cell, pixels, share| {
        pixels.for_each(|pixel| shares[pixel * cells + cell] = share as f32);
    });
    shares
}

/// The mean of every cell: `(R, N, H, W)` to `(R, N, cells down, cells across)`.
///
/// # Errors
/// [`Error::Shape`] for maps with other sides; errors of candle.
pub(crate) fn uneven_means(x: &Tensor, sides: [Side; 2]) -> Result<Tensor> {
    let (rows, channels, pixels, cells) = sizes(x, sides)?;
    let shape = (rows, channels, sides[0].1, sides[1].1);
    if !are_fast([x]) {
        let maps = x.reshape((rows * channels, pixels))?;
        return Ok(maps.matmul(&matrix(sides, x)?)?.reshape(shape)?);
    }
    let means = with_values(x, |x| {
        let mut means = vec![0f32; rows * channels * cells];
        for_long_rows(&mut means, cells, 2 * pixels, |map, means| {
            let x = &x[map * pixels..][..pixels];
            each_cell(sides, |cell, pixels, share| {
                means[cell] += share as f32 * x[pixels].iter().sum::<f32>();
            });
        });
        means
    })?;
    Ok(Tensor::from_vec(means, shape, x.device())?)
}

/// The gradient of [`uneven_means`] with respect to `x`, given that with respect to its
/// output, `(R, …)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not match; errors of candle.
pub(crate) fn uneven_means_gradient(
    gradient: &Tensor,
    x: &Tensor,
    sides: [Side; 2],
) -> Result<Tensor> {
    let (rows, channels, pixels, cells) = sizes(x, sides)?;
    let gradient = gradient.reshape((rows * channels, cells))?;
    if !is_fast(&gradient) {
        let spread = gradient.matmul(&matrix(sides, &gradient)?.t()?)?;
        return Ok(spread.reshape(x.shape())?);
    }
    let spread = with_values(&gradient, |gradient| {
        fresh_rows(rows * channels, pixels, |map, out| {
            out.fill(0.);
            let gradient = &gradient[map * cells..][..cells];
            each_cell(sides, |cell, pixels, share| {
                let part = share as f32 * gradient[cell];
                out[pixels].iter_mut().for_each(|out| *out += part);
            });
        })
    })?;
    Ok(Tensor::from_vec(spread, x.shape(), gradient.device())?)
}

/// The rows, channels, pixels and cells of maps.
fn sizes(x: &Tensor, [down, across]: [Side; 2]) -> Result<(usize, usize, usize, usize)> {
    let (rows, channels, height, width) = x.dims4()?;
    if (height, width) != (down.0, across.0) {
        let expected = format!("maps of {}×{}", down.0, across.0);
        return Err(Error::shape("means of cells", x.dims(), expected));
    }
    Ok((rows, channels, height * width, down.1 * across.1))
}

fn matrix(sides: [Side; 2], like: &Tensor) -> Result<Tensor> {
    let shape = (sides[0].0 * sides[1].0, sides[0].1 * sides[1].1);
    let matrix = Tensor::from_vec(shares_of_cells(sides), shape, like.device())?;
    Ok(matrix.to_dtype(like.dtype())?)
}
