//! The fast forms: `f32` on the CPU, rows or columns divided among threads.

use candle_core::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::exponential::exp_f32;
use super::fresh::{fresh_pieces, fresh_rows};
use super::rows::{with_rows, with_values, Rows, GRAIN};
use super::wide::{wide, Loop};
use super::Gate;
use crate::error::Result;

/// Computes `out ← out + factor·row`.
#[inline(always)]
pub(crate) fn add(out: &mut [f32], factor: f32, row: &[f32]) {
    for (out, x) in out.iter_mut().zip(row) {
        *out += factor * x;
    }
}

/// The dot product, summed in 16 lanes in a fixed order.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16
        .remainder()
        .iter()
        .zip(b16.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a16.zip(b16) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The sums of the squares of the rows from `first` on.
struct Squares<'a> {
    x: &'a Rows<'a>,
    first: usize,
    sums: &'a mut [f32],
}

impl Loop for Squares<'_> {
    #[inline(always)]
    fn run(self) {
        for (row, sum) in self.sums.iter_mut().enumerate() {
            let row = self.x.row(self.first + row);
            *sum = dot(row, row);
        }
    }
}

pub(super) fn sum_squares(x: &Tensor) -> Result<Tensor> {
    let sums = with_rows(x, |x| {
        let mut sums = vec![0f32; x.rows];
        let rows = GRAIN.div_ceil(x.width.max(1));
        let some = |first: usize, sums: &mut [f32]| {
            let x = &x;
            Squares { x, first, sums }.wide();
        };
        if x.rows * x.width < 2 * GRAIN {
            some(0, &mut sums);
        } else {
            sums.par_chunks_mut(rows)
                .enumerate()
                .for_each(|(chunk, sums)| some(chunk * rows, sums));
        }
        sums
    })?;
    Ok(Tensor::from_vec(sums, x.dim(0)?, x.device())?)
}

pub(super) fn scale_rows(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let scaled = with_values(factors, |factors| {
        with_rows(x, |x| {
            fresh_rows(x.rows, x.width, |row, out| {
                let factor = factors[row];
                out.iter_mut()
                    .zip(x.row(row))
                    .for_each(|(out, x)| *out = factor * x);
            })
        })
    })??;
    Ok(Tensor::from_vec(scaled, x.shape(), x.device())?)
}

pub(super) fn unit_rows_gradient(
    x: &Tensor,
    gradient: &Tensor,
    length: f64,
    shortest: f64,
) -> Result<Tensor> {
    let out = with_rows(x, |x| {
        with_rows(gradient, |gradient| {
            fresh_rows(x.rows, x.width, |row, out| {
                let (x, gradient) = (x.row(row), gradient.row(row));
                let inverse = 1. / dot(x, x).sqrt().max(shortest as f32);
                let along = dot(x, gradient) * inverse * inverse;
                let scale = inverse * length as f32;
                for ((out, x), gradient) in out.iter_mut().zip(x).zip(gradient) {
                    *out = scale * (gradient - along * x);
                }
            })
        })
    })??;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

pub(super) fn sum_views(x: &Tensor, factors: Option<&Tensor>, views: usize) -> Result<Tensor> {
    let factors = factors.map(Tensor::to_vec1::<f32>).transpose()?;
    let batch = x.dim(0)? / views.max(1);
    let (sums, width) = with_rows(x, |x| {
        let sums = fresh_rows(batch, x.width, |row, out| {
            for row in (0..views).map(|view| view * batch + row) {
                let factor = factors.as_ref().map_or(1., |factors| factors[row]);
                add(out, factor, x.row(row));
            }
        });
        (sums, x.width)
    })?;
    Ok(Tensor::from_vec(sums, (batch, width), x.device())?)
}

/// The sums over `rows` rows of the columns from `first` on.
struct Strip<'a> {
    x: &'a Rows<'a>,
    rows: usize,
    first: usize,
    sums: &'a mut [f32],
}

impl Loop for Strip<'_> {
    #[inline(always)]
    fn run(self) {
        for row in 0..self.rows {
            let row = &self.x.row(row)[self.first..][..self.sums.len()];
            add(self.sums, 1., row);
        }
    }
}

pub(super) fn column_sums(x: &Tensor, rows: usize) -> Result<Tensor> {
    let sums = with_rows(x, |x| {
        let mut sums = vec![0f32; x.width];
        let strip = |first: usize, sums: &mut [f32]| {
            let x = &x;
            Strip {
                x,
                rows,
                first,
                sums,
            }
            .wide();
        };
        if rows * x.width < 2 * GRAIN {
            strip(0, &mut sums);
        } else {
            // Columns are divided among threads, so that every sum runs over the rows in
            // order.
            let columns = (x.width.div_ceil(8)).max(64);
            sums.par_chunks_mut(columns)
                .enumerate()
                .for_each(|(chunk, sums)| strip(chunk * columns, sums));
        }
        sums
    })?;
    let width = sums.len();
    Ok(Tensor::from_vec(sums, width, x.device())?)
}

/// Gates one row. It has no branch, and lengths that the compiler knows to be equal, so
/// that it is vectorised.
#[inline(always)]
fn gate_row(out: &mut [f32], gradient: &[f32], activity: &[f32], gain: f32) {
    let (gradient, activity) = (&gradient[..out.len()], &activity[..out.len()]);
    for i in 0..out.len() {
        let active = f32::from(u8::from(activity[i] > 0.));
        out[i] = gain * gradient[i] * active;
    }
}

/// The same with a slope below 0.
#[inline(always)]
fn leaky_gate_row(out: &mut [f32], gradient: &[f32], activity: &[f32], gain: f32, slope: f32) {
    let (gradient, activity) = (&gradient[..out.len()], &activity[..out.len()]);
    for i in 0..out.len() {
        let above = f32::from(u8::from(activity[i] > 0.));
        let below = f32::from(u8::from(activity[i] < 0.));
        out[i] = gain * gradient[i] * (above + slope * below);
    }
}

pub(super) fn gate(gradient: &Tensor, activity: &Tensor, gate: Gate) -> Result<Tensor> {
    let (gain, slope) = (gate.gain as f32, gate.slope as f32);
    let out = with_rows(gradient, |gradient| {
        with_rows(activity, |activity| {
            fresh_rows(activity.rows, activity.width, |row, out| {
                let (gradient, activity) = (gradient.row(row), activity.row(row));
                match gate.slope {
                    0. => gate_row(out, gradient, activity, gain),
                    _ => leaky_gate_row(out, gradient, activity, gain, slope),
                }
            })
        })
    })??;
    Ok(Tensor::from_vec(out, gradient.shape(), gradient.device())?)
}

pub(super) fn add_common(x: &Tensor, common: &[(Tensor, Tensor)]) -> Result<Tensor> {
    let values =
        |(shares, row): &(Tensor, Tensor)| Ok((shares.to_vec1::<f32>()?, row.to_vec1::<f32>()?));
    let common = common.iter().map(values).collect::<Result<Vec<_>>>()?;
    let out = with_rows(x, |x| {
        fresh_rows(x.rows, x.width, |row, out| {
            out.copy_from_slice(x.row(row));
            for (shares, added) in common.iter().filter(|(shares, _)| shares[row] != 0.) {
                add(out, shares[row], added);
            }
        })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

pub(super) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let out = with_rows(x, |x| {
        fresh_rows(x.rows, x.width, |row, out| {
            LogSoftmax { x: x.row(row), out }.wide();
        })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// The log-softmax of one row. NaN if one of its numbers is NaN, as in the plain form.
struct LogSoftmax<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Loop for LogSoftmax<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { x, out } = self;
        let larger = |a: f32, b: f32| if b > a { b } else { a };
        let (lanes, rest) = x.as_chunks::<16>();
        let mut tops = [f32::NEG_INFINITY; 16];
        for lane in lanes {
            let tops = tops.iter_mut().zip(lane);
            tops.for_each(|(top, x)| *top = larger(*top, *x));
        }
        let top = tops.iter().chain(rest).copied();
        let top = top.fold(f32::NEG_INFINITY, larger);
        let (out_lanes, _) = out.as_chunks_mut::<16>();
        let mut sums = [0f64; 16];
        for (out, x) in out_lanes.iter_mut().zip(lanes) {
            for ((out, x), sum) in out.iter_mut().zip(x).zip(&mut sums) {
                *out = exp_f32(x - top);
                *sum += f64::from(*out);
            }
        }
        let of_rest = rest.iter().map(|x| f64::from(exp_f32(x - top)));
        let sum = sums.iter().sum::<f64>() + of_rest.sum::<f64>();
        let subtracted = f64::from(top) + sum.ln();
        let out = out.iter_mut().zip(x);
        out.for_each(|(out, x)| *out = (f64::from(*x) - subtracted) as f32);
    }
}

pub(super) fn off_label(log: &Tensor, labels: &[u32], factor: f32) -> Result<Tensor> {
    const LEAST: f32 = -60.;
    #[inline(always)]
    fn exp(log: f32) -> f32 {
        if log < LEAST {
            0.
        } else {
            exp_f32(log)
        }
    }
    let out = with_rows(log, |log| {
        fresh_rows(log.rows, log.width, |row, out| {
            let (log, label) = (log.row(row), labels[row] as usize);
            wide(|| {
                let out = out.iter_mut().zip(log);
                out.for_each(|(out, log)| *out = exp(*log) * factor);
            });
            out[label] = (exp(log[label]) - 1.) * factor;
        })
    })?;
    Ok(Tensor::from_vec(out, log.shape(), log.device())?)
}

/// Applies `f` to pairs of elements. If `a` has fewer rows, they are repeated.
pub(super) fn pairs(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let out = with_rows(a, |a| {
        with_rows(b, |b| {
            fresh_rows(b.rows, b.width, |row, out| {
                for ((out, a), b) in out.iter_mut().zip(a.row(row % a.rows)).zip(b.row(row)) {
                    *out = f(*a, *b);
                }
            })
        })
    })??;
    Ok(Tensor::from_vec(out, b.shape(), b.device())?)
}

pub(super) fn multiply(x: &Tensor, factors: &[f32]) -> Result<Tensor> {
    let out = with_rows(x, |x| {
        fresh_rows(x.rows, x.width, |row, out| {
            let factors = &factors[row * x.width..][..x.width];
            for ((out, x), factor) in out.iter_mut().zip(x.row(row)).zip(factors) {
                *out = x * factor;
            }
        })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

/// A mask of 0 with probability `rate`, else `1 / (1 − rate)`. Chunk `c` is drawn from
/// stream `c` of the generator, so that the mask is the same with any number of threads.
pub(super) fn dropout_mask(count: usize, rate: f64, rng: &ChaCha8Rng) -> Vec<f32> {
    let limit = (rate * 65536.).round() as u32;
    // A layer scales its gradient by the same number.
    let kept = (1. / (1. - rate)) as f32;
    let chunks = (0..count.div_ceil(GRAIN)).into_par_iter();
    let no_state = || ();
    fresh_pieces(count, GRAIN, chunks, no_state, |(), mask, chunk| {
        let mut rng = rng.clone();
        rng.set_stream(chunk as u64);
        for mask in mask.chunks_mut(4) {
            let bits = rng.next_u64();
            for (lane, mask) in mask.iter_mut().enumerate() {
                let draw = (bits >> (16 * lane)) as u32 & 0xffff;
                *mask = if draw < limit { 0. } else { kept };
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::random::stream;
    use crate::kernels;
    use candle_core::{DType, Device};
    use rand_distr::{Distribution, StandardNormal};

    fn random(rows: usize, width: usize) -> Tensor {
        let mut rng = stream(1, "test", (rows * width) as u64);
        let values: Vec<f32> = (0..rows * width)
            .map(|_| StandardNormal.sample(&mut rng))
            .collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn rows_without_a_factor_and_views_of_unequal_size_are_refused() -> crate::Result<()> {
        let (x, factors) = (random(6, 2), random(5, 1).squeeze(1)?);
        for x in [x.clone(), x.to_dtype(DType::F64)?] {
            let factors = factors.to_dtype(x.dtype())?;
            assert!(kernels::scale_rows(&x, &factors).is_err());
            assert!(kernels::scale_rows_by(&x, &factors, 2.).is_err());
            assert!(kernels::sum_views(&x, Some(&factors), 2).is_err());
            for (views, is_right) in [(0, false), (2, true), (4, false), (6, true)] {
                assert_eq!(kernels::sum_views(&x, None, views).is_ok(), is_right);
            }
        }
        Ok(())
    }

    fn assert_close(fast: &Tensor, plain: &Tensor) {
        let fast = fast.to_dtype(DType::F64).unwrap();
        let worst = (fast - plain)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap();
        let largest = plain
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar::<f64>()
            .unwrap();
        let worst = worst.to_scalar::<f64>().unwrap();
        assert!(worst < 1e-5 * (1. + largest), "{worst} of {largest}");
    }

    /// Compares both forms on small matrices and on one large enough for several threads;
    /// the plain form uses 64 bits.
    fn both(f: impl Fn(&Tensor) -> Result<Tensor>) {
        for (rows, width) in [(3, 5), (1, 1), (200, 1003)] {
            let x = random(rows, width);
            assert_close(
                &f(&x).unwrap(),
                &f(&x.to_dtype(DType::F64).unwrap()).unwrap(),
            );
        }
    }

    #[test]
    fn fast_and_plain_forms_agree() {
        both(kernels::sum_squares);
        both(kernels::column_sums);
        both(|x| kernels::column_means(x, x.dim(0)?.div_ceil(2)));
        both(|x| kernels::scale_rows(x, &kernels::sum_squares(x)?));
        both(|x| kernels::unit_rows_gradient(x, &x.sqr()?, 3., 1e-8));
        both(|x| kernels::sum_views(&Tensor::cat(&[x, &x.neg()?, x], 0)?, None, 3));
        both(|x| {
            let views = Tensor::cat(&[x, &x.sqr()?], 0)?;
            kernels::sum_views(&views, Some(&kernels::sum_squares(&views)?), 2)
        });
        for slope in [0., 0.1] {
            let gate = kernels::Gate { slope, gain: 2. };
            both(|x| {
                kernels::gate(
                    &x.neg()?,
                    &kernels::dropout(x, 0.3, &stream(1, "gate", 0))?,
                    gate,
                )
            });
        }
        both(|x| kernels::log_softmax(&(x * 20.)?));
        both(|x| {
            let labels: Vec<u32> = (0..x.dim(0)?)
                .map(|row| (row % x.dim(1).unwrap()) as u32)
                .collect();
            kernels::off_label(&kernels::log_softmax(&(x * 20.)?)?, &labels, 0.3)
        });
        both(|x| {
            let (shares, row) = (kernels::sum_squares(x)?, kernels::column_sums(x)?);
            kernels::add_common(
                x,
                &[(shares.clone(), row.clone()), (shares.sqr()?, row.neg()?)],
            )
        });
        both(|x| kernels::damp(x, &Tensor::cat(&[x.sqr()?, x.neg()?], 0)?, 0.3));
        both(|x| kernels::dropout(x, 0.3, &stream(1, "dropout", 0)));
    }

    #[test]
    fn columns_of_a_wider_matrix_need_no_copy() -> Result<()> {
        let x = random(7, 20);
        let narrow = x.narrow(1, 3, 5)?;
        assert_close(
            &kernels::sum_squares(&narrow)?,
            &kernels::sum_squares(&narrow.to_dtype(DType::F64)?)?,
        );
        Ok(())
    }

    #[test]
    fn dropout_keeps_the_mean_and_zeroes_the_share() -> Result<()> {
        let ones = Tensor::ones((500, 1000), DType::F32, &Device::Cpu)?;
        let dropped = kernels::dropout(&ones, 0.25, &stream(3, "dropout", 0))?;
        let silenced = dropped
            .eq(0.)?
            .to_dtype(DType::F32)?
            .mean_all()?
            .to_scalar::<f32>()?;
        assert!((silenced - 0.25).abs() < 0.003, "{silenced}");
        let mean = dropped.mean_all()?.to_scalar::<f32>()?;
        assert!((mean - 1.).abs() < 0.004, "{mean}");
        Ok(())
    }

    #[test]
    fn sigmoid_and_softplus_are_right_at_both_ends() -> Result<()> {
        let x = Tensor::new(&[-200f32, -1., 0., 1., 200.], &Device::Cpu)?;
        let sigmoid = kernels::sigmoid(&x)?.to_vec1::<f32>()?;
        // numpy: 1 / (1 + exp(-x)); log1p(exp(x))
        for (found, expected) in sigmoid.iter().zip([0., 0.26894143, 0.5, 0.731_058_6, 1.]) {
            assert!((found - expected).abs() < 1e-6, "{sigmoid:?}");
        }
        let softplus = kernels::softplus(&x)?.to_vec1::<f32>()?;
        for (found, expected) in
            softplus
                .iter()
                .zip([0., 0.313_261_7, std::f32::consts::LN_2, 1.313_261_6, 200.])
        {
            assert!((found - expected).abs() < 1e-5, "{softplus:?}");
        }
        Ok(())
    }
}
