//! Matrix products that process their result further while it is in the cache.
//!
//! The bounds are checked here. Where products are to round to bfloat16, `bfloat16`
//! computes those of `f32`.
#![allow(unsafe_code)]

#[cfg(test)]
mod alike;
mod here;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use self::here::multiply;
pub(crate) use self::here::{accumulate_here, add_product, Factor, Right};
use super::bfloat16::{self, Packed, Unit, SQUARE};
use super::{meter, wide};

/// A matrix in memory: element `(r, c)` is `data[r·row + c·column]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
    pub row: usize,
    pub column: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows with contiguous columns, `stride` elements apart.
    pub fn of_rows(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self {
            data,
            rows,
            columns,
            row: stride,
            column: 1,
        }
    }

    /// The same numbers, rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// Some of the rows.
    fn rows_from(self, first: usize, rows: usize) -> Self {
        Self {
            data: self.data.get(first * self.row..).unwrap_or(&[]),
            rows,
            ..self
        }
    }

    pub(super) fn fits(&self) -> bool {
        // A matrix of one repeated row may have more numbers than fit into memory.
        let last = || {
            let row = (self.rows - 1).checked_mul(self.row)?;
            row.checked_add((self.columns - 1).checked_mul(self.column)?)
        };
        let is_empty = self.rows == 0 || self.columns == 0;
        is_empty || last().is_some_and(|last| last < self.data.len())
    }
}

/// The number of elements of a product.
///
/// # Panics
/// If there can be no such matrix.
fn size(a: Matrix<'_>, b: Matrix<'_>) -> usize {
    let count = a.rows.checked_mul(b.columns);
    count.expect("a matrix product must fit into memory")
}

/// The number of panels of a result. It is constant, so that the bits do not depend on
/// the number of threads.
pub(crate) const PANELS: usize = 8;

/// The columns of a panel that are computed at a time in bfloat16: with the height of a
/// panel this is what fits into the cache of a core. In 32 bits the `gemm` crate has
/// blocks of its own, and is slower in more calls.
const BLOCK: usize = 384;

/// Products with fewer multiplications are not divided among threads.
const SMALL: usize = 1 << 20;

/// Whether products round their factors now.
pub(crate) fn rounds() -> bool {
    bfloat16::chosen().is_some()
}

/// A right factor that is rounded and packed once for several products.
pub(crate) struct Prepared {
    packed: Arc<Packed>,
    /// Rows and columns.
    size: [usize; 2],
}

impl Prepared {
    /// `None` where products are to have 32 bits.
    pub fn of(b: Matrix<'_>) -> Option<Self> {
        bfloat16::chosen().map(|unit| Self::with(unit, b))
    }

    fn with(unit: Unit, b: Matrix<'_>) -> Self {
        let size = [b.rows, b.columns];
        let packed = Packed::right(unit, b, b.rows * b.columns * PANELS >= SMALL);
        Self {
            packed: Arc::new(packed),
            size,
        }
    }
}

/// Computes `a·b`, then calls `finish(row, first column, piece)` for each piece of a row
/// while it is in the cache.
///
/// # Panics
/// As [`accumulate`].
pub(crate) fn product(
    a: Matrix<'_>,
    b: Matrix<'_>,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    product_with(a, b, None, finish)
}

/// The same, with what `b` was [`Prepared`] as.
///
/// # Panics
/// As [`accumulate`], and if it was a matrix of another size.
pub(crate) fn product_with(
    a: Matrix<'_>,
    b: Matrix<'_>,
    prepared: Option<&Prepared>,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let count = size(a, b);
    if a.columns == 0 {
        let mut zeros = vec![0f32; count];
        zeros
            .chunks_exact_mut(b.columns.max(1))
            .enumerate()
            .for_each(|(row, piece)| finish(row, 0, piece));
        return zeros;
    }
    let mut dst = Vec::<f32>::with_capacity(count);
    let place = Some(Place(dst.as_mut_ptr()));
    run(
        place,
        [],
        [0., 1.],
        (a, b),
        prepared,
        |row, first, piece, []| finish(row, first, piece),
    );
    // SAFETY: the product has written every one of the `count` elements that were
    // reserved; it read none of them.
    unsafe { dst.set_len(count) };
    dst
}

/// Computes `dst ← keep·dst + factor·a·b`, with contiguous rows in `dst`. Then calls
/// `finish(piece of dst, piece of beside)` for each piece of a row. `beside` is a matrix
/// of the same shape, or empty.
///
/// The result is divided into panels of rows, or of columns if it is wider than high.
/// Each panel is computed by one thread. So the threads synchronise once, not once per
/// block of the sum.
///
/// # Panics
/// If the sizes do not match each other or the slices. Callers check the shapes first.
pub(crate) fn accumulate(
    dst: &mut [f32],
    beside: &mut [f32],
    keep: f32,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    finish: impl Fn(&mut [f32], &mut [f32]) + Sync,
) {
    assert!(
        dst.len() == size(a, b),
        "the sizes of a matrix product must match"
    );
    assert!(
        beside.is_empty() || beside.len() == dst.len(),
        "a matrix product and `beside` must have the same size"
    );
    let place = Some(Place(dst.as_mut_ptr()));
    match beside.is_empty() {
        true => run(
            place,
            [],
            [keep, factor],
            (a, b),
            None,
            |_, _, piece, []| finish(piece, &mut []),
        ),
        false => {
            let beside = [Place(beside.as_mut_ptr())];
            run(
                place,
                beside,
                [keep, factor],
                (a, b),
                None,
                |_, _, piece, [beside]| finish(piece, beside),
            );
        }
    }
}

/// Computes `a·b` and calls `finish(piece of the product, pieces of beside)` for each
/// piece of a row; each of `beside` is a matrix of the same shape. Each thread computes
/// it panel by panel in the same room.
///
/// # Panics
/// As [`accumulate`].
pub(crate) fn consume<const N: usize>(
    beside: [&mut [f32]; N],
    a: Matrix<'_>,
    b: Matrix<'_>,
    finish: impl Fn(&mut [f32], [&mut [f32]; N]) + Sync,
) {
    assert!(
        beside
            .iter()
            .all(|beside| beside.len() == a.rows * b.columns),
        "a matrix product and `beside` must have the same size"
    );
    let beside = beside.map(|beside| Place(beside.as_mut_ptr()));
    run(
        None,
        beside,
        [0., 1.],
        (a, b),
        None,
        |_, _, piece, beside| finish(piece, beside),
    );
}

/// The address of a matrix's first element.
#[derive(Clone, Copy)]
struct Place(*mut f32);

// SAFETY: a place is only an address; threads access disjoint elements through it.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

/// Computes a product in panels: `dst ← keep·dst + factor·a·b` for `[keep, factor]`.
/// `dst` must have room for it, and each of `beside` too. Without `dst` only `finish`
/// gets the product, and `keep` must be 0.
fn run<const N: usize>(
    dst: Option<Place>,
    beside: [Place; N],
    factors: [f32; 2],
    (a, b): (Matrix<'_>, Matrix<'_>),
    prepared: Option<&Prepared>,
    finish: impl Fn(usize, usize, &mut [f32], [&mut [f32]; N]) + Sync,
) {
    let (rows, columns) = (a.rows, b.columns);
    assert!(
        a.columns == b.rows,
        "the sizes of a matrix product must match"
    );
    assert!(a.fits() && b.fits(), "a matrix must fit its slice");
    assert!(
        prepared.is_none_or(|prepared| prepared.size == [b.rows, columns]),
        "a matrix must be prepared itself"
    );
    if rows == 0 || columns == 0 {
        return;
    }
    // For short sums, `finish` costs as much as about 16 terms.
    let is_small = (rows * columns).saturating_mul(a.columns.max(16)) < SMALL;
    let product = Product {
        dst,
        beside,
        factors,
        a,
        b,
        rounded: Rounded::of(a, b, prepared, !is_small),
    };
    // SAFETY: the panels below are disjoint and lie within the result. The callers, all
    // in this file, have reserved room for it in `dst` and `beside`. The matrices fit
    // their slices, as asserted above.
    let work = |rows: Range<usize>, columns: Range<usize>| unsafe {
        product.panel(rows, columns, &finish)
    };
    if is_small {
        return work(0..rows, 0..columns);
    }
    if rows >= columns {
        let height = match product.rounded {
            Some(_) => rows.div_ceil(PANELS).next_multiple_of(SQUARE),
            None => rows.div_ceil(PANELS),
        };
        let firsts = (0..rows.div_ceil(height))
            .into_par_iter()
            .map(|index| index * height);
        firsts.for_each(|first| work(first..rows.min(first + height), 0..columns));
    } else {
        // Multiples of the kernel's registers, if the result is wide enough.
        let width = columns.div_ceil(PANELS).next_multiple_of(64);
        let firsts = (0..columns.div_ceil(width))
            .into_par_iter()
            .map(|index| index * width);
        firsts.for_each(|first| work(0..rows, first..columns.min(first + width)));
    }
}

/// A product, and where it goes.
struct Product<'a, const N: usize> {
    dst: Option<Place>,
    beside: [Place; N],
    factors: [f32; 2],
    a: Matrix<'a>,
    b: Matrix<'a>,
    /// The factors, if the product rounds them.
    rounded: Option<Rounded>,
}

/// The factors of a product in bfloat16.
struct Rounded {
    left: Packed,
    right: Arc<Packed>,
}

impl Rounded {
    /// `None` where products are to have 32 bits.
    fn of(
        a: Matrix<'_>,
        b: Matrix<'_>,
        prepared: Option<&Prepared>,
        in_parallel: bool,
    ) -> Option<Self> {
        let right = match prepared {
            Some(prepared) => prepared.packed.clone(),
            None => Arc::new(Packed::right(bfloat16::chosen()?, b, in_parallel)),
        };
        Some(Self {
            left: Packed::left(right.unit(), a, in_parallel),
            right,
        })
    }
}

thread_local! {
    /// Where a thread computes what is not kept.
    static ROOM: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl<const N: usize> Product<'_, N> {
    /// Computes some rows and columns on this thread, in blocks that stay in the cache
    /// until `finish` was called for each of their rows.
    ///
    /// # Safety
    /// No other code may access these elements of `dst` and `beside` during the call.
    /// They must lie within the result, for which there must be room in `dst` and each
    /// of `beside`. `a` and `b` must fit their slices.
    unsafe fn panel(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        finish: &impl Fn(usize, usize, &mut [f32], [&mut [f32]; N]),
    ) {
        let width = match self.rounded {
            Some(_) => BLOCK,
            None => columns.len(),
        };
        for first in columns.clone().step_by(width) {
            let columns = first..columns.end.min(first + width);
            let Some(dst) = self.dst else {
                ROOM.with_borrow_mut(|room| {
                    let size = rows.len() * columns.len();
                    if room.len() < size {
                        room.resize(size, 0.);
                    }
                    let block = (Place(room.as_mut_ptr()), columns.len());
                    // SAFETY: the room is large enough; the rest as the caller promises.
                    unsafe { self.block(block, rows.clone(), columns, finish) };
                });
                continue;
            };
            let stride = self.b.columns;
            // SAFETY: as the caller promises.
            unsafe {
                let block = (Place(dst.0.add(rows.start * stride + first)), stride);
                self.block(block, rows.clone(), columns, finish);
            }
        }
    }

    /// Computes a block, whose rows are `stride` elements apart, and finishes it.
    ///
    /// # Safety
    /// As [`Self::panel`], and `dst` must have room for the block.
    unsafe fn block(
        &self,
        (dst, stride): (Place, usize),
        rows: Range<usize>,
        columns: Range<usize>,
        finish: &impl Fn(usize, usize, &mut [f32], [&mut [f32]; N]),
    ) {
        let (height, width) = (rows.len(), columns.len());
        let row = |row: usize| {
            // SAFETY: the row lies within the block; see the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(dst.0.add(row * stride), width) }
        };
        if let Some(Rounded { left, right }) = &self.rounded {
            // SAFETY: as the caller promises.
            meter::count([height, self.a.columns, width], || unsafe {
                bfloat16::multiply(
                    (dst.0, stride),
                    self.factors,
                    (left, rows.start, height),
                    (&**right, columns.start, width),
                );
            });
        } else {
            let [keep, factor] = self.factors;
            if keep != 0. && keep != 1. {
                // Scaled first, row by row, which brings the block into the cache. The
                // product reads it in small tiles and would otherwise wait for each of them.
                wide(|| (0..height).for_each(|i| row(i).iter_mut().for_each(|dst| *dst *= keep)));
            }
            let keep = if keep == 0. { 0. } else { 1. };
            let a = self.a.rows_from(rows.start, height);
            let b = self
                .b
                .transposed()
                .rows_from(columns.start, width)
                .transposed();
            // SAFETY: as the caller promises.
            unsafe { multiply(dst.0, stride, [keep, factor], a, b) };
        }
        wide(|| {
            for i in 0..height {
                let start = (rows.start + i) * self.b.columns + columns.start;
                let beside = self.beside.map(|beside| {
                    // SAFETY: as the caller promises.
                    unsafe { std::slice::from_raw_parts_mut(beside.0.add(start), width) }
                });
                finish(rows.start + i, columns.start, row(i), beside);
            }
        });
    }
}

#[cfg(test)]
mod tests;
