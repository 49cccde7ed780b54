//! Statistics of images, `(R, N, …)`: a plane is one channel of one row.

use candle_core::{Tensor, D};

use super::channel_sums::{column_sums, lanes, sums};
#[cfg(feature = "cuda")]
use super::cuda;
use super::fresh::fresh_rows;
use super::rows::{is_fast, with_values};
use super::{are_fast, leaky_relu};
use crate::error::{Error, Result};

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
pub(super) fn sizes(x: &Tensor) -> Result<(usize, usize, usize)> {
    let (rows, channels) = (x.dim(0)?, x.dim(1)?);
    Ok((rows, channels, x.elem_count() / (rows * channels).max(1)))
}

/// The same for sums by row or by channel. A row of single numbers is one plane.
fn sizes_for(x: &Tensor, by_row: bool) -> Result<(usize, usize, usize)> {
    Ok(match sizes(x)? {
        (rows, channels, 1) if by_row => (rows, 1, channels),
        sizes => sizes,
    })
}

/// Reshapes `x` to `(R, N, P)`.
pub(super) fn planes(x: &Tensor) -> Result<Tensor> {
    let (rows, channels, plane) = sizes(x)?;
    Ok(x.contiguous()?.reshape((rows, channels, plane))?)
}

impl ChannelStats {
    /// The statistics of `x`, `(R, N, …)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(x: &Tensor, by_row: bool) -> Result<Self> {
        let (rows, channels, size) = sizes_for(x, by_row)?;
        #[cfg(feature = "cuda")]
        if cuda::is_fast(x) && !x.track_op() {
            let [mean, variance] = cuda::moments(x, cuda::Planes::of(x, by_row)?)?;
            return Ok(Self {
                mean,
                variance,
                by_row,
            });
        }
        if !are_fast([x]) {
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
        let columns = size == 1 && !by_row;
        let moments = with_values(x, |x| {
            let mean = |[sum]: [f64; 1]| (sum / count) as f32;
            if columns {
                let sums = column_sums((rows, channels), |at| [x[at]]);
                let means: Vec<f32> = sums.into_iter().map(mean).collect();
                let squares = column_sums((rows, channels), |at| {
                    let off = x[at] - means[at % channels];
                    [off * off]
                });
                return (means, squares.into_iter().map(mean).collect());
            }
            let plane = |index: usize| &x[index * size..][..size];
            let means = sums((rows, channels, size), by_row, |index| {
                [lanes(plane(index), |_, x| x)]
            });
            let means: Vec<f32> = means.into_iter().map(mean).collect();
            let squares = sums((rows, channels, size), by_row, |index| {
                let mean = means[if by_row {
                    index / channels
                } else {
                    index % channels
                }];
                [lanes(plane(index), |_, x| (x - mean) * (x - mean))]
            });
            (means, squares.into_iter().map(mean).collect::<Vec<_>>())
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

    /// Refuses moments that are not those of the rows or channels of `x`.
    fn check(&self, x: &Tensor) -> Result<()> {
        let groups = x.dim(usize::from(!self.by_row))?;
        for moments in [&self.mean, &self.variance] {
            has_length("moments of channels", moments, groups)?;
        }
        Ok(())
    }

    /// `1 / √(variance + 10⁻⁵)`.
    pub(crate) fn scale(&self) -> Result<Tensor> {
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
    /// [`Error::Shape`] if `delta` does not have the shape of `x`, or the moments are not
    /// those of its rows or channels; errors of candle.
    pub fn gradient(&self, x: &Tensor, delta: &Tensor, fixed: bool) -> Result<Tensor> {
        Ok(self.gradient_and_sums(x, delta, fixed)?.0)
    }

    /// The same, with the sums of the channels of `delta`, `(N,)`, if they were needed
    /// for it.
    pub(crate) fn gradient_and_sums(
        &self,
        x: &Tensor,
        delta: &Tensor,
        fixed: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        self.check(x)?;
        if delta.dims() != x.dims() {
            let expected = format!("{:?}", x.dims());
            return Err(Error::shape("gradient of channels", delta.dims(), expected));
        }
        let (rows, channels, size) = sizes_for(x, self.by_row)?;
        on_gpu!(x, {
            let (moments, planes) = (
                [&self.mean, &self.variance],
                cuda::Planes::of(x, self.by_row)?,
            );
            let gradient = cuda::moments_gradient(x, delta, moments, fixed, planes, EPSILON)?;
            Ok((gradient, None))
        });
        let scale = self.scale()?;
        if !(is_fast(x) && is_fast(delta)) {
            let (delta, scale) = (planes(delta)?, self.spread(&scale)?);
            if fixed {
                let gradient = delta.broadcast_mul(&scale)?.reshape(x.shape())?;
                return Ok((gradient, None));
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
            let gradient = inner.broadcast_mul(&scale)?.reshape(x.shape())?;
            return Ok((gradient, None));
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
        let columns = size == 1 && !self.by_row;
        let (out, sums) = with_values(x, |x| {
            with_values(delta, |delta| {
                let means = match fixed {
                    true => Vec::new(),
                    false if columns => column_sums((rows, channels), |at| {
                        let channel = at % channels;
                        let n = (x[at] - mean[channel]) * scale[channel];
                        [delta[at], n * delta[at]]
                    }),
                    false => sums((rows, channels, size), self.by_row, |index| {
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
                let are_of_channels = !self.by_row && !fixed;
                let of_delta = means.iter().map(|[sum, _]| *sum as f32);
                let sums = are_of_channels.then(|| of_delta.collect::<Vec<_>>());
                if columns {
                    let means: Vec<_> = match fixed {
                        true => vec![[0f32; 2]; channels],
                        false => means
                            .iter()
                            .map(|sums| sums.map(|sum| (sum / count) as f32))
                            .collect(),
                    };
                    let out = fresh_rows(rows, channels, |row, out| {
                        let at = row * channels..(row + 1) * channels;
                        let values = x[at.clone()].iter().zip(&delta[at]);
                        let moments = mean.iter().zip(&scale).zip(&means);
                        for ((out, (x, delta)), ((mean, scale), [of_delta, of_both])) in
                            out.iter_mut().zip(values).zip(moments)
                        {
                            *out = scale * (delta - of_delta - (x - mean) * scale * of_both);
                        }
                    });
                    return (out, sums);
                }
                let out = fresh_rows(x.len() / size.max(1), size, |index, out| {
                    let (x, delta) = (&x[index * size..][..size], &delta[index * size..][..size]);
                    let (mean, scale) = (mean[group(index)], scale[group(index)]);
                    let [of_delta, of_both] = means.get(group(index)).copied().unwrap_or_default();
                    let (of_delta, of_both) = ((of_delta / count) as f32, (of_both / count) as f32);
                    for ((out, x), delta) in out.iter_mut().zip(x).zip(delta) {
                        *out = scale * (delta - of_delta - (x - mean) * scale * of_both);
                    }
                });
                (out, sums)
            })
        })??;
        let sums = sums.map(|sums| Tensor::from_vec(sums, channels, x.device()));
        let gradient = Tensor::from_vec(out, x.shape(), x.device())?;
        Ok((gradient, sums.transpose()?))
    }
}

/// `max(z, slope·z)` with `z = (x − mean) / √(variance + 10⁻⁵) + bias`, `x` of `(R, N,
/// …)` and `bias` of `(N,)`. Without moments `z = x + bias`. With the slope 0 this is a
/// ReLU.
///
/// # Errors
/// [`Error::Shape`] if the bias does not have a number for each channel, or the moments
/// are not those of the rows or channels of `x`; errors of candle.
pub fn standardised_relu(
    x: &Tensor,
    moments: Option<&ChannelStats>,
    bias: &Tensor,
    slope: f64,
) -> Result<Tensor> {
    let (rows, channels, size) = sizes(x)?;
    has_length("bias of channels", bias, channels)?;
    moments.map_or(Ok(()), |moments| moments.check(x))?;
    let [mean, variance] = moments.map_or([x; 2], |of| [&of.mean, &of.variance]);
    on_gpu!([x, bias, mean, variance], {
        let planes = cuda::Planes::of(x, moments.is_some_and(|moments| moments.by_row))?;
        let moments = moments.map(|_| [mean, variance]);
        cuda::standardised_relu(x, moments, bias, planes, (EPSILON, slope))
    });
    if !are_fast([x, bias, mean, variance]) {
        let mut sum = planes(x)?;
        if let Some(moments) = moments {
            let scale = moments.spread(&moments.scale()?)?;
            sum = sum
                .broadcast_sub(&moments.spread(&moments.mean)?)?
                .broadcast_mul(&scale)?;
        }
        let sum = sum.broadcast_add(&bias.reshape((1, channels, 1))?)?;
        return Ok(leaky_relu(&sum, slope)?.reshape(x.shape())?);
    }
    // Not `max`, which would hide NaN.
    let slope = slope as f32;
    let relu = |z: f32| if z < 0. { slope * z } else { z };
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
        if size == 1 {
            let of_row = |row: usize| row * channels..(row + 1) * channels;
            return fresh_rows(rows, channels, |row, out| {
                let rows = out.iter_mut().zip(&x[of_row(row)]).zip(&bias);
                match &moments {
                    None => rows.for_each(|((out, x), bias)| *out = relu(x + bias)),
                    Some((mean, scale, true)) => rows.for_each(|((out, x), bias)| {
                        *out = relu((x - mean[row]) * scale[row] + bias);
                    }),
                    Some((mean, scale, false)) => {
                        let moments = mean.iter().zip(scale);
                        rows.zip(moments)
                            .for_each(|(((out, x), bias), (mean, scale))| {
                                *out = relu((x - mean) * scale + bias);
                            });
                    }
                }
            });
        }
        fresh_rows(rows * channels, size, |index, out| {
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
                *out = relu((x - mean) * scale + bias);
            }
        })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

fn has_length(what: &str, numbers: &Tensor, length: usize) -> Result<()> {
    match numbers.dims() == [length] {
        true => Ok(()),
        false => Err(Error::shape(what, numbers.dims(), format!("[{length}]"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::channel_sums;
    use candle_core::{DType, Device, Var};

    /// Images, and rows of units.
    const SHAPES: [&[usize]; 2] = [&[5, 3, 4, 7], &[40, 100]];

    fn numbers(seed: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let mut rng = crate::flow::random::stream(seed, "test", 0);
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| crate::flow::random::unit(&mut rng) as f32 * 2. - 0.7)
            .collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
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
        for (shape, by_row, slope) in [
            (SHAPES[0], true, 0.),
            (SHAPES[0], false, 0.1),
            (SHAPES[1], true, 0.1),
            (SHAPES[1], false, 0.),
        ] {
            let x = Var::from_tensor(&numbers(1, shape, DType::F64)?)?;
            let bias = numbers(3, &shape[1..2], DType::F64)?;
            // The definition, differentiated by autograd.
            let values = planes(&x)?;
            let over = if by_row { 1 } else { 0 };
            let mean = |x: &Tensor| x.mean_keepdim(over)?.mean_keepdim(2);
            let off = values.broadcast_sub(&mean(&values)?)?;
            let variance = mean(&off.sqr()?)?;
            let n = off.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
            let sum = n.broadcast_add(&bias.reshape((1, shape[1], 1))?)?;
            let expected = sum.maximum(&(&sum * slope)?)?.reshape(shape)?;
            let upstream = numbers(2, shape, DType::F64)?;
            let gradients = (&expected * &upstream)?.sum_all()?.backward()?;
            let gradient = gradients.get(&x).expect("it depends on x");
            for dtype in [DType::F32, DType::F64] {
                let (x, bias) = (numbers(1, shape, dtype)?, bias.to_dtype(dtype)?);
                let moments = ChannelStats::of(&x, by_row)?;
                let found = standardised_relu(&x, Some(&moments), &bias, slope)?;
                assert_close(&found, &expected)?;
                let gate = crate::kernels::Gate { slope, gain: 1. };
                let delta = crate::kernels::gate(&numbers(2, shape, dtype)?, &found, gate)?;
                let (found, sums) = moments.gradient_and_sums(&x, &delta, false)?;
                assert_close(&found, gradient)?;
                assert_eq!(sums.is_some(), dtype == DType::F32 && !by_row);
                if let Some(sums) = sums {
                    let again = channel_sums(&delta)?;
                    assert_eq!(sums.to_vec1::<f32>()?, again.to_vec1::<f32>()?);
                }
                let fixed = moments.gradient(&x, &delta, true)?.to_dtype(DType::F64)?;
                let scale = moments.spread(&moments.scale()?)?.to_dtype(DType::F64)?;
                let by_hand = planes(&delta.to_dtype(DType::F64)?)?
                    .broadcast_mul(&scale)?
                    .reshape(fixed.shape())?;
                assert_close(&fixed, &by_hand)?;
            }
        }
        for shape in SHAPES {
            let bias = numbers(3, &shape[1..2], DType::F64)?;
            let [x, plain] = [DType::F32, DType::F64].map(|dtype| numbers(1, shape, dtype));
            let (x, plain) = (x?, plain?);
            assert_close(&channel_sums(&x)?, &channel_sums(&plain)?)?;
            assert_close(
                &standardised_relu(&x, None, &bias.to_dtype(DType::F32)?, 0.)?,
                &standardised_relu(&plain, None, &bias, 0.)?,
            )?;
        }
        Ok(())
    }
}
