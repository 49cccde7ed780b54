//! Matrix products that accumulate: `dst ← keep·dst + factor·A·B`.
//!
//! The one place that calls the `gemm` crate, and with it the one place with unsafe code: the bounds are checked here.
#![allow(unsafe_code)]

/// A matrix in memory: element `(r, c)` is `data[r·row + c·column]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row: usize,
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows with contiguous columns, `stride` elements apart.
    pub fn of_rows(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, row: stride, column: 1 }
    }

    /// The same numbers, rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row + (self.columns - 1) * self.column < self.data.len()
    }
}

/// `dst ← keep·dst + factor·a·b`; `dst` has contiguous rows, and is not read if `keep` is 0.
///
/// # Panics
/// If the sizes do not fit each other or the slices; callers have checked the shapes by then.
pub(crate) fn product(dst: &mut [f32], keep: f32, factor: f32, a: Matrix<'_>, b: Matrix<'_>) {
    assert!(a.columns == b.rows && dst.len() == a.rows * b.columns, "sizes of a matrix product");
    assert!(a.fits() && b.fits(), "a matrix reaches beyond its memory");
    if dst.is_empty() {
        return;
    }
    // SAFETY: every index that the product reads or writes is below the length of its slice, as asserted above, and
    // `dst` is borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            dst.as_mut_ptr(),
            1,
            b.columns as isize,
            keep != 0.,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            keep,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_accumulate_and_transpose() {
        let a = [1f32, 2., 3., 4., 5., 6.]; // (2, 3)
        let b = [1f32, 0., 0., 1., 1., 1.]; // (3, 2)
        let mut dst = [10f32, 20., 30., 40.];
        product(&mut dst, 0.5, 2., Matrix::of_rows(&a, 2, 3, 3), Matrix::of_rows(&b, 3, 2, 2));
        assert_eq!(dst, [13., 20., 35., 42.]);
        let mut dst = [f32::NAN; 9];
        let (a, b) = (Matrix::of_rows(&a, 2, 3, 3), Matrix::of_rows(&b, 2, 3, 3));
        product(&mut dst, 0., 1., a.transposed(), b);
        assert_eq!(dst, [5., 4., 5., 7., 5., 7., 9., 6., 9.]);
    }
}
