//! Positive activity at each pixel of maps. A row of single numbers is one pixel.

use candle_core::Tensor;
use rayon::prelude::*;

use super::rows::{for_rows, with_values, GRAIN};
use super::wide::Loop;
use super::{are_fast, leaky_relu, scale_rows, sum_squares};
use crate::error::{Error, Result};

/// The numbers of rows, channels and pixels of `(R, N, …)`.
fn sizes(x: &Tensor) -> Result<[usize; 3]> {
    let (rows, channels) = (x.dim(0)?, x.dim(1)?);
    Ok([rows, channels, x.dims()[2..].iter().product()])
}

/// The mean of the squares of the positive values at each pixel, `(1/N)·Σₙ max(0, x)²`:
/// `(R, N, …)` to `(R, P)`.
///
/// # Errors
/// Errors of candle.
pub fn pixel_energies(x: &Tensor) -> Result<Tensor> {
    let [rows, channels, pixels] = sizes(x)?;
    if pixels == 1 {
        let squares = sum_squares(&leaky_relu(x, 0.)?)?;
        return Ok((squares / channels as f64)?.reshape((rows, 1))?);
    }
    if !are_fast([x]) || x.elem_count() == 0 {
        let positive = x.relu()?.reshape((rows, channels, pixels))?;
        return Ok(positive.sqr()?.mean(1)?);
    }
    let energies = with_values(x, |x| {
        let mut energies = vec![0f32; rows * pixels];
        let together = GRAIN.div_ceil(channels * pixels);
        let some = x.par_chunks(together * channels * pixels);
        let outs = energies.par_chunks_mut(together * pixels);
        some.zip(outs).for_each(|(x, out)| {
            let rows = x.chunks_exact(channels * pixels);
            for (x, out) in rows.zip(out.chunks_exact_mut(pixels)) {
                Energies { x, out, pixels }.wide();
            }
        });
        energies
    })?;
    Ok(Tensor::from_vec(energies, (rows, pixels), x.device())?)
}

/// The energies of the pixels of one row.
struct Energies<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    pixels: usize,
}

impl Loop for Energies<'_> {
    #[inline(always)]
    fn run(self) {
        for plane in self.x.chunks_exact(self.pixels) {
            for (sum, x) in self.out.iter_mut().zip(plane) {
                let x = positive(*x);
                *sum += x * x;
            }
        }
        let share = 1. / (self.x.len() / self.pixels) as f32;
        self.out.iter_mut().for_each(|sum| *sum *= share);
    }
}

/// The gradient of `Σ factors·pixel_energies(x)`: `(2/N)·max(0, x)·factors`, with the
/// factors of the pixels, `(R, P)`; of the shape of `x`, `(R, N, …)`.
///
/// # Errors
/// [`Error::Shape`] if there is not one factor for each pixel; errors of candle.
pub fn pixel_energies_gradient(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let [rows, channels, pixels] = sizes(x)?;
    if factors.elem_count() != rows * pixels {
        let expected = format!("({rows}, {pixels})");
        return Err(Error::shape("factors of pixels", factors.dims(), expected));
    }
    let factors = (factors * (2. / channels as f64))?;
    if pixels == 1 {
        return scale_rows(&leaky_relu(x, 0.)?, &factors.flatten_all()?);
    }
    if !are_fast([x, &factors]) {
        let positive = x.relu()?.reshape((rows, channels, pixels))?;
        let scaled = positive.broadcast_mul(&factors.reshape((rows, 1, pixels))?)?;
        return Ok(scaled.reshape(x.shape())?);
    }
    let scaled = with_values(&factors, |factors| {
        with_values(x, |x| {
            let mut out = vec![0f32; x.len()];
            for_rows(&mut out, channels * pixels, |row, out| {
                let (x, factors) = (&x[row * out.len()..], &factors[row * pixels..][..pixels]);
                let planes = out.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
                for (out, x) in planes {
                    for ((out, x), factor) in out.iter_mut().zip(x).zip(factors) {
                        *out = positive(*x) * factor;
                    }
                }
            });
            out
        })
    })??;
    Ok(Tensor::from_vec(scaled, x.shape(), x.device())?)
}

/// `max(0, x)`. NaN stays, so that it is detected later.
#[inline(always)]
fn positive(x: f32) -> f32 {
    if x < 0. {
        0.
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn fast_and_plain_forms_agree() -> Result<()> {
        for shape in [
            vec![3, 4],
            vec![2, 3, 5],
            vec![2, 40, 30, 30],
            vec![2, 1, 3],
            vec![2, 3, 0],
        ] {
            let count: usize = shape.iter().product();
            let numbers: Vec<f64> = (0..count).map(|i| (i as f64).sin()).collect();
            let x = Tensor::from_vec(numbers, shape, &Device::Cpu)?;
            let plain = pixel_energies(&x)?;
            let found = pixel_energies(&x.to_dtype(DType::F32)?)?;
            let of_x = pixel_energies_gradient(&x, &plain)?;
            let of_fast = pixel_energies_gradient(&x.to_dtype(DType::F32)?, &found)?;
            assert_eq!(of_fast.dims(), x.dims());
            for (found, expected) in [(found, plain), (of_fast, of_x)] {
                assert_eq!(found.dims(), expected.dims());
                if found.elem_count() == 0 {
                    continue;
                }
                let worst = (found.to_dtype(DType::F64)? - expected)?.abs()?;
                assert!(worst.max_all()?.to_scalar::<f64>()? < 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn negative_values_have_no_energy() -> Result<()> {
        // Two channels of two pixels.
        let x = Tensor::new(&[[[1f32, -1.], [3., 2.]]], &Device::Cpu)?;
        assert_eq!(pixel_energies(&x)?.to_vec2::<f32>()?, [[5., 2.]]);
        let factors = Tensor::new(&[[1f32, 10.]], &Device::Cpu)?;
        let gradient = pixel_energies_gradient(&x, &factors)?;
        assert_eq!(gradient.to_vec3::<f32>()?, [[[1., 0.], [3., 20.]]]);
        assert!(pixel_energies_gradient(&x, &factors.narrow(1, 0, 1)?).is_err());
        Ok(())
    }
}
