//! The matrix product through which candle's autograd goes back.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::gemm::{self, Matrix};
use super::{are_fast, is_fast, meter, with_rows};
use crate::error::{Error, Result};

/// `a·b`: `(R, K)` and `(K, N)` to `(R, N)`.
///
/// Gradients go back through it, but only to the factors that need one; candle's own
/// `matmul` finds both. The building block of a layer or a loss that candle
/// differentiates:
///
/// ```
/// use onward_core::candle_core::{Device, Tensor, Var};
/// use onward_core::kernels::matmul;
///
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let weight = Var::new(&[[3f32], [4.]], &Device::Cpu)?;
/// let y = matmul(&x, &weight)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[11.]]);
/// let gradients = y.sum_all()?.backward()?;
/// assert_eq!(gradients.get(&weight).unwrap().to_vec2::<f32>()?, [[1.], [2.]]);
/// # Ok::<(), onward_core::Error>(())
/// ```
///
/// # Errors
/// Errors of candle: for tensors that are no matrices, or whose sizes do not match.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((rows, inner), (height, columns)) = (a.dims2()?, b.dims2()?);
    if is_fast(a) && is_fast(b) && inner == height {
        return Ok(a.apply_op2(b, Product)?);
    }
    // The result, and a gradient for each factor.
    let products = 1 + u64::from(a.track_op()) + u64::from(b.track_op());
    meter::note(products * (rows * inner * columns) as u64);
    Ok(whole(a)?.matmul(&whole(b)?)?)
}

/// A matrix that candle can multiply: contiguous, or the transpose of one that is.
fn whole(x: &Tensor) -> Result<Tensor> {
    Ok(match x.t()?.is_contiguous() {
        true => x.clone(),
        false => x.contiguous()?,
    })
}

/// `a·bᵀ`: `(R, N)` and `(D, N)` to `(R, D)`.
///
/// # Errors
/// [`Error::Shape`] if the rows of the two differ in length; errors of candle.
pub fn matmul_transposed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let of_row = |x: &Tensor| x.dims()[1..].iter().product::<usize>();
    if a.rank() < 2 || b.rank() < 2 || of_row(a) != of_row(b) {
        let expected = format!("(R, N), where the other factor is {:?}", b.dims());
        return Err(Error::shape("matrix product a·bᵀ", a.dims(), expected));
    }
    on_gpu!([a, b], cuda::matmul_transposed(a, b));
    if are_fast([a, b]) {
        let product = with_rows(a, |a| {
            with_rows(b, |b| {
                let a = Matrix::of_rows(a.data, a.rows, a.width, a.stride);
                let b = Matrix::of_rows(b.data, b.rows, b.width, b.stride).transposed();
                gemm::product(a, b, |_, _, _| ())
            })
        })??;
        return Ok(Tensor::from_vec(
            product,
            (a.dim(0)?, b.dim(0)?),
            a.device(),
        )?);
    }
    matmul(a, &b.t()?)
}

/// `aᵀ·b`: `(R, M)` and `(R, N)` to `(M, N)`.
fn transposed_matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let product = with_rows(a, |a| {
        with_rows(b, |b| {
            let a = Matrix::of_rows(a.data, a.rows, a.width, a.stride).transposed();
            let b = Matrix::of_rows(b.data, b.rows, b.width, b.stride);
            gemm::product(a, b, |_, _, _| ())
        })
    })??;
    Ok(Tensor::from_vec(
        product,
        (a.dim(1)?, b.dim(1)?),
        a.device(),
    )?)
}

/// The product of two matrices of `f32` on the CPU.
struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        of_a: &Layout,
        b: &CpuStorage,
        of_b: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (a, b) = (matrix(a, of_a)?, matrix(b, of_b)?);
        let shape = (a.rows, b.columns);
        let product = gemm::product(a, b, |_, _, _| ());
        Ok((CpuStorage::F32(product), shape.into()))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let of_a = a
            .track_op()
            .then(|| matmul_transposed(gradient, &b.detach()));
        let of_b = b.track_op().then(|| transposed_matmul(a, gradient));
        let found = |gradient: Option<Result<Tensor>>| {
            gradient.transpose().map_err(candle_core::Error::wrap)
        };
        Ok((found(of_a)?, found(of_b)?))
    }
}

fn matrix<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<Matrix<'a>> {
    let (rows, columns) = layout.shape().dims2()?;
    let data = &storage.as_slice::<f32>()?[layout.start_offset()..];
    let (row, column) = (layout.stride()[0], layout.stride()[1]);
    Ok(Matrix {
        data,
        rows,
        columns,
        row,
        column,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::flow::random::normals;

    #[test]
    fn product_and_gradients_are_those_of_candle() {
        let random = |rows, columns| normals(&[rows, columns], rows as u64).unwrap();
        // The second factor of the second case is transposed, the first is a part.
        let wide = random(9, 70);
        let cases = [
            (random(5, 7), random(7, 3)),
            (wide.narrow(1, 3, 64).unwrap(), random(300, 64).t().unwrap()),
        ];
        for (a, b) in cases {
            let found = |dtype, product: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
                let [a, b] =
                    [&a, &b].map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap());
                let y = product(&a, &b);
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [&y, gradients.get(&a).unwrap(), gradients.get(&b).unwrap()]
                    .map(|x| x.to_dtype(DType::F64).unwrap())
            };
            let here = found(DType::F32, &|a, b| matmul(a, b).unwrap());
            let candle = found(DType::F64, &|a, b| a.matmul(b).unwrap());
            for (here, candle) in here.iter().zip(&candle) {
                let difference = (here - candle).unwrap().abs().unwrap();
                let most = difference.max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(most < 1e-2, "{most}");
            }
            // A view that autograd does not follow gives the same.
            let y = matmul(&a, &b).unwrap().to_dtype(DType::F64).unwrap();
            let most = (y - &candle[0]).unwrap().abs().unwrap().max_all().unwrap();
            assert!(most.to_scalar::<f64>().unwrap() < 1e-4);
        }
    }

    #[test]
    fn a_factor_that_needs_no_gradient_costs_none() {
        let ones = Tensor::ones((64, 64), DType::F32, &Device::Cpu).unwrap();
        let weight = Var::from_tensor(&ones).unwrap();
        let y = matmul(&ones, &weight).unwrap().sum_all().unwrap();
        let gradients = y.backward().unwrap();
        assert!(gradients.get(&ones).is_none() && gradients.get(&weight).is_some());
        assert!(matmul(&ones, &ones.narrow(0, 0, 3).unwrap()).is_err());
    }
}
