//! Arithmetic kernels of the hot paths.
//!
//! Every function has two forms. The plain form uses candle's operations and runs on any
//! device, with any element type. The fast form is for `f32` on the CPU and needs one
//! pass over memory instead of several. Both give the same numbers within rounding. The
//! fast forms give the same bits with any number of threads: work is divided among rows
//! or columns, never within a sum.

mod channel_stats;
mod cpu;
pub(crate) mod gemm;
pub(crate) mod memory;

use candle_core::{DType, Device, Tensor, D};
use rand_chacha::ChaCha8Rng;

pub use channel_stats::{channel_sums, standardised_relu, ChannelStats};

pub(crate) use cpu::{add, for_rows, is_fast, with_rows, with_values, with_values_mut, Rows};

use crate::error::{Error, Result};

/// The value of a tensor with one element.
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

/// Rows multiplied by their factors: `(B, …)` and `(B,)` to `(B, …)`.
pub fn scale_rows(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    if is_fast(x) {
        return cpu::scale_rows(x, factors);
    }
    let shape = [&[x.dim(0)?][..], &vec![1; x.rank() - 1]].concat();
    Ok(x.broadcast_mul(&factors.reshape(shape)?)?)
}

/// The sum over the views of rows multiplied by their factors: `(V·B, D)` and `(V·B,)` to
/// `(B, D)`.
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

/// The gradient with respect to the input of a ReLU with output `activity`:
/// `gain·gradient` where a unit was active, else 0. All are `(B, …)`.
pub fn gate(gradient: &Tensor, activity: &Tensor, gain: f64) -> Result<Tensor> {
    if is_fast(gradient) && is_fast(activity) {
        return cpu::gate(gradient, activity, gain as f32);
    }
    let active = activity.gt(0.)?.to_dtype(gradient.dtype())?;
    Ok(((gradient * active)? * gain)?)
}

/// `x[r] + Σₛ sharesₛ[r]·rowₛ` for every row `r`: `x` is `(R, N)`, `sharesₛ` `(R,)` and
/// `rowₛ` `(N,)`.
pub(crate) fn add_common(x: &Tensor, common: &[(Tensor, Tensor)]) -> Result<Tensor> {
    if is_fast(x) && !common.is_empty() {
        return cpu::add_common(x, common);
    }
    let add = |sum: Tensor, (shares, row): &(Tensor, Tensor)| {
        Ok((sum + shares.unsqueeze(1)?.broadcast_mul(&row.unsqueeze(0)?)?)?)
    };
    common.iter().try_fold(x.clone(), add)
}

/// `keep·old + (1 − keep)·new`, all `(R, …)`. If `old` has fewer rows, they are repeated.
///
/// # Errors
/// [`Error::Shape`] if the number of rows of `new` is not a multiple of that of `old`, or
/// the rows differ in shape.
pub fn damp(old: &Tensor, new: &Tensor, keep: f64) -> Result<Tensor> {
    let (rows, of_new) = (old.dim(0)?, new.dim(0)?);
    if old.dims()[1..] != new.dims()[1..] || rows == 0 || of_new % rows != 0 {
        return Err(Error::shape(
            "damping",
            new.dims().to_vec(),
            format!("a multiple of {rows} rows, each as in {:?}", old.dims()),
        ));
    }
    if is_fast(old) && is_fast(new) {
        let keep = keep as f32;
        return cpu::pairs(old, new, |old, new| keep * old + (1. - keep) * new);
    }
    let repeats = [&[of_new / rows][..], &vec![1; old.rank() - 1]].concat();
    Ok(((old.repeat(repeats)? * keep)? + (new * (1. - keep))?)?)
}

/// `a + b`, both `(R, …)`. candle's own sum would wake its thread pool, which busy-waits
/// and slows the threads used here.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if is_fast(a) && is_fast(b) && a.shape() == b.shape() {
        return cpu::pairs(a, b, |a, b| a + b);
    }
    Ok((a + b)?)
}

/// Dropout: each element is zeroed with probability `rate` (rounded to 1/65536), the
/// others are divided by `1 − rate`.
///
/// The mask depends only on the generator and the number of elements.
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

/// The entry of each row of `x`, `(B, C)`, at the row's label: `(B,)`.
pub(crate) fn entries(x: &Tensor, labels: &[u32]) -> Result<Tensor> {
    Ok(x.contiguous()?
        .gather(&index(labels, x.device())?.unsqueeze(1)?, 1)?
        .squeeze(1)?)
}

/// One-hot rows for labels, `(B, C)`, of the type and device of `like`.
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

/// The element type of the fast forms; the plain forms handle all others.
pub(crate) const FAST: DType = DType::F32;
