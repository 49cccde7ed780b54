//! Matrix products on the thread that calls. The only file that calls the `gemm` crate.
#![allow(unsafe_code)]

use super::Matrix;
use crate::kernels::bfloat16::{self, Packed};
use crate::kernels::fields::Fields;
use crate::kernels::meter;

/// The left factor of several products on one thread each; it is rounded once.
pub(crate) struct Factor<'a> {
    matrix: Matrix<'a>,
    rounded: Option<Packed>,
}

impl<'a> Factor<'a> {
    /// # Panics
    /// If the matrix does not fit its slice.
    pub fn new(matrix: Matrix<'a>) -> Self {
        assert!(matrix.fits(), "a matrix must fit its slice");
        let pack = |unit| Packed::left(unit, matrix, false);
        Self {
            matrix,
            rounded: bfloat16::chosen().map(pack),
        }
    }
}

/// The right factor of a product on one thread: fields of images.
pub(crate) struct Right<'a> {
    pub fields: &'a Fields<'a>,
    pub is_transposed: bool,
    /// Where they are written if they are not rounded.
    pub room: &'a mut Vec<f32>,
}

impl<'a> Right<'a> {
    /// The number of rows and of columns.
    fn size(&self) -> [usize; 2] {
        let [numbers, pixels] = [self.fields.numbers(), self.fields.pixels()];
        match self.is_transposed {
            false => [numbers, pixels],
            true => [pixels, numbers],
        }
    }

    fn whole(self) -> Matrix<'a> {
        self.fields.gather(self.room);
        let pixels = self.fields.pixels();
        let whole = Matrix::of_rows(self.room, self.fields.numbers(), pixels, pixels);
        match self.is_transposed {
            false => whole,
            true => whole.transposed(),
        }
    }
}

/// Computes `dst ← keep·dst + a·b` on this thread. `dst` is the whole result, row by row;
/// `keep` is 0 or 1.
///
/// # Panics
/// As [`accumulate`](super::accumulate).
// Elsewhere nothing is ever rounded.
#[cfg_attr(not(target_arch = "x86_64"), allow(unreachable_code, unused))]
pub(crate) fn accumulate_here(dst: &mut [f32], keep: f32, a: &Factor<'_>, b: Right<'_>) {
    let (rows, [depth, columns]) = (a.matrix.rows, b.size());
    assert!(
        a.matrix.columns == depth && Some(dst.len()) == rows.checked_mul(columns),
        "the sizes of a matrix product must match"
    );
    let (dst, factors) = (dst.as_mut_ptr(), [keep, 1.]);
    let Some(left) = &a.rounded else {
        let b = b.whole();
        assert!(b.fits(), "a matrix must fit its slice");
        // SAFETY: `dst` is lent to this function alone and has room for the product; the
        // matrices fit.
        return unsafe { multiply(dst, columns, factors, a.matrix, b) };
    };
    let right = Packed::fields(left.unit(), b.fields, b.is_transposed);
    meter::count([rows, depth, columns], || {
        let (left, right) = ((left, 0, rows), (&right, 0, columns));
        // SAFETY: as above.
        unsafe { bfloat16::multiply((dst, columns), factors, left, right) };
    });
}

/// Computes `dst ← dst + factor·a·b` on this thread, in double precision. The rows of
/// `dst` are `stride` elements apart.
///
/// # Panics
/// As [`accumulate`](super::accumulate).
pub(crate) fn add_product(
    dst: &mut [f64],
    stride: usize,
    factor: f64,
    a: Matrix<'_, f64>,
    b: Matrix<'_, f64>,
) {
    if a.rows == 0 || b.columns == 0 || a.columns == 0 {
        return;
    }
    assert!(
        a.columns == b.rows && (a.rows - 1) * stride + b.columns <= dst.len(),
        "the sizes of a matrix product must match"
    );
    assert!(b.columns <= stride, "the rows of a result must not overlap");
    assert!(a.fits() && b.fits(), "a matrix must fit its slice");
    // SAFETY: `dst` is lent to this function alone and has room for the product, whose
    // rows do not overlap since `b.columns` is at most `stride`; the matrices fit their
    // slices.
    unsafe { multiply(dst.as_mut_ptr(), stride, [1., factor], a, b) }
}

/// `dst ← keep·dst + factor·a·b` on this thread, for `[keep, factor]`, with `keep` 0 or
/// 1.
///
/// # Safety
/// `dst` must have room for `a.rows` rows of `b.columns` elements, `stride` apart, which
/// no other code accesses during the call; they are read only if `keep` is 1. `a` and `b`
/// must fit their slices, and each other.
pub(super) unsafe fn multiply<T: Copy + PartialEq + From<u8> + 'static>(
    dst: *mut T,
    stride: usize,
    [keep, factor]: [T; 2],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
) {
    // SAFETY: as the caller promises.
    meter::count([a.rows, a.columns, b.columns], || unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            dst,
            1,
            stride as isize,
            keep != T::from(0),
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            T::from(1),
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    });
}
