//! Arithmetic kernels of the hot paths.
//!
//! Every function has several forms. The plain form uses candle's operations and runs
//! on any device, with any element type. The fast forms, for `f32` on the CPU and on a
//! GPU with CUDA, need one pass over memory instead of several, and on a GPU nothing
//! waits. Autograd goes back through the plain forms alone, so that they are used where
//! an argument is a variable or was made of one. All give the same numbers within
//! rounding, unless products are set to round more. The fast forms give the same bits with
//! any number of threads: work is divided among rows or columns, never within a sum.

/// Returns the form for a GPU, if the tensor is there; of several arguments, if all are
/// and autograd goes back through none.
macro_rules! on_gpu {
    ([$($x:expr),+], $form:expr) => {
        #[cfg(feature = "cuda")]
        if [$($x),+].into_iter().all(|x| $crate::kernels::cuda::is_fast(x) && !x.track_op()) {
            return $form;
        }
    };
    ($x:expr, $form:expr) => {
        #[cfg(feature = "cuda")]
        if $crate::kernels::cuda::is_fast($x) {
            return $form;
        }
    };
}
pub(crate) use on_gpu;

#[cfg(feature = "allocator")]
pub(crate) mod allocator;
mod backward;
mod bfloat16;
mod cells;
mod centred;
mod channel_stats;
mod channel_sums;
mod competition;
mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod deviations;
mod directions;
pub(crate) mod energy;
pub(crate) mod exponential;
pub(crate) mod fields;
mod fresh;
pub(crate) mod gemm;
mod labels;
mod leaky_relu;
mod matmul;
pub(crate) mod memory;
pub(crate) mod meter;
pub(crate) mod normal_equations;
mod pixels;
pub(crate) mod rounding;
mod rows;
pub(crate) mod sizes;
mod standardise;
mod uneven_cells;
mod wide;

use candle_core::{DType, Device, Shape, Tensor, D};
use rand_chacha::ChaCha8Rng;

#[cfg(feature = "allocator")]
pub use allocator::Allocator;
pub use backward::backward;
pub use cells::{cell_means, cell_means_gradient};
pub use centred::{above_mean, centred, Windows};
pub use channel_stats::{standardised_relu, ChannelStats};
pub use channel_sums::channel_sums;
pub use competition::{add_scaled_rows, channel_dots, largest, signed_softmax};
pub use deviations::Deviations;
pub use directions::Directions;
#[cfg(feature = "cuda")]
pub(crate) use labels::index;
pub use labels::one_hot;
pub(crate) use labels::{entries, rows_at};
pub use leaky_relu::leaky_relu;
pub use matmul::{matmul, matmul_transposed};
pub use pixels::{pixel_energies, pixel_energies_gradient};

pub(crate) use cpu::add;
pub(crate) use fresh::{fresh_pieces, fresh_rows};
pub(crate) use rows::{
    for_rows, is_fast, memory_of, swap_values, with_rows, with_values, with_values_mut, Rows,
};
pub(crate) use standardise::standardise;
pub(crate) use uneven_cells::{shares_of_cells, uneven_means, uneven_means_gradient};
pub(crate) use wide::{wide, Loop};

use crate::error::{Error, Result};

/// The free memory of a device in bytes, if it is known.
pub(crate) fn free_memory(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return cuda::free(device).ok();
    }
    device.is_cpu().then(memory::available).flatten()
}

/// The model of a GPU, if it is known.
#[allow(unused_variables)]
pub(crate) fn gpu_name(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return gpu.cuda_stream().context().name().ok();
    }
    None
}

/// The number of blocks that learn at the same time: one per thread on the CPU; on a GPU
/// one, since all work is in one stream.
pub fn blocks_at_once(device: &Device) -> usize {
    match device {
        Device::Cpu => rayon::current_num_threads(),
        _ => 1,
    }
}

/// Whether there is a fast form for this tensor, on the CPU or a GPU.
pub(crate) fn has_fast_form(x: &Tensor) -> bool {
    on_gpu!(x, true);
    is_fast(x)
}

/// Whether the fast form on the CPU suits all of these: autograd goes back through none.
fn are_fast<'a>(arguments: impl IntoIterator<Item = &'a Tensor>) -> bool {
    let mut arguments = arguments.into_iter();
    arguments.all(|x| is_fast(x) && !x.track_op())
}

/// The value of a tensor with one element.
pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .to_scalar()?)
}

/// The sum of the means of tensors with their weights: `(1,)`.
pub(crate) fn total(numbers: &[(Tensor, f64)]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if numbers.iter().all(|(number, _)| number.device().is_cuda()) {
        return cuda::total(numbers);
    }
    let weighted = numbers
        .iter()
        .map(|(numbers, weight)| numbers.mean_all()?.reshape(1)? * *weight)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&weighted, 0)?.sum_keepdim(0)?)
}

/// Rows of this length, where there is a fast form: `x[r]·length / max(‖x[r]‖,
/// shortest)`, `(R, D)`.
#[allow(unused_variables)]
pub(crate) fn unit_rows(x: &Tensor, length: f64, shortest: f64) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    if cuda::is_fast(x) {
        return cuda::unit_rows(x, length, shortest).map(Some);
    }
    Ok(None)
}

/// The gradient with respect to `x`, `(R, D)`, given that with respect to the rows that
/// [`unit_rows`] makes of it.
pub(crate) fn unit_rows_gradient(
    x: &Tensor,
    gradient: &Tensor,
    length: f64,
    shortest: f64,
) -> Result<Tensor> {
    if is_fast(x) && is_fast(gradient) {
        return cpu::unit_rows_gradient(x, gradient, length, shortest);
    }
    let inverse = sum_squares(x)?.sqrt()?.maximum(shortest)?.recip()?;
    let unit = scale_rows(x, &inverse)?;
    let along = scale_rows(&unit, &(&unit * gradient)?.sum(1)?)?;
    scale_rows(&(gradient - along)?, &(inverse * length)?)
}

/// The logistic function `1 / (1 + e⁻ˣ)`, exact at both ends.
///
/// # Errors
/// Errors of candle.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x * 0.5)?.tanh()?.affine(0.5, 0.5)?)
}

/// `log(1 + eˣ)` without overflow: `max(x, 0) + log(1 + e^−|x|)`.
///
/// # Errors
/// Errors of candle.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + x.abs()?.neg()?.exp()?.affine(1., 1.)?.log()?)?)
}

/// `log softmax` over the last dimension.
///
/// # Errors
/// Errors of candle: for a tensor without a dimension.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 2 {
        on_gpu!([x], cuda::log_softmax(x));
        if are_fast([x]) {
            return cpu::log_softmax(x);
        }
    }
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?;
    Ok(shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// The sum of the squares of every row: `(B, …)` to `(B,)`.
///
/// # Errors
/// Errors of candle: for a tensor without a dimension.
pub fn sum_squares(x: &Tensor) -> Result<Tensor> {
    on_gpu!([x], cuda::sum_squares(x));
    if are_fast([x]) {
        return cpu::sum_squares(x);
    }
    Ok(rows::flat(x)?.sqr()?.sum(1)?)
}

/// The factor that gives each row the length `length`, over all parts of an input:
/// `length / max(‖x[r]‖, shortest)`, `(R,)`. `None` where there is no fast form.
#[allow(unused_variables)]
pub(crate) fn row_factors<'a>(
    parts: impl IntoIterator<Item = Squared<'a>>,
    rows: usize,
    (length, shortest): (f64, f64),
    device: &Device,
) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        let parts: Vec<_> = parts.into_iter().collect();
        return cuda::row_factors(&parts, rows, (length, shortest), device);
    }
    Ok(None)
}

/// A part of an input whose rows are normalised; its rows are repeated.
#[allow(dead_code)] // Read where there is a GPU.
pub(crate) struct Squared<'a> {
    /// `(R, D)`; without values the squares of a row sum up to `constant`.
    pub values: Option<&'a Tensor>,
    pub constant: f64,
    /// Factors of the rows of the input.
    pub scale: Option<&'a Tensor>,
}

/// Rows multiplied by their factors: `(B, …)` and `(B,)` to `(B, …)`.
///
/// # Errors
/// [`Error::Shape`] if there is not one factor for each row; errors of candle.
pub fn scale_rows(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    check_factors(x, factors)?;
    on_gpu!([x, factors], cuda::scale_rows(x, factors, 1.));
    if are_fast([x, factors]) {
        return cpu::scale_rows(x, factors);
    }
    let shape = [&[x.dim(0)?][..], &vec![1; x.rank() - 1]].concat();
    Ok(x.broadcast_mul(&factors.reshape(shape)?)?)
}

/// Rows multiplied by `by` times their factors: [`scale_rows`] of `by·factors`.
///
/// # Errors
/// As [`scale_rows`].
pub fn scale_rows_by(x: &Tensor, factors: &Tensor, by: f64) -> Result<Tensor> {
    check_factors(x, factors)?;
    on_gpu!([x, factors], cuda::scale_rows(x, factors, by));
    scale_rows(x, &(factors * by)?)
}

fn check_factors(x: &Tensor, factors: &Tensor) -> Result<()> {
    let rows = x.dim(0)?;
    match factors.elem_count() == rows {
        true => Ok(()),
        false => {
            let expected = format!("one for each of {rows} rows");
            Err(Error::shape("factors of rows", factors.dims(), expected))
        }
    }
}

/// The sum over the views of rows multiplied by their factors: `(V·B, D)` and `(V·B,)` to
/// `(B, D)`.
///
/// # Errors
/// [`Error::Shape`] if the rows are not those of `views` views, or there is not one factor
/// for each; errors of candle.
pub fn sum_views(x: &Tensor, factors: Option<&Tensor>, views: usize) -> Result<Tensor> {
    if views == 0 || !x.dim(0)?.is_multiple_of(views) {
        let expected = format!("(V·B, …) of V = {views} views");
        return Err(Error::shape("the sum of views", x.dims(), expected));
    }
    if let Some(factors) = factors {
        check_factors(x, factors)?;
    }
    let other = factors.unwrap_or(x);
    on_gpu!([x, other], cuda::sum_views(x, factors, views));
    if are_fast([x, other]) {
        return cpu::sum_views(x, factors, views);
    }
    let scaled = factors.map_or(Ok(x.clone()), |factors| scale_rows(x, factors))?;
    Ok(scaled.reshape((views, x.dim(0)? / views, ()))?.sum(0)?)
}

/// The mean of the first `rows` rows: `(B, D)` to `(D,)`.
///
/// # Errors
/// [`Error::Shape`] if there are fewer rows, or `rows` is 0; errors of candle.
pub fn column_means(x: &Tensor, rows: usize) -> Result<Tensor> {
    if rows == 0 || rows > x.dim(0)? {
        let expected = format!("at least {} rows, for the mean of {rows}", rows.max(1));
        return Err(Error::shape("means of columns", x.dims(), expected));
    }
    on_gpu!([x], cuda::column_sums(x, rows, 1. / rows as f64));
    if are_fast([x]) {
        return Ok((cpu::column_sums(x, rows)? / rows as f64)?);
    }
    Ok(x.narrow(0, 0, rows)?.mean(0)?)
}

/// The sum of all rows: `(B, D)` to `(D,)`.
///
/// # Errors
/// Errors of candle: for a tensor without a dimension.
pub fn column_sums(x: &Tensor) -> Result<Tensor> {
    on_gpu!([x], cuda::column_sums(x, x.dim(0)?, 1.));
    if are_fast([x]) {
        return cpu::column_sums(x, x.dim(0)?);
    }
    Ok(x.sum(0)?)
}

/// What a gradient is multiplied by on its way through a ReLU `a = gain·max(z, slope·z)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// The slope for `z < 0`; 0 for the usual ReLU.
    pub slope: f64,
    /// The factor of the activity, such as `1 / (1 − d)` for a unit kept by dropout.
    pub gain: f64,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            slope: 0.,
            gain: 1.,
        }
    }
}

/// The gradient with respect to the input of a ReLU with output `activity`, all `(B, …)`:
/// `gain·gradient` where the activity is positive, `gain·slope·gradient` where it is
/// negative, and 0 where it is 0, as in a unit that was dropped.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ; errors of candle.
pub fn gate(gradient: &Tensor, activity: &Tensor, gate: Gate) -> Result<Tensor> {
    check_gate(gradient, activity)?;
    on_gpu!(
        [gradient, activity],
        cuda::gate(gradient, activity, gate, None)
    );
    if are_fast([gradient, activity]) {
        return cpu::gate(gradient, activity, gate);
    }
    let mut factor = activity.gt(0.)?.to_dtype(gradient.dtype())?;
    if gate.slope != 0. {
        let below = activity.lt(0.)?.to_dtype(gradient.dtype())?;
        factor = (factor + (below * gate.slope)?)?;
    }
    Ok(((gradient * factor)? * gate.gain)?)
}

/// Refuses a gradient that does not have the shape of the activity.
pub(crate) fn check_gate(gradient: &Tensor, activity: &Tensor) -> Result<()> {
    if gradient.dims() != activity.dims() {
        let expected = format!("{:?}, the shape of the activity", activity.dims());
        return Err(Error::shape(
            "the gate of a gradient",
            gradient.dims(),
            expected,
        ));
    }
    Ok(())
}

/// `(exp(log p) − y)·factor` for log-probabilities `(B, C)` and the one-hot labels `y`.
///
/// In the fast form, `p` below `exp(−60)`, about 10⁻²⁶, counts as 0. Smaller
/// probabilities are far too small to change a weight, and make products of gradients
/// subnormal: a processor takes about a hundred times as long for such numbers.
pub(crate) fn off_label(log: &Tensor, labels: &[u32], factor: f64) -> Result<Tensor> {
    if is_fast(log) {
        return cpu::off_label(log, labels, factor as f32);
    }
    let labels = one_hot(labels, log.dim(1)?, log)?;
    Ok(((log.exp()? - labels)? * factor)?)
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
    on_gpu!([old, new], cuda::blend(old, new, keep, 1. - keep));
    if are_fast([old, new]) {
        let keep = keep as f32;
        return cpu::pairs(old, new, |old, new| keep * old + (1. - keep) * new);
    }
    let repeats = [&[of_new / rows][..], &vec![1; old.rank() - 1]].concat();
    Ok(((old.repeat(repeats)? * keep)? + (new * (1. - keep))?)?)
}

/// `of_a·a + of_b·b`, both `(R, …)`. candle's own sum would wake its thread pool, which
/// busy-waits and slows the threads used here.
///
/// # Errors
/// Errors of candle, for example if the shapes differ.
pub fn weighted(a: &Tensor, of_a: f64, b: &Tensor, of_b: f64) -> Result<Tensor> {
    if a.shape() == b.shape() {
        on_gpu!([a, b], cuda::blend(a, b, of_a, of_b));
        if are_fast([a, b]) {
            let (of_a, of_b) = (of_a as f32, of_b as f32);
            return cpu::pairs(a, b, |a, b| of_a * a + of_b * b);
        }
    }
    Ok(((a * of_a)? + (b * of_b)?)?)
}

/// `a + b`, both `(R, …)`.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    weighted(a, 1., b, 1.)
}

/// Dropout: each element is zeroed with probability `rate` (rounded to 1/65536), the
/// others are divided by `1 − rate`.
///
/// The mask depends only on the generator and the number of elements. On a GPU it is
/// another one, drawn there by Philox with a key from the generator.
///
/// # Errors
/// Errors of candle.
pub fn dropout(x: &Tensor, rate: f64, rng: &ChaCha8Rng) -> Result<Tensor> {
    on_gpu!([x], cuda::dropout(x, rate, rng));
    let mask = cpu::dropout_mask(x.elem_count(), rate, rng);
    if are_fast([x]) {
        return cpu::multiply(x, &mask);
    }
    Ok((x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?)?)
}

/// A tensor filled with one value.
///
/// # Errors
/// Errors of candle.
pub fn filled(
    value: f64,
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    if dtype == FAST {
        return Ok(Tensor::full(value as f32, shape, device)?);
    }
    // Made on the CPU: not every device has 64-bit numbers.
    let filled = Tensor::full(value, shape, &Device::Cpu)?;
    Ok(filled.to_dtype(dtype)?.to_device(device)?)
}

/// The element type of the fast forms; the plain forms handle all others.
pub(crate) const FAST: DType = DType::F32;

#[cfg(test)]
mod tests;
