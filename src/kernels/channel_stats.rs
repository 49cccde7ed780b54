//! Statistics of images, `(R, N, …)`: a plane is one channel of one row.

use candle_core::{Tensor, D};
use rayon::prelude::*;

use super::cpu::{for_rows, is_fast, with_values};
#[cfg(feature = "cuda")]
use super::cuda;
use crate::error::Result;

/// Means and variances for standardisation, each `(R,)` by row or `(N,)` by channel.
#[derive(Clone, Debug)]
pub struct ChannelStats {
    /// The means.
    pub mean: Tensor,
    /// The population variances: divided by the count.
    pub variance: Tensor,
    /// Whether the statistics are by row; otherwise by channel.
    pub by_row: bool,
}

/// The constant added to a variance before its root is taken.
const EPSILON: f64 = 1e-5;

/// The numbers of rows, channels and elements per plane of `(R, N, …)`.
fn sizes(x: &Tensor) -> Result<(usize, usize, usize)> {
    let (rows, channels) = (x.dim(0)?, x.dim(1)?);
    Ok((rows, channels, x.elem_count() / (rows * channels).max(1)))
}

/// Reshapes `x` to `(R, N, P)`.
fn planes(x: &Tensor) -> Result<Tensor> {
    let (rows, channels, plane) = sizes(x)?;
    Ok(x.contiguous()?.reshape((rows, channels, plane))?)
}

/// `Σ f(x)` over a plane, in 16 lanes in a fixed order.
fn lanes(plane: &[f32], f: impl Fn(usize, f32) -> f32) -> f64 {
    let mut lanes = [0f32; 16];
    let whole = plane.len() / 16 * 16;
    for start in (0..whole).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane, plane[start + lane]);
        }
    }
    let rest: f32 = (whole..plane.len())
        .map(|index| f(index, plane[index]))
        .sum();
    f64::from(lanes.iter().sum::<f32>() + rest)
}

/// The sum of `plane(r·N + n)` over each row or over each channel. Each sum is computed
/// by one thread.
fn sums<const K: usize>(
    (rows, channels): (usize, usize),
    by_row: bool,
    plane: impl Fn(usize) -> [f64; K] + Sync,
) -> Vec<[f64; K]> {
    let (groups, members) = if by_row {
        (rows, channels)
    } else {
        (channels, rows)
    };
    let sum = |group: usize| {
        let mut sums = [0.; K];
        for member in 0..members {
            let index = if by_row {
                group * channels + member
            } else {
                member * channels + group
            };
            sums.iter_mut()
                .zip(plane(index))
                .for_each(|(sum, value)| *sum += value);
        }
        sums
    };
    (0..groups)
        .into_par_iter()
        .with_min_len(8)
        .map(sum)
        .collect()
}

impl ChannelStats {
    /// The statistics of `x`, `(R, N, …)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(x: &Tensor, by_row: bool) -> Result<Self> {
        let (rows, channels, size) = sizes(x)?;
        #[cfg(feature = "cuda")]
        if cuda::is_fast(x) {
            let [mean, variance] = cuda::moments(x, cuda::Planes::of(x, by_row)?)?;
            return Ok(Self {
                mean,
                variance,
                by_row,
            });
        }
        if !is_fast(x) {
            let planes = planes(x)?;
            let groups = if by_row {
                planes
            } else {
                planes.transpose(0, 1)?
            }
            .contiguous()?
            .flatten_from(1)?;
            let mean = groups.mean(1)?;
            let variance = groups.broadcast_sub(&mean.unsqueeze(1)?)?.sqr()?.mean(1)?;
            return Ok(Self {
                mean,
                variance,
                by_row,
            });
        }
        let count = (size * if by_row { channels } else { rows }).max(1) as f64;
        let moments = with_values(x, |x| {
            let plane = |index: usize| &x[index * size..][..size];
            let means = sums((rows, channels), by_row, |index| {
                [lanes(plane(index), |_, x| x)]
            });
            let means: Vec<f32> = means
                .into_iter()
                .map(|[sum]| (sum / count) as f32)
                .collect();
            let squares = sums((rows, channels), by_row, |index| {
                let mean = means[if by_row {
                    index / channels
                } else {
                    index % channels
                }];
                [lanes(plane(index), |_, x| (x - mean) * (x - mean))]
            });
            (
                means,
                squares
                    .into_iter()
                    .map(|[sum]| (sum / count) as f32)
                    .collect::<Vec<_>>(),
            )
        })?;
        let (groups, device) = (moments.0.len(), x.device());
        let [mean, variance] = [
            Tensor::from_vec(moments.0, groups, device)?,
            Tensor::from_vec(moments.1, groups, device)?,
        ];
        Ok(Self {
            mean,
            variance,
            by_row,
        })
    }

    /// `1 / √(variance + 10⁻⁵)`.
    fn scale(&self) -> Result<Tensor> {
        Ok((&self.variance + EPSILON)?.sqrt()?.recip()?)
    }

    /// Reshapes `x` to `(R, 1, 1)` or `(1, N, 1)` for broadcasting.
    fn spread(&self, x: &Tensor) -> Result<Tensor> {
        let count = x.dim(0)?;
        Ok(if self.by_row {
            x.reshape((count, 1, 1))?
        } else {
            x.reshape((1, count, 1))?
        })
    }

    /// The gradient with respect to `x`, given `delta`, the gradient with respect to
    /// `n = (x − mean) / √(variance + 10⁻⁵)`. `fixed` means that the moments are
    /// constants instead of the moments of `x`.
    ///
    /// It is `s·(delta − mean(delta) − n·mean(n·delta))` with
    /// `s = 1 / √(variance + 10⁻⁵)` and means over one row or channel; `s·delta` if the
    /// moments are fixed.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, x: &Tensor, delta: &Tensor, fixed: bool) -> Result<Tensor> {
        let (rows, channels, size) = sizes(x)?;
        on_gpu!(x, {
            let (moments, planes) = (
                [&self.mean, &self.variance],
                cuda::Planes::of(x, self.by_row)?,
            );
            cuda::moments_gradient(x, delta, moments, fixed, planes, EPSILON)
        });
        let scale = self.scale()?;
        if !(is_fast(x) && is_fast(delta)) {
            let (delta, scale) = (planes(delta)?, self.spread(&scale)?);
            if fixed {
                return Ok(delta.broadcast_mul(&scale)?.reshape(x.shape())?);
            }
            let n = planes(x)?
                .broadcast_sub(&self.spread(&self.mean)?)?
                .broadcast_mul(&scale)?;
            let mean = |x: &Tensor| -> Result<Tensor> {
                let over = if self.by_row { 1 } else { 0 };
                Ok(x.mean_keepdim(over)?.mean_keepdim(D::Minus1)?)
            };
            let pulled = n.broadcast_mul(&mean(&(&n * &delta)?)?)?;
            let inner = (delta.broadcast_sub(&mean(&delta)?)? - pulled)?;
            return Ok(inner.broadcast_mul(&scale)?.reshape(x.shape())?);
        }
        let (mean, scale) = (self.mean.to_vec1::<f32>()?, scale.to_vec1::<f32>()?);
        let group = |index: usize| {
            if self.by_row {
                index / channels
            } else {
                index % channels
            }
        };
        let count = (size * if self.by_row { channels } else { rows }).max(1) as f64;
        let out = with_values(x, |x| {
            with_values(delta, |delta| {
                let means = match fixed {
                    true => Vec::new(),
                    false => sums((rows, channels), self.by_row, |index| {
                        let (x, delta) =
                            (&x[index * size..][..size], &delta[index * size..][..size]);
                        let mean = mean[group(index)];
                        let both = lanes(delta, |at, delta| (x[at] - mean) * delta);
                        [
                            lanes(delta, |_, delta| delta),
                            both * f64::from(scale[group(index)]),
                        ]
                    }),
                };
                let mut out = vec![0f32; x.len()];
                for_rows(&mut out, size, |index, out| {
                    let (x, delta) = (&x[index * size..][..size], &delta[index * size..][..size]);
                    let (mean, scale) = (mean[group(index)], scale[group(index)]);
                    let [of_delta, of_both] = means.get(group(index)).copied().unwrap_or_default();
                    let (of_delta, of_both) = ((of_delta / count) as f32, (of_both / count) as f32);
                    for ((out, x), delta) in out.iter_mut().zip(x).zip(delta) {
                        *out = scale * (delta - of_delta - (x - mean) * scale * of_both);
                    }
                });
                out
            })
        })??;
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }
}

/// `max(0, (x − mean) / √(variance + 10⁻⁵) + bias)` with `x` of `(R, N, …)` and `bias` of
/// `(N,)`. Without moments: `max(0, x + bias)`.
///
/// # Errors
/// Errors of candle.
pub fn standardised_relu(
    x: &Tensor,
    moments: Option<&ChannelStats>,
    bias: &Tensor,
) -> Result<Tensor> {
    let (_, channels, size) = sizes(x)?;
    on_gpu!(x, {
        let by_row = moments.is_some_and(|moments| moments.by_row);
        let planes = cuda::Planes::of(x, by_row)?;
        let moments = moments.map(|moments| [&moments.mean, &moments.variance]);
        cuda::standardised_relu(x, moments, bias, planes, EPSILON)
    });
    if !is_fast(x) {
        let mut sum = planes(x)?;
        if let Some(moments) = moments {
            let scale = moments.spread(&moments.scale()?)?;
            sum = sum
                .broadcast_sub(&moments.spread(&moments.mean)?)?
                .broadcast_mul(&scale)?;
        }
        return Ok(sum
            .broadcast_add(&bias.reshape((1, channels, 1))?)?
            .relu()?
            .reshape(x.shape())?);
    }
    let bias = bias.to_vec1::<f32>()?;
    let values = |moments: &ChannelStats| -> Result<_> {
        Ok((
            moments.mean.to_vec1::<f32>()?,
            moments.scale()?.to_vec1::<f32>()?,
            moments.by_row,
        ))
    };
    let moments = moments.map(values).transpose()?;
    let out = with_values(x, |x| {
        let mut out = vec![0f32; x.len()];
        for_rows(&mut out, size, |index, out| {
            let bias = bias[index % channels];
            let (mean, scale) = moments.as_ref().map_or((0., 1.), |(mean, scale, by_row)| {
                let group = if *by_row {
                    index / channels
                } else {
                    index % channels
                };
                (mean[group], scale[group])
            });
            for (out, x) in out.iter_mut().zip(&x[index * size..][..size]) {
                let sum = (x - mean) * scale + bias;
                // Not `max`, which would hide NaN.
                *out = if sum < 0. { 0. } else { sum };
            }
        });
        out
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// The sum of each channel over all rows and positions: `(R, N, …)` to `(N,)`.
///
/// # Errors
/// Errors of candle.
pub fn channel_sums(x: &Tensor) -> Result<Tensor> {
    let (rows, channels, size) = sizes(x)?;
    on_gpu!(x, cuda::plane_sums(x, cuda::Planes::of(x, false)?));
    if !is_fast(x) {
        return Ok(planes(x)?.sum(2)?.sum(0)?);
    }
    let sums = with_values(x, |x| {
        sums((rows, channels), false, |index| {
            [lanes(&x[index * size..][..size], |_, x| x)]
        })
    })?;
    let sums: Vec<f32> = sums.into_iter().map(|[sum]| sum as f32).collect();
    Ok(Tensor::from_vec(sums, channels, x.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn numbers(seed: u64, dtype: DType) -> Result<Tensor> {
        let mut rng = crate::flow::random::stream(seed, "test", 0);
        let values: Vec<f32> = (0..5 * 3 * 4 * 7)
            .map(|_| crate::flow::random::unit(&mut rng) as f32 * 2. - 0.7)
            .collect();
        Ok(Tensor::from_vec(values, (5, 3, 4, 7), &Device::Cpu)?.to_dtype(dtype)?)
    }

    fn assert_close(a: &Tensor, b: &Tensor) -> Result<()> {
        let difference = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?
            .abs()?
            .flatten_all()?
            .max(0)?;
        assert!(difference.to_scalar::<f64>()? < 1e-5, "{difference}");
        Ok(())
    }

    #[test]
    fn both_forms_agree_with_autograd() -> Result<()> {
        for by_row in [true, false] {
            let x = Var::from_tensor(&numbers(1, DType::F64)?)?;
            let bias = Tensor::new(&[0.3f64, -0.2, 0.1], &Device::Cpu)?;
            // The definition, differentiated by autograd.
            let groups = if by_row {
                x.flatten_from(1)?
            } else {
                x.transpose(0, 1)?.flatten_from(1)?
            };
            let mean = groups.mean_keepdim(1)?;
            let variance = groups.broadcast_sub(&mean)?.sqr()?.mean_keepdim(1)?;
            let n = groups
                .broadcast_sub(&mean)?
                .broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
            let n = match by_row {
                true => n.reshape(x.shape())?,
                false => n.reshape((3, 5, 4, 7))?.transpose(0, 1)?.contiguous()?,
            };
            let expected = n.broadcast_add(&bias.reshape((1, 3, 1, 1))?)?.relu()?;
            let upstream = numbers(2, DType::F64)?;
            let gradients = (&expected * &upstream)?.sum_all()?.backward()?;
            let gradient = gradients.get(&x).expect("it depends on x");
            for dtype in [DType::F32, DType::F64] {
                let (x, bias) = (numbers(1, dtype)?, bias.to_dtype(dtype)?);
                let moments = ChannelStats::of(&x, by_row)?;
                let found = standardised_relu(&x, Some(&moments), &bias)?;
                assert_close(&found, &expected)?;
                let delta = crate::kernels::gate(&numbers(2, dtype)?, &found, 1.)?;
                assert_close(&moments.gradient(&x, &delta, false)?, gradient)?;
                let fixed = moments.gradient(&x, &delta, true)?.to_dtype(DType::F64)?;
                let scale = moments.spread(&moments.scale()?)?.to_dtype(DType::F64)?;
                let by_hand = planes(&delta.to_dtype(DType::F64)?)?
                    .broadcast_mul(&scale)?
                    .reshape(fixed.shape())?;
                assert_close(&fixed, &by_hand)?;
            }
        }
        assert_close(
            &channel_sums(&numbers(1, DType::F32)?)?,
            &channel_sums(&numbers(1, DType::F64)?)?,
        )
    }
}
