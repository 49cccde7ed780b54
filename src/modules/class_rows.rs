//! A linear map to classes with a row of weights for each, of which a step may use a few.

use candle_core::{Tensor, Var};
use candle_nn::Init;

use crate::error::Result;
use crate::flow::graph::{Graph, Node};
use crate::flow::input::Values;
use crate::flow::sampled_classes::SampledClasses;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
use crate::optim::{Gradient, Optimiser, Product};

/// `y = x·Wᵀ`, for many classes: a sampled softmax reads and changes the rows of the
/// sampled classes alone.
///
/// | tensor | shape    |                                               |
/// |--------|----------|-----------------------------------------------|
/// | `x`    | `(R, D)` |                                               |
/// | `W`    | `(C, D)` | the variable `rows`, which starts at zero      |
/// | `y`    | `(R, C)` | or `(R, K)`, the columns of the sampled classes |
///
/// Adam leaves the rows of other classes as they are ([`Optimiser::update_rows`]); an
/// optimiser with momentum moves them on.
pub struct ClassRows {
    weight: (String, Var),
}

impl ClassRows {
    /// A map of `inputs` numbers to `classes`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, inputs: usize, classes: usize) -> Result<Self> {
        let weight = vars.get("rows", (classes, inputs), Init::Const(0.))?;
        Ok(Self {
            weight: (vars.path("rows"), weight),
        })
    }

    /// The rows of these classes, or all: `(K, D)`. With them [`ClassRows::forward`] is
    /// `x·rowsᵀ` and [`ClassRows::gradient`] is `upstream·rows`; a step that needs both
    /// takes the rows once.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn rows(&self, sampled: Option<&SampledClasses>) -> Result<Tensor> {
        let weight = self.weight.1.as_detached_tensor();
        match sampled {
            None => Ok(weight),
            Some(sampled) => kernels::rows_at(&weight, sampled.classes()),
        }
    }

    /// `y`, of all classes or of those that were sampled.
    ///
    /// # Errors
    /// Errors of candle, if `x` has another width.
    pub fn forward(&self, x: &Tensor, sampled: Option<&SampledClasses>) -> Result<Tensor> {
        kernels::matmul_transposed(x, &self.rows(sampled)?)
    }

    /// Adds `y` of all classes to a graph.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input has another width.
    pub fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let columns = self.rows(None)?.t()?.contiguous()?;
        let columns = graph.variable(&self.weight.0, &columns)?;
        graph.matmul(x, columns)
    }

    /// The gradient with respect to `x`, given that with respect to `y`.
    ///
    /// # Errors
    /// Errors of candle, if the shapes do not match.
    pub fn gradient(&self, upstream: &Tensor, sampled: Option<&SampledClasses>) -> Result<Tensor> {
        kernels::matmul(upstream, &self.rows(sampled)?)
    }

    /// Updates the rows, given the gradient with respect to `y`.
    ///
    /// # Errors
    /// Errors of the update.
    pub fn update(
        &mut self,
        x: &Tensor,
        upstream: &Tensor,
        sampled: Option<&SampledClasses>,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let (name, weight) = &self.weight;
        let Some(sampled) = sampled else {
            let product = Product {
                values: Values::dense(upstream.clone())?,
                delta: x.into(),
            };
            return optimiser.update_rows(name, weight, Gradient::Products(&[product]), step);
        };
        let gradient = kernels::matmul(&upstream.t()?, x)?; // (K, D)
        let index = sampled.index(weight.device())?;
        if !kernels::is_fast(weight) {
            // Without a fast form, a product with one-hot values is one with a matrix (K, C).
            let whole = weight.zeros_like()?.detach();
            let whole = whole.index_add(&index.flatten_all()?, &gradient, 0)?;
            return optimiser.update_rows(name, weight, Gradient::Whole(&whole), step);
        }
        let product = Product {
            values: Values::OneHot {
                index,
                classes: weight.dim(0)?,
                strength: 1.,
            },
            delta: gradient.into(),
        };
        optimiser.update_rows(name, weight, Gradient::Products(&[product]), step)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::flow::random::stream;
    use crate::kernels::scalar;
    use crate::optim::{Algorithm, OptimiserSpec, Span};

    /// Rows after some steps of the loss `½·Σ (y − 1)²`, and the last `y`.
    fn learned(dtype: DType, sampled: Option<&SampledClasses>) -> Result<(Tensor, Tensor)> {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let mut rows = ClassRows::new(&vars, 3, 5)?;
        let spec = OptimiserSpec {
            optimiser: Algorithm::SparseAdam,
            lr: 0.1,
            ..OptimiserSpec::default()
        };
        let mut optimiser = Optimiser::new(vars, spec, Span::Epochs(0..1));
        let x = Tensor::new(&[[1f32, 2., 0.5], [-1., 0., 1.]], &Device::Cpu)?.to_dtype(dtype)?;
        let mut y = rows.forward(&x, sampled)?;
        for _ in 0..5 {
            rows.update(&x, &(y - 1.)?, sampled, &mut optimiser, &Step::first(1))?;
            y = rows.forward(&x, sampled)?;
        }
        Ok((rows.weight.1.as_tensor().copy()?, y))
    }

    #[test]
    fn sampled_rows_learn_as_among_all_and_the_others_stay() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let (all, y) = learned(dtype, None)?;
            let sampled = SampledClasses::draw(&[4], &[1], 0, 5, &mut stream(1, "samples", 0))?;
            assert_eq!(sampled.classes(), [1, 4]);
            let (some, of_some) = learned(dtype, Some(&sampled))?;
            for class in [1, 4] {
                let apart = (all.get(class)? - some.get(class)?)?.abs()?.max(0)?;
                assert!(scalar(&apart)? < 1e-6);
            }
            assert!(scalar(&all.get(0)?.abs()?.max(0)?)? > 0.);
            for class in [0, 2, 3] {
                assert_eq!(scalar(&some.get(class)?.abs()?.max(0)?)?, 0.);
            }
            assert_eq!((y.dims(), of_some.dims()), (&[2, 5][..], &[2, 2][..]));
        }
        Ok(())
    }

    #[test]
    fn adam_leaves_the_rows_of_other_classes_as_they_are() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let mut rows = ClassRows::new(&vars, 2, 3)?;
            let spec = OptimiserSpec {
                optimiser: Algorithm::Adam,
                ..OptimiserSpec::sgd(0.1)
            };
            let mut optimiser = Optimiser::new(vars, spec, Span::Epochs(0..1));
            let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?.to_dtype(dtype)?;
            let mut seen = Vec::new();
            for class in [0, 1] {
                let mut rng = stream(1, "samples", 0);
                let sampled = SampledClasses::draw(&[class], &[], 0, 3, &mut rng)?;
                let upstream = Tensor::ones((1, 1), dtype, &Device::Cpu)?;
                let step = Step::first(1);
                rows.update(&x, &upstream, Some(&sampled), &mut optimiser, &step)?;
                let first = rows.weight.1.get(0)?.to_dtype(DType::F64)?;
                seen.push(first.to_vec1::<f64>()?);
            }
            // Its first moment would have moved the row on.
            assert!(seen[0] == seen[1] && seen[0][0] < 0., "{seen:?}");
        }
        Ok(())
    }

    #[test]
    fn the_gradient_is_that_of_the_sampled_rows() -> Result<()> {
        let vars = Vars::new(1, DType::F64, &Device::Cpu);
        let rows = ClassRows::new(&vars, 2, 3)?;
        let weight = Tensor::new(&[[1f64, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?;
        rows.weight.1.set(&weight)?;
        let sampled = SampledClasses::draw(&[2, 0], &[], 0, 3, &mut stream(1, "samples", 0))?;
        let upstream = Tensor::new(&[[1f64, -1.]], &Device::Cpu)?; // of the classes 0 and 2
        let gradient = rows.gradient(&upstream, Some(&sampled))?.to_vec2::<f64>()?;
        assert_eq!(gradient, [[-4., -4.]]);
        let y = rows.forward(&Tensor::new(&[[1f64, 1.]], &Device::Cpu)?, Some(&sampled))?;
        assert_eq!(y.to_vec2::<f64>()?, [[3., 11.]]);
        Ok(())
    }
}
