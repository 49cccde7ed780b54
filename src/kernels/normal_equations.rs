//! Sums of products in double precision, and the equations that they give: least squares
//! in closed form.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor, Var};
use rayon::prelude::*;

use super::gemm::{add_product, Matrix};
use super::matmul;
use super::wide::Loop;
use crate::error::{Error, Result};

/// The rows and columns that are eliminated together.
const BLOCK: usize = 64;

/// The rows of a result that one thread computes. Constant, so that the bits do not
/// depend on the number of threads.
const PANEL: usize = 256;

/// The columns that one thread solves for: few enough for them to stay in its cache.
const STRIP: usize = 64;

/// Adds `rowsᵀ·rows` to the lower triangle of `sum`, `(D, D)`, for `rows`, `(R, D)`; both
/// `f64`. The numbers above the diagonal mean nothing.
pub(crate) fn add_squares(sum: &Var, rows: &Tensor) -> Result<()> {
    let (count, width) = rows.dims2()?;
    if count == 0 || width == 0 {
        return Ok(());
    }
    if !sum.device().is_cpu() {
        return add(sum, &rows.t()?.matmul(rows)?);
    }
    let rows = rows.contiguous()?;
    let (storage, layout) = rows.storage_and_layout();
    let Storage::Cpu(CpuStorage::F64(data)) = &*storage else {
        return Err(Error::usage("sum of squares", "expected f64"));
    };
    let rows = Matrix::of_rows(&data[layout.start_offset()..], count, width, width);
    change(sum, |sum| {
        let panels = sum.par_chunks_mut(PANEL * width).enumerate();
        panels.for_each(|(index, panel)| {
            let first = index * PANEL;
            let height = panel.len() / width;
            let left = Matrix {
                data: &rows.data[first..],
                columns: height,
                ..rows
            };
            let right = Matrix {
                columns: first + height,
                ..rows
            };
            add_product(panel, width, 1., left.transposed(), right);
        });
    })
}

/// Adds `rowsᵀ·targets` to `sum`, `(D, C)`, for `rows`, `(R, D)`, and `targets`, `(R,
/// C)`; all `f64`.
pub(crate) fn add_products(sum: &Var, rows: &Tensor, targets: &Tensor) -> Result<()> {
    if !sum.device().is_cpu() {
        return add(sum, &matmul(&rows.t()?, targets)?);
    }
    let (height, width) = (rows.dim(1)?, targets.dim(1)?);
    if sum.dims() != [height, width] || rows.dim(0)? != targets.dim(0)? || width == 0 {
        let expected = format!("a target for each of {:?}", rows.dims());
        return Err(Error::shape("sum of products", targets.dims(), expected));
    }
    with_matrix(rows, |rows| {
        with_matrix(targets, |targets| {
            change(sum, |sum| {
                let panels = sum.par_chunks_mut(PANEL * width).enumerate();
                panels.for_each(|(index, panel)| {
                    let left = Matrix {
                        data: rows.data.get(index * PANEL..).unwrap_or(&[]),
                        columns: panel.len() / width,
                        ..rows
                    };
                    add_product(panel, width, 1., left.transposed(), targets);
                });
            })
        })?
    })?
}

/// Calls `f` with a matrix of `f64` on the CPU.
fn with_matrix<T>(x: &Tensor, f: impl FnOnce(Matrix<'_, f64>) -> T) -> Result<T> {
    let (rows, columns) = x.dims2()?;
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F64(data)) = &*storage else {
        return Err(Error::usage("sum of products", "expected f64"));
    };
    let data = &data[layout.start_offset()..];
    Ok(f(Matrix::of_rows(data, rows, columns, columns)))
}

/// Adds `a` to a variable.
fn add(sum: &Var, a: &Tensor) -> Result<()> {
    Ok(sum.set(&(sum.as_tensor() + a)?.detach())?)
}

/// `(S + λ·I)⁻¹·P` with `λ = ridge·trace(S) / D`: `(D, C)` in `f64`, on the CPU.
///
/// `squares` is `S`, symmetric, of which the lower triangle is read: `(D, D)`. `products`
/// is `P`, `(D, C)`.
///
/// # Errors
/// [`Error::Unfit`] if the matrix is not positive definite.
pub(crate) fn solve(squares: &Tensor, products: &Tensor, ridge: f64) -> Result<Tensor> {
    let (size, columns) = products.dims2()?;
    let values = |x: &Tensor| -> Result<Vec<f64>> {
        let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        Ok(x.flatten_all()?.to_vec1()?)
    };
    let (mut matrix, mut right) = (values(squares)?, values(products)?);
    let trace: f64 = (0..size).map(|index| matrix[index * size + index]).sum();
    for index in 0..size {
        matrix[index * size + index] += ridge * trace / size as f64;
    }
    factor(&mut matrix, size)?;
    substitute(&matrix, size, &mut right, columns);
    Ok(Tensor::from_vec(right, (size, columns), &Device::Cpu)?)
}

/// Cholesky's decomposition in place: the lower triangle becomes `L` with `L·Lᵀ` the
/// matrix.
fn factor(matrix: &mut [f64], size: usize) -> Result<()> {
    for first in (0..size).step_by(BLOCK) {
        let end = (first + BLOCK).min(size);
        factor_diagonal(matrix, size, first..end)?;
        let (above, below) = matrix.split_at_mut(end * size);
        // The rows below, divided by the block on the diagonal.
        below.par_chunks_mut(size).for_each(|row| {
            for column in first..end {
                let of_column = &above[column * size + first..][..column - first];
                let sum = dot(&row[first..column], of_column);
                row[column] = (row[column] - sum) / above[column * size + column];
            }
        });
        let (width, count) = (end - first, size - end);
        let done: Vec<f64> = below
            .chunks(size)
            .flat_map(|row| row[first..end].iter().copied())
            .collect();
        let done = Matrix::of_rows(&done, count, width, width);
        let panels = below.par_chunks_mut(PANEL * size).enumerate();
        panels.for_each(|(index, panel)| {
            let (row, height) = (index * PANEL, panel.len() / size);
            let left = Matrix {
                data: &done.data[row * width..],
                rows: height,
                ..done
            };
            let right = Matrix {
                rows: row + height,
                ..done
            };
            add_product(&mut panel[end..], size, -1., left, right.transposed());
        });
    }
    Ok(())
}

fn factor_diagonal(matrix: &mut [f64], size: usize, block: std::ops::Range<usize>) -> Result<()> {
    let first = block.start;
    for column in block.clone() {
        let (above, rest) = matrix.split_at_mut(column * size);
        let (row, below) = rest.split_at_mut(size);
        for other in first..column {
            let of_other = &above[other * size + first..][..other - first];
            let sum = dot(&row[first..other], of_other);
            row[other] = (row[other] - sum) / above[other * size + other];
        }
        let pivot = row[column] - dot(&row[first..column], &row[first..column]);
        // Also false for NaN.
        if !(pivot > 0. && pivot.is_finite()) {
            let problem =
                "the equations have no single solution in these numbers: expected finite \
                 activities of at least one example, and a `ridge` large enough for them; use \
                 a larger one";
            return Err(Error::unfit("least squares", problem));
        }
        row[column] = pivot.sqrt();
        debug_assert!(below.len() % size == 0);
    }
    Ok(())
}

/// Solves `L·Lᵀ·X = right` in place, some columns at a time: no column depends on
/// another.
fn substitute(lower: &[f64], size: usize, right: &mut [f64], columns: usize) {
    let range = |index: usize| index * STRIP..columns.min((index + 1) * STRIP);
    let strips = (0..columns.div_ceil(STRIP)).into_par_iter().map(|index| {
        let rows = right.chunks(columns);
        let of_strip = rows.flat_map(|row| &row[range(index)]);
        let mut right: Vec<f64> = of_strip.copied().collect();
        Substitution {
            lower,
            size,
            right: &mut right,
            columns: range(index).len(),
        }
        .wide();
        right
    });
    let strips: Vec<_> = strips.collect();
    for (index, strip) in strips.iter().enumerate() {
        let rows = right.chunks_mut(columns);
        for (row, solved) in rows.zip(strip.chunks(range(index).len())) {
            row[range(index)].copy_from_slice(solved);
        }
    }
}

/// Solves `L·Lᵀ·X = right` in place on one thread.
struct Substitution<'a> {
    lower: &'a [f64],
    size: usize,
    right: &'a mut [f64],
    columns: usize,
}

impl Loop for Substitution<'_> {
    #[inline(always)]
    fn run(self) {
        let Self {
            lower,
            size,
            right,
            columns,
        } = self;
        for row in 0..size {
            let (done, rest) = right.split_at_mut(row * columns);
            let of_row = &mut rest[..columns];
            for (factor, done) in lower[row * size..][..row].iter().zip(done.chunks(columns)) {
                let pairs = of_row.iter_mut().zip(done);
                pairs.for_each(|(value, done)| *value -= factor * done);
            }
            let pivot = lower[row * size + row];
            of_row.iter_mut().for_each(|value| *value /= pivot);
        }
        for row in (0..size).rev() {
            let (before, rest) = right.split_at_mut(row * columns);
            let of_row = &mut rest[..columns];
            let pivot = lower[row * size + row];
            of_row.iter_mut().for_each(|value| *value /= pivot);
            let factors = &lower[row * size..][..row];
            for (factor, other) in factors.iter().zip(before.chunks_mut(columns)) {
                let pairs = other.iter_mut().zip(of_row.iter());
                pairs.for_each(|(other, value)| *other -= factor * value);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Calls `f` with the values of a contiguous `f64` variable on the CPU, to change them.
fn change(var: &Var, f: impl FnOnce(&mut [f64])) -> Result<()> {
    let change = Change(Cell::new(Some(f)));
    var.as_tensor().inplace_op1(&change)?;
    match change.0.into_inner() {
        None => Ok(()),
        Some(_) => Err(Error::usage("sum of squares", "expected f64 on the CPU")),
    }
}

struct Change<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f64])> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        if let (CpuStorage::F64(values), Some((start, end)), Some(f)) =
            (storage, layout.contiguous_offsets(), self.0.take())
        {
            f(&mut values[start..end]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, width: usize) -> Result<Tensor> {
        let values = (0..count * width).map(|i| (i * 7919 % 1009) as f64 / 500. - 1.);
        Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((count, width))?)
    }

    /// More than one block and one panel.
    #[test]
    fn the_solution_fulfils_the_equations() -> Result<()> {
        let (width, columns) = (PANEL + BLOCK + 5, 3);
        let sum = Var::zeros((width, width), DType::F64, &Device::Cpu)?;
        for count in [200, 300] {
            add_squares(&sum, &rows(count, width)?)?;
        }
        let whole = [200, 300].map(|count| -> Result<Tensor> {
            let rows = rows(count, width)?;
            Ok(rows.t()?.matmul(&rows)?)
        });
        let [first, second] = whole;
        let whole = (first? + second?)?;
        let lower = |x: &Tensor| -> Result<Vec<Vec<f64>>> {
            let rows = x.to_vec2::<f64>()?.into_iter().enumerate();
            Ok(rows.map(|(index, row)| row[..=index].to_vec()).collect())
        };
        for (found, expected) in lower(&sum)?
            .iter()
            .flatten()
            .zip(lower(&whole)?.iter().flatten())
        {
            assert!((found - expected).abs() < 1e-9, "{found}, {expected}");
        }
        let products = rows(width, columns)?;
        let solution = solve(&sum, &products, 0.01)?;
        let trace: f64 = lower(&whole)?.iter().filter_map(|row| row.last()).sum();
        let ridge = (solution.clone() * (0.01 * trace / width as f64))?;
        let again = (whole.matmul(&solution)? + ridge)?;
        let error = (again - products)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(error < 1e-9, "{error}");
        Ok(())
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Several strips, the last of them narrower.
    #[test]
    fn strips_of_columns_have_the_bits_of_single_columns() -> Result<()> {
        let (size, columns) = (70, 2 * STRIP + 3);
        let mut lower = rows(size, size)?.flatten_all()?.to_vec1::<f64>()?;
        (0..size).for_each(|row| lower[row * size + row] += 30.);
        let right = rows(size, columns)?.flatten_all()?.to_vec1::<f64>()?;
        let mut found = right.clone();
        substitute(&lower, size, &mut found, columns);
        for column in 0..columns {
            let of_column = |from: &[f64]| -> Vec<f64> {
                from[column..].iter().step_by(columns).copied().collect()
            };
            let mut expected = of_column(&right);
            Substitution {
                lower: &lower,
                size,
                right: &mut expected,
                columns: 1,
            }
            .run();
            assert_eq!(bits(&of_column(&found)), bits(&expected), "{column}");
        }
        Ok(())
    }

    #[test]
    fn no_rows_add_nothing() -> Result<()> {
        let width = PANEL + 1;
        let sum = Var::ones((width, width), DType::F64, &Device::Cpu)?;
        add_squares(&sum, &rows(0, width)?)?;
        assert_eq!(sum.sum_all()?.to_scalar::<f64>()?, (width * width) as f64);
        Ok(())
    }

    #[test]
    fn products_are_added_in_place_with_the_same_bits() -> Result<()> {
        for columns in [2, 10, 300] {
            let (x, y) = (rows(100, PANEL + 5)?, rows(100, columns)?);
            let sum = Var::from_tensor(&rows(PANEL + 5, columns)?)?;
            let product = matmul(&x.t()?, &y)?;
            let expected = (sum.as_tensor() + product)?.flatten_all()?;
            add_products(&sum, &x, &y)?;
            let found = sum.flatten_all()?.to_vec1::<f64>()?;
            assert_eq!(bits(&found), bits(&expected.to_vec1::<f64>()?), "{columns}");
        }
        let sum = Var::zeros((3, 2), DType::F64, &Device::Cpu)?;
        assert!(add_products(&sum, &rows(4, 3)?, &rows(5, 2)?).is_err());
        assert!(add_products(&sum, &rows(4, 3)?, &rows(4, 1)?).is_err());
        Ok(())
    }

    #[test]
    fn without_examples_there_is_no_solution() -> Result<()> {
        let zeros = |shape| Tensor::zeros(shape, DType::F64, &Device::Cpu);
        let error = solve(&zeros((3, 3))?, &zeros((3, 1))?, 0.1).unwrap_err();
        assert!(error.to_string().contains("ridge"), "{error}");
        Ok(())
    }
}
