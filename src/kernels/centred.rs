//! Values less the mean over all units, or over all channels of a pixel.

use candle_core::Tensor;

use super::are_fast;
use super::fresh::fresh_rows;
use super::rows::with_values;
use crate::error::Result;

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
            let mut means = vec![0f32; pixels];
            for plane in row.chunks_exact(pixels) {
                means.iter_mut().zip(plane).for_each(|(mean, x)| *mean += x);
            }
            means.iter_mut().for_each(|mean| *mean *= share);
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

#[cfg(test)]
mod tests {
    use super::*;
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
}
