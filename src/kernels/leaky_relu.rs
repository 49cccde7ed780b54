//! Rectified linear units through which candle's autograd goes back.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::fresh::fresh_rows;
use super::{gate, is_fast, Gate};
use crate::error::Result;

/// `max(x, slope·x)`, for a slope of 0 (ReLU) to 1.
///
/// Gradients go back through it: `1` above 0, `slope` below it, and 0 at it. On the CPU
/// each way is one pass with all threads, where candle's own `relu` takes several with
/// one.
///
/// # Errors
/// Errors of candle.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    if is_fast(x) {
        return Ok(x.contiguous()?.apply_op1(LeakyRelu { slope })?);
    }
    let positive = x.relu()?;
    if slope == 0. {
        return Ok(positive);
    }
    Ok((positive - (x.neg()?.relu()? * slope)?)?)
}

struct LeakyRelu {
    slope: f64,
}

impl CustomOp1 for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky-relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, of: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let shape = of.shape();
        let x = &x.as_slice::<f32>()?[of.start_offset()..][..shape.elem_count()];
        let slope = self.slope as f32;
        let rows = shape.dims()[0];
        let width = x.len() / rows.max(1);
        let out = fresh_rows(rows, width, |row, out| {
            rectify(out, &x[row * width..][..width], slope);
        });
        Ok((CpuStorage::F32(out), shape.clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, of_y: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let slope = Gate {
            slope: self.slope,
            gain: 1.,
        };
        let of_x = gate(of_y, &y.detach(), slope).map_err(candle_core::Error::wrap)?;
        Ok(Some(of_x))
    }
}

#[inline(always)]
fn rectify(out: &mut [f32], x: &[f32], slope: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        // NaN stays, so that it is detected later.
        *out = if x < 0. { slope * x } else { x };
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::flow::random::normals;

    #[test]
    fn values_and_gradients_are_those_of_candle() -> Result<()> {
        let x = normals(&[3, 4, 5], 1)?;
        for slope in [0., 0.1] {
            let found = |dtype| -> Result<[Tensor; 2]> {
                let x = Var::from_tensor(&x.to_dtype(dtype)?)?;
                let y = leaky_relu(&x, slope)?;
                let gradients = y.sqr()?.sum_all()?.backward()?;
                let of_x = gradients.get(&x).unwrap().to_dtype(DType::F64)?;
                Ok([y.to_dtype(DType::F64)?, of_x])
            };
            // In 64 bits they are candle's own.
            for (here, candle) in found(DType::F32)?.iter().zip(&found(DType::F64)?) {
                let most = (here - candle)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(most < 1e-5, "{most}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_loss_of_each_row_may_be_a_hinge() -> Result<()> {
        let margin = Var::new(&[0.5f32, 2., -1.], &Device::Cpu)?;
        let loss = leaky_relu(&(1. - margin.as_tensor())?, 0.)?.sum_all()?;
        let gradients = loss.backward()?;
        assert_eq!(
            gradients.get(&margin).unwrap().to_vec1::<f32>()?,
            [-1., 0., -1.]
        );
        Ok(())
    }
}
