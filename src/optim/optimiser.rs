//! The optimiser of one block.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use self::replicas::Replicas;
use super::accumulate::Accumulator;
use super::gradient::Gradient;
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
    /// The variables whose rows stay as they are under Adam where they have no gradient.
    by_row: BTreeSet<String>,
    replicas: Option<Replicas>,
}

/// The state of one variable: the velocity, or the first and second moments; and the
/// number of steps.
#[derive(Default)]
struct Moments {
    tensors: Vec<Tensor>,
    steps: u32,
    /// Whether each replica has changed its own part of them.
    is_divided: bool,
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
            by_row: BTreeSet::new(),
            replicas: None,
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
    /// only added to the sum. Of several replicas, the levels of a stack change their
    /// variables at the end of the step.
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
        if !self.vars.learns(name, var) {
            let own = self.vars.path("*");
            let problem =
                format!("expected a learned variable of this optimiser ({own}), found another one");
            return Err(Error::usage(format!("update of {name}"), problem));
        }
        gradient.check(var)?;
        if self.is_awaited(name) {
            self.finish()?;
        }
        match self.share {
            Some(share) => self.accumulator(name, var)?.add(gradient, share),
            None if self.replicas.is_some() => {
                self.accumulator(name, var)?.add(gradient, 1.)?;
                self.apply_accumulated(step)
            }
            None => self.change(name, var, gradient, step),
        }
    }

    /// As [`update`](Self::update), for a variable of which a step meets few rows: under
    /// `adam` too, rows without a gradient stay as they are, as under `sparse_adam`.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_rows(
        &mut self,
        name: &str,
        var: &Var,
        gradient: Gradient<'_>,
        step: &Step,
    ) -> Result<()> {
        if !self.by_row.contains(name) {
            self.by_row.insert(name.into());
        }
        self.update(name, var, gradient, step)
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
            match self.replicas {
                Some(_) => self.exchange(name, &var, sum.whole(share)?, step)?,
                None => sum.take(share, |gradient| self.change(name, &var, gradient, step))?,
            }
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
        let update = self.next_update(name, var, step)?;
        self.vars.changed();
        let moments = self.moments.entry(name.into()).or_default();
        update.apply(var, &mut moments.tensors, gradient)
    }

    /// Counts a step of a variable, and returns how it changes in it.
    fn next_update(&mut self, name: &str, var: &Var, step: &Step) -> Result<Update> {
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
        Ok(match algorithm {
            Algorithm::Sgd => Update::Sgd {
                momentum,
                rate,
                shrink,
            },
            Algorithm::Muon if var.rank() >= 2 => Update::Muon {
                momentum,
                rate,
                shrink,
            },
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
                    sparse: var.rank() >= 2
                        && (algorithm == Algorithm::SparseAdam || self.by_row.contains(name)),
                }
            }
        })
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
    /// [`Error::Usage`] while each of several replicas has its part of the moments; errors
    /// of candle.
    pub fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.moments.values().any(|moments| moments.is_divided) {
            let problem = "is divided among replicas; save it between epochs";
            return Err(Error::usage("the state of an optimiser", problem));
        }
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
    /// optimiser's variables. A variable whose moments were saved by another algorithm
    /// begins without any.
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
            let moments = self.spec.optimiser.moments(var.rank()).iter();
            let tensors = moments.map_while(|moment| {
                let tensor = saved(tensors, &name, moment, var.dims()).transpose()?;
                // Copied, because it will be changed in place.
                let copy = |tensor: &Tensor| -> Result<Tensor> {
                    let tensor = tensor.to_dtype(var.dtype())?.to_device(var.device())?;
                    Ok(tensor.copy()?)
                };
                Some(tensor.and_then(copy))
            });
            let tensors = tensors.collect::<Result<Vec<_>>>()?;
            // Adam divides by what the number of steps says of its moments.
            if tensors.len() == self.spec.optimiser.moments(var.rank()).len() {
                let moments = Moments {
                    steps,
                    tensors,
                    ..Moments::default()
                };
                restored.insert(name, moments);
            }
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

mod replicas;
#[cfg(test)]
mod tests;
