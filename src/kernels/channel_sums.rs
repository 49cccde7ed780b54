//! Sums over the planes, rows and channels of images, `(R, N, …)`.

use candle_core::Tensor;
use rayon::prelude::*;

use super::are_fast;
use super::channel_stats::{planes, sizes};
#[cfg(feature = "cuda")]
use super::cuda;
use super::rows::{with_values, GRAIN};
use crate::error::Result;

/// The sum of each channel over all rows and positions: `(R, N, …)` to `(N,)`.
///
/// # Errors
/// Errors of candle.
pub fn channel_sums(x: &Tensor) -> Result<Tensor> {
    let (rows, channels, size) = sizes(x)?;
    on_gpu!([x], cuda::plane_sums(x, cuda::Planes::of(x, false)?));
    if !are_fast([x]) {
        return Ok(planes(x)?.sum(2)?.sum(0)?);
    }
    let sums = with_values(x, |x| match size {
        1 => column_sums((rows, channels), |at| [x[at]]),
        _ => sums((rows, channels, size), false, |index| {
            [lanes(&x[index * size..][..size], |_, x| x)]
        }),
    })?;
    let sums: Vec<f32> = sums.into_iter().map(|[sum]| sum as f32).collect();
    Ok(Tensor::from_vec(sums, channels, x.device())?)
}

/// `Σ f(x)` over a plane, in 16 lanes in a fixed order.
pub(super) fn lanes(plane: &[f32], f: impl Fn(usize, f32) -> f32) -> f64 {
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

/// The sum of `plane(r·N + n)` over each row or over each channel, with `size` numbers to
/// a plane. Each sum is computed by one thread.
pub(super) fn sums<const K: usize>(
    (rows, channels, size): (usize, usize, usize),
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
    if rows * channels * size < 2 * GRAIN {
        return (0..groups).map(sum).collect();
    }
    let groups = (0..groups).into_par_iter().with_min_len(8);
    groups.map(sum).collect()
}

/// The sums over all rows of `f(row·N + n)` for each of `N` channels of one number. A
/// thread sums up neighbouring channels, so that it reads the rows in order.
pub(super) fn column_sums<const K: usize>(
    (rows, channels): (usize, usize),
    f: impl Fn(usize) -> [f32; K] + Sync,
) -> Vec<[f64; K]> {
    const STRIP: usize = 64;
    let mut sums = vec![[0.; K]; channels];
    let one = |(strip, out): (usize, &mut [[f64; K]])| {
        let mut sums = [[0f32; STRIP]; K];
        for row in 0..rows {
            let first = row * channels + strip * STRIP;
            for column in 0..out.len() {
                let values = f(first + column);
                for (sums, value) in sums.iter_mut().zip(values) {
                    sums[column] += value;
                }
            }
        }
        for (column, out) in out.iter_mut().enumerate() {
            *out = sums.map(|sums| f64::from(sums[column]));
        }
    };
    if rows * channels < 2 * GRAIN {
        sums.chunks_mut(STRIP).enumerate().for_each(one);
    } else {
        let strips = sums.par_chunks_mut(STRIP).enumerate().with_min_len(4);
        strips.for_each(one);
    }
    sums
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn numbers(shape: &[usize]) -> Result<Tensor> {
        let numbers = (0..shape.iter().product()).map(|i: usize| (i as f32).sin());
        Ok(Tensor::from_iter(numbers, &Device::Cpu)?.reshape(shape)?)
    }

    /// Many channels are divided among threads, few are not.
    #[test]
    fn a_channel_has_the_same_sum_among_many() -> Result<()> {
        for shape in [&[40, 30, 8, 9][..], &[300, 300]] {
            let x = numbers(shape)?;
            let (all, some) = (channel_sums(&x)?, channel_sums(&x.narrow(1, 0, 9)?)?);
            let all = all.narrow(0, 0, 9)?.to_vec1::<f32>()?;
            assert_eq!(some.to_vec1::<f32>()?, all);
        }
        Ok(())
    }
}
