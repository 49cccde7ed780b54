//! The update of one block's variables: stochastic gradient descent with momentum, and Adam.
//!
//! Unlike candle's own optimisers these can be boxed, their state can be read and set, and a gradient can be given as
//! the matrix products it is made of: descent with momentum then adds the products to the velocity, and no gradient
//! is ever stored.

mod inplace;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use crate::error::{Error, Result};
use crate::input::Values;
use crate::ops;
use crate::seed::Step;
use crate::vars::Vars;

crate::choices! {
    /// How gradients become updates.
    pub enum Method {
        /// `v ← μ·v + (1 − μ)·g`, `w ← w − η·(v + λ·w)`.
        Sgd = "sgd",
        /// Adam with decoupled weight decay (Kingma and Ba 2014, Loshchilov and Hutter 2017).
        Adam = "adam",
    }
}

crate::choices! {
    /// How the rate changes over the epochs in which a block learns; `e` of `E`, counted from 1.
    pub enum Schedule {
        /// It does not.
        Constant = "constant",
        /// 1 in the first half, then `(1 + 2·(E − e)) / E`: Hinton's.
        HalfLinear = "half_linear",
        /// From 1 down to `1 / E`.
        Linear = "linear",
        /// `½·(1 + cos(π·(e − 1) / E))`.
        Cosine = "cosine",
    }
}

impl Schedule {
    /// The factor of the rate in epoch `epoch` (from 0) of `epochs`.
    pub fn factor(self, epoch: usize, epochs: usize) -> f64 {
        let (e, last) = (epoch as f64 + 1., epochs as f64);
        match self {
            Self::Constant => 1.,
            Self::HalfLinear if 2. * e < last => 1.,
            Self::HalfLinear => ((1. + 2. * (last - e)) / last).min(1.),
            Self::Linear => (last - e + 1.) / last,
            Self::Cosine => 0.5 * (1. + (std::f64::consts::PI * (e - 1.) / last).cos()),
        }
    }
}

/// What an optimiser is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Descent {
    /// The rule.
    pub method: Method,
    /// `η`, before the schedule.
    pub rate: f64,
    /// `λ`, of everything but vectors such as biases.
    pub decay: f64,
    /// `μ`; Adam has its usual 0.9 and 0.999.
    pub momentum: f64,
    /// How the rate changes.
    pub schedule: Schedule,
}

const ADAM: (f64, f64, f64) = (0.9, 0.999, 1e-8);

/// A matrix product that a gradient is made of: `valuesᵀ · delta`, for the rows of the weight that `values` met.
#[derive(Clone, Debug)]
pub struct Product {
    /// What was multiplied by these rows of the weight, `(R, D)`.
    pub values: Values,
    /// What the result should have been different by, `(R, N)`.
    pub delta: Tensor,
}

/// The gradient of a loss with respect to a variable.
#[derive(Clone, Copy, Debug)]
pub enum Gradient<'a> {
    /// As a tensor of the variable's shape.
    Whole(&'a Tensor),
    /// As products, one for each range of the variable's rows, from the first row to the last.
    Products(&'a [Product]),
}

/// Changes the variables of one block, and nothing else.
pub struct Optimiser {
    vars: Vars,
    descent: Descent,
    span: Range<usize>,
    state: BTreeMap<String, Tensor>,
}

impl Optimiser {
    /// An optimiser of the variables at and below `vars`, that runs in the epochs of `span`.
    pub fn new(vars: Vars, descent: Descent, span: Range<usize>) -> Self {
        Self { vars, descent, span, state: BTreeMap::new() }
    }

    /// The epochs in which it runs; rates and schedules are relative to them.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// The rate at `step`.
    pub fn rate(&self, step: &Step) -> f64 {
        let epoch = step.epoch.saturating_sub(self.span.start);
        self.descent.rate * self.descent.schedule.factor(epoch.min(self.span.len() - 1), self.span.len())
    }

    /// One step of every variable that `gradients` knows; what autograd gave.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it knows none of them: the activity was detached from the variables.
    pub fn apply(&mut self, gradients: &GradStore, step: &Step) -> Result<()> {
        let mut met = false;
        for (name, var) in self.vars.learned() {
            if let Some(gradient) = gradients.get(&var) {
                met = true;
                self.learn(&name, &var, Gradient::Whole(gradient), step)?;
            }
        }
        if met {
            return Ok(());
        }
        Err(Error::Mismatch {
            place: self.vars.path("*"),
            problem: "no gradient reached a variable; `forward` must not detach, or the layer must override `learn`"
                .into(),
        })
    }

    /// One step of one variable, by its full name.
    ///
    /// # Errors
    /// [`Error::Shape`] if the gradient is not of the variable's shape.
    pub fn learn(&mut self, name: &str, var: &Var, gradient: Gradient<'_>, step: &Step) -> Result<()> {
        let rate = self.rate(step);
        let decay = if var.rank() >= 2 { self.descent.decay } else { 0. };
        match self.descent.method {
            Method::Sgd => {
                let velocity = self.state(name, "velocity", var)?;
                let velocity = blend(velocity, gradient, self.descent.momentum, 1. - self.descent.momentum)?;
                descend(var, &velocity, rate, decay)?;
                self.keep(name, "velocity", velocity);
            }
            Method::Adam => {
                let (beta1, beta2, epsilon) = ADAM;
                let count = self.count(name)? + 1;
                let whole = match gradient {
                    Gradient::Whole(gradient) => gradient.clone(),
                    Gradient::Products(_) => blend(var.zeros_like()?, gradient, 0., 1.)?,
                };
                let first = blend(self.state(name, "first", var)?, Gradient::Whole(&whole), beta1, 1. - beta1)?;
                let second = self.state(name, "second", var)?;
                let second = blend(second, Gradient::Whole(&whole.sqr()?), beta2, 1. - beta2)?;
                let corrected = rate / (1. - beta1.powi(count as i32));
                let root = (1. - beta2.powi(count as i32)).sqrt();
                if ops::is_fast(var) {
                    inplace::adam(var, &first, &second, [corrected, root, epsilon, 1. - rate * decay])?;
                } else {
                    let change = ((&first * corrected)? / ((second.sqrt()? / root)? + epsilon)?)?;
                    var.set(&((var.as_tensor() * (1. - rate * decay))? - change)?.detach())?;
                }
                self.keep(name, "first", first);
                self.keep(name, "second", second);
                self.keep(name, "count", Tensor::new(&[count], &Device::Cpu)?);
            }
        }
        Ok(())
    }

    fn state(&self, name: &str, what: &str, var: &Var) -> Result<Tensor> {
        match self.state.get(&format!("{name}.{what}")) {
            Some(tensor) => Ok(tensor.clone()),
            None => Ok(var.zeros_like()?.detach()),
        }
    }

    fn count(&self, name: &str) -> Result<i64> {
        let saved = self.state.get(&format!("{name}.count"));
        Ok(saved.map(|count| count.to_vec1::<i64>()).transpose()?.and_then(|count| count.first().copied()).unwrap_or(0))
    }

    fn keep(&mut self, name: &str, what: &str, tensor: Tensor) {
        self.state.insert(format!("{name}.{what}"), tensor);
    }

    /// Everything besides the variables that the next step depends on, by name.
    pub fn save(&self) -> BTreeMap<String, Tensor> {
        self.state.clone()
    }

    /// Goes on from a saved state: those of `tensors` whose names begin with a variable of this optimiser.
    ///
    /// # Errors
    /// [`Error::Shape`] if one has not the shape of its variable.
    pub fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let mut state = BTreeMap::new();
        for (name, var) in self.vars.learned() {
            for what in ["velocity", "first", "second", "count"] {
                let key = format!("{name}.{what}");
                let Some(tensor) = tensors.get(&key) else { continue };
                let shape = if what == "count" { vec![1] } else { var.dims().to_vec() };
                if tensor.dims() != shape {
                    let found = tensor.dims().to_vec();
                    return Err(Error::Shape { place: key, found, expected: format!("{shape:?}") });
                }
                let tensor = if what == "count" {
                    tensor.to_dtype(DType::I64)?
                } else {
                    // A copy of its own: it will be changed in place.
                    tensor.to_dtype(var.dtype())?.to_device(var.device())?.copy()?
                };
                state.insert(key, tensor);
            }
        }
        self.state = state;
        Ok(())
    }
}

/// `keep·velocity + factor·gradient`, in place where there is a fast path.
fn blend(velocity: Tensor, gradient: Gradient<'_>, keep: f64, factor: f64) -> Result<Tensor> {
    match gradient {
        Gradient::Whole(gradient) => {
            if gradient.dims() != velocity.dims() {
                let (found, expected) = (gradient.dims().to_vec(), format!("{:?}", velocity.dims()));
                return Err(Error::Shape { place: "gradient".into(), found, expected });
            }
            if ops::is_fast(&velocity) {
                inplace::blend(&velocity, gradient, keep, factor)?;
                return Ok(velocity);
            }
            Ok(((velocity * keep)? + (gradient * factor)?)?)
        }
        Gradient::Products(products) => {
            let rows: usize = products.iter().map(|product| product.values.width()).sum::<Result<_>>()?;
            if rows != velocity.dim(0)? {
                let expected = format!("{} rows", velocity.dim(0)?);
                return Err(Error::Shape { place: "products of a gradient".into(), found: vec![rows], expected });
            }
            let mut first = 0;
            let mut blended = Vec::with_capacity(products.len());
            for product in products {
                let width = product.values.width()?;
                blended.push(product.blend(velocity.narrow(0, first, width)?, keep, factor)?);
                first += width;
            }
            if ops::is_fast(&velocity) {
                return Ok(velocity);
            }
            Ok(Tensor::cat(&blended, 0)?)
        }
    }
}

impl Product {
    /// `keep·velocity + factor·valuesᵀ·delta`, in place where there is a fast path.
    fn blend(&self, velocity: Tensor, keep: f64, factor: f64) -> Result<Tensor> {
        if ops::is_fast(&velocity) {
            match &self.values {
                Values::Dense { matrix, columns } => {
                    let matrix = matrix.narrow(1, columns.start, columns.len())?;
                    inplace::add_product(&velocity, &matrix, &self.delta, keep, factor)?;
                }
                Values::OneHot { index, classes, strength } => {
                    inplace::add_rows(&velocity, index, &self.delta, *classes, keep, factor * strength)?;
                }
            }
            return Ok(velocity);
        }
        let matrix = self.values.to_matrix(velocity.dtype())?;
        let product = matrix.t()?.contiguous()?.matmul(&self.delta.contiguous()?)?;
        Ok(((velocity * keep)? + (product * factor)?)?)
    }
}

fn descend(var: &Var, velocity: &Tensor, rate: f64, decay: f64) -> Result<()> {
    if ops::is_fast(var) {
        return inplace::descend(var, velocity, rate, decay);
    }
    Ok(var.set(&(var.as_tensor().affine(1. - rate * decay, 0.)? - (velocity * rate)?)?.detach())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::Init;

    fn step(epoch: usize, epochs: usize) -> Step {
        Step { seed: 1, index: 0, epoch, epochs, train: true, pass: 0 }
    }

    fn descent(method: Method) -> Descent {
        Descent { method, rate: 0.1, decay: 0.01, momentum: 0.9, schedule: Schedule::Constant }
    }

    fn close(found: &[f32], expected: &[f32]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near && found.len() == expected.len(), "{found:?} instead of {expected:?}");
    }

    fn two_steps(method: Method, dtype: DType) -> Result<Vec<f32>> {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let var = vars.get("w", (1, 3), Init::Const(1.))?;
        let mut optimiser = Optimiser::new(vars, descent(method), 0..1);
        for gradient in [[[1f64, -2., 0.5]], [[0.5, 1., 0.]]] {
            let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
            optimiser.learn("w", &var, Gradient::Whole(&gradient), &step(0, 1))?;
        }
        Ok(var.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
    }

    // By hand: v₁ = 0.1·g₁; w₁ = 1 − 0.1·(v₁ + 0.01); v₂ = 0.9·v₁ + 0.1·g₂; w₂ = w₁ − 0.1·(v₂ + 0.01·w₁).
    #[test]
    fn momentum_is_a_running_mean_of_gradients() -> Result<()> {
        let expected = [0.974_011, 1.025_981, 0.988_506];
        close(&two_steps(Method::Sgd, DType::F32)?, &expected);
        close(&two_steps(Method::Sgd, DType::F64)?, &expected);
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
        close(&two_steps(Method::Adam, DType::F32)?, &expected);
        close(&two_steps(Method::Adam, DType::F64)?, &expected);
        Ok(())
    }

        #[test]
    fn hintons_schedule_falls_in_the_second_half() {
        let factors: Vec<_> = (0..4).map(|epoch| Schedule::HalfLinear.factor(epoch, 4)).collect();
        assert_eq!(factors, [1., 1., 0.75, 0.25]);
        assert_eq!(Schedule::HalfLinear.factor(0, 1), 1.);
        assert_eq!(Schedule::Linear.factor(3, 4), 0.25);
        assert_eq!(Schedule::Cosine.factor(0, 4), 1.);
    }

    #[test]
    fn rates_are_relative_to_the_span() {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let descent = Descent { schedule: Schedule::HalfLinear, ..descent(Method::Sgd) };
        let optimiser = Optimiser::new(vars, descent, 4..8);
        assert_eq!(optimiser.rate(&step(4, 8)), 0.1);
        assert_eq!(optimiser.rate(&step(7, 8)), 0.025);
    }

    #[test]
    fn a_gradient_given_as_products_is_their_sum() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let (whole, parts) = (vars.get("a", (4, 2), Init::Const(1.))?, vars.get("b", (4, 2), Init::Const(1.))?);
            let x = Tensor::new(&[[1f64, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?.to_dtype(dtype)?;
            let index = Tensor::new(&[[1u32], [0], [1]], &Device::Cpu)?;
            let delta = Tensor::new(&[[1f64, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?.to_dtype(dtype)?;
            // xᵀ·delta, and the rows of delta sorted by index, times 2
            let gradient = [[6f64, 8.], [8., 10.], [0., 2.], [4., 2.]];
            let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
            let products = [
                Product { values: Values::dense(x)?, delta: delta.clone() },
                Product { values: Values::OneHot { index, classes: 2, strength: 2. }, delta },
            ];
            let mut optimiser = Optimiser::new(vars, descent(Method::Sgd), 0..1);
            for _ in 0..2 {
                optimiser.learn("a", &whole, Gradient::Whole(&gradient), &step(0, 1))?;
                optimiser.learn("b", &parts, Gradient::Products(&products), &step(0, 1))?;
            }
            let difference = (whole.as_tensor() - parts.as_tensor())?.abs()?.sum_all()?.to_dtype(DType::F64)?;
            assert!(difference.to_scalar::<f64>()? < 1e-6);
        }
        Ok(())
    }
}
