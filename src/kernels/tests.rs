//! What the forms of the public kernels have in common.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::error::Error;

const TYPES: [DType; 2] = [DType::F32, DType::F64];

fn zeros(shape: &[usize], dtype: DType) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, dtype, &Device::Cpu)?)
}

fn assert_refused(result: Result<Tensor>) {
    assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
}

#[test]
fn shapes_that_do_not_match_are_refused() -> Result<()> {
    for dtype in TYPES {
        let of = |shape: &[usize]| zeros(shape, dtype);
        let x = of(&[4, 6])?;
        for other in [&[4, 5][..], &[3, 6], &[4, 2, 3], &[24]] {
            assert_refused(gate(&x, &of(other)?, Gate::default()));
            assert_refused(gate(&of(other)?, &x, Gate::default()));
        }
        for rows in [0, 5] {
            assert_refused(column_means(&x, rows));
        }
        assert_refused(matmul_transposed(&of(&[2, 3])?, &of(&[4, 5])?));
        assert_refused(matmul_transposed(&of(&[2, 5])?, &of(&[4, 3])?));
        assert_refused(matmul_transposed(&of(&[3])?, &of(&[4, 3])?));
        for cell in [[0, 1], [1, 0], [4, 1], [2, 3]] {
            assert_refused(cell_means(&of(&[1, 1, 6, 2])?, cell));
        }
    }
    Ok(())
}

fn close(found: &Tensor, expected: &Tensor) -> Result<()> {
    assert_eq!(found.dims(), expected.dims());
    let found = found.to_dtype(DType::F64)?;
    let most = (found - expected)?.abs()?.flatten_all()?.max(0)?;
    assert!(most.to_scalar::<f64>()? < 1e-5, "{most}");
    Ok(())
}

/// Compares both forms on tensors of these shapes.
fn both(shape: &[usize], f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let numbers = (0..shape.iter().product()).map(|i: usize| (1.7 * i as f64).sin());
    let x = Tensor::from_iter(numbers, &Device::Cpu)?.reshape(shape)?;
    close(&f(&x.to_dtype(DType::F32)?)?, &f(&x)?)
}

#[test]
fn rows_of_one_number_need_no_second_dimension() -> Result<()> {
    let shape = [7];
    both(&shape, |x| gate(&x.exp()?, x, Gate::default()))?;
    both(&shape, |x| weighted(x, 2., &x.exp()?, 3.))?;
    both(&shape, |x| damp(x, &Tensor::cat(&[x, x], 0)?, 0.3))?;
    both(&shape, |x| scale_rows(x, &x.exp()?))?;
    both(&shape, |x| {
        dropout(x, 0.4, &crate::flow::random::stream(1, "test", 0))
    })?;
    both(&shape, sum_squares)?;
    both(&[6], |x| sum_views(x, Some(x), 3))?;
    // Every second number of a row.
    both(&[4, 2], |x| {
        weighted(&x.narrow(1, 1, 1)?.squeeze(1)?, 2., &x.sum(1)?, 3.)
    })
}
