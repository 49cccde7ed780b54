//! Updates of variables and sums in place.

use candle_core::cuda::cudarc::driver::LaunchConfig;
use candle_core::{DType, Tensor};

use super::{blocks, elements, launch, Gpu};
use crate::error::Result;

/// The coefficients of an SGD step: `v ← keep·v + fresh·g`, `w ← shrink·w − rate·v`.
#[derive(Clone, Copy)]
pub(crate) struct Sgd {
    pub keep: f64,
    pub fresh: f64,
    pub rate: f64,
    pub shrink: f64,
}

/// One SGD step. Without a gradient, the velocity already holds it.
pub(crate) fn sgd(
    weight: &Tensor,
    velocity: &Tensor,
    gradient: Option<&Tensor>,
    by: Sgd,
) -> Result<()> {
    let gpu = Gpu::of(weight.device())?;
    let gradient = gradient.map(Tensor::contiguous).transpose()?;
    let count = weight.elem_count();
    launch!(gpu, sgd, elements(count);
        gpu.address(weight)?, gpu.address(velocity)?, gpu.address_or_null(gradient.as_ref())?,
        by.keep as f32, by.fresh as f32, by.rate as f32, by.shrink as f32, count as u64);
    Ok(())
}

/// One SGD step of a bias, whose gradient is the sum of the rows of `delta`.
pub(crate) fn sgd_columns(
    weight: &Tensor,
    velocity: &Tensor,
    delta: &Tensor,
    by: Sgd,
) -> Result<()> {
    let gpu = Gpu::of(weight.device())?;
    let rows = gpu.rows(delta)?;
    if rows.rows > super::forms::PIECE {
        // One block for 32 columns would be slow.
        let sums = super::column_sums(delta, rows.rows, 1.)?;
        return sgd(weight, velocity, Some(&sums), by);
    }
    let config = LaunchConfig {
        grid_dim: (rows.width.div_ceil(32).max(1) as u32, 1, 1),
        block_dim: (32, 32, 1),
        shared_mem_bytes: 0,
    };
    launch!(gpu, sgd_columns, config;
        gpu.address(weight)?, gpu.address(velocity)?, rows.address, rows.rows as u32,
        rows.width as u32, rows.stride as u32, by.keep as f32, by.fresh as f32,
        by.rate as f32, by.shrink as f32);
    Ok(())
}

/// The coefficients of an Adam step; see the CPU's form.
#[derive(Clone, Copy)]
pub(crate) struct Adam {
    pub betas: [f64; 2],
    pub epsilon: f64,
    pub rate: f64,
    pub root: f64,
    pub shrink: f64,
}

/// One Adam step with `moments`, the first and the second.
pub(crate) fn adam(
    weight: &Tensor,
    moments: [&Tensor; 2],
    gradient: &Tensor,
    by: Adam,
) -> Result<()> {
    let gpu = Gpu::of(weight.device())?;
    let gradient = gradient.contiguous()?;
    let count = weight.elem_count();
    let [[keep1, fresh1], [keep2, fresh2]] = by.betas.map(|beta| [beta as f32, (1. - beta) as f32]);
    launch!(gpu, adam, elements(count);
        gpu.address(weight)?, gpu.address(moments[0])?, gpu.address(moments[1])?,
        gpu.address(&gradient)?, keep1, fresh1, keep2, fresh2, by.rate as f32,
        by.root as f32, by.epsilon as f32, by.shrink as f32, count as u64);
    Ok(())
}

/// Computes `sum ← keep·sum + factor·valuesᵀ·delta` of one-hot values in place, in the
/// rows of `sum` from `first` on. `index` is `(R, K)`, `delta` `(R, N)`.
pub(crate) fn scatter(
    (sum, first): (&Tensor, usize),
    (index, classes): (&Tensor, usize),
    delta: &Tensor,
    keep: f64,
    factor: f64,
) -> Result<()> {
    let gpu = Gpu::of(sum.device())?;
    let (index, delta, units) = (index.contiguous()?, gpu.rows(delta)?, sum.dim(1)?);
    let slots = index.dim(1)?;
    let place = gpu.address(sum)? + (first * units * size_of::<f32>()) as u64;
    if slots * classes == 0 {
        return Ok(());
    }
    launch!(gpu, scatter, blocks(slots * classes, units.div_ceil(256), 256);
        place, gpu.address_of(&index, DType::U32)?, delta.address, keep as f32, factor as f32,
        delta.rows as u32, slots as u32, classes as u32, units as u32, delta.stride as u32);
    Ok(())
}

/// Multiplies `count` rows of `x` from `first` on by `factor`, in place; 0 also clears
/// NaN.
pub(crate) fn scale(x: &Tensor, first: usize, count: usize, factor: f64) -> Result<()> {
    let gpu = Gpu::of(x.device())?;
    let width = x.elem_count() / x.dim(0)?.max(1);
    let place = gpu.address(x)? + (first * width * size_of::<f32>()) as u64;
    launch!(gpu, scale, elements(count * width);
        place, factor as f32, (count * width) as u64);
    Ok(())
}

/// Computes `sum ← sum + factor·x` in place.
pub(crate) fn add_to(sum: &Tensor, x: &Tensor, factor: f64) -> Result<()> {
    let gpu = Gpu::of(sum.device())?;
    let (x, count) = (x.contiguous()?, sum.elem_count());
    launch!(gpu, add_to, elements(count);
        gpu.address(sum)?, gpu.address(&x)?, factor as f32, count as u64);
    Ok(())
}
