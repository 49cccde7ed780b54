//! What the forms of the public kernels have in common.

use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;

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
        for images in [&[4, 6][..], &[4, 6, 2]] {
            let images = of(images)?;
            let (bias, slope) = (of(&[6])?, 0.);
            for other in [&[5][..], &[7], &[6, 1]] {
                assert_refused(standardised_relu(&images, None, &of(other)?, slope));
            }
            for by_row in [true, false] {
                let mut moments = ChannelStats::of(&images, by_row)?;
                assert_refused(moments.gradient(&images, &x.narrow(0, 0, 3)?, false));
                moments.mean = of(&[3])?;
                assert_refused(standardised_relu(&images, Some(&moments), &bias, slope));
                assert_refused(moments.gradient(&images, &images, false));
            }
        }
    }
    Ok(())
}

fn close(found: &Tensor, expected: &Tensor) -> Result<()> {
    assert_eq!(found.dims(), expected.dims());
    let found = found.to_dtype(DType::F64)?;
    let most = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
    let (worst, largest) = (most(&(found - expected)?)?, most(expected)?);
    assert!(worst < 1e-5 * (1. + largest), "{worst} of {largest}");
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
    both(&shape, |x| dropout(x, 0.4, &ChaCha8Rng::seed_from_u64(1)))?;
    both(&shape, sum_squares)?;
    both(&[6], |x| sum_views(x, Some(x), 3))?;
    // Every second number of a row.
    both(&[4, 2], |x| {
        weighted(&x.narrow(1, 1, 1)?.squeeze(1)?, 2., &x.sum(1)?, 3.)
    })
}

/// The gradient that autograd finds for a variable of `f`, in 32 and in 64 bits.
fn gradients(shape: &[usize], f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let numbers = (0..shape.iter().product()).map(|i: usize| (1.7 * i as f64).sin());
    let x = Tensor::from_iter(numbers, &Device::Cpu)?.reshape(shape)?;
    let of = |dtype| -> Result<[Tensor; 2]> {
        let x = Var::from_tensor(&x.to_dtype(dtype)?)?;
        let y = f(&x)?;
        let gradients = y.sqr()?.sum_all()?.backward()?;
        let gradient = gradients.get(&x).expect("it depends on x").detach();
        Ok([y.detach(), gradient])
    };
    for (fast, plain) in of(DType::F32)?.iter().zip(&of(DType::F64)?) {
        close(fast, plain)?;
    }
    Ok(())
}

#[test]
fn autograd_goes_back_in_every_type() -> Result<()> {
    let (rows, images) = ([4, 6], [4, 3, 2, 2]);
    let like = |x: &Tensor| x.detach().exp();
    for shape in [&rows[..], &images] {
        gradients(shape, sum_squares)?;
        gradients(shape, |x| scale_rows(x, &sum_squares(x)?))?;
        gradients(shape, |x| scale_rows(&like(x)?, &sum_squares(x)?))?;
        gradients(shape, |x| scale_rows_by(x, &sum_squares(x)?, 0.3))?;
        gradients(shape, |x| gate(x, &like(x)?, Gate::default()))?;
        gradients(shape, |x| damp(&like(x)?, x, 0.3))?;
        gradients(shape, |x| weighted(&like(x)?, 2., x, 3.))?;
        let rng = ChaCha8Rng::seed_from_u64(1);
        gradients(shape, |x| dropout(x, 0.3, &rng))?;
        gradients(shape, centred)?;
        gradients(shape, channel_sums)?;
        gradients(shape, pixel_energies)?;
        gradients(shape, |x| pixel_energies_gradient(x, &pixel_energies(x)?))?;
        let zeros = |x: &Tensor| Tensor::zeros(x.dim(1)?, x.dtype(), x.device());
        gradients(shape, |x| standardised_relu(x, None, &zeros(x)?, 0.1))?;
        for by_row in [true, false] {
            gradients(shape, |x| {
                let moments = ChannelStats::of(x, by_row)?;
                standardised_relu(&like(x)?, Some(&moments), &zeros(x)?, 0.1)
            })?;
        }
    }
    gradients(&images, |x| cell_means(x, [2, 1]))?;
    gradients(&images, |x| cell_means_gradient(x, [2, 1]))?;
    gradients(&images, |x| Ok(Deviations::of(x)?.values))?;
    gradients(&rows, |x| {
        Ok(Directions::of(&x.powf(3.)?)?.rows.narrow(1, 0, 2)?)
    })?;
    gradients(&rows, |x| sum_views(x, Some(&sum_squares(x)?), 2))?;
    gradients(&rows, |x| sum_views(x, None, 2))?;
    gradients(&rows, |x| column_means(x, 3))?;
    gradients(&rows, column_sums)?;
    gradients(&rows, log_softmax)?;
    gradients(&rows, |x| matmul_transposed(x, &like(x)?))?;
    gradients(&rows, |x| matmul_transposed(&like(x)?, x))
}
