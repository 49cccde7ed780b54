//! The direction of each row: what a cosine similarity is taken of.

use candle_core::{Tensor, D};

use super::are_fast;
use super::fresh::fresh_rows;
use super::rows::{for_long_rows, is_fast, with_values};
use crate::error::{Error, Result};

/// The directions of the rows of `x`, `(R, N)`, after the mean of each row is subtracted:
/// `u = c / √(‖c‖² + 10⁻⁸)`, `c = x − mean`. The products `u·uᵀ` are cosine similarities.
#[derive(Clone, Debug)]
pub struct Directions {
    /// The directions, `(R, N)`.
    pub rows: Tensor,
    /// `1 / √(‖c‖² + 10⁻⁸)`, `(R,)`.
    inverse: Tensor,
}

/// The constant added to a squared length before its root is taken.
const EPSILON: f64 = 1e-8;

impl Directions {
    /// The directions of `x`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(x: &Tensor) -> Result<Self> {
        let (rows, width) = x.dims2()?;
        if !are_fast([x]) {
            let c = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let inverse = (c.sqr()?.sum(1)? + EPSILON)?.sqrt()?.recip()?;
            let rows = c.broadcast_mul(&inverse.unsqueeze(1)?)?;
            return Ok(Self { rows, inverse });
        }
        let (directions, inverse) = with_values(x, |x| {
            let of_row = |row: usize| &x[row * width..][..width];
            // The mean, and the inverse of the length.
            let mut of_rows = vec![[0f32; 2]; rows];
            for_long_rows(of_rows.as_flattened_mut(), 2, 2 * width, |row, found| {
                let x = of_row(row);
                let mean = (sum(x, |x| x) / width.max(1) as f64) as f32;
                let squares = sum(x, |x| (x - mean) * (x - mean));
                found.copy_from_slice(&[mean, (1. / (squares + EPSILON).sqrt()) as f32]);
            });
            let directions = fresh_rows(rows, width, |row, out| {
                let [mean, inverse] = of_rows[row];
                let pairs = out.iter_mut().zip(of_row(row));
                pairs.for_each(|(out, x)| *out = (x - mean) * inverse);
            });
            let inverse = of_rows.into_iter().map(|[_, inverse]| inverse);
            (directions, inverse.collect::<Vec<_>>())
        })?;
        Ok(Self {
            rows: Tensor::from_vec(directions, (rows, width), x.device())?,
            inverse: Tensor::from_vec(inverse, rows, x.device())?,
        })
    }

    /// The gradient with respect to `x`, given `delta`, that with respect to the
    /// directions: with `c′ = (delta − u·(u·delta)) / √(‖c‖² + 10⁻⁸)` it is
    /// `c′ − mean(c′)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ; errors of candle.
    pub fn gradient(&self, delta: &Tensor) -> Result<Tensor> {
        let (u, (rows, width)) = (&self.rows, self.rows.dims2()?);
        if delta.dims() != u.dims() {
            let expected = format!("{:?}", u.dims());
            return Err(Error::shape(
                "gradient of directions",
                delta.dims(),
                expected,
            ));
        }
        if !(is_fast(u) && is_fast(delta)) {
            let along = (delta * u)?.sum_keepdim(1)?;
            let across = (delta - u.broadcast_mul(&along)?)?;
            let below = across.broadcast_mul(&self.inverse.unsqueeze(1)?)?;
            return Ok(below.broadcast_sub(&below.mean_keepdim(D::Minus1)?)?);
        }
        let inverse = self.inverse.to_vec1::<f32>()?;
        let gradient = with_values(u, |u| {
            with_values(delta, |delta| {
                fresh_rows(rows, width, |row, out| {
                    let at = row * width..(row + 1) * width;
                    let (u, delta) = (&u[at.clone()], &delta[at]);
                    let products = out.iter_mut().zip(u).zip(delta);
                    products.for_each(|((out, u), delta)| *out = u * delta);
                    let along = sum(out, |product| product) as f32;
                    let across = out.iter_mut().zip(u).zip(delta);
                    across.for_each(|((out, u), delta)| *out = delta - u * along);
                    let mean = (sum(out, |x| x) / width.max(1) as f64) as f32;
                    out.iter_mut()
                        .for_each(|out| *out = (*out - mean) * inverse[row]);
                })
            })
        })??;
        Ok(Tensor::from_vec(gradient, u.shape(), u.device())?)
    }
}

/// `Σ f(x)`, in 16 lanes in a fixed order.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|x| f(*x)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(*x);
        }
    }
    lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn rows_are_the_same_alone_and_among_many() -> Result<()> {
        let numbers = (0..3000 * 40).map(|i| ((i * 7919 % 10_007) as f32).sin());
        let x = Tensor::from_iter(numbers, &Device::Cpu)?.reshape((3000, 40))?;
        let all = Directions::of(&x)?;
        for row in [0, 1, 819, 2999] {
            let one = Directions::of(&x.narrow(0, row, 1)?)?;
            let among = all.rows.narrow(0, row, 1)?.to_vec2::<f32>()?;
            assert_eq!(one.rows.to_vec2::<f32>()?, among);
            let inverse = all.inverse.narrow(0, row, 1)?.to_vec1::<f32>()?;
            assert_eq!(one.inverse.to_vec1::<f32>()?, inverse);
        }
        Ok(())
    }

    #[test]
    fn both_forms_agree_with_autograd() -> Result<()> {
        let numbers = |k: f64| -> Result<Tensor> {
            let values = (0..7 * 37).map(|i| (1.7 * f64::from(i) + k).sin());
            Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((7, 37))?)
        };
        let (x, upstream) = (Var::from_tensor(&numbers(1.)?)?, numbers(2.)?);
        let c = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let length = (c.sqr()?.sum_keepdim(1)? + EPSILON)?.sqrt()?;
        let expected = c.broadcast_div(&length)?;
        let gradients = (&expected * &upstream)?.sum_all()?.backward()?;
        let gradient = gradients.get(&x).expect("it depends on x");
        for dtype in [DType::F32, DType::F64] {
            let found = Directions::of(&x.as_tensor().detach().to_dtype(dtype)?)?;
            let below = found.gradient(&upstream.to_dtype(dtype)?)?;
            for (found, expected) in [(&found.rows, &expected), (&below, gradient)] {
                let off = (found.to_dtype(DType::F64)? - expected)?.abs()?;
                let off = off.flatten_all()?.max(0)?.to_scalar::<f64>()?;
                assert!(off < 1e-6, "{dtype:?}: {off}");
            }
        }
        Ok(())
    }
}
