//! The update of one block's variables: stochastic gradient descent with momentum, and Adam.
//!
//! Unlike candle's own optimisers these can be boxed, their state can be read and set, and a gradient can be given as
//! the matrix products it is made of: descent with momentum then adds the products to the velocity, and no gradient
//! is ever stored.

mod accumulate;
mod gradient;
mod output_gradient;
mod picked_rows;
mod product;
mod update;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use self::accumulate::Sum;
pub use self::gradient::Gradient;
pub(crate) use self::gradient::{formed, Form};
pub use self::output_gradient::OutputGradient;
pub use self::product::Product;
use crate::error::{Error, Result};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;

crate::choices! {
    /// How gradients become updates.
    pub enum Algorithm {
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
pub struct OptimiserSpec {
    /// The rule.
    pub method: Algorithm,
    /// `η`, before the schedule.
    pub rate: f64,
    /// `λ`, of everything but vectors such as biases.
    pub decay: f64,
    /// `μ`; Adam has its usual 0.9 and 0.999.
    pub momentum: f64,
    /// How the rate changes.
    pub schedule: Schedule,
}

/// Elements that one thread takes at a time.
const GRAIN: usize = 1 << 16;

const ADAM: (f64, f64, f64) = (0.9, 0.999, 1e-8);

/// Changes the variables of one block, and nothing else.
pub struct Optimiser {
    vars: Vars,
    descent: OptimiserSpec,
    span: Range<usize>,
    moments: BTreeMap<String, Moments>,
    /// What each gradient counts while gradients are gathered.
    share: Option<f64>,
    sums: BTreeMap<String, Sum>,
}

/// What an optimiser remembers of one variable: the velocity; or the first and second moments, and how many steps.
#[derive(Default)]
struct Moments {
    tensors: Vec<Tensor>,
    steps: u32,
}

impl Algorithm {
    /// The names of what is remembered.
    fn moments(self) -> &'static [&'static str] {
        match self {
            Self::Sgd => &["velocity"],
            Self::Adam => &["first", "second"],
        }
    }
}

impl Optimiser {
    /// An optimiser of the variables at and below `vars`, that runs in the epochs of `span`.
    pub fn new(vars: Vars, descent: OptimiserSpec, span: Range<usize>) -> Self {
        Self {
            vars,
            descent,
            span,
            moments: BTreeMap::new(),
            share: None,
            sums: BTreeMap::new(),
        }
    }

    /// The epochs in which it runs; rates and schedules are relative to them.
    pub fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// Changes the epochs in which it runs; an empty span stops it.
    pub fn set_span(&mut self, span: Range<usize>) {
        self.span = span;
    }

    /// The variables it may change.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The rate at `step`.
    pub fn rate(&self, step: &Step) -> f64 {
        let epoch = step.epoch.saturating_sub(self.span.start);
        let epochs = self.span.len().max(1);
        self.descent.rate * self.descent.schedule.factor(epoch.min(epochs - 1), epochs)
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
    pub fn learn(
        &mut self,
        name: &str,
        var: &Var,
        gradient: Gradient<'_>,
        step: &Step,
    ) -> Result<()> {
        gradient.check(var)?;
        let Some(share) = self.share else {
            return self.change(name, var, gradient, step);
        };
        self.sum(name, var)?.add(gradient, share)
    }

    /// The same for a gradient that `form` makes of values and deltas: one product for each range of the columns of an
    /// input, from the first to the last. For the fast path.
    ///
    /// # Errors
    /// Whatever the form refuses.
    pub(crate) fn learn_formed(
        &mut self,
        name: &str,
        var: &Var,
        form: &Arc<dyn Form>,
        products: &[Product],
        step: &Step,
    ) -> Result<()> {
        let share = self.share;
        self.sum(name, var)?
            .add_formed(form, products, share.unwrap_or(1.))?;
        match share {
            Some(_) => Ok(()),
            // A sum of this gradient alone: its memory is there from the step before.
            None => self.settle(step),
        }
    }

    fn sum(&mut self, name: &str, var: &Var) -> Result<&mut Sum> {
        match self.sums.entry(name.into()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Sum::new(var)?)),
        }
    }

    /// From now on gradients change nothing; [`Optimiser::settle`] makes one step of their mean over `lessons` lessons.
    ///
    /// For layers that learn from several passes over one batch, such as time steps: whatever the layer, all passes see
    /// the weights from before the step, and values that passes share are multiplied once for all of them.
    pub fn gather(&mut self, lessons: usize) {
        self.share = Some(1. / lessons.max(1) as f64);
        // What a step that failed half-way may have left behind.
        self.sums.values_mut().for_each(Sum::reset);
    }

    /// One step of every variable for which gradients were gathered.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn settle(&mut self, step: &Step) -> Result<()> {
        let share = self.share.take().unwrap_or(1.);
        let mut sums = std::mem::take(&mut self.sums);
        for (name, sum) in sums.iter_mut().filter(|(_, sum)| !sum.is_empty()) {
            let var = sum.var.clone();
            sum.take(share, |gradient| self.change(name, &var, gradient, step))?;
        }
        self.sums = sums;
        Ok(())
    }

    fn change(&mut self, name: &str, var: &Var, gradient: Gradient<'_>, step: &Step) -> Result<()> {
        self.vars.changed();
        let OptimiserSpec {
            method, momentum, ..
        } = self.descent;
        let rate = self.rate(step);
        let shrink = 1.
            - rate
                * if var.rank() >= 2 {
                    self.descent.decay
                } else {
                    0.
                };
        let moments = self.moments.entry(name.into()).or_default();
        while moments.tensors.len() < method.moments().len() {
            moments.tensors.push(var.zeros_like()?.detach());
        }
        moments.steps += 1;
        let update = match method {
            Algorithm::Sgd => Update::Sgd {
                momentum,
                rate,
                shrink,
            },
            Algorithm::Adam => {
                let (beta1, beta2, epsilon) = ADAM;
                let rate = rate / (1. - beta1.powf(f64::from(moments.steps)));
                let root = (1. - beta2.powf(f64::from(moments.steps))).sqrt();
                Update::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    rate,
                    root,
                    shrink,
                }
            }
        };
        if kernels::is_fast(var) {
            return update::update(var, &moments.tensors, gradient, update);
        }
        update.plain(var, &mut moments.tensors, &gradient.whole(var)?)
    }

    /// Everything besides the variables that the next step depends on, by name.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut saved = BTreeMap::new();
        for (name, moments) in &self.moments {
            for (what, tensor) in self.descent.method.moments().iter().zip(&moments.tensors) {
                saved.insert(format!("{name}.{what}"), tensor.clone());
            }
            saved.insert(
                format!("{name}.steps"),
                Tensor::new(&[moments.steps], &Device::Cpu)?,
            );
        }
        Ok(saved)
    }

    /// Goes on from a saved state: those of `tensors` whose names begin with a variable of this optimiser.
    ///
    /// # Errors
    /// [`Error::Shape`] if one has not the shape of its variable.
    pub fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let mut restored = BTreeMap::new();
        for (name, var) in self.vars.learned() {
            let get = |what: &str, shape: &[usize]| -> Result<Option<&Tensor>> {
                let key = format!("{name}.{what}");
                match tensors.get(&key) {
                    Some(tensor) if tensor.dims() != shape => {
                        let (found, expected) = (tensor.dims().to_vec(), format!("{shape:?}"));
                        Err(Error::Shape {
                            place: key,
                            found,
                            expected,
                        })
                    }
                    found => Ok(found),
                }
            };
            let Some(steps) = get("steps", &[1])? else {
                continue;
            };
            let steps = steps.to_dtype(DType::U32)?.to_vec1::<u32>()?[0];
            let mut moments = Moments {
                steps,
                tensors: Vec::new(),
            };
            for what in self.descent.method.moments() {
                let Some(tensor) = get(what, var.dims())? else {
                    break;
                };
                // A copy of its own: it will be changed in place.
                moments.tensors.push(
                    tensor
                        .to_dtype(var.dtype())?
                        .to_device(var.device())?
                        .copy()?,
                );
            }
            restored.insert(name, moments);
        }
        self.moments = restored;
        Ok(())
    }
}

/// One step of one variable, in numbers.
#[derive(Clone, Copy)]
enum Update {
    /// `v ← μ·v + (1 − μ)·g`, `w ← shrink·w − rate·v`.
    Sgd {
        momentum: f64,
        rate: f64,
        shrink: f64,
    },
    /// `w ← shrink·w − rate·m / (√v / root + ε)`; the corrections of the bias are in `rate` and `root`.
    Adam {
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        rate: f64,
        root: f64,
        shrink: f64,
    },
}

impl Update {
    /// By candle's operations, on any device.
    fn plain(self, var: &Var, moments: &mut [Tensor], gradient: &Tensor) -> Result<()> {
        let blend = |old: &Tensor, new: &Tensor, keep: f64| -> Result<Tensor> {
            Ok(((old * keep)? + (new * (1. - keep))?)?.detach())
        };
        let (change, shrink) = match (self, moments) {
            (
                Self::Sgd {
                    momentum,
                    rate,
                    shrink,
                },
                [velocity, ..],
            ) => {
                *velocity = blend(velocity, gradient, momentum)?;
                ((&*velocity * rate)?, shrink)
            }
            (
                Self::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    rate,
                    root,
                    shrink,
                },
                [first, second, ..],
            ) => {
                *first = blend(first, gradient, beta1)?;
                *second = blend(second, &gradient.sqr()?, beta2)?;
                (
                    ((&*first * rate)? / ((second.sqrt()? / root)? + epsilon)?)?,
                    shrink,
                )
            }
            _ => return Ok(()),
        };
        Ok(var.set(&((var.as_tensor() * shrink)? - change)?.detach())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::input::Values;
    use candle_nn::Init;

    fn step(epoch: usize, epochs: usize) -> Step {
        Step {
            seed: 1,
            index: 0,
            epoch,
            epochs,
            train: true,
            pass: 0,
        }
    }

    fn descent(method: Algorithm) -> OptimiserSpec {
        OptimiserSpec {
            method,
            rate: 0.1,
            decay: 0.01,
            momentum: 0.9,
            schedule: Schedule::Constant,
        }
    }

    fn close(found: &[f32], expected: &[f32]) {
        let near = found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(
            near && found.len() == expected.len(),
            "{found:?} instead of {expected:?}"
        );
    }

    fn two_steps(method: Algorithm, dtype: DType) -> Result<Vec<f32>> {
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
        close(&two_steps(Algorithm::Sgd, DType::F32)?, &expected);
        close(&two_steps(Algorithm::Sgd, DType::F64)?, &expected);
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
        close(&two_steps(Algorithm::Adam, DType::F32)?, &expected);
        close(&two_steps(Algorithm::Adam, DType::F64)?, &expected);
        Ok(())
    }

    #[test]
    fn hintons_schedule_falls_in_the_second_half() {
        let factors: Vec<_> = (0..4)
            .map(|epoch| Schedule::HalfLinear.factor(epoch, 4))
            .collect();
        assert_eq!(factors, [1., 1., 0.75, 0.25]);
        assert_eq!(Schedule::HalfLinear.factor(0, 1), 1.);
        assert_eq!(Schedule::Linear.factor(3, 4), 0.25);
        assert_eq!(Schedule::Cosine.factor(0, 4), 1.);
    }

    #[test]
    fn rates_are_relative_to_the_span() {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let descent = OptimiserSpec {
            schedule: Schedule::HalfLinear,
            ..descent(Algorithm::Sgd)
        };
        let optimiser = Optimiser::new(vars, descent, 4..8);
        assert_eq!(optimiser.rate(&step(4, 8)), 0.1);
        assert_eq!(optimiser.rate(&step(7, 8)), 0.025);
    }

    #[test]
    fn a_gradient_given_as_products_is_their_sum() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let (whole, parts) = (
                vars.get("a", (4, 2), Init::Const(1.))?,
                vars.get("b", (4, 2), Init::Const(1.))?,
            );
            let x =
                Tensor::new(&[[1f64, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?.to_dtype(dtype)?;
            let index = Tensor::new(&[[1u32], [0], [1]], &Device::Cpu)?;
            let delta =
                Tensor::new(&[[1f64, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?.to_dtype(dtype)?;
            // xᵀ·delta, and the rows of delta sorted by index, times 2
            let gradient = [[6f64, 8.], [8., 10.], [0., 2.], [4., 2.]];
            let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
            let products = [
                Product {
                    values: Values::dense(x)?,
                    delta: (&delta).into(),
                },
                Product {
                    values: Values::OneHot {
                        index,
                        classes: 2,
                        strength: 2.,
                    },
                    delta: delta.into(),
                },
            ];
            let mut optimiser = Optimiser::new(vars, descent(Algorithm::Sgd), 0..1);
            for _ in 0..2 {
                optimiser.learn("a", &whole, Gradient::Whole(&gradient), &step(0, 1))?;
                optimiser.learn("b", &parts, Gradient::Products(&products), &step(0, 1))?;
            }
            let difference = (whole.as_tensor() - parts.as_tensor())?
                .abs()?
                .sum_all()?
                .to_dtype(DType::F64)?;
            assert!(difference.to_scalar::<f64>()? < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn gathered_gradients_make_one_step_of_their_mean() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let vars = Vars::new(1, dtype, &Device::Cpu);
            let (mean, gathered) = (
                vars.get("a", (3, 2), Init::Const(1.))?,
                vars.get("b", (3, 2), Init::Const(1.))?,
            );
            let tensor = |values: [[f64; 2]; 2]| -> Result<Tensor> {
                Ok(Tensor::new(&values, &Device::Cpu)?.to_dtype(dtype)?)
            };
            let shared = Values::dense(tensor([[1., 2.], [3., 4.]])?)?;
            let label = |index: [[u32; 1]; 2]| -> Result<Values> {
                Ok(Values::OneHot {
                    index: Tensor::new(&index, &Device::Cpu)?,
                    classes: 1,
                    strength: 1.,
                })
            };
            // Σ over both lessons of xᵀ·delta, the last row being the sum of the deltas.
            let (first, second) = (tensor([[1., 0.], [0., 2.]])?, tensor([[3., 1.], [0., 0.]])?);
            let sum =
                Tensor::new(&[[4f64, 7.], [8., 10.], [4., 3.]], &Device::Cpu)?.to_dtype(dtype)?;
            let mut optimiser = Optimiser::new(vars, descent(Algorithm::Sgd), 0..1);
            for _ in 0..2 {
                optimiser.learn("a", &mean, Gradient::Whole(&(&sum * 0.5)?), &step(0, 1))?;
                let before = gathered.as_tensor().copy()?;
                optimiser.gather(2);
                for delta in [&first, &second] {
                    let values = [shared.clone(), label([[0], [0]])?];
                    let products = values.map(|values| Product {
                        values,
                        delta: delta.into(),
                    });
                    optimiser.learn("b", &gathered, Gradient::Products(&products), &step(0, 1))?;
                    let change = (gathered.as_tensor() - &before)?
                        .abs()?
                        .sum_all()?
                        .to_dtype(DType::F64)?;
                    assert_eq!(change.to_scalar::<f64>()?, 0.);
                }
                optimiser.settle(&step(0, 1))?;
            }
            let difference = (mean.as_tensor() - gathered.as_tensor())?
                .abs()?
                .sum_all()?
                .to_dtype(DType::F64)?;
            assert!(difference.to_scalar::<f64>()? < 1e-6);
        }
        Ok(())
    }
}
