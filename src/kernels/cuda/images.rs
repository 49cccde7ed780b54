//! Convolutions and statistics of images.

use candle_core::cuda::cudarc::driver::{DeviceRepr, LaunchConfig};
use candle_core::{DType, Tensor};

use super::{blocks, elements, launch, Gpu, Rows};
use crate::error::Result;
use crate::kernels::sizes::Sizes;

/// The largest number of numbers in the fields of the images that are processed together.
const AT_ONCE: usize = 1 << 26;

impl Sizes {
    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// The first image and the number of images that are processed together.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        let rows = self.rows;
        let of_image = (self.numbers() + self.units) * self.plane();
        let together = (AT_ONCE / of_image.max(1)).clamp(1, rows.max(1));
        (0..rows)
            .step_by(together)
            .map(move |first| (first, together.min(rows - first)))
    }
}

/// A matrix `(R, D)` that is stored in `memory`.
fn matrix(gpu: &Gpu, memory: &Tensor, rows: usize, width: usize) -> Result<Rows> {
    Ok(Rows {
        address: gpu.address(memory)?,
        rows,
        width,
        stride: width,
        _copy: memory.clone(),
    })
}

impl Gpu {
    /// The fields of `count` images from `first` on, `(C·K·K, pixels)`.
    fn fields(&self, x: &Tensor, sizes: &Sizes, (first, count): (usize, usize)) -> Result<Rows> {
        let (numbers, pixels) = (sizes.numbers(), count * sizes.plane());
        let fields = self.empty::<f32>((numbers, pixels))?;
        let start = first * sizes.inputs * sizes.plane() * size_of::<f32>();
        let config = LaunchConfig {
            grid_dim: (
                pixels.div_ceil(256).max(1) as u32,
                numbers.clamp(1, 1024) as u32,
                1,
            ),
            block_dim: (256, 1, 1),
            shared_mem_bytes: 0,
        };
        launch!(self, fields, config;
            self.address(x)? + start as u64, self.address(&fields)?, count as u32,
            sizes.inputs as u32, sizes.height as u32, sizes.width as u32, sizes.field as u32);
        matrix(self, &fields, numbers, pixels)
    }
}

/// `pool(x ∗ W)`, and for each output which pixel of its pool was the largest, if there
/// are pools. `weight` is `(N, C, K, K)`.
pub(crate) fn convolve(
    x: &Tensor,
    weight: &Tensor,
    sizes: &Sizes,
) -> Result<(Tensor, Option<Tensor>)> {
    let gpu = Gpu::of(x.device())?;
    let x = x.contiguous()?;
    let weight = matrix(&gpu, weight, sizes.units, sizes.numbers())?;
    let (height, width) = (sizes.height / sizes.pool, sizes.width / sizes.pool);
    let shape = (sizes.rows, sizes.units, height, width);
    let out = gpu.empty::<f32>(shape)?;
    let choice = match sizes.pool {
        1 => None,
        _ => Some(gpu.empty::<u8>(shape)?),
    };
    for (first, count) in sizes.pieces() {
        let fields = gpu.fields(&x, sizes, (first, count))?;
        let tile = gpu.empty::<f32>((sizes.units, fields.width))?;
        let place = (gpu.address(&tile)?, fields.width);
        gpu.multiply((&weight, false), (&fields, false), place, 0., 1.)?;
        let start = first * sizes.out_image();
        let of_choice = match &choice {
            Some(choice) => gpu.address_of(choice, DType::U8)? + start as u64,
            None => 0,
        };
        launch!(gpu, pool, elements(count * sizes.out_image());
            place.0, gpu.address(&out)? + (start * size_of::<f32>()) as u64, of_choice,
            count as u32, sizes.units as u32, sizes.height as u32, sizes.width as u32,
            sizes.pool as u32);
    }
    Ok((out, choice))
}

/// The gradient of the kernel, `(N, C·K·K)`, given that of the output.
pub(crate) fn kernel_gradient(
    x: &Tensor,
    delta: &Tensor,
    choice: Option<&Tensor>,
    sizes: &Sizes,
) -> Result<Tensor> {
    let gpu = Gpu::of(x.device())?;
    let (x, delta) = (x.contiguous()?, delta.contiguous()?);
    let sum = gpu.empty::<f32>((sizes.units, sizes.numbers()))?;
    for (first, count) in sizes.pieces() {
        let fields = gpu.fields(&x, sizes, (first, count))?;
        let tile = gpu.empty::<f32>((sizes.units, fields.width))?;
        let start = first * sizes.out_image();
        let of_choice = match choice {
            Some(choice) => gpu.address_of(choice, DType::U8)? + start as u64,
            None => 0,
        };
        launch!(gpu, spread, elements(sizes.units * fields.width);
            gpu.address(&delta)? + (start * size_of::<f32>()) as u64, of_choice,
            gpu.address(&tile)?, count as u32, sizes.units as u32, sizes.height as u32,
            sizes.width as u32, sizes.pool as u32);
        let tile = matrix(&gpu, &tile, sizes.units, fields.width)?;
        let keep = if first == 0 { 0. } else { 1. };
        let place = (gpu.address(&sum)?, sizes.numbers());
        gpu.multiply((&tile, false), (&fields, true), place, keep, 1.)?;
    }
    Ok(sum)
}

/// Planes that are summed up in groups: those of a row, or those of a channel.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Planes {
    rows: u32,
    channels: u32,
    size: u32,
    by_row: u32,
}

// SAFETY: plain numbers, laid out as in `kernels.cu`.
unsafe impl DeviceRepr for Planes {}

impl Planes {
    /// The planes of `(R, N, …)`.
    pub fn of(x: &Tensor, by_row: bool) -> Result<Self> {
        let (rows, channels) = (x.dim(0)?, x.dim(1)?);
        Ok(Self {
            rows: rows as u32,
            channels: channels as u32,
            size: (x.elem_count() / (rows * channels).max(1)) as u32,
            by_row: u32::from(by_row),
        })
    }

    fn groups(&self) -> usize {
        if self.by_row == 1 {
            self.rows as usize
        } else {
            self.channels as usize
        }
    }
}

/// Threads of a block that sums up a group.
const OF_GROUP: u32 = 512;

/// Mean and variance of each group.
pub(crate) fn moments(x: &Tensor, planes: Planes) -> Result<[Tensor; 2]> {
    let (gpu, x) = (Gpu::of(x.device())?, x.contiguous()?);
    let groups = planes.groups();
    let (mean, variance) = (gpu.empty::<f32>(groups)?, gpu.empty::<f32>(groups)?);
    launch!(gpu, moments, blocks(groups, 1, OF_GROUP);
        gpu.address(&x)?, gpu.address(&mean)?, gpu.address(&variance)?, planes);
    Ok([mean, variance])
}

/// The sum of each group.
pub(crate) fn plane_sums(x: &Tensor, planes: Planes) -> Result<Tensor> {
    let (gpu, x) = (Gpu::of(x.device())?, x.contiguous()?);
    let sums = gpu.empty::<f32>(planes.groups())?;
    launch!(gpu, plane_sums, blocks(planes.groups(), 1, OF_GROUP);
        gpu.address(&x)?, 0u64, 0u64, 0u64, gpu.address(&sums)?, planes, 0f32);
    Ok(sums)
}

pub(crate) fn standardised_relu(
    x: &Tensor,
    moments: Option<[&Tensor; 2]>,
    bias: &Tensor,
    planes: Planes,
    (epsilon, slope): (f64, f64),
) -> Result<Tensor> {
    let (gpu, x) = (Gpu::of(x.device())?, x.contiguous()?);
    let out = gpu.empty::<f32>(x.shape())?;
    let count = x.elem_count();
    launch!(gpu, standardised_relu, elements(count);
        gpu.address(&x)?, gpu.address_or_null(moments.map(|[mean, _]| mean))?,
        gpu.address_or_null(moments.map(|[_, variance]| variance))?, gpu.address(bias)?,
        gpu.address(&out)?, planes, epsilon as f32, slope as f32, count as u64);
    Ok(out)
}

/// The gradient through a standardisation by the moments `[mean, variance]`.
pub(crate) fn moments_gradient(
    x: &Tensor,
    delta: &Tensor,
    [mean, variance]: [&Tensor; 2],
    fixed: bool,
    planes: Planes,
    epsilon: f64,
) -> Result<Tensor> {
    let (gpu, x, delta) = (Gpu::of(x.device())?, x.contiguous()?, delta.contiguous()?);
    let means = match fixed {
        true => None,
        false => Some(gpu.empty::<f32>(2 * planes.groups())?),
    };
    if let Some(means) = &means {
        launch!(gpu, plane_sums, blocks(planes.groups(), 1, OF_GROUP);
            gpu.address(&delta)?, gpu.address(&x)?, gpu.address(mean)?,
            gpu.address(variance)?, gpu.address(means)?, planes, epsilon as f32);
    }
    let out = gpu.empty::<f32>(x.shape())?;
    let count = x.elem_count();
    launch!(gpu, moments_gradient, elements(count);
        gpu.address(&x)?, gpu.address(&delta)?, gpu.address(mean)?, gpu.address(variance)?,
        gpu.address_or_null(means.as_ref())?, gpu.address(&out)?, planes, epsilon as f32,
        count as u64);
    Ok(out)
}

/// The means of cells of `down` by `across` pixels: `(R, N, H, W)` to
/// `(R, N, H/down, W/across)`.
pub(crate) fn cell_means(x: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    let (gpu, x) = (Gpu::of(x.device())?, x.contiguous()?);
    let (rows, channels, height, width) = x.dims4()?;
    let out = gpu.empty::<f32>((rows, channels, height / down, width / across))?;
    let count = out.elem_count();
    launch!(gpu, cells, elements(count);
        gpu.address(&x)?, gpu.address(&out)?, height as u32, width as u32, down as u32,
        across as u32, count as u64);
    Ok(out)
}

/// The gradient of [`cell_means`] with respect to its input.
pub(crate) fn cell_means_gradient(gradient: &Tensor, [down, across]: [usize; 2]) -> Result<Tensor> {
    let (gpu, gradient) = (Gpu::of(gradient.device())?, gradient.contiguous()?);
    let (rows, channels, height, width) = gradient.dims4()?;
    let (height, width) = (height * down, width * across);
    let out = gpu.empty::<f32>((rows, channels, height, width))?;
    let count = out.elem_count();
    launch!(gpu, from_cells, elements(count);
        gpu.address(&gradient)?, gpu.address(&out)?, height as u32, width as u32,
        down as u32, across as u32, count as u64);
    Ok(out)
}
