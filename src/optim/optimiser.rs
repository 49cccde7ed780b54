//! The optimiser of one block.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use super::accumulate::Accumulator;
use super::gradient::Gradient;
use super::muon;
use super::schedule::Span;
use super::spec::{Algorithm, OptimiserSpec};
use super::update::Update;
use crate::error::{Error, Result};
use crate::flow::step::Step;
use crate::flow::vars::Vars;

/// Adam's `β₁`, `β₂` and `ε`.
const ADAM: (f64, f64, f64) = (0.9, 0.999, 1e-8);

/// Updates the variables of one block and refuses all others.
///
/// A gradient can be given as matrix products (see [`Gradient`]). SGD with momentum then
/// adds the products to the velocity and never stores the gradient.
pub struct Optimiser {
    vars: Vars,
    spec: OptimiserSpec,
    span: Span,
    moments: BTreeMap<String, Moments>,
    /// The weight of each gradient while gradients are accumulated.
    share: Option<f64>,
    accumulators: BTreeMap<String, Accumulator>,
}

/// The state of one variable: the velocity, or the first and second moments; and the
/// number of steps.
#[derive(Default)]
struct Moments {
    tensors: Vec<Tensor>,
    steps: u32,
}

impl Optimiser {
    /// An optimiser of the variables at and below `vars`, for the epochs or steps of
    /// `span`.
    pub fn new(vars: Vars, spec: OptimiserSpec, span: Span) -> Self {
        Self {
            vars,
            spec,
            span,
            moments: BTreeMap::new(),
            share: None,
            accumulators: BTreeMap::new(),
        }
    }

    /// The span in which it runs. The schedule is relative to this span.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Changes the span in which it runs. With an empty span it never runs.
    pub fn set_span(&mut self, span: Span) {
        self.span = span;
    }

    /// The scope of the variables that it may update.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The learning rate at `step`.
    pub fn rate(&self, step: &Step) -> f64 {
        let (done, length) = self.span.progress(step);
        self.spec.lr * self.spec.schedule.factor(done, length)
    }

    /// Updates every variable that has a gradient in `gradients`, the result of autograd.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no gradient: the activity was detached from the
    /// variables.
    pub fn apply(&mut self, gradients: &GradStore, step: &Step) -> Result<()> {
        if self.apply_found(gradients, step)? {
            return Ok(());
        }
        let problem = "no gradient reached a variable; `forward` must not detach, or the layer must override `learn`";
        Err(Error::usage(self.vars.path("*"), problem))
    }

    /// Updates every variable that `gradients` has one for; returns whether there was
    /// any.
    pub(crate) fn apply_found(&mut self, gradients: &GradStore, step: &Step) -> Result<bool> {
        let mut met = false;
        for (name, var) in self.vars.learned() {
            if let Some(gradient) = gradients.get(&var) {
                met = true;
                self.update(&name, &var, Gradient::Whole(gradient), step)?;
            }
        }
        Ok(met)
    }

    /// Updates one variable, given its full name. During accumulation the gradient is
    /// only added to the sum.
    ///
    /// # Errors
    /// [`Error::Usage`] if the variable does not belong to this optimiser;
    /// [`Error::Shape`] if the gradient does not have the variable's shape.
    pub fn update(
        &mut self,
        name: &str,
        var: &Var,
        gradient: Gradient<'_>,
        step: &Step,
    ) -> Result<()> {
        if !self.vars.owns(name, var) {
            let own = self.vars.path("*");
            let problem =
                format!("expected a variable of this optimiser ({own}), found another variable");
            return Err(Error::usage(format!("update of {name}"), problem));
        }
        gradient.check(var)?;
        match (self.share, gradient) {
            (Some(share), gradient) => self.accumulator(name, var)?.add(gradient, share),
            (None, Gradient::Formed(..)) => {
                self.accumulator(name, var)?.add(gradient, 1.)?;
                self.apply_accumulated(step)
            }
            (None, gradient) => self.change(name, var, gradient, step),
        }
    }

    /// Starts to accumulate gradients. [`Optimiser::apply_accumulated`] makes one step
    /// with their mean over `lessons` lessons.
    ///
    /// It is for layers that learn from several passes over one batch, such as time
    /// steps. All passes see the weights from before the step. Values that the passes
    /// share are multiplied once for all of them.
    pub fn accumulate(&mut self, lessons: usize) {
        self.share = Some(1. / lessons.max(1) as f64);
        // A step that failed may have left gradients.
        self.accumulators.values_mut().for_each(Accumulator::reset);
    }

    /// Makes one step for every variable with accumulated gradients.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn apply_accumulated(&mut self, step: &Step) -> Result<()> {
        let share = self.share.take().unwrap_or(1.);
        let mut accumulators = std::mem::take(&mut self.accumulators);
        for (name, sum) in accumulators.iter_mut().filter(|(_, sum)| !sum.is_empty()) {
            let var = sum.var.clone();
            sum.take(share, |gradient| self.change(name, &var, gradient, step))?;
        }
        self.accumulators = accumulators;
        Ok(())
    }

    fn accumulator(&mut self, name: &str, var: &Var) -> Result<&mut Accumulator> {
        match self.accumulators.entry(name.into()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Accumulator::new(var)?)),
        }
    }

    fn change(&mut self, name: &str, var: &Var, gradient: Gradient<'_>, step: &Step) -> Result<()> {
        self.vars.changed();
        let (algorithm, momentum) = (self.spec.optimiser, self.spec.momentum);
        let rate = self.rate(step);
        let decay = if var.rank() >= 2 {
            self.spec.weight_decay
        } else {
            0.
        };
        let shrink = 1. - rate * decay;
        let moments = self.moments.entry(name.into()).or_default();
        while moments.tensors.len() < algorithm.moments(var.rank()).len() {
            moments.tensors.push(var.zeros_like()?.detach());
        }
        moments.steps += 1;
        let update = match algorithm {
            Algorithm::Sgd => Update::Sgd {
                momentum,
                rate,
                shrink,
            },
            Algorithm::Muon if var.rank() >= 2 => {
                let (velocity, gradient) = (&mut moments.tensors[0], gradient.whole(var)?);
                return muon::update(var, velocity, &gradient, momentum, rate, shrink);
            }
            Algorithm::Adam | Algorithm::SparseAdam | Algorithm::Muon => {
                let (beta1, beta2, epsilon) = ADAM;
                let steps = f64::from(moments.steps);
                let rate = rate / (1. - beta1.powf(steps));
                let root = (1. - beta2.powf(steps)).sqrt();
                Update::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    rate,
                    root,
                    shrink,
                    sparse: algorithm == Algorithm::SparseAdam && var.rank() >= 2,
                }
            }
        };
        update.apply(var, &mut moments.tensors, gradient)
    }

    /// The bytes that training will add: the moments of every variable, and the largest
    /// gradient where gradients are formed.
    pub(crate) fn needs(&self) -> u64 {
        if self.span.is_empty() {
            return 0;
        }
        let size = |var: &Var| (var.elem_count() * var.dtype().size_in_bytes()) as u64;
        let sizes: Vec<u64> = self
            .vars
            .learned()
            .iter()
            .map(|(_, var)| size(var))
            .collect();
        let tensors = self.moments.values().flat_map(|moments| &moments.tensors);
        let known =
            tensors.map(|tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64);
        let of_var = |(_, var): (String, Var)| {
            self.spec.optimiser.moments(var.rank()).len() as u64 * size(&var)
        };
        let moments: u64 = self.vars.learned().into_iter().map(of_var).sum();
        let moments = moments.saturating_sub(known.sum());
        let forms = self.spec.optimiser != Algorithm::Sgd;
        moments
            + if forms {
                sizes.into_iter().max().unwrap_or(0)
            } else {
                0
            }
    }

    /// The state of the optimiser, by name, for a checkpoint.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut saved = BTreeMap::new();
        for (name, moments) in &self.moments {
            let rank = moments.tensors.first().map_or(0, Tensor::rank);
            let names = self.spec.optimiser.moments(rank);
            for (moment, tensor) in names.iter().zip(&moments.tensors) {
                saved.insert(format!("{name}.{moment}"), tensor.clone());
            }
            let steps = Tensor::new(&[moments.steps], &Device::Cpu)?;
            saved.insert(format!("{name}.steps"), steps);
        }
        Ok(saved)
    }

    /// Restores a saved state from the entries of `tensors` that belong to this
    /// optimiser's variables.
    ///
    /// # Errors
    /// [`Error::Shape`] if an entry does not have the shape of its variable.
    pub fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let mut restored = BTreeMap::new();
        for (name, var) in self.vars.learned() {
            let Some(steps) = saved(tensors, &name, "steps", &[1])? else {
                continue;
            };
            let steps = steps.to_dtype(DType::U32)?.to_vec1::<u32>()?[0];
            let mut moments = Moments {
                steps,
                tensors: Vec::new(),
            };
            for moment in self.spec.optimiser.moments(var.rank()) {
                let Some(tensor) = saved(tensors, &name, moment, var.dims())? else {
                    break;
                };
                // Copied, because it will be changed in place.
                let tensor = tensor.to_dtype(var.dtype())?.to_device(var.device())?;
                moments.tensors.push(tensor.copy()?);
            }
            restored.insert(name, moments);
        }
        self.moments = restored;
        Ok(())
    }
}

/// The tensor that was saved for this moment of a variable.
fn saved<'a>(
    tensors: &'a HashMap<String, Tensor>,
    variable: &str,
    moment: &str,
    shape: &[usize],
) -> Result<Option<&'a Tensor>> {
    let key = format!("{variable}.{moment}");
    match tensors.get(&key) {
        Some(tensor) if tensor.dims() != shape => {
            Err(Error::shape(key, tensor.dims(), format!("{shape:?}")))
        }
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::Init;

    use super::*;
    use crate::flow::input::Values;
    use crate::optim::Product;
    use crate::optim::Schedule;

    fn step(epoch: usize) -> Step {
        Step {
            epoch,
            train: true,
            ..Step::evaluation(1)
        }
    }

    fn spec(optimiser: Algorithm) -> OptimiserSpec {
        OptimiserSpec {
            optimiser,
            lr: 0.1,
            weight_decay: 0.01,
            momentum: 0.9,
            schedule: Schedule::Constant,
        }
    }

    fn optimiser(vars: &Vars, algorithm: Algorithm) -> Optimiser {
        Optimiser::new(vars.clone(), spec(algorithm), Span::Epochs(0..1))
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        let near = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(
            near && found.len() == expected.len(),
            "{found:?} instead of {expected:?}"
        );
    }

    fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
        let sum = (a - b)?.abs()?.sum_all()?.to_dtype(DType::F64)?;
        Ok(sum.to_scalar()?)
    }

    fn two_steps(algorithm: Algorithm, dtype: DType) -> Result<Vec<f32>> {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let var = vars.get("w", (1, 3), Init::Const(1.))?;
        let mut optimiser = optimiser(&vars, algorithm);
        for gradient in [[[1f64, -2., 0.5]], [[0.5, 1., 0.]]] {
            let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
            optimiser.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
        }
        Ok(var.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }

    // By hand: v₁ = 0.1·g₁; w₁ = 1 − 0.1·(v₁ + 0.01);
    // v₂ = 0.9·v₁ + 0.1·g₂; w₂ = w₁ − 0.1·(v₂ + 0.01·w₁).
    #[test]
    fn momentum_is_a_running_mean_of_gradients() -> Result<()> {
        let expected = [0.974_011, 1.025_981, 0.988_506];
        assert_close(&two_steps(Algorithm::Sgd, DType::F32)?, &expected);
        assert_close(&two_steps(Algorithm::Sgd, DType::F64)?, &expected);
        Ok(())
    }

    // import torch
    // w = torch.nn.Parameter(torch.ones(1, 3))
    // o = torch.optim.AdamW([w], lr=0.1, weight_decay=0.01)
    // for g in [[[1., -2., 0.5]], [[0.5, 1., 0.]]]:
    //     w.grad = torch.tensor(g); o.step()
    // print(w)
    #[test]
    fn adam_agrees_with_pytorch() -> Result<()> {
        let expected = [0.804_883_06, 1.124_534_7, 0.831_095_2];
        assert_close(&two_steps(Algorithm::Adam, DType::F32)?, &expected);
        assert_close(&two_steps(Algorithm::Adam, DType::F64)?, &expected);
        Ok(())
    }

    // import math
    // b1, b2, eps, lr, wd = 0.9, 0.999, 1e-8, 0.1, 0.01
    // w, m, v = ([[x] * 2 for _ in range(2)] for x in (1., 0., 0.))
    // gradients = [[[1., -2.], [.5, 0.]], [[0., 0.], [.5, 1.]], [[3., 1.], [0., 0.]]]
    // for t, g in enumerate(gradients, 1):
    //     for r in range(2):
    //         for c in range(2) if any(g[r]) else []:
    //             m[r][c] = b1 * m[r][c] + (1 - b1) * g[r][c]
    //             v[r][c] = b2 * v[r][c] + (1 - b2) * g[r][c]**2
    //             root = math.sqrt(v[r][c] / (1 - b2**t)) + eps
    //             w[r][c] = (1 - lr * wd) * w[r][c] - lr * m[r][c] / (1 - b1**t) / root
    // print(w)
    #[test]
    fn sparse_adam_leaves_rows_without_a_gradient() -> Result<()> {
        let expected = [0.819_312_9, 1.120_765, 0.798_101, 0.923_587_3];
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let var = vars.get("w", (2, 2), Init::Const(1.))?;
            let mut optimiser = optimiser(&vars, Algorithm::SparseAdam);
            for gradient in [
                [[1f64, -2.], [0.5, 0.]],
                [[0., 0.], [0.5, 1.]],
                [[3., 1.], [0., 0.]],
            ] {
                let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
                optimiser.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
            }
            let found = var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            assert_close(&found, &expected);
        }
        Ok(())
    }

    #[test]
    fn rates_are_relative_to_the_span() {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let spec = OptimiserSpec {
            schedule: Schedule::HalfLinear,
            ..spec(Algorithm::Sgd)
        };
        let optimiser = Optimiser::new(vars, spec, Span::Epochs(4..8));
        assert_eq!(optimiser.rate(&step(4)), 0.1);
        assert_eq!(optimiser.rate(&step(7)), 0.025);
    }

    #[test]
    fn a_variable_of_another_block_is_refused_and_does_not_change() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let other = vars
            .scope("blocks.1")
            .get("weight", (2, 2), Init::Const(1.))?;
        let own = vars
            .scope("blocks.0")
            .get("weight", (2, 2), Init::Const(1.))?;
        let mut optimiser = optimiser(&vars.scope("blocks.0"), Algorithm::Sgd);
        let gradient = Tensor::ones((2, 2), DType::F32, &Device::Cpu)?;
        // Under its own name, and under the name of one of the optimiser's variables.
        for name in ["blocks.1.weight", "blocks.0.weight"] {
            let error = optimiser.update(name, &other, Gradient::Whole(&gradient), &step(0));
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("expected a variable of this optimiser (blocks.0.*)"),
                "{error}"
            );
        }
        assert_eq!(other.to_vec2::<f32>()?, [[1.; 2]; 2]);
        optimiser.update(
            "blocks.0.weight",
            &own,
            Gradient::Whole(&gradient),
            &step(0),
        )?;
        assert_ne!(own.to_vec2::<f32>()?, [[1.; 2]; 2]);
        Ok(())
    }

    #[test]
    fn a_gradient_given_as_products_is_their_sum() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let whole = vars.get("a", (4, 2), Init::Const(1.))?;
            let parts = vars.get("b", (4, 2), Init::Const(1.))?;
            let x = Tensor::new(&[[1f64, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?;
            let index = Tensor::new(&[[1u32], [0], [1]], &Device::Cpu)?;
            let delta = Tensor::new(&[[1f64, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?;
            let delta = delta.to_dtype(dtype)?;
            // xᵀ·delta, and the rows of delta sorted by index, times 2
            let gradient = [[6f64, 8.], [8., 10.], [0., 2.], [4., 2.]];
            let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
            let one_hot = Values::OneHot {
                index,
                classes: 2,
                strength: 2.,
            };
            let products = [Values::dense(x.to_dtype(dtype)?)?, one_hot].map(|values| Product {
                values,
                delta: (&delta).into(),
            });
            let mut optimiser = optimiser(&vars, Algorithm::Sgd);
            for _ in 0..2 {
                optimiser.update("a", &whole, Gradient::Whole(&gradient), &step(0))?;
                optimiser.update("b", &parts, Gradient::Products(&products), &step(0))?;
            }
            assert!(difference(&whole, &parts)? < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn accumulated_gradients_make_one_step_with_their_mean() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let mean = vars.get("a", (3, 2), Init::Const(1.))?;
            let accumulated = vars.get("b", (3, 2), Init::Const(1.))?;
            let tensor = |values: [[f64; 2]; 2]| -> Result<Tensor> {
                Ok(Tensor::new(&values, &Device::Cpu)?.to_dtype(dtype)?)
            };
            let shared = Values::dense(tensor([[1., 2.], [3., 4.]])?)?;
            let label = |index: [[u32; 1]; 2]| -> Result<Values> {
                let index = Tensor::new(&index, &Device::Cpu)?;
                Ok(Values::OneHot {
                    index,
                    classes: 1,
                    strength: 1.,
                })
            };
            // Σ over both lessons of xᵀ·delta, the last row being the sum of the deltas.
            let (first, second) = (tensor([[1., 0.], [0., 2.]])?, tensor([[3., 1.], [0., 0.]])?);
            let sum = Tensor::new(&[[4f64, 7.], [8., 10.], [4., 3.]], &Device::Cpu)?;
            let expected = (sum.to_dtype(dtype)? * 0.5)?;
            let mut optimiser = optimiser(&vars, Algorithm::Sgd);
            for _ in 0..2 {
                optimiser.update("a", &mean, Gradient::Whole(&expected), &step(0))?;
                let before = accumulated.as_tensor().copy()?;
                optimiser.accumulate(2);
                for delta in [&first, &second] {
                    let values = [shared.clone(), label([[0], [0]])?];
                    let products = values.map(|values| Product {
                        values,
                        delta: delta.into(),
                    });
                    let gradient = Gradient::Products(&products);
                    optimiser.update("b", &accumulated, gradient, &step(0))?;
                    assert_eq!(difference(&accumulated, &before)?, 0.);
                }
                optimiser.apply_accumulated(&step(0))?;
            }
            assert!(difference(&mean, &accumulated)? < 1e-6);
        }
        Ok(())
    }
}
