//! A weight matrix that multiplies an input part by part and learns in closed form.

use candle_core::{Tensor, Var};
use candle_nn::Init;

use super::terms::{numbers, with_weight, Affine, Cache, PreparedRows};
use crate::error::{Error, Result};
use crate::flow::graph::{Graph, Node};
#[cfg(feature = "cuda")]
use crate::flow::input::Values;
use crate::flow::input::{Input, Part};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
#[cfg(feature = "cuda")]
use crate::kernels::cuda;
use crate::modules::cache::PartCache;
use crate::optim::{Gradient, Optimiser, OutputGradient, Product};

/// A linear map of an input, `y = x·W + b`, for all views at once. Dense layers and
/// readouts use it.
///
/// | tensor   | shape      |                                             |
/// |----------|------------|---------------------------------------------|
/// | `x`      | `(V·B, D)` | an [`Input`]; never joined                  |
/// | `W`      | `(D, N)`   | the variable `weight`, a row for each input |
/// | `b`      | `(N,)`     | the variable `bias`, if there is one        |
/// | `y`      | `(V·B, N)` | not attached to the variables               |
///
/// Part `p` of the input is multiplied by its own rows of the weight:
/// `y[r] = Σₚ scaleₚ[r]·(xₚ[r]·Wₚ) + b`. A part that all views share is multiplied once.
/// A one-hot part selects rows. The scale of a row is applied to its product. The product
/// of a shared part is cached until a variable changes, for later passes over the same
/// examples.
///
/// Differences from `candle_nn::Linear`: it takes an [`Input`], its weight is not
/// transposed, and its gradient is computed in closed form.
pub struct Linear {
    vars: Vars,
    weight: (String, Var),
    bias: Option<(String, Var)>,
    products: PartCache<Vec<f32>>,
    /// For products in bfloat16; a pass over other examples needs them too.
    prepared: PreparedRows,
    #[cfg(feature = "cuda")]
    on_gpu: PartCache<Tensor>,
}

impl Linear {
    /// A new map with a weight of `inputs` rows, initialised with `init`, and a zero bias
    /// if `bias` is set.
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
            products: PartCache::default(),
            prepared: PreparedRows::default(),
            #[cfg(feature = "cuda")]
            on_gpu: PartCache::default(),
        })
    }

    /// The number of units, `N`.
    pub fn units(&self) -> usize {
        self.weight.1.dims()[1]
    }

    /// The weights of each unit, `(N, D)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn weight_images(&self) -> Result<Tensor> {
        Ok(self.weight.1.as_detached_tensor().t()?)
    }

    /// `x·W + b`, or `max(0, x·W + b)` if `relu` is set.
    ///
    /// # Errors
    /// [`Error::Shape`] if the width of the input is not the number of rows of the
    /// weight.
    pub fn forward(&self, input: &Input, relu: bool) -> Result<Tensor> {
        let weight = &self.weight.1;
        let (inputs, units) = weight.dims2()?;
        if input.width() != inputs {
            let expected = format!("{inputs} columns");
            return Err(Error::shape(&self.weight.0, [input.width()], expected));
        }
        kernels::on_gpu!(weight, self.forward_on_gpu(input, relu));
        if !kernels::is_fast(weight) {
            return self.plain(input, relu);
        }
        let bias = numbers(self.bias.as_ref().map(|(_, bias)| bias.as_tensor()))?;
        let cache = Cache {
            products: &self.products,
            prepared: &self.prepared,
            weight,
            version: self.vars.version(),
        };
        let out = with_weight(weight, |weight| {
            Affine {
                weight,
                units,
                bias: bias.as_deref(),
                relu,
            }
            .forward(input, &cache)
        })?;
        Ok(Tensor::from_vec(
            out,
            (input.rows(), units),
            weight.device(),
        )?)
    }

    /// The fast form on a GPU: a product for each dense part, then one pass that adds
    /// them and the rows that one-hot parts pick.
    #[cfg(feature = "cuda")]
    fn forward_on_gpu(&self, input: &Input, relu: bool) -> Result<Tensor> {
        let weight = self.weight.1.as_detached_tensor();
        let bias = self.bias.as_ref().map(|(_, bias)| bias.as_tensor());
        let finish = cuda::Finish { bias, relu };
        if let [Part {
            values: Values::Dense { matrix, columns },
            scale,
            ..
        }] = input.parts()
        {
            if matrix.dim(0)? == input.rows() {
                let x = matrix.narrow(1, columns.start, columns.len())?;
                return cuda::single(&x, scale.as_ref(), &weight, finish);
            }
        }
        let mut terms = Vec::with_capacity(input.parts().len());
        let mut first = 0;
        for part in input.parts() {
            let width = part.values.width()?;
            let kind = match &part.values {
                Values::Dense { matrix, columns } => {
                    let multiply = || {
                        let x = matrix.narrow(1, columns.start, columns.len())?;
                        cuda::product(&x, &weight.narrow(0, first, width)?)
                    };
                    let is_shared = matrix.dim(0)? == input.batch();
                    let key = (matrix, columns);
                    let version = self.vars.version();
                    Some(cuda::Kind::Product(match is_shared {
                        true => (*self.on_gpu.get(first, key, version, true, multiply)?).clone(),
                        false => multiply()?,
                    }))
                }
                Values::OneHot {
                    index,
                    classes,
                    strength,
                } => Some(cuda::Kind::Picked {
                    index,
                    classes: *classes,
                    first,
                    strength: *strength,
                }),
                values @ Values::Sparse { .. } => {
                    let x = values.to_matrix(weight.dtype(), weight.device())?;
                    let weight = weight.narrow(0, first, width)?;
                    Some(cuda::Kind::Product(cuda::product(&x, &weight)?))
                }
                Values::Zeros { .. } => None,
            };
            let scale = part.scale.as_ref();
            terms.extend(kind.map(|kind| cuda::Term { kind, scale }));
            first += width;
        }
        cuda::affine(&terms, &weight, input.rows(), finish)
    }

    /// Adds `x·W + b` to a graph.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input has another width.
    pub fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let x = graph.flat(x);
        let weight = graph.variable(&self.weight.0, &self.weight.1)?;
        let product = graph.matmul(x, weight)?;
        let Some((name, bias)) = &self.bias else {
            return Ok(product);
        };
        let bias = graph.variable(name, bias)?;
        Ok(graph.add(product, bias))
    }

    /// The plain form with candle's operations, on any device.
    fn plain(&self, input: &Input, relu: bool) -> Result<Tensor> {
        let weight = self.weight.1.as_detached_tensor();
        let (dtype, device) = (weight.dtype(), weight.device());
        let mut sum = Tensor::zeros((input.rows(), self.units()), dtype, device)?;
        let mut first = 0;
        for part in input.parts() {
            let width = part.values.width()?;
            let rows = weight.narrow(0, first, width)?;
            let values = part.values.to_matrix(dtype, device)?;
            let mut product = kernels::matmul(&values, &rows)?;
            if product.dim(0)? != input.rows() {
                product = product.repeat((input.views(), 1))?;
            }
            if let Some(scale) = &part.scale {
                // One-hot parts have no element type.
                product = product.broadcast_mul(&scale.unsqueeze(1)?.to_dtype(dtype)?)?;
            }
            sum = (sum + product)?;
            first += width;
        }
        if let Some((_, bias)) = &self.bias {
            sum = sum.broadcast_add(&bias.as_detached_tensor())?;
        }
        Ok(if relu { sum.relu()? } else { sum })
    }

    /// The gradient of the loss with respect to each part of `x`, `(R, D)`, given that
    /// with respect to `y`, `(V·B, N)`. It is for layers with variables below this
    /// weight.
    ///
    /// `∂xₚ = (scaleₚ·∂y)·Wₚᵀ`; for a shared part the gradients of its views are added
    /// before they are multiplied.
    ///
    /// # Errors
    /// [`Error::Shape`] if `gradient` does not have the shape of `y`.
    pub fn input_gradients(&self, input: &Input, gradient: &Tensor) -> Result<Vec<Tensor>> {
        let weight = self.weight.1.as_detached_tensor();
        let mut first = 0;
        let mut found = Vec::with_capacity(input.parts().len());
        for (part, gradient) in input
            .parts()
            .iter()
            .zip(self.split(input, &gradient.into())?)
        {
            let width = part.values.width()?;
            let rows = weight.narrow(0, first, width)?;
            found.push(kernels::matmul_transposed(&gradient.whole()?, &rows)?);
            first += width;
        }
        Ok(found)
    }

    /// The gradient of the loss with respect to the joined input, `(V·B, D)`, given that
    /// with respect to `y`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `gradient` does not have the shape of `y`.
    pub fn joined_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        kernels::matmul_transposed(gradient, &self.weight.1.as_detached_tensor())
    }

    /// The output gradients of each part, `(R, N)`.
    fn split(&self, input: &Input, gradient: &OutputGradient) -> Result<Vec<OutputGradient>> {
        let expected = [input.rows(), self.units()];
        if gradient.dims() != expected {
            let expected = format!("{expected:?}");
            return Err(Error::shape(&self.weight.0, gradient.dims(), expected));
        }
        let of_part = |part: &Part| {
            let is_shared = part.values.rows()? != input.rows();
            let views = if is_shared { input.views() } else { 1 };
            gradient.through_scale(part.scale.as_ref(), views)
        };
        input.parts().iter().map(of_part).collect()
    }

    /// Updates weight and bias, given the gradient of the loss with respect to `y`,
    /// `(V·B, N)`.
    ///
    /// `∂Wₚ = xₚᵀ·(scaleₚ·∂y)`; for a shared part the gradients of its views are added
    /// before they are multiplied. On the fast path, zero rows of the gradient are left
    /// out if at least half of the rows are zero.
    ///
    /// # Errors
    /// [`Error::Shape`] if `gradient` does not have the shape of `y`.
    pub fn update(
        &mut self,
        input: &Input,
        gradient: impl Into<OutputGradient>,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let gradient = gradient.into();
        let parts = input.parts().iter().zip(self.split(input, &gradient)?);
        let products: Vec<_> = parts
            .map(|(part, delta)| Product {
                values: part.values.clone(),
                delta,
            })
            .collect();
        let (name, weight) = &self.weight;
        optimiser.update(name, weight, Gradient::Products(&products), step)?;
        if let Some((name, bias)) = &self.bias {
            optimiser.update(name, bias, Gradient::ColumnSums(&gradient), step)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::input::{Normalise, Values};
    use crate::optim::{Algorithm, OptimiserSpec, Schedule, Span};
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
        linear_with(dtype, Algorithm::Sgd)
    }

    fn linear_with(dtype: DType, optimiser: Algorithm) -> Result<(Linear, Optimiser)> {
        let vars = Vars::new(5, dtype, &Device::Cpu);
        let descent = OptimiserSpec {
            optimiser,
            lr: 0.1,
            weight_decay: 0.01,
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
        Ok((linear, Optimiser::new(vars, descent, Span::Epochs(0..1))))
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
            // The second call uses the cached product of the pixels.
            assert!(difference(&linear.forward(&input, false)?, &joined)? < 1e-5);
        }
        Ok(())
    }

    /// In every form that a product takes: beside others, with factors of the rows, and in
    /// the update of each optimiser, with rows and without.
    #[test]
    fn sparse_values_learn_as_the_same_matrix() -> Result<()> {
        let index = Tensor::new(&[[3u32, 0, 0], [1, 3, 0], [2, 0, 1]], &Device::Cpu)?;
        let entries = Tensor::new(
            &[[0.5f32, 0., 0.], [2., -1., 0.], [1., 0.5, 3.]],
            &Device::Cpu,
        )?;
        let sparse = Values::Sparse {
            index,
            entries,
            width: 4,
        };
        for dtype in [DType::F32, DType::F64] {
            let matrix = sparse.to_matrix(dtype, &Device::Cpu)?;
            assert_eq!(
                matrix.to_dtype(DType::F32)?.to_vec2::<f32>()?,
                [[0., 0., 0., 0.5], [0., 2., 0., -1.], [0.5, 3., 1., 0.]]
            );
            let label = pixels_and_label(dtype)?.parts()[0].values.clone();
            let input = |values: Values| {
                let parts = vec![label.clone(), values];
                Input::new(parts, 3, 2, &[6])?.normalised(Normalise::MeanSquare)
            };
            let inputs = [sparse.clone(), Values::dense(matrix)?].map(input);
            let [as_sparse, as_dense] = inputs;
            let (as_sparse, as_dense) = (as_sparse?, as_dense?);
            assert!(difference(&as_sparse.join()?, &as_dense.join()?)? < 1e-6);
            let view = |input: &Input| input.view(1)?.join();
            assert!(difference(&view(&as_sparse)?, &view(&as_dense)?)? < 1e-6);
            for algorithm in [Algorithm::Sgd, Algorithm::Adam, Algorithm::SparseAdam] {
                let learned = |input: &Input| -> Result<Tensor> {
                    let (mut linear, mut optimiser) = linear_with(dtype, algorithm)?;
                    for _ in 0..3 {
                        let y = linear.forward(input, false)?;
                        linear.update(input, &y, &mut optimiser, &Step::first(1))?;
                    }
                    Ok(linear.weight.1.as_tensor().copy()?)
                };
                let difference = difference(&learned(&as_sparse)?, &learned(&as_dense)?)?;
                assert!(difference < 1e-5, "{algorithm:?}: {difference}");
            }
        }
        Ok(())
    }

    #[test]
    fn input_gradients_are_right_for_every_part() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let (linear, _) = linear(dtype)?;
            let input = pixels_and_label(dtype)?;
            let delta = linear.forward(&input, false)?;
            let below = linear.input_gradients(&input, &delta)?;
            // By hand: the gradient of the joined input, with scaled rows.
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
    fn the_closed_form_agrees_with_autograd() -> Result<()> {
        let step = Step::first(1);
        for dtype in [DType::F32, DType::F64] {
            let (mut closed, mut optimiser) = linear(dtype)?;
            let (auto, mut other) = linear(dtype)?;
            let input = pixels_and_label(dtype)?;
            for _ in 0..3 {
                let y = closed.forward(&input, false)?;
                closed.update(&input, &y, &mut optimiser, &step)?; // the loss is ½·Σ y²
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
