//! The contract of a source of negative views.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rayon::prelude::*;

use crate::data::Examples;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::input::Input;
use crate::flow::random::{below, unit};
use crate::flow::step::Step;
use crate::flow::views::Views;

/// Turns a batch into the passes to learn from: the only source of negatives, and of labels in the input.
///
/// # For implementors
/// Only [`views`](Self::views) has to be written. You are guaranteed a whole batch with its labels, unless the data
/// have none. You guarantee views of the same width as [`neutral`](Self::neutral) and [`hypotheses`](Self::hypotheses)
/// give, negatives that differ from the positives, and that everything random is drawn from [`Step::stream`]. Parts
/// that all views share (see [`Input`]) are multiplied once.
pub trait NegativeSampler: Send {
    /// The passes to learn from.
    ///
    /// `predict` gives the network's own log-probabilities of the classes on the neutral view, `(B, C)`, from the
    /// weights before this step; it runs that pass when it is first called, so who does not need it does not pay.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the batch lacks what the sampler needs.
    fn views(
        &mut self,
        batch: &Batch,
        predict: &mut dyn FnMut() -> Result<Tensor>,
        step: &Step,
    ) -> Result<Views>;

    /// Whether the views depend on the labels; by default they may. Where they do not, the labels are hidden from the
    /// sampler, and the run's summary says that no label has reached a block.
    fn is_supervised(&self) -> bool {
        true
    }

    /// How many examples a batch must have, at least; by default 1. A sampler that mixes examples needs more:
    /// [`views`](Self::views) is then never given fewer, and a run whose batches would leave fewer over is refused before it
    /// begins.
    fn smallest_batch(&self) -> usize {
        1
    }

    /// The input under no hypothesised class; by default the examples as they are.
    ///
    /// # Errors
    /// Whatever the batch does not fit.
    fn neutral(&self, batch: &Batch) -> Result<Input> {
        Input::of(batch.examples().clone())
    }

    /// The input under hypothesised classes, one view for each row of `candidates`, `(K, B)`, `u32`: view `k` of example
    /// `b` has class `candidates[k, b]`. By default there is none, since no label is in the input.
    ///
    /// # Errors
    /// Whatever the batch does not fit.
    fn hypotheses(&self, _batch: &Batch, _candidates: &Tensor) -> Result<Option<Input>> {
        Ok(None)
    }

    /// What the sampler remembers from this epoch on, under the names of [`save`](Self::save); by default it remembers
    /// nothing. The trainer asks before every epoch and gives the answer to [`restore`](Self::restore).
    ///
    /// `predict` gives the network's own log-probabilities of the classes for any examples, `(B, C)`.
    ///
    /// # Errors
    /// Whatever the examples do not fit.
    fn refresh(
        &self,
        _train: &dyn Examples,
        _predict: &dyn Fn(&Batch) -> Result<Tensor>,
        _step: &Step,
    ) -> Result<Option<HashMap<String, Tensor>>> {
        Ok(None)
    }

    /// What the next step depends on besides seed and step, by name, such as a pool of roll-outs; by default nothing.
    fn save(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    /// Goes on from what [`save`](Self::save) gave.
    ///
    /// # Errors
    /// Whatever does not fit.
    fn restore(&mut self, _tensors: &HashMap<String, Tensor>) -> Result<()> {
        Ok(())
    }
}

/// Every class as a candidate of every example, `(C, B)`: what is searched if nothing narrows the search.
///
/// # Errors
/// Whatever candle refuses.
pub fn every_class(classes: usize, batch: &Batch) -> Result<Tensor> {
    let rows = (0..classes as u32).flat_map(|class| std::iter::repeat_n(class, batch.size()));
    Ok(Tensor::from_iter(rows, batch.device())?.reshape((classes, batch.size()))?)
}

/// A wrong class for each label, all wrong ones alike; at least two classes are needed.
pub fn uniform_wrong(labels: &[u32], classes: usize, rng: &mut impl Rng) -> Vec<u32> {
    let wrong = |&label: &u32| {
        let drawn = below(rng, classes - 1) as u32;
        drawn + u32::from(drawn >= label)
    };
    labels.iter().map(wrong).collect()
}

/// A wrong class for each label, in proportion to the probability that the network gives it: a hard negative.
///
/// # Errors
/// [`Error::Mismatch`] if there is no other class than the label.
pub fn predicted_wrong(
    labels: &[u32],
    log_probabilities: &Tensor,
    rng: &mut impl Rng,
) -> Result<Vec<u32>> {
    let rows = log_probabilities
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .to_vec2::<f64>()?;
    let draws: Vec<f64> = labels.iter().map(|_| unit(rng)).collect();
    let wrong = |((row, &label), draw): ((&Vec<f64>, &u32), f64)| {
        // Relative to the likeliest wrong class: it is 1 however small all of them are.
        let others = || {
            row.iter()
                .enumerate()
                .filter(|&(class, _)| class != label as usize)
        };
        let top = others()
            .map(|(_, log)| *log)
            .fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<(usize, f64)> = others()
            .map(|(class, log)| (class, (log - top).exp()))
            .collect();
        let mut left = draw * shares.iter().map(|(_, share)| share).sum::<f64>();
        let chosen = shares.iter().find(|(_, share)| {
            left -= share;
            left < 0.
        });
        let likeliest = || shares.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (class, _) = chosen.or_else(likeliest).ok_or_else(|| Error::Mismatch {
            place: "hard negatives".into(),
            problem: format!("a prediction of {} classes has no wrong one", row.len()),
        })?;
        Ok(*class as u32)
    };
    if log_probabilities.elem_count() < MANY {
        return rows.iter().zip(labels).zip(draws).map(wrong).collect();
    }
    rows.par_iter().zip(labels).zip(draws).map(wrong).collect()
}

/// Fewer probabilities are not worth waking a thread for.
const MANY: usize = 1 << 15;
