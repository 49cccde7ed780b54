//! The standard deviation of each plane of images.

use candle_core::{Tensor, D};

use super::are_fast;
use super::fresh::fresh_rows;
use super::rows::{for_long_rows, is_fast, with_values};
use crate::error::Result;

/// The standard deviations of the planes of `x`, `(R, N, …)` with `P` numbers to a plane:
/// `σ = √(Σ (x − mean)² / (P − 1) + 10⁻⁸)`.
#[derive(Clone, Debug)]
pub struct Deviations {
    /// The deviations, `(R, N)`.
    pub values: Tensor,
    means: Tensor,
}

/// The constant added to a variance before its root is taken.
const EPSILON: f64 = 1e-8;

/// Reshapes `x` to `(R·N, P)`.
fn planes(x: &Tensor) -> Result<Tensor> {
    let count = x.dim(0)? * x.dim(1)?;
    Ok(x.contiguous()?
        .reshape((count, x.elem_count() / count.max(1)))?)
}

fn degrees_of_freedom(planes: &Tensor) -> Result<f64> {
    Ok(planes.dim(1)?.saturating_sub(1).max(1) as f64)
}

impl Deviations {
    /// The deviations of `x`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(x: &Tensor) -> Result<Self> {
        let planes = planes(x)?;
        let beside = degrees_of_freedom(&planes)?;
        let (means, deviations) = match are_fast([&planes]) {
            true => fast(&planes, beside)?,
            false => {
                let means = planes.mean_keepdim(D::Minus1)?;
                let squares = planes.broadcast_sub(&means)?.sqr()?.sum(1)?;
                (means.squeeze(1)?, ((squares / beside)? + EPSILON)?.sqrt()?)
            }
        };
        let values = deviations.reshape((x.dim(0)?, x.dim(1)?))?;
        Ok(Self { values, means })
    }

    /// The gradient with respect to `x`, given `delta`, that with respect to the
    /// deviations: `delta·(x − mean) / ((P − 1)·σ)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, x: &Tensor, delta: &Tensor) -> Result<Tensor> {
        let planes = planes(x)?;
        let factors = (delta / (&self.values * degrees_of_freedom(&planes)?)?)?.flatten_all()?;
        if !(is_fast(&planes) && is_fast(&factors)) {
            let off = planes.broadcast_sub(&self.means.unsqueeze(1)?)?;
            let gradient = off.broadcast_mul(&factors.unsqueeze(1)?)?;
            return Ok(gradient.reshape(x.shape())?);
        }
        let (rows, width) = planes.dims2()?;
        let (means, factors) = (self.means.to_vec1::<f32>()?, factors.to_vec1::<f32>()?);
        let gradient = with_values(&planes, |x| {
            fresh_rows(rows, width, |row, out| {
                let (mean, factor) = (means[row], factors[row]);
                let x = &x[row * width..][..width];
                out.iter_mut()
                    .zip(x)
                    .for_each(|(out, x)| *out = factor * (x - mean));
            })
        })?;
        Ok(Tensor::from_vec(gradient, x.shape(), x.device())?)
    }
}

/// Means and deviations of the rows of `(R, P)`.
fn fast(planes: &Tensor, beside: f64) -> Result<(Tensor, Tensor)> {
    let (rows, width) = planes.dims2()?;
    let both = with_values(planes, |x| {
        let mut both = vec![[0f32; 2]; rows.next_multiple_of(TOGETHER)];
        let work = 2 * TOGETHER * width;
        for_long_rows(
            both.as_flattened_mut(),
            2 * TOGETHER,
            work,
            |group, both| {
                // At the end some are summed up again, which is not used.
                let row = |place: usize| (group * TOGETHER + place).min(rows - 1);
                let planes = std::array::from_fn(|place| &x[row(place) * width..][..width]);
                let means = sums(planes, |_, x| x).map(|sum| sum / width.max(1) as f64);
                let squares = sums(planes, |place, x| (x - means[place]) * (x - means[place]));
                for (place, both) in both.chunks_exact_mut(2).enumerate() {
                    let deviation = (squares[place] / beside + EPSILON).sqrt();
                    both.copy_from_slice(&[means[place] as f32, deviation as f32]);
                }
            },
        );
        both.truncate(rows);
        both
    })?;
    let column = |index: usize| {
        let column = both.iter().map(|both| both[index]).collect();
        Tensor::from_vec(column, rows, planes.device())
    };
    Ok((column(0)?, column(1)?))
}

/// The number of planes that are summed up at the same time: an addition takes several
/// cycles, and the next one of the same sum waits for it.
const TOGETHER: usize = 8;

/// `Σ f(place, x)` over each plane, in the order of its numbers.
#[inline(always)]
fn sums(planes: [&[f32]; TOGETHER], f: impl Fn(usize, f64) -> f64) -> [f64; TOGETHER] {
    let width = planes[0].len();
    let planes = planes.map(|plane| &plane[..width]);
    let mut sums = [0f64; TOGETHER];
    for index in 0..width {
        for (place, (sum, plane)) in sums.iter_mut().zip(planes).enumerate() {
            *sum += f(place, f64::from(plane[index]));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    /// The numbers of planes do not divide by those summed up at a time.
    #[test]
    fn every_sum_is_in_the_order_of_its_plane() -> Result<()> {
        for (rows, width) in [(1, 1), (13, 7), (3, 30_000), (9001, 9), (0, 5)] {
            let numbers = (0..rows * width).map(|i| ((i * 7919 % 10_007) as f32).sin());
            let numbers: Vec<f32> = numbers.collect();
            let x = Tensor::from_slice(&numbers, (rows, 1, width), &Device::Cpu)?;
            let found = Deviations::of(&x)?;
            let deviations = found.values.flatten_all()?.to_vec1::<f32>()?;
            let means = found.means.to_vec1::<f32>()?;
            assert_eq!((deviations.len(), means.len()), (rows, rows));
            for (row, plane) in numbers.chunks_exact(width).enumerate() {
                let mean = plane.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                let off = |x: &f32| (f64::from(*x) - mean) * (f64::from(*x) - mean);
                let squares: f64 = plane.iter().map(off).sum();
                let beside = (width - 1).max(1) as f64;
                assert_eq!(means[row], mean as f32);
                assert_eq!(deviations[row], (squares / beside + EPSILON).sqrt() as f32);
            }
        }
        Ok(())
    }

    #[test]
    fn both_forms_agree_with_autograd() -> Result<()> {
        let numbers = |k: f64, shape: &[usize]| -> Result<Tensor> {
            let count = shape.iter().product::<usize>();
            let values = (0..count).map(|i| (1.7 * i as f64 + k).sin());
            Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?)
        };
        let x = Var::from_tensor(&numbers(1., &[3, 2, 4, 5])?)?;
        let upstream = numbers(2., &[3, 2])?;
        let flat = x.reshape((3, 2, 20))?;
        let off = flat.broadcast_sub(&flat.mean_keepdim(2)?)?;
        let expected = ((off.sqr()?.sum(2)? / 19.)? + EPSILON)?.sqrt()?;
        let gradients = (&expected * &upstream)?.sum_all()?.backward()?;
        let gradient = gradients.get(&x).expect("it depends on x");
        let assert_close = |found: &Tensor, expected: &Tensor| -> Result<()> {
            let off = (found.to_dtype(DType::F64)? - expected)?.abs()?;
            let off = off.flatten_all()?.max(0)?.to_scalar::<f64>()?;
            assert!(off < 1e-6, "{off}");
            Ok(())
        };
        for dtype in [DType::F32, DType::F64] {
            let x = x.as_tensor().detach().to_dtype(dtype)?;
            let found = Deviations::of(&x)?;
            assert_close(&found.values, &expected)?;
            assert_close(&found.gradient(&x, &upstream.to_dtype(dtype)?)?, gradient)?;
        }
        Ok(())
    }
}
