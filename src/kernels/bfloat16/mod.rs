//! Matrix products of numbers that are rounded to bfloat16, with sums in 32 bits.
//!
//! Both factors are rounded and packed into tiles: [`SIDE`] rows or columns, [`DEPTH`]
//! terms of the sums. Two kinds of processors multiply them: those with AMX, tile by tile,
//! and those with AVX-512 and its BF16, vector by vector. The bits of the two differ,
//! since they add in another order.
#![allow(unsafe_code)]
// Elsewhere there is no unit, and nothing of this is ever used.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused))]

#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vectors;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::OnceLock;

use rayon::prelude::*;

use super::fields::Fields;
use super::gemm::Matrix;
use super::meter;

/// The rows of a left tile, and the columns of a right one.
const SIDE: usize = 16;
/// The terms of the sums in a tile.
const DEPTH: usize = 32;
/// Rows and columns of the square that is computed at a time: two tiles high, two wide.
pub(super) const SQUARE: usize = 2 * SIDE;

/// What multiplies numbers in bfloat16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// AMX.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles,
    /// AVX-512 BF16.
    #[cfg(target_arch = "x86_64")]
    Vectors,
}

/// What this processor has: the faster one of both.
pub(super) fn unit() -> Option<Unit> {
    static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
    *UNIT.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        if vectors::are_there() {
            #[cfg(target_os = "linux")]
            if tiles::are_there() {
                return Some(Unit::Tiles);
            }
            return Some(Unit::Vectors);
        }
        None
    })
}

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Sets whether the products of this process round to bfloat16.
pub(super) fn turn(on: bool) {
    IS_ON.store(on, Relaxed);
}

/// What products are to use; `None` for products of 32 bits.
pub(super) fn chosen() -> Option<Unit> {
    match IS_ON.load(Relaxed) {
        true => unit(),
        false => None,
    }
}

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
            lines,
            strips,
            tiles,
            of_strip: tiles * SIDE,
            of_tile: SIDE,
        }
    }

    /// The two strips of the square at this row (left) or column (right). At the edge there
    /// may be one alone; it stands for the second one too, whose sums nobody reads.
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

/// Computes `dst ← keep·dst + factor·left·right`, for `[keep, factor]`, on this thread. Of
/// each factor it takes some rows (left) or columns (right): from the first one, a multiple
/// of [`SQUARE`], so many. If `keep` is 0, `dst` is not read.
///
/// # Safety
/// `dst` must have room for `rows` rows of `columns` elements, `stride` apart, which no
/// other code accesses during the call.
pub(super) unsafe fn multiply(
    unit: Unit,
    (dst, stride): (*mut f32, usize),
    [keep, factor]: [f32; 2],
    (left, first_row, rows): (&Packed, usize, usize),
    (right, first_column, columns): (&Packed, usize, usize),
) {
    assert!(
        left.tiles == right.tiles && first_row % SQUARE == 0 && first_column % SQUARE == 0,
        "the sizes of a matrix product must match"
    );
    assert!(
        first_row + rows <= left.strips * SIDE && first_column + columns <= right.strips * SIDE,
        "a part of a matrix must lie within it"
    );
    let mut square = Square([[0.; SQUARE]; SQUARE]);
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

/// A unit that is ready on this thread.
struct Ready {
    unit: Unit,
    /// It holds for this thread alone.
    _here: PhantomData<*const ()>,
}

#[cfg(target_arch = "x86_64")]
impl Unit {
    /// Writes the tile whose first row and column are `at`.
    ///
    /// # Safety
    /// The matrix must fit its slice, and the tile must begin within it.
    unsafe fn pack(
        self,
        matrix: Matrix<'_>,
        at: [usize; 2],
        side: Side,
        to: &mut [MaybeUninit<Line>],
    ) {
        // SAFETY: there is a unit only where its instructions were found, and each kind
        // has those for packing; the caller promises the rest.
        unsafe { pack::tile(matrix, at, side, to) }
    }

    /// Writes all tiles of fields, strip by strip.
    fn pack_fields(self, fields: &Fields<'_>, transposed: bool, to: &mut [MaybeUninit<Line>]) {
        // SAFETY: the instructions are there, as in `pack`.
        unsafe { pack::fields(fields, transposed, to) }
    }

    /// Makes the unit ready on this thread.
    fn begin(self) -> Ready {
        #[cfg(target_os = "linux")]
        if self == Self::Tiles {
            // SAFETY: there is such a unit only where the system permits its use.
            unsafe { tiles::begin() }
        }
        Ready {
            unit: self,
            _here: PhantomData,
        }
    }

    /// Computes `dst ← keep·dst + factor·sums` for so many rows and columns.
    ///
    /// # Safety
    /// As [`multiply`].
    unsafe fn put(
        self,
        sums: &Square,
        dst: (*mut f32, usize),
        size: [usize; 2],
        factors: [f32; 2],
    ) {
        // SAFETY: each kind of unit has these instructions, and the caller promises room.
        unsafe { vectors::put(sums, dst, size, factors) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Ready {
    /// The sums of two strips by two others.
    fn square(&self, left: [Strip<'_>; 2], right: [Strip<'_>; 2], sums: &mut Square) {
        for strip in left.iter().chain(&right) {
            let end = strip.tiles.saturating_sub(1) * strip.of_tile + SIDE;
            assert!(strip.tiles == left[0].tiles && (strip.tiles == 0 || end <= strip.lines.len()));
        }
        match self.unit {
            // SAFETY: the unit is ready, and the strips fit.
            #[cfg(target_os = "linux")]
            Unit::Tiles => unsafe { tiles::square(left, right, sums) },
            // SAFETY: the instructions are there, and the strips fit.
            Unit::Vectors => unsafe { vectors::square(left, right, sums) },
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl Drop for Ready {
    fn drop(&mut self) {
        if self.unit == Unit::Tiles {
            // SAFETY: as in `Unit::begin`.
            unsafe { tiles::end() }
        }
    }
}

/// On other processors there is no unit.
#[cfg(not(target_arch = "x86_64"))]
impl Unit {
    unsafe fn pack(self, _: Matrix<'_>, _: [usize; 2], _: Side, _: &mut [MaybeUninit<Line>]) {
        match self {}
    }

    fn pack_fields(self, _: &Fields<'_>, _: bool, _: &mut [MaybeUninit<Line>]) {
        match self {}
    }

    fn begin(self) -> Ready {
        match self {}
    }

    unsafe fn put(self, _: &Square, _: (*mut f32, usize), _: [usize; 2], _: [f32; 2]) {
        match self {}
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Ready {
    fn square(&self, _: [Strip<'_>; 2], _: [Strip<'_>; 2], _: &mut Square) {
        match self.unit {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::sizes::Sizes;

    /// The units of this processor. Both kinds are tested where there are both.
    fn units() -> Vec<Unit> {
        let mut units = Vec::from_iter(unit());
        #[cfg(target_arch = "x86_64")]
        if !units.is_empty() && !units.contains(&Unit::Vectors) {
            units.push(Unit::Vectors);
        }
        if units.is_empty() {
            crate::error::notify("skipped: this processor has no product of bfloat16 numbers");
        }
        units
    }

    /// A number rounded to nearest, ties to even.
    fn rounded(x: f32) -> f32 {
        let bits = x.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    }

    /// The sum of products in the order of the unit. Products of two numbers in bfloat16
    /// are exact in 32 bits.
    fn sum(unit: Unit, terms: &[(f32, f32)]) -> f32 {
        let mut terms: Vec<f32> = terms
            .iter()
            .map(|(a, b)| rounded(*a) * rounded(*b))
            .collect();
        terms.resize(terms.len().next_multiple_of(DEPTH), 0.);
        let add = |sum: f32, term: &f32| sum + term;
        match unit {
            // In each tile, the first and the second terms of all pairs; then both.
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Unit::Tiles => terms.chunks(DEPTH).fold(0., |sum, tile| {
                let first = tile.iter().step_by(2).fold(0., add);
                let second = tile.iter().skip(1).step_by(2).fold(0., add);
                sum + (first + second)
            }),
            // The second term of each pair comes first.
            #[cfg(target_arch = "x86_64")]
            Unit::Vectors => terms
                .chunks(2)
                .fold(0., |sum, pair| sum + pair[1] + pair[0]),
        }
    }

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = crate::flow::random::stream(seed, "test", 0);
        let mut next = || crate::flow::random::unit(&mut rng) as f32 - 0.5;
        (0..count).map(|_| next()).collect()
    }

    /// The product of `(m, k)` and `(k, n)`, multiplied by 2, in a result of NaN.
    fn product(unit: Unit, a: Matrix<'_>, b: Matrix<'_>, in_parallel: bool) -> Vec<f32> {
        let mut dst = vec![f32::NAN; a.rows * b.columns];
        let left = Packed::left(unit, a, in_parallel);
        let right = Packed::right(unit, b, in_parallel);
        let (whole, across) = ((&left, 0, a.rows), (&right, 0, b.columns));
        // SAFETY: `dst` has room for the product.
        unsafe { multiply(unit, (dst.as_mut_ptr(), b.columns), [0., 2.], whole, across) };
        dst
    }

    #[test]
    fn products_have_the_bits_of_the_scalar_sums() {
        for unit in units() {
            for [m, k, n] in [
                [1, 1, 1],
                [17, 33, 49],
                [64, 64, 32],
                [5, 200, 100],
                [40, 0, 3],
            ] {
                let (a, b) = (numbers(2 * m * k + 1, 1), numbers(2 * k * n + 1, 2));
                let whole = |data, rows, columns| Matrix::of_rows(data, rows, columns, columns);
                let apart = |data, rows, columns| Matrix {
                    column: 2,
                    ..Matrix::of_rows(data, rows, columns, 2 * columns)
                };
                // Rows, columns, and neither side by side in memory.
                let lefts = [
                    whole(&a, m, k),
                    whole(&a, k, m).transposed(),
                    apart(&a, m, k),
                ];
                let rights = [
                    whole(&b, k, n),
                    whole(&b, n, k).transposed(),
                    apart(&b, k, n),
                ];
                for (a, b) in lefts
                    .iter()
                    .flat_map(|a| rights.iter().map(move |b| (*a, *b)))
                {
                    let found = product(unit, a, b, false);
                    assert_eq!(
                        found.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                        product(unit, a, b, true)
                            .iter()
                            .map(|x| x.to_bits())
                            .collect::<Vec<_>>()
                    );
                    for (place, found) in found.iter().enumerate() {
                        let (row, column) = (place / n, place % n);
                        let at = |x: Matrix<'_>, r, c| x.data[r * x.row + c * x.column];
                        let terms: Vec<_> =
                            (0..k).map(|i| (at(a, row, i), at(b, i, column))).collect();
                        let expected = 2. * sum(unit, &terms);
                        assert_eq!(*found, expected, "{unit:?} {m} {k} {n} at {place}");
                    }
                }
            }
        }
    }

    #[test]
    fn fields_have_the_bits_of_a_whole_matrix() {
        for unit in units() {
            // Lines of every kind: wider than a vector, a part of one, odd.
            for (width, field) in [(32, 3), (19, 5), (8, 3), (7, 3), (1, 1)] {
                let sizes = Sizes {
                    rows: 3,
                    inputs: 2,
                    height: 5,
                    width,
                    units: 7,
                    field,
                    pool: 1,
                };
                let (mut padded, mut whole) = (Vec::new(), Vec::new());
                sizes.pad(&numbers(3 * 2 * 5 * width, 5), &mut padded);
                let fields = Fields::new(&sizes, &padded, (1, 3));
                fields.gather(&mut whole);
                let (rows, pixels) = (fields.numbers(), fields.pixels());
                assert_eq!(pixels, 3 * 3 * width);
                let whole = Matrix::of_rows(&whole, rows, pixels, pixels);
                for (transposed, whole) in [(false, whole), (true, whole.transposed())] {
                    let found = Packed::fields(unit, &fields, transposed);
                    let expected = Packed::right(unit, whole, false);
                    let strips = 0..whole.columns.div_ceil(SIDE);
                    for (strip, tile) in strips.flat_map(|s| (0..found.tiles).map(move |t| (s, t)))
                    {
                        let of = |packed: &Packed| {
                            let at = strip * packed.of_strip + tile * packed.of_tile;
                            packed.lines[at..][..SIDE]
                                .iter()
                                .map(|line| line.0)
                                .collect::<Vec<_>>()
                        };
                        assert_eq!(of(&found), of(&expected), "{width} {strip} {tile}");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_the_factors_are_added_to_what_is_there() {
        const SIZE: usize = 70;
        for unit in units() {
            let (a, b) = (numbers(SIZE * SIZE, 3), numbers(SIZE * SIZE, 4));
            let [a, b] = [&a, &b].map(|data| Matrix::of_rows(data, SIZE, SIZE, SIZE));
            let whole = product(unit, a, b, false);
            let [left, right] = [Packed::left(unit, a, false), Packed::right(unit, b, false)];
            let (rows, columns) = (SIZE - 64, SIZE - 32);
            // A row more and a column more than the part, which must stay.
            let mut dst = vec![1f32; (rows + 1) * (columns + 1)];
            let place = (dst.as_mut_ptr(), columns + 1);
            // SAFETY: `dst` has room for the part.
            unsafe {
                multiply(
                    unit,
                    place,
                    [3., 2.],
                    (&left, 64, rows),
                    (&right, 32, columns),
                )
            };
            for (place, found) in dst.iter().enumerate() {
                let (row, column) = (place / (columns + 1), place % (columns + 1));
                let expected = match row < rows && column < columns {
                    true => 3. + whole[(64 + row) * SIZE + 32 + column],
                    false => 1.,
                };
                assert_eq!(*found, expected, "{unit:?} at {row}, {column}");
            }
        }
    }
}
