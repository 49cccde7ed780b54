//! A weight matrix that multiplies an input part by part and learns in closed form.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use candle_nn::Init;

use crate::error::{Error, Result};
use crate::flow::input::{indices, Input, Part, Values};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels::gemm::{product, Matrix};
use crate::kernels::{self, add, with_rows, with_values};
use crate::modules::cache::PartCache;
use crate::optim::{Gradient, Optimiser, OutputGradient, Product};

/// The building block of dense layers and of readouts: `y = x·W + b`, for all views of an input at once.
///
/// | tensor   | shape      |                                             |
/// |----------|------------|---------------------------------------------|
/// | `x`      | `(V·B, D)` | an [`Input`]; never joined                  |
/// | `W`      | `(D, N)`   | the variable `weight`, a row for each input |
/// | `b`      | `(N,)`     | the variable `bias`, if there is one        |
/// | `y`      | `(V·B, N)` | not attached to the variables               |
///
/// Part `p` of the input meets its own rows of the weight. A part that all views share is multiplied once, a one-hot
/// part picks rows, and the scale of a row is applied to its product: `y[r] = Σₚ scaleₚ[r]·(xₚ[r]·Wₚ) + b`. The product
/// of a part that all views share is kept until a variable changes, so that a later pass over the same examples finds
/// it.
pub struct Linear {
    vars: Vars,
    weight: (String, Var),
    bias: Option<(String, Var)>,
    kept: PartCache<Vec<f32>>,
}

impl Linear {
    /// A new one: `inputs` rows drawn by `init`, and a bias of zeros if wanted.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: usize, units: usize, init: Init, bias: bool) -> Result<Self> {
        let weight = (
            vars.path("weight"),
            vars.get("weight", (inputs, units), init)?,
        );
        let bias = match bias {
            true => Some((vars.path("bias"), vars.get("bias", units, Init::Const(0.))?)),
            false => None,
        };
        Ok(Self {
            vars: vars.clone(),
            weight,
            bias,
            kept: PartCache::default(),
        })
    }

    /// How many units: `N`.
    pub fn units(&self) -> usize {
        self.weight.1.dims()[1]
    }

    /// The weights of each unit, `(N, D)`.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn features(&self) -> Result<Tensor> {
        Ok(self.weight.1.as_detached_tensor().t()?)
    }

    /// `x·W + b`, and `max(0, ·)` of it where `relu` is set.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input is not as wide as the weight is high.
    pub fn forward(&self, input: &Input, relu: bool) -> Result<Tensor> {
        let inputs = self.weight.1.dims()[0];
        if input.width() != inputs {
            let expected = format!("{inputs} columns");
            return Err(Error::Shape {
                place: self.weight.0.clone(),
                found: vec![input.width()],
                expected,
            });
        }
        if kernels::is_fast(&self.weight.1) {
            return self.fast(input, relu);
        }
        let weight = self.weight.1.as_detached_tensor();
        let mut sum: Option<Tensor> = None;
        let mut first = 0;
        for part in input.parts() {
            let width = part.values.width()?;
            let rows = weight.narrow(0, first, width)?;
            let mut product = part
                .values
                .to_matrix(weight.dtype())?
                .contiguous()?
                .matmul(&rows)?;
            if product.dim(0)? != input.rows() {
                product = product.repeat((input.views(), 1))?;
            }
            if let Some(scale) = &part.scale {
                // One-hot parts have no element type of their own.
                product = product.broadcast_mul(&scale.unsqueeze(1)?.to_dtype(weight.dtype())?)?;
            }
            sum = Some(match sum {
                None => product,
                Some(sum) => (sum + product)?,
            });
            first += width;
        }
        let mut sum = sum.map_or_else(
            || {
                Tensor::zeros(
                    (input.rows(), self.units()),
                    weight.dtype(),
                    weight.device(),
                )
            },
            Ok,
        )?;
        if let Some((_, bias)) = &self.bias {
            sum = sum.broadcast_add(&bias.as_detached_tensor())?;
        }
        Ok(if relu { sum.relu()? } else { sum })
    }

    /// The same with everything but the products done row by row; for a lone matrix, while the product is in the cache.
    fn fast(&self, input: &Input, relu: bool) -> Result<Tensor> {
        let (rows, units) = (input.rows(), self.units());
        let bias = self
            .bias
            .as_ref()
            .map(|(_, bias)| bias.to_vec1::<f32>())
            .transpose()?;
        let end = |first: usize, out: &mut [f32]| {
            if let Some(bias) = &bias {
                add(out, 1., &bias[first..]);
            }
            if relu {
                // Not `max`, which would make an inactive unit of one that is no number, and hide it.
                out.iter_mut()
                    .for_each(|out| *out = if *out < 0. { 0. } else { *out });
            }
        };
        if let [Part {
            values: values @ Values::Dense { .. },
            scale,
        }] = input.parts()
        {
            let scale = scale.as_ref().map(Tensor::to_vec1::<f32>).transpose()?;
            if values.rows()? == rows {
                let out = self.multiply(values, 0, |row, first, out| {
                    if let Some(scale) = &scale {
                        out.iter_mut().for_each(|out| *out *= scale[row]);
                    }
                    end(first, out);
                })?;
                return Ok(Tensor::from_vec(
                    out,
                    (rows, units),
                    self.weight.1.device(),
                )?);
            }
        }
        let mut terms = Vec::with_capacity(input.parts().len());
        let mut first = 0;
        for part in input.parts() {
            let count = part.values.rows()?;
            let term = match &part.values {
                Values::Dense { matrix, columns } if count == input.batch() => {
                    let multiply = || self.multiply(&part.values, first, |_, _, _| ());
                    Term::Product(self.kept.get(
                        first,
                        (matrix, columns),
                        self.vars.version(),
                        true,
                        multiply,
                    )?)
                }
                Values::Dense { .. } => Term::Product(Arc::new(self.multiply(
                    &part.values,
                    first,
                    |_, _, _| (),
                )?)),
                Values::OneHot {
                    index,
                    classes,
                    strength,
                } => {
                    let (index, slots) = (indices(index, *classes)?, index.dim(1)?);
                    Term::Picked {
                        index,
                        slots,
                        classes: *classes,
                        first,
                        strength: *strength as f32,
                    }
                }
            };
            let scale = part
                .scale
                .as_ref()
                .map(Tensor::to_vec1::<f32>)
                .transpose()?;
            terms.push((term, count, scale));
            first += part.values.width()?;
        }
        let mut out = vec![0f32; rows * units];
        with_values(&self.weight.1.flatten_all()?, |weight| {
            kernels::for_rows(&mut out, units, |row, out| {
                for (term, count, scale) in &terms {
                    let scale = scale.as_ref().map_or(1., |scale| scale[row]);
                    let row = row % count;
                    match term {
                        Term::Product(product) => add(out, scale, &product[row * units..]),
                        Term::Picked {
                            index,
                            slots,
                            classes,
                            first,
                            strength,
                        } => {
                            for (slot, &class) in index[row * slots..][..*slots].iter().enumerate()
                            {
                                let picked = first + slot * classes + class as usize;
                                add(out, scale * strength, &weight[picked * units..]);
                            }
                        }
                    }
                }
                end(0, out);
            });
        })?;
        Ok(Tensor::from_vec(
            out,
            (rows, units),
            self.weight.1.device(),
        )?)
    }

    /// `values · W` with the rows of the weight from `first` on, each piece of a row then handed to `finish`.
    fn multiply(
        &self,
        values: &Values,
        first: usize,
        finish: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<Vec<f32>> {
        let units = self.units();
        let matrix = values.to_matrix(kernels::FAST)?;
        with_values(&self.weight.1.flatten_all()?, |weight| {
            with_rows(&matrix, |x| {
                let weight = Matrix::of_rows(&weight[first * units..], x.width, units, units);
                product(
                    Matrix::of_rows(x.data, x.rows, x.width, x.stride),
                    weight,
                    finish,
                )
            })
        })?
    }

    /// The gradient of the loss with respect to each part of `x`, `(R, D)`, for layers that have something of their own
    /// below this weight; `delta` being that with respect to `y`, `(V·B, N)`.
    ///
    /// `∂/∂xₚ = (scaleₚ·delta)·Wₚᵀ`; for a shared part the deltas of its views are added before they are multiplied.
    ///
    /// # Errors
    /// [`Error::Shape`] if `delta` does not fit.
    pub fn below(&self, input: &Input, delta: &Tensor) -> Result<Vec<Tensor>> {
        let weight = self.weight.1.as_detached_tensor();
        let mut first = 0;
        let mut gradients = Vec::with_capacity(input.parts().len());
        for (part, delta) in input.parts().iter().zip(self.deltas(input, &delta.into())?) {
            let width = part.values.width()?;
            gradients.push(kernels::matmul_transposed(
                &delta.whole()?,
                &weight.narrow(0, first, width)?,
            )?);
            first += width;
        }
        Ok(gradients)
    }

    /// The deltas of each part, `(R, N)`.
    fn deltas(&self, input: &Input, delta: &OutputGradient) -> Result<Vec<OutputGradient>> {
        if delta.dims() != [input.rows(), self.units()] {
            let expected = format!("{:?}", [input.rows(), self.units()]);
            return Err(Error::Shape {
                place: self.weight.0.clone(),
                found: delta.dims().to_vec(),
                expected,
            });
        }
        let of_part = |part: &Part| {
            let is_shared = part.values.rows()? != input.rows();
            delta.through_scale(
                part.scale.as_ref(),
                if is_shared { input.views() } else { 1 },
            )
        };
        input.parts().iter().map(of_part).collect()
    }

    /// One step of weight and bias, `delta` being the gradient of the loss with respect to `y`, `(V·B, N)`.
    ///
    /// `∂/∂Wₚ = xₚᵀ·(scaleₚ·delta)`; for a shared part the deltas of its views are added before they are multiplied.
    /// On the fast path rows of the delta that are zero are left out, where half of them are.
    ///
    /// # Errors
    /// [`Error::Shape`] if `delta` does not fit.
    pub fn learn(
        &mut self,
        input: &Input,
        delta: impl Into<OutputGradient>,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let delta = delta.into();
        let deltas = self.deltas(input, &delta)?.into_iter();
        let product = |(part, delta): (&Part, OutputGradient)| Product {
            values: part.values.clone(),
            delta,
        };
        let products: Vec<Product> = input.parts().iter().zip(deltas).map(product).collect();
        optimiser.learn(
            &self.weight.0,
            &self.weight.1,
            Gradient::Products(&products),
            step,
        )?;
        if let Some((name, bias)) = &self.bias {
            optimiser.learn(name, bias, Gradient::Whole(&delta.column_sums()?), step)?;
        }
        Ok(())
    }
}

/// What a part adds to the output.
enum Term {
    /// A product of its own, `(R, N)`.
    Product(Arc<Vec<f32>>),
    /// Rows of the weight, picked by class.
    Picked {
        index: Vec<u32>,
        slots: usize,
        classes: usize,
        first: usize,
        strength: f32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::input::Normalise;
    use crate::optim::{Algorithm, OptimiserSpec, Schedule};
    use candle_core::{DType, Device};

    fn pixels_and_label(dtype: DType) -> Result<Input> {
        let pixels: Vec<f32> = (0..15).map(|i| (i * 7 % 11) as f32 / 10.).collect();
        let pixels = Tensor::from_vec(pixels, (3, 5), &Device::Cpu)?.to_dtype(dtype)?;
        let index = Tensor::new(&[[0u32], [1], [1], [1], [0], [0]], &Device::Cpu)?;
        let label = Values::OneHot {
            index,
            classes: 2,
            strength: 1.,
        };
        let pixels = Values::Dense {
            matrix: pixels,
            columns: 1..5,
        };
        Input::new(vec![label, pixels], 3, 2, &[6])?.normalised(Normalise::MeanSquare)
    }

    fn linear(dtype: DType) -> Result<(Linear, Optimiser)> {
        let vars = Vars::new(5, dtype, &Device::Cpu);
        let descent = OptimiserSpec {
            method: Algorithm::Sgd,
            rate: 0.1,
            decay: 0.01,
            momentum: 0.5,
            schedule: Schedule::Constant,
        };
        let linear = Linear::new(
            &vars,
            6,
            4,
            Init::Randn {
                mean: 0.,
                stdev: 1.,
            },
            true,
        )?;
        Ok((linear, Optimiser::new(vars, descent, 0..1)))
    }

    fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
        let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
        Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
    }

    #[test]
    fn parts_are_multiplied_as_if_they_were_joined() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let (linear, _) = linear(dtype)?;
            let input = pixels_and_label(dtype)?;
            let joined = input.join()?.matmul(linear.weight.1.as_tensor())?;
            assert!(difference(&linear.forward(&input, false)?, &joined)? < 1e-5);
            assert!(difference(&linear.forward(&input, true)?, &joined.relu()?)? < 1e-5);
            // The second call finds the product of the pixels.
            assert!(difference(&linear.forward(&input, false)?, &joined)? < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn the_gradient_below_is_that_of_every_part() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let (linear, _) = linear(dtype)?;
            let input = pixels_and_label(dtype)?;
            let delta = linear.forward(&input, false)?;
            let below = linear.below(&input, &delta)?;
            // By hand: of the joined input, whose rows were scaled.
            let weight = linear.weight.1.as_tensor();
            let joined = delta.matmul(&weight.t()?.contiguous()?)?;
            let scale = input.parts()[0]
                .scale
                .clone()
                .expect("it is normalised")
                .unsqueeze(1)?;
            let joined = joined.broadcast_mul(&scale)?;
            assert!(difference(&below[0], &joined.narrow(1, 0, 2)?)? < 1e-5);
            let pixels = joined.narrow(1, 2, 4)?;
            assert!(
                difference(
                    &below[1],
                    &(pixels.narrow(0, 0, 3)? + pixels.narrow(0, 3, 3)?)?
                )? < 1e-5
            );
        }
        Ok(())
    }

    #[test]
    fn the_closed_form_is_the_gradient_that_autograd_finds() -> Result<()> {
        let step = Step {
            seed: 1,
            index: 0,
            epoch: 0,
            epochs: 1,
            train: true,
            pass: 0,
        };
        for dtype in [DType::F32, DType::F64] {
            let (mut closed, mut optimiser) = linear(dtype)?;
            let (auto, mut other) = linear(dtype)?;
            let input = pixels_and_label(dtype)?;
            for _ in 0..3 {
                let y = closed.forward(&input, false)?;
                closed.learn(&input, &y, &mut optimiser, &step)?; // the loss is ½·Σ y²
                let (weight, bias) = (
                    &auto.weight.1,
                    &auto.bias.as_ref().expect("made with one").1,
                );
                let y = input.join()?.matmul(weight)?.broadcast_add(bias)?;
                other.apply(&(y.sqr()?.sum_all()? * 0.5)?.backward()?, &step)?;
            }
            assert!(difference(&closed.weight.1, &auto.weight.1)? < 1e-4);
            let biases = [&closed, &auto]
                .map(|linear| linear.bias.as_ref().expect("made with one").1.as_tensor());
            assert!(difference(biases[0], biases[1])? < 1e-4);
        }
        Ok(())
    }
}
