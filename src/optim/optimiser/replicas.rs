//! Steps with the mean gradient of several replicas.
//!
//! Each replica changes its part of a variable and of its moments, and gives the others
//! the new values. So no replica has all the work, and all of them have the same bits.

use candle_core::{Tensor, Var};

use super::Optimiser;
use crate::comm::{Averager, Awaited};
use crate::error::Result;
use crate::flow::step::Step;
use crate::kernels;
use crate::optim::update::Update;
use crate::optim::Gradient;

/// The replicas whose gradients are averaged with the own ones.
pub(super) struct Replicas {
    averager: Averager,
    /// The number of the own rows in this step.
    rows: usize,
    awaited: Vec<Change>,
}

/// A variable that waits for what comes from the other replicas.
struct Change {
    name: String,
    var: Var,
    tensor: Awaited,
    /// What to do with the mean gradient; nothing if the new values come instead.
    update: Option<Update>,
}

impl Optimiser {
    /// From now on the gradients of each step are the means over the replicas; this one
    /// has learned from `rows` examples. All of them have to make the same updates in the
    /// same order.
    ///
    /// Variables change only in [`finish`](Self::finish), so that other levels learn
    /// while means are on their way.
    pub(crate) fn average_over(&mut self, averager: &Averager, rows: usize) {
        match &mut self.replicas {
            Some(replicas) => replicas.rows = rows,
            None => {
                self.replicas = Some(Replicas {
                    averager: averager.clone(),
                    rows,
                    awaited: Vec::new(),
                });
            }
        }
    }

    /// Whether a variable has not changed yet in this step.
    pub(super) fn is_awaited(&self, name: &str) -> bool {
        let mut awaited = self.replicas.iter().flat_map(|replicas| &replicas.awaited);
        awaited.any(|change| change.name == name)
    }

    /// Begins a step of a variable with the mean of a gradient, in whose memory it is
    /// computed.
    pub(super) fn exchange(
        &mut self,
        name: &str,
        var: &Var,
        gradient: &Tensor,
        step: &Step,
    ) -> Result<()> {
        let update = self.next_update(name, var, step)?;
        let moments = self.moments.entry(name.into()).or_default();
        let Some(replicas) = &mut self.replicas else {
            return Ok(());
        };
        let (averager, rows) = (&replicas.averager, replicas.rows);
        let is_divided = update.can_be_divided(var);
        moments.is_divided |= is_divided;
        let tensor = match is_divided {
            true => {
                let (var, moments) = (var.clone(), moments.tensors.clone());
                averager.made_of_mean(gradient, rows, move |place, new, gradient| {
                    update.apply_to_part(&var, &moments, place, new, gradient)
                })
            }
            false => averager.mean(gradient, rows),
        };
        replicas.awaited.push(Change {
            name: name.into(),
            var: var.clone(),
            tensor,
            update: (!is_divided).then_some(update),
        });
        Ok(())
    }

    /// Changes the variables that are still to change.
    ///
    /// # Errors
    /// As [`Team::mean`](crate::comm::Team::mean); errors of candle.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let awaited = self.replicas.as_mut();
        let awaited = awaited.map(|replicas| std::mem::take(&mut replicas.awaited));
        let mut changed = Ok(());
        for change in awaited.into_iter().flatten() {
            // After an error too, since what is exchanged must not change before the
            // result is there.
            let tensor = change.tensor.wait();
            changed = changed.and_then(|()| {
                self.vars.changed();
                let (var, tensor) = (&change.var, &tensor?);
                let Some(update) = change.update else {
                    return kernels::swap_values(var, tensor);
                };
                let moments = self.moments.entry(change.name).or_default();
                update.apply(var, &mut moments.tensors, Gradient::Whole(tensor))
            });
        }
        changed
    }

    /// Brings the parts of the moments together. All replicas have to call it at the same
    /// point, before the state of one of them is saved.
    ///
    /// # Errors
    /// As [`Team::mean`](crate::comm::Team::mean).
    pub(crate) fn settle(&mut self) -> Result<()> {
        let Some(Replicas { averager, .. }) = &self.replicas else {
            return Ok(());
        };
        let all = self.moments.values_mut();
        for moments in all.filter(|moments| moments.is_divided) {
            for tensor in &moments.tensors {
                averager.whole(tensor).wait()?;
            }
            moments.is_divided = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use candle_core::{DType, Device};
    use candle_nn::Init;

    use super::*;
    use crate::comm::{channels, Team};
    use crate::flow::random::normals;
    use crate::flow::vars::Vars;
    use crate::optim::{Algorithm, OptimiserSpec, Schedule, Span};

    /// The rows of each replica.
    const ROWS: [usize; 2] = [2, 1];

    /// The variables and moments after three steps on the gradients that `of_step` gives
    /// for a shape.
    fn trained(
        algorithm: Algorithm,
        dtype: DType,
        averager: Option<(&Averager, usize)>,
        of_step: &dyn Fn(u64, &[usize]) -> Result<Tensor>,
    ) -> Result<BTreeMap<String, Tensor>> {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let spec = OptimiserSpec {
            optimiser: algorithm,
            lr: 0.1,
            weight_decay: 0.01,
            momentum: 0.5,
            schedule: Schedule::Constant,
        };
        let mut optimiser = Optimiser::new(vars.clone(), spec, Span::Epochs(0..1));
        let weight = vars.get("weight", (5, 3), Init::Const(1.))?;
        let bias = vars.get("bias", 3, Init::Const(1.))?;
        for index in 0..3 {
            let before = weight.copy()?;
            if let Some((averager, rows)) = averager {
                optimiser.average_over(averager, rows);
            }
            for (name, var) in [("weight", &weight), ("bias", &bias)] {
                let gradient = of_step(index, var.dims())?.to_dtype(dtype)?;
                let gradient = Gradient::Whole(&gradient);
                optimiser.update(name, var, gradient, &Step::first(1))?;
            }
            if averager.is_some() {
                assert_eq!(difference(&weight, &before)?, 0.);
            }
            optimiser.finish()?;
        }
        // What each replica has alone is not the whole state.
        let is_divided = averager.is_some() && dtype == DType::F32;
        assert_eq!(optimiser.save().is_err(), is_divided);
        optimiser.settle()?;
        let mut state = optimiser.save()?;
        for (name, var) in vars.all() {
            state.insert(name, var.as_detached_tensor());
        }
        Ok(state)
    }

    fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
        let sum = (a - b)?.abs()?.sum_all()?.to_dtype(DType::F64)?;
        Ok(sum.to_scalar()?)
    }

    /// The gradient of a replica, in which a row is 0.
    fn gradient(replica: usize, step: u64, shape: &[usize]) -> Result<Tensor> {
        let numbers = normals(shape, 10 * step + replica as u64)?;
        let first = numbers.narrow(0, 0, 1)?.zeros_like()?;
        Ok(Tensor::cat(
            &[&first, &numbers.narrow(0, 1, shape[0] - 1)?],
            0,
        )?)
    }

    #[test]
    fn replicas_do_what_one_does_with_their_mean_gradient() -> Result<()> {
        let mean = |step: u64, shape: &[usize]| -> Result<Tensor> {
            let [first, second] = [0, 1].map(|replica| gradient(replica, step, shape));
            Ok((((first? * ROWS[0] as f64)? + (second? * ROWS[1] as f64)?)? / 3.)?)
        };
        let algorithms = [
            Algorithm::Sgd,
            Algorithm::Adam,
            Algorithm::SparseAdam,
            Algorithm::Muon,
        ];
        let dtypes = [DType::F32, DType::F64];
        for (algorithm, dtype) in algorithms.iter().flat_map(|a| dtypes.map(|d| (*a, d))) {
            let wanted = trained(algorithm, dtype, None, &mean)?;
            let of_replicas = channels(2).into_iter().enumerate().map(|(replica, comm)| {
                thread::spawn(move || {
                    let averager = Averager::start(Team::new(comm, vec![0, 1])?);
                    let averager = Some((&averager, ROWS[replica]));
                    let of_step = |step: u64, shape: &[usize]| gradient(replica, step, shape);
                    trained(algorithm, dtype, averager, &of_step)
                })
            });
            let threads: Vec<_> = of_replicas.collect();
            let found = threads.into_iter().map(|thread| thread.join().unwrap());
            let found: Vec<_> = found.collect::<Result<_>>()?;
            for (name, wanted) in &wanted {
                let [first, second] = [0, 1].map(|replica| &found[replica][name]);
                let wanted = wanted.to_dtype(first.dtype())?;
                if wanted.dtype().is_float() {
                    assert_eq!(difference(first, second)?, 0., "{algorithm:?}, {name}");
                    let apart = difference(first, &wanted)?;
                    assert!(apart < 1e-5, "{algorithm:?}, {dtype:?}, {name}: {apart}");
                }
            }
            assert_eq!(wanted.len(), found[0].len());
        }
        Ok(())
    }
}
