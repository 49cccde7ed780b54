//! Rows and elements.

use candle_core::cuda::cudarc::driver::{DeviceRepr, LaunchConfig};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{blocks, elements, launch, tiles, Gpu};
use crate::error::Result;
use crate::kernels::{Gate, Squared};

/// Inputs of `row_factors` in one launch.
const PARTS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Squares {
    values: u64,
    scale: u64,
    rows: u32,
    width: u32,
    stride: u32,
    constant: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct AllSquares {
    part: [Squares; PARTS],
    count: u32,
}

// SAFETY: plain numbers, laid out as in `kernels.cu`.
unsafe impl DeviceRepr for AllSquares {}

/// `length / max(‖x[r]‖, shortest)` for each of `rows` rows, over all parts, which repeat
/// their rows; `None` if there are too many parts.
pub(crate) fn row_factors(
    parts: &[Squared<'_>],
    rows: usize,
    (length, shortest): (f64, f64),
    device: &Device,
) -> Result<Option<Tensor>> {
    if parts.len() > PARTS || rows == 0 {
        return Ok(None);
    }
    let gpu = Gpu::of(device)?;
    let mut squares = AllSquares::default();
    let mut copies = Vec::new();
    for (to, part) in squares.part.iter_mut().zip(parts) {
        to.scale = gpu.address_or_null(part.scale)?;
        to.constant = part.constant as f32;
        to.rows = 1;
        if let Some(values) = part.values {
            let values = gpu.rows(values)?;
            to.values = values.address;
            to.rows = values.rows as u32;
            to.width = values.width as u32;
            to.stride = values.stride as u32;
            copies.push(values);
        }
    }
    squares.count = parts.len() as u32;
    let out = gpu.empty::<f32>(rows)?;
    launch!(gpu, row_factors, blocks(rows, 1, 256);
        squares, gpu.address(&out)?, length as f32, shortest as f32);
    Ok(Some(out))
}

pub(crate) fn unit_rows(x: &Tensor, length: f64, shortest: f64) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let rows = gpu.rows(x)?;
    let out = gpu.empty::<f32>((rows.rows, rows.width))?;
    launch!(gpu, unit_rows, blocks(rows.rows, 1, 256);
        rows.address, gpu.address(&out)?, rows.width as u32, rows.stride as u32,
        length as f32, shortest as f32);
    Ok(out)
}

pub(crate) fn sum_squares(x: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let rows = gpu.rows(x)?;
    let out = gpu.empty::<f32>(rows.rows)?;
    launch!(gpu, row_squares, blocks(rows.rows, 1, 256);
        rows.address, gpu.address(&out)?, rows.width as u32, rows.stride as u32);
    Ok(out)
}

pub(crate) fn scale_rows(x: &Tensor, factors: &Tensor, by: f64) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let (rows, factors) = (gpu.rows(x)?, factors.contiguous()?);
    let out = gpu.empty::<f32>(x.shape())?;
    launch!(gpu, scale_rows, tiles(rows.rows, rows.width);
        rows.address, gpu.address(&factors)?, gpu.address(&out)?,
        rows.width as u32, rows.stride as u32, by as f32);
    Ok(out)
}

pub(crate) fn sum_views(x: &Tensor, factors: Option<&Tensor>, views: usize) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let rows = gpu.rows(x)?;
    let batch = rows.rows / views.max(1);
    let out = gpu.empty::<f32>((batch, rows.width))?;
    launch!(gpu, sum_views, tiles(batch, rows.width);
        rows.address, gpu.address_or_null(factors)?, gpu.address(&out)?,
        rows.width as u32, rows.stride as u32, batch as u32, views as u32);
    Ok(out)
}

/// The rows that one block adds up.
pub(super) const PIECE: usize = 512;

/// `factor` times the sum of the first `count` rows.
pub(crate) fn column_sums(x: &Tensor, count: usize, factor: f64) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let rows = gpu.rows(x)?;
    let (mut address, mut count, mut stride) = (rows.address, count, rows.stride);
    let mut sums;
    loop {
        // Pieces of the rows, then pieces of their sums.
        let pieces = count.div_ceil(PIECE).max(1);
        let by = if pieces == 1 { factor } else { 1. };
        sums = gpu.empty::<f32>((pieces, rows.width))?;
        let config = LaunchConfig {
            grid_dim: (rows.width.div_ceil(32).max(1) as u32, pieces as u32, 1),
            block_dim: (32, 32, 1),
            shared_mem_bytes: 0,
        };
        launch!(gpu, column_sums, config;
            address, gpu.address(&sums)?, count as u32, rows.width as u32, stride as u32,
            PIECE as u32, by as f32);
        if pieces == 1 {
            return Ok(sums.squeeze(0)?);
        }
        (address, count, stride) = (gpu.address(&sums)?, pieces, rows.width);
    }
}

/// The gate of a ReLU; `common` is added to the first rows.
pub(crate) fn gate(
    gradient: &Tensor,
    activity: &Tensor,
    gate: Gate,
    common: Option<(&Tensor, usize)>,
) -> Result<Tensor> {
    let gpu = Gpu::of(gradient.device())?;
    let (gradient, activity) = (gradient.contiguous()?, activity.contiguous()?);
    let count = gradient.elem_count();
    let units = count / gradient.dim(0)?.max(1);
    let out = gpu.empty::<f32>(gradient.shape())?;
    let of_common = common.map_or(0, |(_, rows)| rows * units);
    launch!(gpu, gate, elements(count);
        gpu.address(&gradient)?, gpu.address(&activity)?, gpu.address(&out)?,
        gate.gain as f32, gate.slope as f32, gpu.address_or_null(common.map(|(row, _)| row))?,
        of_common as u64, units as u32, count as u64);
    Ok(out)
}

/// `keep·old + fresh·new`; the rows of `old` are repeated.
pub(crate) fn blend(old: &Tensor, new: &Tensor, keep: f64, fresh: f64) -> Result<Tensor> {
    let gpu = Gpu::of(new.device())?;
    let (old, new) = (old.contiguous()?, new.contiguous()?);
    let (of_old, count) = (old.elem_count().max(1), new.elem_count());
    let out = gpu.empty::<f32>(new.shape())?;
    launch!(gpu, blend, elements(count);
        gpu.address(&old)?, gpu.address(&new)?, gpu.address(&out)?, keep as f32,
        fresh as f32, of_old as u64, count as u64);
    Ok(out)
}

/// Dropout with masks that are drawn on the GPU: by Philox, with a key from `rng`.
pub(crate) fn dropout(x: &Tensor, rate: f64, rng: &ChaCha8Rng) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let (x, key) = (x.contiguous()?, rng.clone().next_u64());
    let count = x.elem_count();
    let threshold = (rate * 4_294_967_296.)
        .round()
        .clamp(0., f64::from(u32::MAX)) as u32;
    let out = gpu.empty::<f32>(x.shape())?;
    launch!(gpu, dropout, elements(count.div_ceil(4));
        gpu.address(&x)?, gpu.address(&out)?, key, threshold, (1. / (1. - rate)) as f32,
        count as u64);
    Ok(out)
}

/// Moves the running means to the means of this step, and returns the term of each unit:
/// `factor·(means − their mean)`.
pub(crate) fn peer(means: &Tensor, now: &Tensor, momentum: f64, factor: f64) -> Result<Tensor> {
    let gpu = Gpu::of(means.device())?;
    let units = means.elem_count();
    let excess = gpu.empty::<f32>(units)?;
    launch!(gpu, peer, blocks(1, 1, 1024);
        gpu.address(means)?, gpu.address(now)?, gpu.address(&excess)?, momentum as f32,
        factor as f32, units as u32);
    Ok(excess)
}

/// The images at `index`, `(B,)`, from bytes, as numbers from 0 to 1: `(B, C, H, W)`.
/// `moves`, `(B, 3)`, holds the pixels down and to the right, and 1 for a mirrored image;
/// the numbers are bits of `i32`.
pub(crate) fn images(
    pixels: &Tensor,
    index: &Tensor,
    moves: Option<&Tensor>,
    shape: [usize; 3],
) -> Result<Tensor> {
    let gpu = Gpu::of(pixels.device())?;
    let [channels, height, width] = shape;
    let out = gpu.empty::<f32>((index.dim(0)?, channels, height, width))?;
    let count = out.elem_count();
    let moves = moves.map(|moves| gpu.address_of(moves, DType::U32));
    launch!(gpu, images, elements(count);
        gpu.address_of(pixels, DType::U8)?, gpu.address_of(index, DType::U32)?,
        moves.transpose()?.unwrap_or(0), gpu.address(&out)?, channels as u32, height as u32, width as u32, count as u64);
    Ok(out)
}

/// `(x − mean) / deviation` for each channel of `(B, C, …)`.
pub(crate) fn standardise(x: &Tensor, mean: &Tensor, deviation: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let x = x.contiguous()?;
    let (channels, count) = (x.dim(1)?, x.elem_count());
    let plane = count / (x.dim(0)? * channels).max(1);
    let out = gpu.empty::<f32>(x.shape())?;
    launch!(gpu, standardise, elements(count);
        gpu.address(&x)?, gpu.address(mean)?, gpu.address(deviation)?, gpu.address(&out)?,
        channels as u32, plane.max(1) as u32, count as u64);
    Ok(out)
}
