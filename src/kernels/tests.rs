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
