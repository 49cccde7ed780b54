//! Matrix products of numbers that are rounded to bfloat16, with sums in 32 bits.
//!
//! Both factors are rounded and packed into tiles: [`SIDE`] rows or columns, [`DEPTH`]
//! terms of the sums. Two kinds of processors multiply them: those with AMX, tile by
//! tile, and those with AVX-512 and its BF16, vector by vector. The bits of the two
//! differ, since they add in another order.
#![allow(unsafe_code)]
// Elsewhere there is no unit, and nothing of this is ever used.
#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;
mod unit;
#[cfg(target_arch = "x86_64")]
mod vectors;

use std::mem::MaybeUninit;

use rayon::prelude::*;

pub(super) use self::unit::{chosen, turn, unit, Unit};
use super::fields::Fields;
use super::gemm::Matrix;
use super::meter;

/// The rows of a left tile, and the columns of a right one.
const SIDE: usize = 16;
/// The terms of the sums in a tile.
const DEPTH: usize = 32;
/// Rows and columns of the square that is computed at a time: two tiles high, two wide.
pub(super) const SQUARE: usize = 2 * SIDE;

/// 32 numbers in bfloat16: the terms of a row of a left tile, or two terms of each column
/// of a right one.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u16; DEPTH]);

/// The side of a product on which a factor stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Left,
    Right,
}

/// A factor of a product, rounded and in tiles of [`SIDE`] lines. Zeros fill the tiles at
/// the edge.
pub(super) struct Packed {
    unit: Unit,
    lines: Vec<Line>,
    /// The number of strips, of [`SIDE`] rows (left) or columns (right).
    strips: usize,
    /// The number of tiles of a strip.
    tiles: usize,
    /// The lines from a strip to the next one.
    of_strip: usize,
    /// The lines from a tile of a strip to the next one.
    of_tile: usize,
}

impl Packed {
    /// The left factor of a product, `(M, K)`.
    pub fn left(unit: Unit, matrix: Matrix<'_>, in_parallel: bool) -> Self {
        Self::new(unit, matrix, Side::Left, in_parallel)
    }

    /// The right factor of a product, `(K, N)`.
    pub fn right(unit: Unit, matrix: Matrix<'_>, in_parallel: bool) -> Self {
        Self::new(unit, matrix.transposed(), Side::Right, in_parallel)
    }

    /// Packs a matrix whose columns are the terms of the sums.
    fn new(unit: Unit, matrix: Matrix<'_>, side: Side, in_parallel: bool) -> Self {
        assert!(matrix.fits(), "a matrix must fit its slice");
        let strips = matrix.rows.div_ceil(SIDE);
        let tiles = matrix.columns.div_ceil(DEPTH);
        // The tiles lie in the order in which the matrix is read.
        let is_by_strip = matrix.row != 1;
        let (of_strip, of_tile) = match is_by_strip {
            true => (tiles * SIDE, SIDE),
            false => (SIDE, strips * SIDE),
        };
        let count = strips * tiles * SIDE;
        let mut lines = Vec::<Line>::with_capacity(count);
        let pack = |(chunk, lines): (usize, &mut [MaybeUninit<Line>])| {
            for (place, lines) in lines.chunks_exact_mut(SIDE).enumerate() {
                let (strip, tile) = match is_by_strip {
                    true => (chunk, place),
                    false => (place, chunk),
                };
                // SAFETY: the matrix fits, and the tile begins within it.
                unsafe { unit.pack(matrix, [strip * SIDE, tile * DEPTH], side, lines) };
            }
        };
        let pack = |chunk| meter::time(|| pack(chunk));
        let chunk = of_strip.max(of_tile).max(1);
        let room = &mut lines.spare_capacity_mut()[..count];
        match in_parallel {
            true => room.par_chunks_mut(chunk).enumerate().for_each(pack),
            false => room.chunks_mut(chunk).enumerate().for_each(pack),
        }
        // SAFETY: the chunks have whole tiles, and all lines of a tile are written.
        unsafe { lines.set_len(count) };
        Self {
            unit,
            lines,
            strips,
            tiles,
            of_strip,
            of_tile,
        }
    }

    /// The right factor of a product: fields, `(numbers, pixels)`, or their transpose.
    pub fn fields(unit: Unit, fields: &Fields<'_>, transposed: bool) -> Self {
        let (columns, terms) = match transposed {
            false => (fields.pixels(), fields.numbers()),
            true => (fields.numbers(), fields.pixels()),
        };
        let (strips, tiles) = (columns.div_ceil(SIDE), terms.div_ceil(DEPTH));
        let count = strips * tiles * SIDE;
        let mut lines = Vec::<Line>::with_capacity(count);
        let room = &mut lines.spare_capacity_mut()[..count];
        meter::time(|| unit.pack_fields(fields, transposed, room));
        // SAFETY: every place in the room was written, or this had panicked.
        unsafe { lines.set_len(count) };
        Self {
            unit,
            lines,
            strips,
            tiles,
            of_strip: tiles * SIDE,
            of_tile: SIDE,
        }
    }

    /// What the tiles are for.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The two strips of the square at this row (left) or column (right). If there is
    /// only one, at the edge, it is given twice; the sums of the second are not used.
    fn strips(&self, first: usize) -> [Strip<'_>; 2] {
        [0, 1].map(|next| {
            let strip = (first / SIDE + next).min(self.strips - 1);
            Strip {
                lines: self.lines.get(strip * self.of_strip..).unwrap_or(&[]),
                of_tile: self.of_tile,
                tiles: self.tiles,
            }
        })
    }
}

/// The tiles of a strip; tile `t` begins at line `t·of_tile`.
#[derive(Clone, Copy)]
struct Strip<'a> {
    lines: &'a [Line],
    of_tile: usize,
    tiles: usize,
}

/// A square of sums.
#[derive(Clone)]
#[repr(align(64))]
struct Square([[f32; SQUARE]; SQUARE]);

/// Computes `dst ← keep·dst + factor·left·right`, for `[keep, factor]`, on this thread.
/// Of each factor it takes some rows (left) or columns (right): from the first one, a
/// multiple of [`SQUARE`], so many. If `keep` is 0, `dst` is not read.
///
/// # Safety
/// `dst` must have room for `rows` rows of `columns` elements, `stride` apart, which no
/// other code accesses during the call.
pub(super) unsafe fn multiply(
    (dst, stride): (*mut f32, usize),
    [keep, factor]: [f32; 2],
    (left, first_row, rows): (&Packed, usize, usize),
    (right, first_column, columns): (&Packed, usize, usize),
) {
    assert!(
        left.unit == right.unit && left.tiles == right.tiles,
        "the tiles of both factors must match"
    );
    assert!(
        first_row % SQUARE == 0 && first_column % SQUARE == 0,
        "a part must begin with a square"
    );
    assert!(
        first_row + rows <= left.strips * SIDE && first_column + columns <= right.strips * SIDE,
        "a part of a matrix must lie within it"
    );
    let mut square = Square([[0.; SQUARE]; SQUARE]);
    let unit = left.unit;
    let ready = unit.begin();
    for column in (0..columns).step_by(SQUARE) {
        let right = right.strips(first_column + column);
        for row in (0..rows).step_by(SQUARE) {
            ready.square(left.strips(first_row + row), right, &mut square);
            let size = [SQUARE.min(rows - row), SQUARE.min(columns - column)];
            let dst = dst.wrapping_add(row * stride + column);
            // SAFETY: the square lies within `dst`, of which the caller promises the rest.
            unsafe { unit.put(&square, (dst, stride), size, [keep, factor]) };
        }
    }
}

#[cfg(test)]
mod tests;
