//! Fields with few units at a location. A matrix product would be too narrow to be fast:
//! gathering the fields would take longer than multiplying them. For Hinton's network for
//! CIFAR-10, with three units at a location, this form takes 2.8 times as long as one
//! wide matrix product with as many operations. A narrow product takes several times
//! longer.
//!
//! Neighbouring locations of a grid row are computed together, each in a lane of a
//! vector. The same element of all their fields is contiguous in the image, so that it is
//! one load: see [`lanes`](super::lanes).
//!
//! Every sum has a fixed order, independent of the vector length and of the number of
//! threads.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::lanes::{Framed, Pieces, LANES, TILE};
use super::Fields;
use crate::kernels::{fresh_pieces, Rows};

/// The largest number of units at a location for this form: a matrix product would not
/// have more columns than a vector has lanes.
pub(super) const MOST_UNITS: usize = 16;

/// The number of units whose sums are in registers at a time.
const UNITS: usize = 3;

/// The number of examples, or of elements of a field, whose sums are in registers at a
/// time, if there are enough registers.
const BLOCK: usize = 6;

/// The number of examples per pass over a gradient, so that their data stay in the L1
/// cache.
const EXAMPLES: usize = 64;

/// The sums of the fields over channels from `first` on, `(pieces, R, N, LANES)`;
/// `weight` is [`turned`].
pub(super) fn forward(
    fields: &Fields,
    images: &Rows<'_>,
    weight: &[f32],
    first: usize,
    units: usize,
) -> Vec<f32> {
    let (framed, rows, pieces) = (Framed::new(fields, images), images.rows, Pieces::of(fields));
    let offsets = framed.offsets(fields.field);
    let per_channel = fields.area() * units * LANES;
    let size = fields.image[0] * per_channel;
    let of_piece = rows * units * LANES;
    let indices = (0..pieces.count()).into_par_iter();
    let no_state = || ();
    let count = pieces.count() * of_piece;
    fresh_pieces(count, of_piece, indices, no_state, |(), out, piece| {
        let weight = &weight[piece * size + first * per_channel..][..framed.channels * per_channel];
        let (framed, offsets) = (&framed, &offsets[..]);
        Arch::new().dispatch(Forward {
            framed,
            pieces,
            piece,
            offsets,
            weight,
            units,
            rows,
            out,
        });
    })
}

/// Adds `factor` times the gradient of the weight to `out`, `(L, F, N)`, for the channels
/// from `first` on; `delta` is `(R, N·L)`.
pub(super) fn gradient(
    fields: &Fields,
    images: &Rows<'_>,
    delta: &Rows<'_>,
    out: &mut [f32],
    first: usize,
    factor: f32,
) {
    let (framed, pieces) = (Framed::new(fields, images), Pieces::of(fields));
    let (offsets, locations) = (framed.offsets(fields.field), fields.locations());
    let (units, per_channel) = (delta.width / locations, fields.area());
    let size = fields.numbers() * units;
    out.par_chunks_exact_mut(fields.grid[1] * size)
        .enumerate()
        .for_each(|(line, out)| {
            let (mut deltas, mut sums) = (Vec::new(), Vec::new());
            for (place, piece) in (line * pieces.per_row..(line + 1) * pieces.per_row).enumerate() {
                let (location, count) = pieces.locations(piece);
                deltas.clear();
                deltas.resize(delta.rows * units * LANES, 0.);
                for (at, out) in deltas.chunks_exact_mut(LANES).enumerate() {
                    out[..count].copy_from_slice(
                        &delta.row(at / units)[at % units * locations + location..][..count],
                    );
                }
                sums.clear();
                sums.resize(framed.channels * per_channel * units * LANES, 0.);
                let (framed, offsets, field) = (&framed, &offsets[..], fields.field);
                Arch::new().dispatch(Gradient {
                    framed,
                    pieces,
                    piece,
                    offsets,
                    field,
                    delta: &deltas,
                    units,
                    out: &mut sums,
                });
                // Back to the order in which the weights of a location are contiguous.
                for (tile, sums) in sums.chunks(TILE * LANES).enumerate() {
                    for lane in 0..count {
                        let out = &mut out[(place * LANES + lane) * size
                            + first * per_channel * units
                            + tile * TILE..];
                        let sums = sums[lane..].iter().step_by(LANES);
                        out.iter_mut()
                            .zip(sums)
                            .for_each(|(out, sum)| *out += factor * sum);
                    }
                }
            }
        });
}

/// The first vector of a slice.
#[inline(always)]
fn load<S: Simd>(slice: &[f32]) -> S::f32s {
    S::as_simd_f32s(&slice[..S::F32_LANES]).0[0]
}

#[inline(always)]
fn store<S: Simd>(slice: &mut [f32], vector: S::f32s) {
    S::as_mut_simd_f32s(&mut slice[..S::F32_LANES]).0[0] = vector;
}

/// The number of sums of each unit that are in registers at a time.
fn block<S: Simd>() -> usize {
    if S::REGISTER_COUNT < 32 {
        BLOCK / 2
    } else {
        BLOCK
    }
}

/// The sums of a piece, `(R, N, LANES)`.
struct Forward<'a> {
    framed: &'a Framed,
    pieces: Pieces,
    piece: usize,
    offsets: &'a [usize],
    weight: &'a [f32],
    units: usize,
    rows: usize,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Channel by channel: its weights, and its pixels of a few rows, stay in the L1
        // cache.
        for (channel, weight) in self
            .weight
            .chunks_exact(self.offsets.len() * self.units * LANES)
            .enumerate()
        {
            for first in (0..self.rows).step_by(block::<S>()) {
                let count = (self.rows - first).min(block::<S>());
                for unit in (0..self.units).step_by(UNITS) {
                    for lane in (0..LANES).step_by(S::F32_LANES) {
                        let begin =
                            self.framed.begin(first, channel, self.pieces, self.piece) + lane;
                        let sums = Sums {
                            simd,
                            images: &self.framed.data[begin..],
                            per_image: self.framed.per_image(),
                            offsets: self.offsets,
                            weight: &weight[unit * LANES + lane..],
                            units: self.units,
                        };
                        let out = &mut self.out[(first * self.units + unit) * LANES + lane..];
                        match self.units - unit {
                            1 => sums.of_units::<1>(count, out),
                            2 => sums.of_units::<2>(count, out),
                            _ => sums.of_units::<UNITS>(count, out),
                        }
                    }
                }
            }
        }
    }
}

/// The operands of sums over a channel.
struct Sums<'a, S: Simd> {
    simd: S,
    /// Pixels, from the first of the rows on.
    images: &'a [f32],
    per_image: usize,
    offsets: &'a [usize],
    /// Weights, from the first of the units on.
    weight: &'a [f32],
    units: usize,
}

impl<S: Simd> Sums<'_, S> {
    #[inline(always)]
    fn of_units<const U: usize>(&self, rows: usize, out: &mut [f32]) {
        match rows {
            1 => self.add_to::<U, 1>(out),
            2 => self.add_to::<U, 2>(out),
            3 => self.add_to::<U, 3>(out),
            4 => self.add_to::<U, 4>(out),
            5 => self.add_to::<U, 5>(out),
            _ => self.add_to::<U, BLOCK>(out),
        }
    }

    #[inline(always)]
    fn add_to<const U: usize, const R: usize>(&self, out: &mut [f32]) {
        let simd = self.simd;
        let images: [&[f32]; R] = std::array::from_fn(|row| &self.images[row * self.per_image..]);
        let at = |row: usize, unit: usize| (row * self.units + unit) * LANES;
        let mut sums = [[simd.splat_f32s(0.); U]; R];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (unit, sum) in sums.iter_mut().enumerate() {
                *sum = load::<S>(&out[at(row, unit)..]);
            }
        }
        for (number, &offset) in self.offsets.iter().enumerate() {
            let weight: [_; U] = std::array::from_fn(|unit| {
                load::<S>(&self.weight[(number * self.units + unit) * LANES..])
            });
            for row in 0..R {
                let pixels = load::<S>(&images[row][offset..]);
                for unit in 0..U {
                    sums[row][unit] = simd.mul_add_f32s(weight[unit], pixels, sums[row][unit]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (unit, sum) in sums.iter().enumerate() {
                store::<S>(&mut out[at(row, unit)..], *sum);
            }
        }
    }
}

/// The gradient of the weights of a piece, `(F, N, LANES)`, added to `out`.
struct Gradient<'a> {
    framed: &'a Framed,
    pieces: Pieces,
    piece: usize,
    offsets: &'a [usize],
    field: usize,
    /// The output gradient, `(R, N, LANES)`.
    delta: &'a [f32],
    units: usize,
    out: &'a mut [f32],
}

impl WithSimd for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (per_row, per_channel) = (self.units * LANES, self.offsets.len() * self.units * LANES);
        for (chunk, delta) in self.delta.chunks(EXAMPLES * per_row).enumerate() {
            for (channel, out) in self.out.chunks_exact_mut(per_channel).enumerate() {
                let begin = self
                    .framed
                    .begin(chunk * EXAMPLES, channel, self.pieces, self.piece);
                let lines = self
                    .offsets
                    .chunks_exact(self.field)
                    .zip(out.chunks_exact_mut(self.field * per_row));
                for (offsets, out) in lines {
                    let numbers = offsets
                        .chunks(block::<S>())
                        .zip(out.chunks_mut(block::<S>() * per_row));
                    for (offsets, out) in numbers {
                        for unit in (0..self.units).step_by(UNITS) {
                            for lane in (0..LANES).step_by(S::F32_LANES) {
                                let dots = Dots {
                                    simd,
                                    images: &self.framed.data[begin + lane..],
                                    per_image: self.framed.per_image(),
                                    delta: &delta[unit * LANES + lane..],
                                    units: self.units,
                                };
                                let out = &mut out[unit * LANES + lane..];
                                match self.units - unit {
                                    1 => dots.of_units::<1>(offsets, out),
                                    2 => dots.of_units::<2>(offsets, out),
                                    _ => dots.of_units::<UNITS>(offsets, out),
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The operands of sums over examples.
struct Dots<'a, S: Simd> {
    simd: S,
    images: &'a [f32],
    per_image: usize,
    /// Output gradients, from the first of the units on.
    delta: &'a [f32],
    units: usize,
}

impl<S: Simd> Dots<'_, S> {
    #[inline(always)]
    fn of_units<const U: usize>(&self, offsets: &[usize], out: &mut [f32]) {
        match *offsets {
            [a] => self.add_to::<U, 1>([a], out),
            [a, b] => self.add_to::<U, 2>([a, b], out),
            [a, b, c] => self.add_to::<U, 3>([a, b, c], out),
            [a, b, c, d] => self.add_to::<U, 4>([a, b, c, d], out),
            [a, b, c, d, e] => self.add_to::<U, 5>([a, b, c, d, e], out),
            [a, b, c, d, e, f, ..] => self.add_to::<U, BLOCK>([a, b, c, d, e, f], out),
            [] => (),
        }
    }

    #[inline(always)]
    fn add_to<const U: usize, const G: usize>(&self, offsets: [usize; G], out: &mut [f32]) {
        let simd = self.simd;
        let at = |number: usize, unit: usize| (number * self.units + unit) * LANES;
        let mut sums = [[simd.splat_f32s(0.); U]; G];
        for (number, sums) in sums.iter_mut().enumerate() {
            for (unit, sum) in sums.iter_mut().enumerate() {
                *sum = load::<S>(&out[at(number, unit)..]);
            }
        }
        for (row, delta) in self.delta.chunks(self.units * LANES).enumerate() {
            let delta: [_; U] = std::array::from_fn(|unit| load::<S>(&delta[unit * LANES..]));
            let image = &self.images[row * self.per_image..];
            for number in 0..G {
                let pixels = load::<S>(&image[offsets[number]..]);
                for unit in 0..U {
                    sums[number][unit] = simd.mul_add_f32s(pixels, delta[unit], sums[number][unit]);
                }
            }
        }
        for (number, sums) in sums.iter().enumerate() {
            for (unit, sum) in sums.iter().enumerate() {
                store::<S>(&mut out[at(number, unit)..], *sum);
            }
        }
    }
}
