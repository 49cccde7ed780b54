//! Tiles of a convolution: the pixels that one product is for, and pools of its result.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::kernels::sizes::Sizes;
use crate::kernels::{fresh_pieces, is_fast, with_values, Loop};

/// The number of pixels whose fields are gathered at a time: enough for the product to
/// run at full speed.
const TILE: usize = 512;

impl Sizes {
    /// The number of images that are processed together.
    pub fn together(&self) -> usize {
        (TILE / (self.height * self.width).max(1)).clamp(1, self.rows.max(1))
    }

    /// The number of pixel rows that are processed together, a multiple of the pool.
    pub fn band(&self) -> usize {
        let (rows, _) = self.out();
        let bands = (self.height * self.width)
            .div_ceil(TILE + TILE / 4)
            .clamp(1, rows.max(1));
        rows.div_ceil(bands).max(1) * self.pool
    }

    /// The bands of pixel rows, as first row and count. Rows beyond the last whole pool
    /// are left out.
    pub fn bands(&self) -> impl Iterator<Item = (usize, usize)> {
        let (band, end) = (self.band(), self.height / self.pool * self.pool);
        (0..end.div_ceil(band)).map(move |index| (index * band, band.min(end - index * band)))
    }

    /// Writes the maxima of a tile `(N, pixels)` of some rows to their positions in
    /// `out`, `(images, N, …)`.
    pub fn pool(
        &self,
        tile: &[f32],
        (first, count): (usize, usize),
        out: &mut [f32],
        choice: &mut [u8],
    ) {
        let (width, pool) = (self.width, self.pool);
        let pixels = tile.len() / self.units;
        let (_, columns) = self.out();
        let (of_image, of_unit) = (self.out_image(), self.out_image() / self.units.max(1));
        for (image, image_tile) in
            (0..pixels / (count * width)).map(|image| (image, image * count * width))
        {
            for unit in 0..self.units {
                let lines = &tile[unit * pixels + image_tile..][..count * width];
                let place = image * of_image + unit * of_unit + first / pool * columns;
                let out = &mut out[place..][..count / pool * columns];
                if pool == 1 {
                    out.copy_from_slice(lines);
                    continue;
                }
                let choice = &mut choice[place..][..count / pool * columns];
                let maxima = Maxima {
                    lines,
                    width,
                    pool,
                    out,
                    choice,
                    columns,
                };
                maxima.wide();
            }
        }
    }

    /// The reverse of `pool`: the gradient `delta` of the output at the pixels that were
    /// the largest, zero elsewhere.
    pub fn spread(
        &self,
        delta: &[f32],
        choice: &[u8],
        (first, count): (usize, usize),
        tile: &mut Vec<f32>,
    ) {
        let (width, pool) = (self.width, self.pool);
        let (of_image, of_unit) = (self.out_image(), self.out_image() / self.units.max(1));
        let images = delta.len() / of_image.max(1);
        let pixels = images * count * width;
        let (_, columns) = self.out();
        tile.resize(self.units * pixels, 0.);
        for image in 0..images {
            for unit in 0..self.units {
                let lines = &mut tile[unit * pixels + image * count * width..][..count * width];
                let place = image * of_image + unit * of_unit + first / pool * columns;
                let delta = &delta[place..][..count / pool * columns];
                if pool == 1 {
                    lines.copy_from_slice(delta);
                    continue;
                }
                let choice = &choice[place..][..count / pool * columns];
                let spread = Spread {
                    delta,
                    choice,
                    columns,
                    pool,
                    lines,
                    width,
                };
                spread.wide();
            }
        }
    }
}

/// Finds the maxima of the pools of a map, and their places.
struct Maxima<'a> {
    lines: &'a [f32],
    width: usize,
    pool: usize,
    out: &'a mut [f32],
    choice: &'a mut [u8],
    columns: usize,
}

impl Loop for Maxima<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { width, pool, .. } = self;
        let outs = self.out.chunks_exact_mut(self.columns);
        let choices = self.choice.chunks_exact_mut(self.columns);
        let rows = self.lines.chunks_exact(width * pool);
        for (lines, (out, choice)) in rows.zip(outs.zip(choices)) {
            if pool == 2 {
                let (upper, lower) = lines.split_at(width);
                let pools = upper.chunks_exact(2).zip(lower.chunks_exact(2));
                for ((out, choice), (upper, lower)) in out.iter_mut().zip(choice).zip(pools) {
                    // Of 32 bits, as the numbers are, so that vectors hold as many of both.
                    let (mut best, mut place) = (upper[0], 0u32);
                    for (index, value) in [(1, upper[1]), (2, lower[0]), (3, lower[1])] {
                        // NaN wins, so that it is detected later.
                        let larger = value > best || value.is_nan();
                        best = if larger { value } else { best };
                        place = if larger { index } else { place };
                    }
                    (*out, *choice) = (best, place as u8);
                }
                continue;
            }
            out.fill(f32::NEG_INFINITY);
            choice.fill(0);
            for index in 0..pool * pool {
                let line = &lines[index / pool * width..][..width];
                let line = line[index % pool..].iter().step_by(pool);
                for ((out, choice), &value) in out.iter_mut().zip(choice.iter_mut()).zip(line) {
                    let larger = value > *out || value.is_nan();
                    *out = if larger { value } else { *out };
                    *choice = if larger { index as u8 } else { *choice };
                }
            }
        }
    }
}

/// Writes numbers to the places of the maxima of their pools, and zeros elsewhere.
struct Spread<'a> {
    delta: &'a [f32],
    choice: &'a [u8],
    columns: usize,
    pool: usize,
    lines: &'a mut [f32],
    width: usize,
}

impl Loop for Spread<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { width, pool, .. } = self;
        let deltas = self.delta.chunks_exact(self.columns);
        let choices = self.choice.chunks_exact(self.columns);
        let rows = self.lines.chunks_exact_mut(width * pool);
        for (lines, (delta, choice)) in rows.zip(deltas.zip(choices)) {
            if pool == 2 && width % 2 == 0 {
                let (upper, lower) = lines.split_at_mut(width);
                let pools = upper.chunks_exact_mut(2).zip(lower.chunks_exact_mut(2));
                for ((&delta, &choice), (upper, lower)) in delta.iter().zip(choice).zip(pools) {
                    let at = |place| if choice == place { delta } else { 0. };
                    upper.copy_from_slice(&[at(0), at(1)]);
                    lower.copy_from_slice(&[at(2), at(3)]);
                }
                continue;
            }
            lines.fill(0.);
            for (column, (&delta, &choice)) in delta.iter().zip(choice).enumerate() {
                let (down, right) = (usize::from(choice) / pool, usize::from(choice) % pool);
                lines[down * width + column * pool + right] = delta;
            }
        }
    }
}

/// The pixels of each pool, `(R, N, H/P, W/P, P·P)`; pixels beyond the last whole pool
/// are left out.
pub(super) fn pools(full: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let ((height, width), pool) = (sizes.out(), sizes.pool);
    let reached = full
        .narrow(2, 0, height * pool)?
        .narrow(3, 0, width * pool)?
        .contiguous()?;
    let reached = reached.reshape(vec![sizes.rows, sizes.units, height, pool, width, pool])?;
    Ok(reached.transpose(3, 4)?.contiguous()?.reshape((
        sizes.rows,
        sizes.units,
        height,
        width,
        pool * pool,
    ))?)
}

/// The plain form of `pool`, with candle's operations.
pub(super) fn plain_pool(full: &Tensor, sizes: &Sizes) -> Result<(Tensor, Vec<u8>)> {
    if sizes.pool == 1 {
        return Ok((full.clone(), Vec::new()));
    }
    let pools = pools(full, sizes)?;
    let choice = match pools.elem_count() {
        0 => Vec::new(),
        _ => pools.argmax(4)?.flatten_all()?.to_vec1::<u32>()?,
    };
    let choice = choice.into_iter().map(|index| index as u8).collect();
    Ok((largest(&pools)?, choice))
}

/// The largest number of each pool. Without pools the result is empty.
pub(super) fn largest(pools: &Tensor) -> Result<Tensor> {
    Ok(match pools.elem_count() {
        0 => pools.narrow(4, 0, 1)?.squeeze(4)?,
        _ => pools.max(4)?,
    })
}

/// The gradient of the pooled output at the pixels that were the largest of their pools,
/// `(R, N, H, W)`; zero elsewhere.
pub(super) fn spread(delta: &Tensor, choices: &[u8], sizes: &Sizes) -> Result<Tensor> {
    if !is_fast(delta) || sizes.pool == 1 {
        return plain_spread(delta, choices, sizes);
    }
    let (plane, rows) = (sizes.height * sizes.width, sizes.out().0 * sizes.pool);
    let (image, out_image) = (sizes.units * plane, sizes.out_image().max(1));
    let images = with_values(delta, |delta| {
        let deltas = delta
            .par_chunks(out_image)
            .zip(choices.par_chunks(out_image));
        let write = |band: &mut Vec<f32>, image: &mut [f32], (delta, choice): (&[f32], &[u8])| {
            sizes.spread(delta, choice, (0, rows), band);
            let lines = band.chunks_exact(rows * sizes.width);
            for (image, band) in image.chunks_exact_mut(plane).zip(lines) {
                image[..band.len()].copy_from_slice(band);
            }
        };
        fresh_pieces(sizes.rows * image, image, deltas, Vec::new, write)
    })?;
    let shape = (sizes.rows, sizes.units, sizes.height, sizes.width);
    Ok(Tensor::from_vec(images, shape, delta.device())?)
}

/// The plain form of `spread`, with candle's operations.
pub(super) fn plain_spread(delta: &Tensor, choice: &[u8], sizes: &Sizes) -> Result<Tensor> {
    if sizes.pool == 1 {
        return Ok(delta.contiguous()?);
    }
    let ((height, width), pool) = (sizes.out(), sizes.pool);
    let choice: Vec<u32> = choice.iter().map(|&index| u32::from(index)).collect();
    let index = Tensor::from_vec(
        choice,
        (sizes.rows, sizes.units, height, width, 1),
        delta.device(),
    )?;
    let shape = (sizes.rows, sizes.units, height, width, pool * pool);
    let zeros = Tensor::zeros(shape, delta.dtype(), delta.device())?;
    let spread = zeros.scatter_add(&index, &delta.contiguous()?.unsqueeze(4)?, 4)?;
    let spread = spread
        .reshape(vec![sizes.rows, sizes.units, height, width, pool, pool])?
        .transpose(3, 4)?;
    let spread =
        spread
            .contiguous()?
            .reshape((sizes.rows, sizes.units, height * pool, width * pool))?;
    let (below, beside) = (sizes.height - height * pool, sizes.width - width * pool);
    Ok(spread
        .pad_with_zeros(2, 0, below)?
        .pad_with_zeros(3, 0, beside)?
        .contiguous()?)
}
