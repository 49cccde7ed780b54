//! Means over cells of pixels.

use candle_core::{Tensor, D};

#[cfg(feature = "cuda")]
use super::cuda;
use crate::error::{Error, Result};

/// The means of cells of `down` by `across` pixels: `(R, N, H, W)` to
/// `(R, N, H/down, W/across)`.
///
/// # Errors
/// [`Error::Shape`] if the cells do not divide the image; errors of candle.
pub fn cell_means(x: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    let (rows, channels, height, width) = x.dims4()?;
    let divide = |cell: usize, side: usize| cell > 0 && side.is_multiple_of(cell);
    if !divide(down, height) || !divide(across, width) {
        let expected = format!("images that cells of {down} by {across} pixels divide");
        return Err(Error::shape("means of cells", x.dims(), expected));
    }
    on_gpu!([x], cuda::cell_means(x, [down, across]));
    let shape = (
        rows * channels * (height / down),
        down,
        width / across,
        across,
    );
    let cells = x.contiguous()?.reshape(shape)?.sum(D::Minus1)?.sum(1)?;
    let means = (cells / (down * across) as f64)?;
    Ok(means.reshape((rows, channels, height / down, width / across))?)
}

/// The gradient of [`cell_means`] with respect to its input, given that with respect to
/// its output.
///
/// # Errors
/// Errors of candle.
pub fn cell_means_gradient(gradient: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    on_gpu!(
        [gradient],
        cuda::cell_means_gradient(gradient, [down, across])
    );
    let (rows, channels, height, width) = gradient.dims4()?;
    let (lines, shape) = (
        rows * channels * height,
        (rows, channels, height * down, width * across),
    );
    let cells = (gradient / (down * across) as f64)?.reshape((lines, 1, width, 1))?;
    let spread = cells.broadcast_as((lines, down, width, across))?;
    Ok(spread.reshape(shape)?)
}
