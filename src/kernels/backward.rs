//! Going back from a gradient that is known.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use crate::error::Result;

/// The gradients of a loss with respect to everything that `y` was made of, given the
/// `gradient` of the loss with respect to `y`, of the same shape.
///
/// The same as `(y · gradient).sum_all().backward()`, without the product and the sum.
///
/// # Errors
/// Errors of candle: for shapes that differ, and of the operations on the way back.
pub fn backward(y: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    let gradient = gradient.detach();
    if !y.device().is_cpu() || y.shape() != gradient.shape() {
        return Ok((y * gradient)?.sum_all()?.backward()?);
    }
    Ok(y.apply_op1(Loss { gradient })?.backward()?)
}

/// A loss of which only the gradient is known.
struct Loss {
    gradient: Tensor,
}

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        // In the type that the way back begins with.
        let value = Tensor::zeros((), self.gradient.dtype(), self.gradient.device())?;
        let (storage, _) = value.storage_and_layout();
        match &*storage {
            candle_core::Storage::Cpu(value) => Ok((value.clone(), ().into())),
            _ => candle_core::bail!("expected a gradient on the CPU"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::flow::random::normals;

    #[test]
    fn the_gradients_are_those_of_the_product() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let random = |seed| Ok::<_, crate::Error>(normals(&[5, 3], seed)?.to_dtype(dtype)?);
            let (x, gradient) = (Var::from_tensor(&random(1)?)?, random(2)?);
            let y = (x.sqr()? * 3.)?;
            let found = backward(&y, &gradient)?;
            let expected = (&y * &gradient)?.sum_all()?.backward()?;
            let of_x = |gradients: &GradStore| gradients.get(&x).unwrap().to_dtype(DType::F64);
            let difference = (of_x(&found)? - of_x(&expected)?)?.abs()?.max_all()?;
            assert_eq!(difference.to_scalar::<f64>()?, 0.);
        }
        let x = Var::ones((2, 2), DType::F32, &Device::Cpu)?;
        let other = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
        assert!(backward(&x, &other).is_err());
        Ok(())
    }
}
