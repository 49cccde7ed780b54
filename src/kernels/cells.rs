//! Means over the cells of images.

use candle_core::{Tensor, D};

use super::are_fast;
#[cfg(feature = "cuda")]
use super::cuda;
use super::fresh::fresh_rows;
use super::rows::{for_long_rows, with_values};
use crate::error::{Error, Result};

/// candle adds up rows of fewer numbers than this in order, as the fast form does; longer
/// ones in an order that depends on the processor.
const LONG: usize = 32;

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
    if !are_fast([x]) || across >= LONG {
        return plain_means(x, [down, across]);
    }
    let shape = (rows, channels, height / down, width / across);
    let share = (1. / (down * across) as f64) as f32;
    let means = with_values(x, |x| {
        let (columns, work) = (width / across, down * width);
        let mut means = vec![0f32; x.len() / (down * across)];
        for_long_rows(&mut means, columns, work, |row, means| {
            for line in x[row * work..][..work].chunks_exact(width) {
                for (mean, pixels) in means.iter_mut().zip(line.chunks_exact(across)) {
                    *mean += pixels.iter().fold(0f32, |sum, pixel| sum + pixel);
                }
            }
            means.iter_mut().for_each(|mean| *mean *= share);
        });
        means
    })?;
    Ok(Tensor::from_vec(means, shape, x.device())?)
}

/// The plain form of [`cell_means`].
fn plain_means(x: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    let (rows, channels, height, width) = x.dims4()?;
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
    if !are_fast([gradient]) {
        return plain_gradient(gradient, [down, across]);
    }
    let shape = (rows, channels, height * down, width * across);
    let share = (1. / (down * across) as f64) as f32;
    let spread = with_values(gradient, |gradient| {
        let (lines, line) = (rows * channels * height, width * across);
        fresh_rows(lines, down * line, |row, out| {
            let (first, others) = out.split_at_mut(line);
            let cells = &gradient[row * width..][..width];
            for (out, cell) in first.chunks_exact_mut(across).zip(cells) {
                // Adding 0 makes 0 of −0, as candle does.
                out.fill(cell * share + 0.);
            }
            for out in others.chunks_exact_mut(line) {
                out.copy_from_slice(first);
            }
        })
    })?;
    Ok(Tensor::from_vec(spread, shape, gradient.device())?)
}

/// The plain form of [`cell_means_gradient`].
fn plain_gradient(gradient: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    let (rows, channels, height, width) = gradient.dims4()?;
    let (lines, shape) = (
        rows * channels * height,
        (rows, channels, height * down, width * across),
    );
    let cells = (gradient / (down * across) as f64)?.reshape((lines, 1, width, 1))?;
    let spread = cells.broadcast_as((lines, down, width, across))?;
    Ok(spread.reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn bits(x: &Tensor) -> Result<Vec<u32>> {
        let numbers = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    }

    #[test]
    fn both_forms_have_the_same_bits() -> Result<()> {
        for (shape, cell) in [
            ([3, 2, 4, 6], [2, 3]),
            ([2, 1, 5, 62], [5, 31]),
            ([2, 1, 2, 64], [2, 32]),
            ([40, 30, 8, 12], [4, 2]),
            ([0, 2, 4, 4], [2, 2]),
        ] {
            let count: usize = shape.iter().product();
            let numbers = (0..count).map(|i| (i * 7919 % 1009) as f32 - 500.);
            let numbers = numbers.map(|x| x.clamp(-200., 200.).sin());
            let x = Tensor::from_iter(numbers, &Device::Cpu)?.reshape(&shape)?;
            let (means, plain) = (cell_means(&x, cell)?, plain_means(&x, cell)?);
            assert_eq!(means.dims(), plain.dims());
            assert_eq!(bits(&means)?, bits(&plain)?, "{shape:?}");
            let delta = (means.neg()? * 0.)?;
            let delta = Tensor::cat(&[&delta, &means], 0)?;
            let (spread, plain) = (
                cell_means_gradient(&delta, cell)?,
                plain_gradient(&delta, cell)?,
            );
            assert_eq!(spread.dims(), plain.dims());
            assert_eq!(bits(&spread)?, bits(&plain)?, "{shape:?}");
        }
        Ok(())
    }

    #[test]
    fn cells_that_do_not_divide_an_image_are_refused() -> Result<()> {
        let x = Tensor::zeros((1, 1, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
        assert!(cell_means(&x, [3, 2]).is_err() && cell_means(&x, [2, 3]).is_err());
        Ok(())
    }
}
