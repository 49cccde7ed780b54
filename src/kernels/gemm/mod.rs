//! Matrix products that process their result further while it is in the cache.
//!
//! The bounds are checked here. Where products are to round to bfloat16, `bfloat16` computes
//! those of `f32`.
#![allow(unsafe_code)]

mod here;

use rayon::prelude::*;

use self::here::multiply;
pub(crate) use self::here::{accumulate_here, add_product, Factor, Right};
use super::bfloat16::{self, Packed, SQUARE};
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

    pub(super) fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row + (self.columns - 1) * self.column < self.data.len()
    }
}

/// The number of panels of a result. It is constant, so that the bits do not depend on
/// the number of threads.
const PANELS: usize = 8;

/// Products with fewer multiplications are not divided among threads.
const SMALL: usize = 1 << 20;

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
    let count = a.rows * b.columns;
    if a.columns == 0 {
        let mut zeros = vec![0f32; count];
        zeros
            .chunks_exact_mut(b.columns.max(1))
            .enumerate()
            .for_each(|(row, piece)| finish(row, 0, piece));
        return zeros;
    }
    let mut dst = Vec::<f32>::with_capacity(count);
    run(
        Place(dst.as_mut_ptr()),
        Place(std::ptr::null_mut()),
        0.,
        1.,
        a,
        b,
        |row, first, piece, _| finish(row, first, piece),
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
        dst.len() == a.rows * b.columns,
        "the sizes of a matrix product must match"
    );
    assert!(
        beside.is_empty() || beside.len() == dst.len(),
        "a matrix product and `beside` must have the same size"
    );
    let beside = if beside.is_empty() {
        std::ptr::null_mut()
    } else {
        beside.as_mut_ptr()
    };
    run(
        Place(dst.as_mut_ptr()),
        Place(beside),
        keep,
        factor,
        a,
        b,
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

/// Computes a product in panels. `dst` must have room for it, and `beside` too, unless it
/// is null: then `finish` gets an empty slice.
fn run(
    dst: Place,
    beside: Place,
    keep: f32,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    finish: impl Fn(usize, usize, &mut [f32], &mut [f32]) + Sync,
) {
    let (rows, columns) = (a.rows, b.columns);
    assert!(
        a.columns == b.rows,
        "the sizes of a matrix product must match"
    );
    assert!(a.fits() && b.fits(), "a matrix must fit its slice");
    if rows == 0 || columns == 0 {
        return;
    }
    // For short sums, `finish` costs as much as about 16 terms.
    let is_small = rows * columns * a.columns.max(16) < SMALL;
    let rounded = Rounded::of(a, b, !is_small);
    let panel = |first_row: usize, first_column: usize, height: usize, width: usize| {
        let a = Matrix {
            data: a.data.get(first_row * a.row..).unwrap_or(&[]),
            rows: height,
            ..a
        };
        let b = Matrix {
            data: b.data.get(first_column * b.column..).unwrap_or(&[]),
            columns: width,
            ..b
        };
        Panel {
            dst,
            beside,
            stride: columns,
            first_row,
            first_column,
            height,
            width,
            a,
            b,
            rounded: rounded.as_ref(),
        }
    };
    // SAFETY: the panels below are disjoint and lie within the result. The callers, both
    // in this file, have reserved room for it in `dst` and `beside`. The matrices fit
    // their slices, as asserted above.
    let work = |panel: Panel<'_>| unsafe { panel.work(keep, factor, &finish) };
    if is_small {
        return work(panel(0, 0, rows, columns));
    }
    if rows >= columns {
        let height = match rounded {
            Some(_) => rows.div_ceil(PANELS).next_multiple_of(SQUARE),
            None => rows.div_ceil(PANELS),
        };
        let firsts = (0..rows.div_ceil(height))
            .into_par_iter()
            .map(|index| index * height);
        firsts.for_each(|first| work(panel(first, 0, height.min(rows - first), columns)));
    } else {
        // Multiples of the kernel's registers, if the result is wide enough.
        let width = columns.div_ceil(PANELS).next_multiple_of(64);
        let firsts = (0..columns.div_ceil(width))
            .into_par_iter()
            .map(|index| index * width);
        firsts.for_each(|first| work(panel(0, first, rows, width.min(columns - first))));
    }
}

/// Some rows and columns of the result, with the matrices to multiply.
struct Panel<'a> {
    dst: Place,
    beside: Place,
    stride: usize,
    first_row: usize,
    first_column: usize,
    height: usize,
    width: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    /// The whole factors, if the product rounds them.
    rounded: Option<&'a Rounded>,
}

/// The factors of a product in bfloat16.
struct Rounded {
    left: Packed,
    right: Packed,
}

impl Rounded {
    /// `None` where products are to have 32 bits.
    fn of(a: Matrix<'_>, b: Matrix<'_>, in_parallel: bool) -> Option<Self> {
        let unit = bfloat16::chosen()?;
        Some(Self {
            left: Packed::left(unit, a, in_parallel),
            right: Packed::right(unit, b, in_parallel),
        })
    }
}

impl Panel<'_> {
    /// Computes `panel ← keep·panel + factor·a·b` on this thread, then calls `finish` for
    /// each row.
    ///
    /// # Safety
    /// No other code may access the panel's elements during the call. The panel must lie
    /// within `dst`, and within `beside` unless that is null. `a` and `b` must fit their
    /// slices and the panel.
    unsafe fn work(
        self,
        keep: f32,
        factor: f32,
        finish: &impl Fn(usize, usize, &mut [f32], &mut [f32]),
    ) {
        debug_assert!(self.a.fits() && self.b.fits());
        let offset = self.first_row * self.stride + self.first_column;
        if let Some(rounded) = self.rounded {
            let sizes = [self.height, self.a.columns, self.width];
            // SAFETY: as the caller promises.
            meter::count(sizes, || unsafe {
                bfloat16::multiply(
                    (self.dst.0.add(offset), self.stride),
                    [keep, factor],
                    (&rounded.left, self.first_row, self.height),
                    (&rounded.right, self.first_column, self.width),
                );
            });
        } else {
            // SAFETY: as the caller promises.
            unsafe { self.multiply(offset, keep, factor) };
        }
        wide(|| {
            for row in 0..self.height {
                // SAFETY: as the caller promises; the product has written these elements.
                let piece = unsafe { self.piece(self.dst, row) };
                let beside: &mut [f32] = match self.beside.0.is_null() {
                    true => &mut [],
                    // SAFETY: as the caller promises.
                    false => unsafe { self.piece(self.beside, row) },
                };
                finish(self.first_row + row, self.first_column, piece, beside);
            }
        });
    }

    /// Computes `panel ← keep·panel + factor·a·b` in 32 bits.
    ///
    /// # Safety
    /// As [`Self::work`].
    unsafe fn multiply(&self, offset: usize, keep: f32, factor: f32) {
        if keep != 0. && keep != 1. {
            // Scaled first, row by row, which brings the panel into the cache. The
            // product reads it in small tiles and would otherwise wait for each of them.
            wide(|| {
                for row in 0..self.height {
                    // SAFETY: as the caller promises.
                    let piece = unsafe { self.piece(self.dst, row) };
                    piece.iter_mut().for_each(|dst| *dst *= keep);
                }
            });
        }
        let keep = if keep == 0. { 0. } else { 1. };
        // SAFETY: as the caller promises.
        unsafe {
            multiply(
                self.dst.0.add(offset),
                self.stride,
                [keep, factor],
                self.a,
                self.b,
            );
        }
    }

    /// A row of the panel.
    ///
    /// # Safety
    /// The row must lie within `matrix`, be initialised, and not be accessed by other
    /// code during the borrow.
    unsafe fn piece<'b>(&self, matrix: Place, row: usize) -> &'b mut [f32] {
        let start = (self.first_row + row) * self.stride + self.first_column;
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(matrix.0.add(start), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_accumulate_and_transpose() {
        let a = [1f32, 2., 3., 4., 5., 6.]; // (2, 3)
        let b = [1f32, 0., 0., 1., 1., 1.]; // (3, 2)
        let (mut dst, mut beside) = ([10f32, 20., 30., 40.], [1f32; 4]);
        let (left, right) = (Matrix::of_rows(&a, 2, 3, 3), Matrix::of_rows(&b, 3, 2, 2));
        accumulate(
            &mut dst,
            &mut beside,
            0.5,
            2.,
            left,
            right,
            |dst, beside| beside[1] += dst[1],
        );
        assert_eq!(dst, [13., 20., 35., 42.]);
        assert_eq!(beside, [1., 21., 1., 43.]);
        // An empty sum.
        let (left, right) = (Matrix::of_rows(&[], 2, 0, 0), Matrix::of_rows(&[], 0, 2, 2));
        accumulate(&mut dst, &mut beside, 0.5, 2., left, right, |_, _| ());
        assert_eq!(dst, [6.5, 10., 17.5, 21.]);
        accumulate(&mut dst, &mut beside, 0., 2., left, right, |_, _| ());
        assert_eq!(dst, [0.; 4]);
        let (a, b) = (Matrix::of_rows(&a, 2, 3, 3), Matrix::of_rows(&b, 2, 3, 3));
        assert_eq!(
            product(a.transposed(), b, |_, _, _| ()),
            [5., 4., 4., 7., 5., 5., 9., 6., 6.]
        );
    }

    #[test]
    fn the_bits_are_the_same_with_any_number_of_threads() {
        let numbers: Vec<f32> = (0..300 * 200)
            .map(|i| ((i * 7919 % 1009) as f32).sin())
            .collect();
        let (a, b) = (
            Matrix::of_rows(&numbers, 300, 200, 200),
            Matrix::of_rows(&numbers, 200, 300, 300),
        );
        for (a, b) in [(a, b), (Matrix { rows: 100, ..a }, b)] {
            assert!(
                a.rows * b.columns * a.columns >= SMALL,
                "too small to be divided"
            );
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let product = pool.install(|| product(a, b, |_, _, _| ()));
                product.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(with(1), with(2));
            assert_eq!(with(1), with(5));
        }
    }

    #[test]
    fn panels_make_no_difference() {
        let numbers = |count: usize| -> Vec<f32> {
            (0..count)
                .map(|i| (i * 37 % 101) as f32 / 50. - 1.)
                .collect()
        };
        for (m, n, k) in [(300, 70, 60), (70, 300, 60), (129, 1000, 9), (3, 5, 0)] {
            let (a, b) = (numbers(m * k), numbers(k * n));
            let (a, b) = (Matrix::of_rows(&a, m, k, k), Matrix::of_rows(&b, k, n, n));
            let found = product(a, b, |row, first, piece| {
                piece
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x += (row * n + first + i) as f32);
            });
            for (i, found) in found.iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let sum: f64 = (0..k)
                    .map(|j| f64::from(a.data[row * k + j] * b.data[j * n + column]))
                    .sum();
                assert!(
                    (f64::from(*found) - (sum + i as f64)).abs() < 1e-2,
                    "{m} {n} {k} {i}"
                );
            }
        }
    }
}
