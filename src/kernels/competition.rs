//! Channels that compete for pixels, and what they learn from it.

use candle_core::Tensor;
use rayon::prelude::*;

use super::are_fast;
use super::channel_stats::sizes;
use super::channel_sums::{channel_sums, column_sums, lanes, sums};
use super::exponential::exp_f32;
use super::rows::{for_rows, with_values, GRAIN};
use super::wide::Loop;
use super::{check_factors, scale_rows};
use crate::error::{Error, Result};

/// The share of each channel in each pixel, positive for the largest channel and negative
/// for the others: `±softmax(sharpness·x)` over the `N` channels of `x`, `(R, N, …)`.
///
/// # Errors
/// Errors of candle.
pub fn signed_softmax(x: &Tensor, sharpness: f64) -> Result<Tensor> {
    let (_, channels, pixels) = sizes(x)?;
    let image = channels * pixels;
    if !are_fast([x]) || image == 0 {
        let best = x.max_keepdim(1)?;
        let exp = (x.broadcast_sub(&best)? * sharpness)?.exp()?;
        let shares = exp.broadcast_div(&exp.sum_keepdim(1)?)?;
        let wins = x.broadcast_ge(&best)?.to_dtype(x.dtype())?;
        return Ok((shares * ((wins * 2.)? - 1.)?)?);
    }
    let out = with_values(x, |x| {
        let mut out = vec![0f32; x.len()];
        let images = out.par_chunks_mut(image).zip(x.par_chunks(image));
        let images = images.with_min_len(GRAIN.div_ceil(image));
        images.for_each(|(out, x)| {
            Shares {
                x,
                out,
                pixels,
                sharpness: sharpness as f32,
            }
            .wide();
        });
        out
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// The signed shares of one image, `(N, P)`.
struct Shares<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    pixels: usize,
    sharpness: f32,
}

impl Loop for Shares<'_> {
    #[inline(always)]
    fn run(self) {
        let Self {
            x,
            out,
            pixels,
            sharpness,
        } = self;
        let (mut best, mut sums) = (x[..pixels].to_vec(), vec![0f32; pixels]);
        for x in x.chunks_exact(pixels) {
            for (best, &x) in best.iter_mut().zip(x) {
                *best = if *best < x { x } else { *best };
            }
        }
        for (x, out) in x.chunks_exact(pixels).zip(out.chunks_exact_mut(pixels)) {
            for ((out, x), best) in out.iter_mut().zip(x).zip(&best) {
                *out = exp_f32((x - best) * sharpness);
            }
            sums.iter_mut()
                .zip(&*out)
                .for_each(|(sum, exp)| *sum += exp);
        }
        for (x, out) in x.chunks_exact(pixels).zip(out.chunks_exact_mut(pixels)) {
            for ((out, x), (best, sum)) in out.iter_mut().zip(x).zip(best.iter().zip(&sums)) {
                let sign = if x >= best { 1. } else { -1. };
                *out = *out / sum * sign;
            }
        }
    }
}

/// The sum of `a·b` over all rows and positions of each channel: `(R, N, …)`, twice, to
/// `(N,)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ; errors of candle.
pub fn channel_dots(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_shape("dot products of channels", a, b)?;
    if !are_fast([a, b]) {
        return channel_sums(&(a * b)?);
    }
    let (rows, channels, size) = sizes(a)?;
    let sums = with_values(a, |a| {
        with_values(b, |b| match size {
            1 => column_sums((rows, channels), |at| [a[at] * b[at]]),
            _ => sums((rows, channels, size), false, |index| {
                let (a, b) = (&a[index * size..][..size], &b[index * size..][..size]);
                [lanes(a, |at, a| a * b[at])]
            }),
        })
    })??;
    let sums: Vec<f32> = sums.into_iter().map(|[sum]| sum as f32).collect();
    Ok(Tensor::from_vec(sums, channels, a.device())?)
}

/// `a[r] + factors[r]·b[r]` for every row `r`: `a` and `b` are `(R, …)`, `factors` `(R,)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, or there is not one factor for each row; errors
/// of candle.
pub fn add_scaled_rows(a: &Tensor, b: &Tensor, factors: &Tensor) -> Result<Tensor> {
    same_shape("a sum of scaled rows", a, b)?;
    check_factors(a, factors)?;
    if !are_fast([a, b, factors]) {
        return Ok((a + scale_rows(b, factors)?)?);
    }
    let width = a.elem_count() / a.dim(0)?.max(1);
    let factors = factors.flatten_all()?.to_vec1::<f32>()?;
    let out = with_values(a, |a| {
        with_values(b, |b| {
            let mut out = vec![0f32; a.len()];
            for_rows(&mut out, width, |row, out| {
                let (a, b, factor) = (&a[row * width..], &b[row * width..], factors[row]);
                for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                    *out = a + factor * b;
                }
            });
            out
        })
    })??;
    Ok(Tensor::from_vec(out, a.shape(), a.device())?)
}

/// The largest magnitude, a tensor without dimensions; not finite if a number is not.
///
/// # Errors
/// Errors of candle, for example if `x` is empty.
pub fn largest(x: &Tensor) -> Result<Tensor> {
    if !are_fast([x]) || x.elem_count() == 0 {
        // A maximum skips NaN; this sum is 0 or NaN.
        let broken = (x * 0.)?.sum_all()?;
        return Ok((x.abs()?.max_all()? + broken)?);
    }
    let most = with_values(x, |x| {
        let parts = x.par_chunks(GRAIN);
        let parts = parts.map(|part| part.iter().map(|x| x.abs()).fold(0., larger));
        parts.reduce(|| 0., larger)
    })?;
    Ok(Tensor::new(most, x.device())?)
}

/// The larger number, or NaN if one of them is.
fn larger(a: f32, b: f32) -> f32 {
    match b <= a || a.is_nan() {
        true => a,
        false => b,
    }
}

fn same_shape(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    match a.dims() == b.dims() {
        true => Ok(()),
        false => Err(Error::shape(what, b.dims(), format!("{:?}", a.dims()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::random::normals;
    use candle_core::DType;

    fn bits(x: &Tensor) -> Result<Vec<u32>> {
        let numbers = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    }

    /// Images, one image large enough for several threads, and rows of units.
    const SHAPES: [&[usize]; 4] = [&[3, 5, 4, 7], &[3, 300, 9, 16], &[40, 100], &[2, 70, 1, 1]];

    #[test]
    fn shares_agree_with_candle() -> Result<()> {
        for shape in SHAPES {
            // Rounded, so that some channels are equally large.
            let rounded = ((normals(shape, 1)? * 4.)?.round()? / 2.)?;
            let x = rounded.to_dtype(DType::F64)?;
            for sharpness in [0.25, 1., 30.] {
                let best = x.max_keepdim(1)?;
                let exp = (x.broadcast_sub(&best)? * sharpness)?.exp()?;
                let shares = exp.broadcast_div(&exp.sum_keepdim(1)?)?;
                let signed = x.broadcast_ge(&best)?.where_cond(&shares, &shares.neg()?)?;
                let found = signed_softmax(&rounded, sharpness)?.to_dtype(DType::F64)?;
                // A sum is rounded 300 times; shares below the smallest normal number are 0.
                let error = ((found - &signed)?.abs()? - 2e-38)?.div(&signed.abs()?)?;
                let errors = error.flatten_all()?.to_vec1::<f64>()?;
                let is_near = errors.iter().all(|error| *error < 5e-6);
                assert!(is_near, "{shape:?} {sharpness}: {errors:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn dot_products_are_the_sums_of_products() -> Result<()> {
        for shape in SHAPES {
            let (a, b) = (normals(shape, 1)?, normals(shape, 2)?);
            let products = channel_sums(&(&a * &b)?)?;
            assert_eq!(bits(&channel_dots(&a, &b)?)?, bits(&products)?, "{shape:?}");
        }
        Ok(())
    }

    #[test]
    fn scaled_rows_and_largest_numbers_have_the_bits_of_candle() -> Result<()> {
        for shape in SHAPES {
            let (a, b) = (normals(shape, 1)?, normals(shape, 2)?);
            let factors = normals(&shape[..1], 3)?;
            let sides = [&shape[..1], &vec![1; shape.len() - 1]].concat();
            let scaled = b.broadcast_mul(&factors.reshape(sides)?)?;
            let less = add_scaled_rows(&a, &b, &factors.neg()?)?;
            assert_eq!(bits(&less)?, bits(&(&a - scaled)?)?, "{shape:?}");
            assert_eq!(bits(&largest(&less)?)?, bits(&less.abs()?.max_all()?)?);
        }
        Ok(())
    }

    #[test]
    fn the_largest_of_numbers_that_are_not_finite_is_not_finite() -> Result<()> {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 3, 2 * GRAIN] {
                let mut numbers = vec![1f32; 2 * GRAIN + 5];
                numbers[place] = broken;
                let numbers = Tensor::new(numbers, &candle_core::Device::Cpu)?;
                for dtype in [DType::F32, DType::F64] {
                    let most = largest(&numbers.to_dtype(dtype)?)?.to_dtype(DType::F64)?;
                    assert!(!most.to_scalar::<f64>()?.is_finite(), "{broken} at {place}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn other_shapes_are_refused() -> Result<()> {
        let (a, b) = (normals(&[3, 4], 1)?, normals(&[4, 3], 2)?);
        assert!(channel_dots(&a, &b).is_err());
        assert!(add_scaled_rows(&a, &b, &normals(&[3], 3)?).is_err());
        assert!(add_scaled_rows(&a, &a, &normals(&[4], 3)?).is_err());
        Ok(())
    }
}
