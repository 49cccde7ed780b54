//! The convolution through which candle's autograd goes back.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use super::tiles::{largest, pools};
use super::{check, convolve_values, input_gradient, kernel_gradient, sizes};
use crate::error::Result;
use crate::kernels::is_fast;
use crate::kernels::sizes::Sizes;

/// `pool(x ∗ kernels)`, as [`Conv`](super::Conv) computes it: `(R, C, H, W)` and
/// `(N, C, K, K)` to `(R, N, ⌊H/P⌋, ⌊W/P⌋)`; stride 1, padded with zeros, maxima of
/// `P×P` pixels, `K` odd.
///
/// Gradients go back through it, but only to the factors that need one; candle's own
/// `conv2d` finds both, and on the CPU is several times slower. The building block of a
/// layer of images that candle differentiates:
///
/// ```
/// use onward_core::candle_core::{DType, Device, Tensor, Var};
/// use onward_core::modules::conv::conv2d;
///
/// let x = Tensor::ones((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
/// let kernels = Var::ones((1, 1, 3, 3), DType::F32, &Device::Cpu)?;
/// let y = conv2d(&x, &kernels, 2)?; // a field in the middle has nine pixels
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [9.; 4]);
/// let gradients = y.sum_all()?.backward()?;
/// let gradient = gradients.get(&kernels).unwrap();
/// assert_eq!(gradient.flatten_all()?.to_vec1::<f32>()?, [4.; 9]);
/// # Ok::<(), onward_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `x` is not `(R, C, H, W)`, or smaller than a
/// pool; [`Error::Unfit`](crate::Error::Unfit) if `K` is even or `pool` is not 1 to 15.
pub fn conv2d(x: &Tensor, kernels: &Tensor, pool: usize) -> Result<Tensor> {
    let sizes = sizes("conv2d", x, kernels, pool)?;
    check("conv2d", sizes.field, pool)?;
    let (x, kernels) = (x.contiguous()?, kernels.contiguous()?);
    if is_fast(&x) && is_fast(&kernels) {
        let convolution = Convolution {
            sizes,
            choices: OnceLock::new(),
        };
        return Ok(x.apply_op2(&kernels, convolution)?);
    }
    let full = x.conv2d(&kernels, sizes.field / 2, 1, 1, 1)?;
    Ok(match pool {
        1 => full,
        _ => largest(&pools(&full, &sizes)?)?,
    })
}

/// A convolution of `f32` on the CPU.
struct Convolution {
    sizes: Sizes,
    /// The largest pixels of the pools, once it has been computed.
    choices: OnceLock<Vec<u8>>,
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        of_x: &Layout,
        kernels: &CpuStorage,
        of_kernels: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, kernels) = (values(x, of_x)?, values(kernels, of_kernels)?);
        let (output, choices) = convolve_values(x, kernels, &self.sizes);
        // It is computed once.
        let _ = self.choices.set(choices);
        let ((height, width), sizes) = (self.sizes.out(), &self.sizes);
        let shape = (sizes.rows, sizes.units, height, width);
        Ok((CpuStorage::F32(output), shape.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        kernels: &Tensor,
        _: &Tensor,
        delta: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let (choices, sizes) = (self.choices.get().map_or(&[][..], |all| all), &self.sizes);
        let of_x = x
            .track_op()
            .then(|| input_gradient(kernels, choices, delta, sizes));
        let of_kernels = kernels
            .track_op()
            .then(|| kernel_gradient(x, choices, delta, sizes));
        let found = |gradient: Option<Result<Tensor>>| {
            gradient.transpose().map_err(candle_core::Error::wrap)
        };
        Ok((found(of_x)?, found(of_kernels)?))
    }
}

/// The values of a contiguous tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let start = layout.start_offset();
    Ok(&storage.as_slice()?[start..start + layout.shape().elem_count()])
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::flow::random::normals;

    #[test]
    fn output_and_gradients_are_those_of_candle() {
        let random = |shape: [usize; 4], seed| normals(&shape, seed).unwrap();
        for (x, kernels, pool) in [
            ([3, 2, 9, 7], [4, 2, 3, 3], 2),
            ([2, 3, 5, 5], [2, 3, 5, 5], 1),
        ] {
            let (x, kernels) = (random(x, 1), random(kernels, 2));
            let found = |dtype| {
                let [x, kernels] =
                    [&x, &kernels].map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap());
                let y = conv2d(&x, &kernels, pool).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let (of_x, of_kernels) = (gradients.get(&x), gradients.get(&kernels));
                [&y, of_x.unwrap(), of_kernels.unwrap()].map(|x| x.to_dtype(DType::F64).unwrap())
            };
            // In 64 bits it is candle's own.
            for (here, candle) in found(DType::F32).iter().zip(&found(DType::F64)) {
                assert_eq!(here.dims(), candle.dims());
                let difference = (here - candle).unwrap().abs().unwrap();
                let most = difference.max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(most < 1e-3, "{most}");
            }
        }
    }

    #[test]
    fn no_images_and_no_kernels_have_no_output() {
        for dtype in [DType::F32, DType::F64] {
            for pool in [1, 2] {
                for (images, kernels) in
                    [([0, 1, 4, 4], [2, 1, 3, 3]), ([2, 1, 4, 4], [0, 1, 3, 3])]
                {
                    let images = Var::ones(&images, dtype, &Device::Cpu).unwrap();
                    let kernels = Var::ones(&kernels, dtype, &Device::Cpu).unwrap();
                    let y = conv2d(&images, &kernels, pool).unwrap();
                    assert_eq!(y.elem_count(), 0);
                    if dtype == DType::F32 {
                        let gradients = y.sum_all().unwrap().backward().unwrap();
                        let gradient = gradients.get(&kernels).unwrap();
                        assert_eq!(gradient.dims(), kernels.dims());
                    }
                }
            }
        }
    }

    #[test]
    fn images_that_need_no_gradient_cost_none() {
        let images = Tensor::ones((2, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
        let kernels = Var::ones((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
        let y = conv2d(&images, &kernels, 1).unwrap().sum_all().unwrap();
        let gradients = y.backward().unwrap();
        assert!(gradients.get(&images).is_none() && gradients.get(&kernels).is_some());
        let even = kernels.narrow(3, 0, 2).unwrap().narrow(2, 0, 2).unwrap();
        assert!(conv2d(&images, &even, 1).is_err());
        assert!(conv2d(&images, &kernels, 5).is_err());
        let none = Tensor::zeros((0, 1, 4, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(conv2d(&none, &kernels, 2).unwrap().dims(), [0, 1, 2, 2]);
    }
}
