//! Classes for negative views and for the search.

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::random::{below, unit};

/// Every class as a candidate of every example, `(C, B)`: the search over all classes.
///
/// # Errors
/// Errors of candle.
pub fn every_class(classes: usize, batch: &Batch) -> Result<Tensor> {
    let rows = (0..classes as u32).flat_map(|class| std::iter::repeat_n(class, batch.size()));
    Ok(Tensor::from_iter(rows, batch.device())?.reshape((classes, batch.size()))?)
}

/// A wrong class for each label, all wrong ones equally likely. At least two classes
/// are needed.
pub fn uniform_wrong(labels: &[u32], classes: usize, rng: &mut impl Rng) -> Vec<u32> {
    let wrong = |&label: &u32| {
        let drawn = below(rng, classes - 1) as u32;
        drawn + u32::from(drawn >= label)
    };
    labels.iter().map(wrong).collect()
}

/// Fewer probabilities are computed on one thread.
const MANY: usize = 1 << 15;

/// A hard negative for each label: a wrong class, drawn in proportion to the
/// probability that the network gives it.
///
/// # Errors
/// [`Error::Unfit`] if there is no other class than the label; [`Error::Shape`] if
/// there is not one prediction for each label.
pub fn predicted_wrong(
    labels: &[u32],
    log_probabilities: &Tensor,
    rng: &mut impl Rng,
) -> Result<Vec<u32>> {
    let rows = log_probabilities
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?;
    let rows = rows.to_vec2::<f64>()?;
    if rows.len() != labels.len() {
        let expected = format!("a row for each of {} labels", labels.len());
        return Err(Error::shape(
            "prediction",
            log_probabilities.dims(),
            expected,
        ));
    }
    let draws: Vec<f64> = labels.iter().map(|_| unit(rng)).collect();
    let wrong = |((row, &label), draw): ((&Vec<f64>, &u32), f64)| wrong_class(row, label, draw);
    if log_probabilities.elem_count() < MANY {
        return rows.iter().zip(labels).zip(draws).map(wrong).collect();
    }
    rows.par_iter().zip(labels).zip(draws).map(wrong).collect()
}

/// The wrong class that a number `draw` in `[0, 1)` picks.
fn wrong_class(row: &[f64], label: u32, draw: f64) -> Result<u32> {
    // Relative to the likeliest wrong class: its share is 1 however small all
    // probabilities are.
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
    for (class, share) in &shares {
        left -= share;
        if left < 0. {
            return Ok(*class as u32);
        }
    }
    // Rounding can leave a rest.
    let likeliest = shares.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    likeliest.map(|(class, _)| *class as u32).ok_or_else(|| {
        let problem = format!("a prediction of {} classes has no wrong class", row.len());
        Error::unfit("hard negatives", problem)
    })
}
