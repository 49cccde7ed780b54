//! Fields with few units at a place, where a matrix product would be too narrow to be fast and gathering the fields would
//! take longer than multiplying them.
//!
//! The batch is what is computed side by side: with the images transposed, so that the rows of one number lie together, a
//! field's number is a vector, loaded once for up to three units. Neighbouring fields share most of their numbers; the
//! order of the loops keeps these in the cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Fields;
use crate::ops::Rows;

/// Up to how many units at a place are few. For fields of 11×11 in six channels, gathering them and multiplying takes nine
/// times as long with 3 units, and twice as long with 16.
pub(super) const MOST_UNITS: usize = 16;

/// Rows come in multiples of the longest vectors there are.
const LANES: usize = 16;

/// Units, vectors or numbers of a field that are kept in registers at a time: 3·3 sums, and what they are made of.
const BLOCK: usize = 3;

/// A matrix transposed: `data[number·padded + row]`, rows padded with zeros, and behind the last number one of zeros.
pub(super) struct Transposed {
    data: Vec<f32>,
    padded: usize,
}

impl Transposed {
    pub fn new(matrix: &Rows<'_>) -> Self {
        let padded = matrix.rows.next_multiple_of(LANES);
        let mut data = vec![0f32; (matrix.width + 1) * padded];
        data.par_chunks_mut(LANES * padded).enumerate().for_each(|(tile, out)| {
            let first = tile * LANES;
            let count = (matrix.width - first.min(matrix.width)).min(LANES);
            for row in 0..matrix.rows {
                let numbers = &matrix.row(row)[first..][..count];
                out[row..].iter_mut().step_by(padded).zip(numbers).for_each(|(out, number)| *out = *number);
            }
        });
        Self { data, padded }
    }
}

/// The sums of all fields of all rows, `(R, N, L)`, each handed through `finish(n·L + l, sum)`.
pub(super) fn forward(
    fields: &Fields,
    images: &Rows<'_>,
    weight: &[f32],
    units: usize,
    finish: impl Fn(usize, f32) -> f32 + Sync,
) -> Vec<f32> {
    let (images, rows) = (Transposed::new(images), images.rows);
    let (locations, padded) = (fields.locations(), images.padded);
    let mut sums = vec![0f32; locations * units * padded];
    let per_row = fields.grid[1] * units * padded;
    sums.par_chunks_exact_mut(per_row).enumerate().for_each(|(grid_row, out)| {
        Arch::new().dispatch(Forward { fields, grid_row, images: &images, weight, units, out });
    });
    let width = units * locations;
    let mut back = vec![0f32; rows * width];
    back.par_chunks_mut(LANES * width).enumerate().for_each(|(tile, out)| {
        for unit in 0..units {
            for location in 0..locations {
                let column = unit * locations + location;
                let sums = &sums[(location * units + unit) * padded + tile * LANES..];
                let out = out[column..].iter_mut().step_by(width);
                out.zip(sums).for_each(|(out, sum)| *out = finish(column, *sum));
            }
        }
    });
    back
}

/// The gradient of the weight, `(L, F, N)`; `delta` is `(R, N, L)`.
pub(super) fn gradient(fields: &Fields, images: &Rows<'_>, delta: &Rows<'_>, units: usize) -> Vec<f32> {
    let [images, delta] = [images, delta].map(Transposed::new);
    let size = fields.numbers() * units;
    let mut gradient = vec![0f32; fields.locations() * size];
    gradient.par_chunks_exact_mut(fields.grid[1] * size).enumerate().for_each(|(grid_row, out)| {
        Arch::new().dispatch(Gradient { fields, grid_row, images: &images, delta: &delta, units, out });
    });
    gradient
}

/// The sums of the locations of one row of the grid, `(grid_w, N, padded)`.
struct Forward<'a> {
    fields: &'a Fields,
    grid_row: usize,
    images: &'a Transposed,
    weight: &'a [f32],
    units: usize,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let images = S::as_simd_f32s(&self.images.data).0;
        let out = S::as_mut_simd_f32s(self.out).0;
        let (vectors, numbers) = (self.images.padded / S::F32_LANES, self.fields.numbers());
        for first in (0..vectors).step_by(BLOCK) {
            for column in 0..self.fields.grid[1] {
                let location = self.grid_row * self.fields.grid[1] + column;
                let index = &self.fields.index[location * numbers..][..numbers];
                let weight = &self.weight[location * numbers * self.units..][..numbers * self.units];
                for unit in (0..self.units).step_by(BLOCK) {
                    let (images, left, units) = (&images[first..], vectors - first, self.units);
                    let sums = Sums { simd, images, vectors, left, index, weight, units, unit };
                    let out = &mut out[(column * self.units + unit) * vectors + first..];
                    match self.units - unit {
                        1 => sums.write::<1>(out),
                        2 => sums.write::<2>(out),
                        _ => sums.write::<BLOCK>(out),
                    }
                }
            }
        }
    }
}

/// What the sums of one location are made of.
struct Sums<'a, S: Simd> {
    simd: S,
    /// From the first vector of rows on; those of one number are `vectors` long, of which `left` are to be done.
    images: &'a [S::f32s],
    vectors: usize,
    left: usize,
    index: &'a [u32],
    weight: &'a [f32],
    units: usize,
    unit: usize,
}

impl<S: Simd> Sums<'_, S> {
    /// Those of `U` units, and of as many vectors of rows as are left.
    #[inline(always)]
    fn write<const U: usize>(&self, out: &mut [S::f32s]) {
        match self.left {
            1 => self.of_vectors::<U, 1>(out),
            2 => self.of_vectors::<U, 2>(out),
            _ => self.of_vectors::<U, BLOCK>(out),
        }
    }

    #[inline(always)]
    fn of_vectors<const U: usize, const V: usize>(&self, out: &mut [S::f32s]) {
        let simd = self.simd;
        let mut sums = [[simd.splat_f32s(0.); V]; U];
        for (&at, weight) in self.index.iter().zip(self.weight.chunks_exact(self.units)) {
            let numbers = &self.images[at as usize * self.vectors..][..V];
            let weight = &weight[self.unit..][..U];
            for u in 0..U {
                let weight = simd.splat_f32s(weight[u]);
                for v in 0..V {
                    sums[u][v] = simd.mul_add_f32s(weight, numbers[v], sums[u][v]);
                }
            }
        }
        for (u, sums) in sums.iter().enumerate() {
            out[u * self.vectors..][..V].copy_from_slice(sums);
        }
    }
}

/// The gradients of the locations of one row of the grid, `(grid_w, F, N)`.
struct Gradient<'a> {
    fields: &'a Fields,
    grid_row: usize,
    images: &'a Transposed,
    delta: &'a Transposed,
    units: usize,
    out: &'a mut [f32],
}

impl WithSimd for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let images = S::as_simd_f32s(&self.images.data).0;
        let delta = S::as_simd_f32s(&self.delta.data).0;
        let (vectors, numbers) = (self.images.padded / S::F32_LANES, self.fields.numbers());
        let (locations, per_channel) = (self.fields.locations(), self.fields.field * self.fields.field);
        for start in (0..numbers).step_by(per_channel) {
            for column in 0..self.fields.grid[1] {
                let location = self.grid_row * self.fields.grid[1] + column;
                let index = &self.fields.index[location * numbers + start..][..per_channel];
                let out = &mut self.out[(column * numbers + start) * self.units..][..per_channel * self.units];
                for (index, out) in index.chunks(BLOCK).zip(out.chunks_mut(BLOCK * self.units)) {
                    for unit in (0..self.units).step_by(BLOCK) {
                        let delta = &delta[(unit * locations + location) * vectors..];
                        let dots = Dots { simd, images, delta, vectors, between: locations * vectors };
                        let out = &mut out[unit..];
                        match self.units - unit {
                            1 => dots.write::<1>(index, self.units, out),
                            2 => dots.write::<2>(index, self.units, out),
                            _ => dots.write::<BLOCK>(index, self.units, out),
                        }
                    }
                }
            }
        }
    }
}

/// Sums over the rows of the batch.
struct Dots<'a, S: Simd> {
    simd: S,
    images: &'a [S::f32s],
    /// That of the first unit; the next is `between` vectors further.
    delta: &'a [S::f32s],
    vectors: usize,
    between: usize,
}

impl<S: Simd> Dots<'_, S> {
    /// Those of the numbers at `index`, at most [`BLOCK`] of them, with `U` units.
    #[inline(always)]
    fn write<const U: usize>(&self, index: &[u32], units: usize, out: &mut [f32]) {
        match *index {
            [a] => self.of_numbers::<U, 1>([a], units, out),
            [a, b] => self.of_numbers::<U, 2>([a, b], units, out),
            [a, b, c, ..] => self.of_numbers::<U, BLOCK>([a, b, c], units, out),
            [] => (),
        }
    }

    #[inline(always)]
    fn of_numbers<const U: usize, const G: usize>(&self, index: [u32; G], units: usize, out: &mut [f32]) {
        let simd = self.simd;
        let images = index.map(|at| &self.images[at as usize * self.vectors..][..self.vectors]);
        let delta: [_; U] = std::array::from_fn(|unit| &self.delta[unit * self.between..][..self.vectors]);
        let mut sums = [[simd.splat_f32s(0.); U]; G];
        for v in 0..self.vectors {
            let delta = delta.map(|delta| delta[v]);
            for g in 0..G {
                let number = images[g][v];
                for u in 0..U {
                    sums[g][u] = simd.mul_add_f32s(number, delta[u], sums[g][u]);
                }
            }
        }
        for (g, sums) in sums.iter().enumerate() {
            for (u, sum) in sums.iter().enumerate() {
                out[g * units + u] = simd.reduce_sum_f32s(*sum);
            }
        }
    }
}
