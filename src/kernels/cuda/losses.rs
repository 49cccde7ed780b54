//! Losses, the numbers that steps report, and wrong classes.

use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::{DType, Tensor};

use super::{blocks, elements, launch, Gpu};
use crate::error::Result;

/// A loss of a goodness with one value per row.
pub(crate) struct Contrast<'a> {
    /// 0: logistic, 1: log_sigmoid, 2: unbounded, 3: symmetric.
    pub kind: u32,
    pub theta: f64,
    pub temperature: f64,
    pub views: usize,
    /// The number of positive views, which come first.
    pub positive: usize,
    pub offset: Option<&'a Tensor>,
}

/// The loss, `(1,)`, and its gradient with respect to the goodness.
pub(crate) fn contrast(goodness: &Tensor, of: &Contrast<'_>) -> Result<(Tensor, Tensor)> {
    let gpu = Gpu::of(goodness.device())?;
    let goodness = goodness.contiguous()?;
    let offset = of.offset.map(Tensor::contiguous).transpose()?;
    let rows = goodness.elem_count();
    let (gradient, loss) = (gpu.empty::<f32>(rows)?, gpu.empty::<f64>(1)?);
    launch!(gpu, contrast, blocks(1, 1, 1024);
        gpu.address(&goodness)?, gpu.address_or_null(offset.as_ref())?,
        gpu.address(&gradient)?, gpu.address_of(&loss, DType::F64)?,
        (rows / of.views) as u32, of.views as u32, of.positive as u32, of.theta, of.temperature, of.kind);
    Ok((loss, gradient))
}

pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let x = x.contiguous()?;
    let (rows, width) = x.dims2()?;
    let out = gpu.empty::<f32>((rows, width))?;
    let threads = width.div_ceil(32).clamp(1, 16) as u32 * 32;
    launch!(gpu, log_softmax, blocks(rows, 1, threads);
        gpu.address(&x)?, gpu.address(&out)?, width as u32);
    Ok(out)
}

/// The mean cross-entropy, `(1,)`, and its gradient with respect to the logits.
pub(crate) fn cross_entropy(log: &Tensor, labels: &Tensor) -> Result<(Tensor, Tensor)> {
    let gpu = Gpu::of(log.device())?;
    let log = log.contiguous()?;
    let (rows, width) = log.dims2()?;
    let (loss, gradient) = (gpu.empty::<f64>(1)?, gpu.empty::<f32>((rows, width))?);
    let mean = 1. / rows.max(1) as f64;
    launch!(gpu, cross_entropy, elements(rows * width);
        gpu.address(&log)?, gpu.address_of(labels, DType::U32)?, gpu.address(&gradient)?,
        width as u32, mean as f32, (rows * width) as u64);
    launch!(gpu, cross_entropy_loss, blocks(1, 1, 512);
        gpu.address(&log)?, gpu.address_of(labels, DType::U32)?,
        gpu.address_of(&loss, DType::F64)?, width as u32, rows as u32);
    Ok((loss, gradient))
}

/// Lists in one launch.
const NUMBERS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct Numbers {
    numbers: [u64; NUMBERS],
    weight: [f64; NUMBERS],
    length: [u32; NUMBERS],
    /// A bit for each list of numbers of 64 bits.
    is_double: u64,
    count: u32,
}

// SAFETY: plain numbers, laid out as in `kernels.cu`.
unsafe impl DeviceRepr for Numbers {}

/// The weighted sum of the means of tensors in 64 bits, `(1,)`.
pub(crate) fn total(numbers: &[(Tensor, f64)]) -> Result<Tensor> {
    let gpu = Gpu::of(numbers[0].0.device())?;
    let mut sum: Option<Tensor> = None;
    // Each piece begins with the sum of those before it.
    for piece in numbers.chunks(NUMBERS - 1) {
        let mut raw = Numbers {
            numbers: [0; NUMBERS],
            weight: [0.; NUMBERS],
            length: [0; NUMBERS],
            is_double: 0,
            count: 0,
        };
        let before = sum.iter().map(|sum| (sum, 1.));
        let piece = piece.iter().map(|(number, weight)| (number, *weight));
        for (number, weight) in before.chain(piece) {
            let at = raw.count as usize;
            let is_double = number.dtype() == DType::F64;
            let dtype = if is_double { DType::F64 } else { DType::F32 };
            (raw.numbers[at], raw.weight[at]) = (gpu.address_of(number, dtype)?, weight);
            raw.length[at] = number.elem_count() as u32;
            raw.is_double |= u64::from(is_double) << at;
            raw.count += 1;
        }
        let out = gpu.empty::<f64>(1)?;
        launch!(gpu, total, blocks(1, 1, 256); raw, gpu.address_of(&out, DType::F64)?);
        sum = Some(out);
    }
    Ok(sum.expect("there is a number"))
}

/// Labels, `(B,)`, and after them a wrong class for each, drawn in proportion to its
/// probability with a number in `[0, 1)`: `(2·B, 1)`.
pub(crate) fn with_wrong(log: &Tensor, labels: &Tensor, draws: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(log.device())?;
    let log = log.contiguous()?;
    let (rows, classes) = log.dims2()?;
    let out = gpu.empty::<u32>((2 * rows, 1))?;
    launch!(gpu, with_wrong, blocks(rows.div_ceil(64).max(1), 1, 64);
        gpu.address(&log)?, gpu.address_of(labels, DType::U32)?,
        gpu.address_of(draws, DType::F64)?, gpu.address_of(&out, DType::U32)?, rows as u32, classes as u32);
    Ok(out)
}
