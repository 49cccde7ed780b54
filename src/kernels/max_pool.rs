//! Maxima of pixels that overlap.

use candle_core::Tensor;

use super::are_fast;
use super::rows::{for_rows, with_values};
use crate::error::Result;

/// The largest of 4×4 pixels, every 2 pixels, beginning one pixel outside of the map:
/// `(R, N, H, W)` to `(R, N, ⌊H/2⌋, ⌊W/2⌋)`. Pixels outside of the map do not count.
///
/// # Errors
/// Errors of candle, for example for a map of less than 2 by 2 pixels.
pub fn overlapping_max(x: &Tensor) -> Result<Tensor> {
    let (rows, channels, height, width) = x.dims4()?;
    if !are_fast([x]) || height.min(width) < 2 {
        // A border that repeats the pixels beside it changes no maximum.
        let x = x.pad_with_same(2, 1, 1)?.pad_with_same(3, 1, 1)?;
        return Ok(x.max_pool2d_with_stride(4, 2)?);
    }
    let (down, across) = (height / 2, width / 2);
    let maxima = with_values(x, |x| {
        let mut maxima = vec![0f32; rows * channels * down * across];
        for_rows(&mut maxima, down * across, |plane, out| {
            let plane = &x[plane * height * width..][..height * width];
            let mut line = vec![0f32; width];
            for (row, out) in out.chunks_exact_mut(across).enumerate() {
                let mut lines = plane[first(row) * width..end(row, height) * width].chunks(width);
                line.copy_from_slice(lines.next().unwrap_or(&[]));
                for other in lines {
                    let pixels = line.iter_mut().zip(other);
                    pixels.for_each(|(most, x)| *most = larger(*most, *x));
                }
                for (column, out) in out.iter_mut().enumerate() {
                    let pixels = &line[first(column)..end(column, width)];
                    *out = pixels.iter().copied().fold(f32::NEG_INFINITY, larger);
                }
            }
        });
        maxima
    })?;
    Ok(Tensor::from_vec(
        maxima,
        (rows, channels, down, across),
        x.device(),
    )?)
}

/// The first pixel of a pool.
#[inline(always)]
fn first(index: usize) -> usize {
    (2 * index).saturating_sub(1)
}

/// The pixel after the last one of a pool.
#[inline(always)]
fn end(index: usize, size: usize) -> usize {
    (2 * index + 3).min(size)
}

/// The larger number. NaN wins, so that it is detected later.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() {
        b
    } else {
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn fast_and_plain_forms_agree() -> Result<()> {
        for (height, width) in [(2, 2), (4, 6), (5, 3), (7, 8)] {
            let count = 2 * 3 * height * width;
            let numbers: Vec<f64> = (0..count).map(|i| (i as f64).sin() - 0.5).collect();
            let x = Tensor::from_vec(numbers, (2, 3, height, width), &Device::Cpu)?;
            let expected = overlapping_max(&x)?;
            let found = overlapping_max(&x.to_dtype(DType::F32)?)?;
            assert_eq!(found.dims(), [2, 3, height / 2, width / 2]);
            let worst = (found.to_dtype(DType::F64)? - expected)?.abs()?.max_all()?;
            assert!(worst.to_scalar::<f64>()? < 1e-6);
        }
        Ok(())
    }
}
