//! The arithmetic that the hot paths share.
//!
//! Every function has a plain form made of candle's operations, which runs on any device and with any element type,
//! and a fast form for `f32` on the CPU, which does in one pass over memory what candle does in several. Both give the
//! same numbers within rounding. The fast forms give the same bits at any number of threads: work is divided among
//! rows or columns, never within a sum.

mod channel_stats;
mod cpu;
pub(crate) mod gemm;
pub(crate) mod memory;

use candle_core::{DType, Device, Tensor, D};
use rand_chacha::ChaCha8Rng;

pub use channel_stats::{channel_sums, standardised_relu, ChannelStats};

pub(crate) use cpu::{add, for_rows, is_fast, with_rows, with_values, with_values_mut, Rows};

use crate::error::{Error, Result};

/// The value of a tensor of one number.
pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .to_scalar()?)
}

/// The logistic function `1 / (1 + e⁻ˣ)`, exact at both ends.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x * 0.5)?.tanh()?.affine(0.5, 0.5)?)
}

/// `log(1 + eˣ)` without overflow: `max(x, 0) + log(1 + e^−|x|)`.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + x.abs()?.neg()?.exp()?.affine(1., 1.)?.log()?)?)
}

/// `log softmax` over the last dimension.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    if is_fast(x) && x.rank() == 2 && !x.track_op() {
        return cpu::log_softmax(x);
    }
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?;
    Ok(shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// The sum of the squares of every row: `(B, …)` to `(B,)`.
pub fn sum_squares(x: &Tensor) -> Result<Tensor> {
    if is_fast(x) {
        return cpu::sum_squares(x);
    }
    Ok(x.flatten_from(1)?.sqr()?.sum(1)?)
}

/// Every row times its factor: `(B, …)` and `(B,)` to `(B, …)`.
pub fn scale_rows(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    if is_fast(x) {
        return cpu::scale_rows(x, factors);
    }
    let shape = [&[x.dim(0)?][..], &vec![1; x.rank() - 1]].concat();
    Ok(x.broadcast_mul(&factors.reshape(shape)?)?)
}

/// Every row times its factor, then summed over the views: `(V·B, D)` and `(V·B,)` to `(B, D)`.
pub fn sum_views(x: &Tensor, factors: Option<&Tensor>, views: usize) -> Result<Tensor> {
    if is_fast(x) {
        return cpu::sum_views(x, factors, views);
    }
    let scaled = factors.map_or(Ok(x.clone()), |factors| scale_rows(x, factors))?;
    Ok(scaled.reshape((views, x.dim(0)? / views, ()))?.sum(0)?)
}

/// The mean of the first `rows` rows: `(B, D)` to `(D,)`.
pub fn column_means(x: &Tensor, rows: usize) -> Result<Tensor> {
    if is_fast(x) {
        return Ok((cpu::column_sums(x, rows)? / rows as f64)?);
    }
    Ok(x.narrow(0, 0, rows)?.mean(0)?)
}

/// The sum of all rows: `(B, D)` to `(D,)`.
pub fn column_sums(x: &Tensor) -> Result<Tensor> {
    if is_fast(x) {
        return cpu::column_sums(x, x.dim(0)?);
    }
    Ok(x.sum(0)?)
}

/// The gradient below a ReLU whose output was `activity`: `gradient` where a unit was active, else 0; times `gain`. All
/// `(B, …)`.
pub fn gate(gradient: &Tensor, activity: &Tensor, gain: f64) -> Result<Tensor> {
    if is_fast(gradient) && is_fast(activity) {
        return cpu::gate(gradient, activity, gain as f32);
    }
    let active = activity.gt(0.)?.to_dtype(gradient.dtype())?;
    Ok(((gradient * active)? * gain)?)
}

/// `x[r] + Σₛ sharesₛ[r]·rowₛ` for every row: `(R, N)`, and each `(R,)` and `(N,)`, to `(R, N)`.
pub(crate) fn add_common(x: &Tensor, common: &[(Tensor, Tensor)]) -> Result<Tensor> {
    if is_fast(x) && !common.is_empty() {
        return cpu::add_common(x, common);
    }
    let add = |sum: Tensor, (shares, row): &(Tensor, Tensor)| {
        Ok((sum + shares.unsqueeze(1)?.broadcast_mul(&row.unsqueeze(0)?)?)?)
    };
    common.iter().try_fold(x.clone(), add)
}

/// `keep·old + (1 − keep)·new`, all `(R, …)`; the rows of `old` are repeated if it has fewer.
///
/// # Errors
/// [`Error::Shape`] if the rows of `new` are not a multiple of those of `old`, of the same length.
pub fn damp(old: &Tensor, new: &Tensor, keep: f64) -> Result<Tensor> {
    let (rows, of_new) = (old.dim(0)?, new.dim(0)?);
    if old.dims()[1..] != new.dims()[1..] || rows == 0 || of_new % rows != 0 {
        return Err(Error::shape(
            "damping",
            new.dims().to_vec(),
            format!("a multiple of {rows} rows like {:?}", old.dims()),
        ));
    }
    if is_fast(old) && is_fast(new) {
        let keep = keep as f32;
        return cpu::pairs(old, new, |old, new| keep * old + (1. - keep) * new);
    }
    let repeats = [&[of_new / rows][..], &vec![1; old.rank() - 1]].concat();
    Ok(((old.repeat(repeats)? * keep)? + (new * (1. - keep))?)?)
}

/// `a + b`, both `(R, …)`. Candle's own sum would wake its pool of threads, which waits busily beside those here.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if is_fast(a) && is_fast(b) && a.shape() == b.shape() {
        return cpu::pairs(a, b, |a, b| a + b);
    }
    Ok((a + b)?)
}

/// Every element silenced with probability `rate` (rounded to 1/65536), the others divided by `1 − rate`.
///
/// The mask depends on the generator and the number of elements alone.
pub fn dropout(x: &Tensor, rate: f64, rng: &ChaCha8Rng) -> Result<Tensor> {
    let mask = cpu::dropout_mask(x.elem_count(), rate, rng);
    if is_fast(x) {
        return cpu::multiply(x, &mask);
    }
    Ok((x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?)?)
}

/// `a·bᵀ`: `(R, N)` and `(D, N)` to `(R, D)`.
pub(crate) fn matmul_transposed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if is_fast(a) && is_fast(b) {
        let product = with_rows(a, |a| {
            with_rows(b, |b| {
                let b = gemm::Matrix::of_rows(b.data, b.rows, b.width, b.stride).transposed();
                gemm::product(
                    gemm::Matrix::of_rows(a.data, a.rows, a.width, a.stride),
                    b,
                    |_, _, _| (),
                )
            })
        })??;
        return Ok(Tensor::from_vec(
            product,
            (a.dim(0)?, b.dim(0)?),
            a.device(),
        )?);
    }
    Ok(a.contiguous()?.matmul(&b.t()?.contiguous()?)?)
}

/// Class indices as a tensor, `(B,)`.
pub(crate) fn index(labels: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(labels, labels.len(), device)?)
}

/// The entries of `x`, `(B, C)`, that `labels` point to, `(B,)`.
pub(crate) fn entries(x: &Tensor, labels: &[u32]) -> Result<Tensor> {
    Ok(x.contiguous()?
        .gather(&index(labels, x.device())?.unsqueeze(1)?, 1)?
        .squeeze(1)?)
}

/// One row of `one` and zeros for each label, `(B, C)`.
pub(crate) fn one_hot(labels: &[u32], classes: usize, like: &Tensor) -> Result<Tensor> {
    let mut values = vec![0f32; labels.len() * classes];
    for (row, &label) in values.chunks_exact_mut(classes).zip(labels) {
        row[label as usize] = 1.;
    }
    Ok(
        Tensor::from_vec(values, (labels.len(), classes), &Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())?,
    )
}

/// Whether the fast forms are made for this element type; the plain ones do everything else.
pub(crate) const FAST: DType = DType::F32;
