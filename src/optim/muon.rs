//! Muon: updates whose singular values are all alike.

use candle_core::{Tensor, Var};

use crate::error::Result;
use crate::kernels;

/// The coefficients of the iteration, and their number of repetitions.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
const REPETITIONS: usize = 5;

/// One step of a variable of at least two dimensions, seen as a matrix of its first
/// dimension and the rest, `(M, K)`; of three dimensions, as a matrix for each location,
/// `(L, M, K)`:
///
/// `v ← μ·v + (1 − μ)·g`, `w ← shrink·w − rate·√max(M, K)·orthogonal(μ·v + (1 − μ)·g)`.
///
/// With the factor the numbers of an update have a mean square of about 1, as with Adam.
pub(super) fn update(
    var: &Var,
    velocity: &mut Tensor,
    gradient: &Tensor,
    momentum: f64,
    rate: f64,
    shrink: f64,
) -> Result<()> {
    let fresh = (gradient * (1. - momentum))?;
    *velocity = ((&*velocity * momentum)? + &fresh)?.detach();
    let ahead = ((&*velocity * momentum)? + fresh)?;
    let change = match ahead.rank() {
        // Weights that are not shared: a matrix for each location.
        3 => {
            let matrices = (0..ahead.dim(0)?).map(|location| changed(&ahead.get(location)?));
            Tensor::stack(&matrices.collect::<Result<Vec<_>>>()?, 0)?
        }
        _ => changed(&ahead.flatten_from(1)?)?,
    };
    let change = (change * rate)?.reshape(var.shape())?;
    Ok(var.set(&((var.as_tensor() * shrink)? - change)?.detach())?)
}

/// `√max(M, K)·orthogonal(u)` of a matrix.
fn changed(u: &Tensor) -> Result<Tensor> {
    let (rows, columns) = u.dims2()?;
    Ok((orthogonal(u)? * (rows.max(columns) as f64).sqrt())?)
}

/// A matrix with about the same singular vectors and singular values near 1, by Newton
/// and Schulz's iteration.
fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let length = matrix.sqr()?.sum_all()?.sqrt()?;
    let unit = matrix.broadcast_div(&(length + 1e-7)?)?;
    // The products are those of the shorter side.
    let is_high = rows > columns;
    let mut x = if is_high {
        unit.t()?.contiguous()?
    } else {
        unit
    };
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..REPETITIONS {
        let square = kernels::matmul_transposed(&x, &x)?;
        let polynomial = ((&square * b)? + (kernels::matmul(&square, &square)? * c)?)?;
        x = ((&x * a)? + kernels::matmul(&polynomial, &x)?)?;
    }
    Ok(if is_high { x.t()?.contiguous()? } else { x })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn numbers(k: f64) -> Result<Tensor> {
        let values = (0..15).map(|i| 0.5 * (1.7 * i as f64 + k).sin());
        Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape((5, 3))?)
    }

    // def numbers(k, *shape):
    //     return .5 * np.sin(1.7 * np.arange(np.prod(shape)) + k).reshape(shape)
    // def orthogonal(g):
    //     x = g / (np.sqrt((g ** 2).sum()) + 1e-7)
    //     x = x.T if x.shape[0] > x.shape[1] else x
    //     for _ in range(5):
    //         a = x @ x.T
    //         x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    //     return x.T if g.shape[0] > g.shape[1] else x
    // W, V = numbers(1, 5, 3), np.zeros((5, 3))
    // for k in (2, 3):
    //     G = numbers(k, 5, 3)
    //     V = .95 * V + .05 * G
    //     W = (1 - .01 * .1) * W - .01 * np.sqrt(5) * orthogonal(.95 * V + .05 * G)
    const AFTER: [f64; 15] = [
        0.405353874,
        0.227760816,
        -0.464045328,
        -0.110089565,
        0.493329798,
        -0.017036092,
        -0.488576684,
        0.145174551,
        0.451166801,
        -0.259252659,
        -0.383584300,
        0.358098110,
        0.292593214,
        -0.435147207,
        -0.180460571,
    ];

    #[test]
    fn two_steps_match_an_independent_program() -> Result<()> {
        let weight = Var::from_tensor(&numbers(1.)?)?;
        let mut velocity = weight.zeros_like()?;
        for k in [2., 3.] {
            update(&weight, &mut velocity, &numbers(k)?, 0.95, 0.01, 1. - 0.001)?;
        }
        let found = weight.flatten_all()?.to_vec1::<f64>()?;
        for (found, expected) in found.iter().zip(AFTER) {
            assert!((found - expected).abs() < 1e-8, "{found}, {expected}");
        }
        Ok(())
    }

    /// Kernels are matrices of their rows; weights of locations are matrices one by one.
    #[test]
    fn other_shapes_are_matrices_too() -> Result<()> {
        let step = |start: &Tensor| -> Result<Tensor> {
            let weight = Var::from_tensor(start)?;
            let gradient = (start * 0.3)?.sin()?;
            update(&weight, &mut weight.zeros_like()?, &gradient, 0.9, 0.1, 1.)?;
            Ok(weight.as_detached_tensor())
        };
        let (a, b) = (numbers(1.)?, numbers(2.)?);
        let both = step(&Tensor::stack(&[&a, &b], 0)?)?;
        let one_by_one = Tensor::stack(&[step(&a)?, step(&b)?], 0)?;
        let difference = |x: Tensor, y: Tensor| -> Result<f64> {
            Ok((x - y)?.abs()?.max_all()?.to_scalar::<f64>()?)
        };
        assert_eq!(difference(both, one_by_one)?, 0.);
        let kernels = step(&a.reshape((5, 1, 3, 1))?)?;
        assert_eq!(difference(kernels.flatten_from(1)?, step(&a)?)?, 0.);
        Ok(())
    }

    #[test]
    fn singular_values_become_alike() -> Result<()> {
        // Singular values 3 and 0.1.
        let matrix = Tensor::new(&[[3f64, 0., 0.], [0., 0.1, 0.]], &Device::Cpu)?;
        let found = orthogonal(&matrix)?;
        let values = [found.get(0)?.get(0)?, found.get(1)?.get(1)?];
        for value in values {
            let value = value.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            assert!((0.5..1.3).contains(&value), "{value}");
        }
        Ok(())
    }
}
