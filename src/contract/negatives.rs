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
    check_rows(labels, log_probabilities)?;
    let rows = log_probabilities
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?;
    let rows = rows.to_vec2::<f64>()?;
    let draws: Vec<f64> = labels.iter().map(|_| unit(rng)).collect();
    let wrong = |((row, &label), draw): ((&Vec<f64>, &u32), f64)| wrong_class(row, label, draw);
    if log_probabilities.elem_count() < MANY {
        return rows.iter().zip(labels).zip(draws).map(wrong).collect();
    }
    rows.par_iter().zip(labels).zip(draws).map(wrong).collect()
}

/// The labels and after them a hard negative for each, as [`predicted_wrong`] draws them:
/// `(2·B, 1)` indices on the device of the prediction, which is not waited for.
///
/// # Errors
/// As [`predicted_wrong`].
pub fn with_predicted_wrong(
    labels: &[u32],
    log_probabilities: &Tensor,
    rng: &mut impl Rng,
) -> Result<Tensor> {
    let device = log_probabilities.device();
    #[cfg(feature = "cuda")]
    if crate::kernels::cuda::is_fast(log_probabilities) {
        check_rows(labels, log_probabilities)?;
        if log_probabilities.dim(1)? < 2 {
            return Err(no_wrong_class(log_probabilities.dim(1)?));
        }
        let draws: Vec<f64> = labels.iter().map(|_| unit(rng)).collect();
        let draws = Tensor::from_vec(draws, labels.len(), device)?;
        let labels = crate::kernels::index(labels, device)?;
        return crate::kernels::cuda::with_wrong(log_probabilities, &labels, &draws);
    }
    let wrong = predicted_wrong(labels, log_probabilities, rng)?;
    with_wrong(labels, &wrong, device)
}

/// The labels and after them a wrong class for each: `(2·B, 1)` indices on a device.
///
/// # Errors
/// Errors of candle.
pub fn with_wrong(labels: &[u32], wrong: &[u32], device: &Device) -> Result<Tensor> {
    let both = [labels, wrong].concat();
    let rows = both.len();
    Ok(Tensor::from_vec(both, (rows, 1), device)?)
}

fn check_rows(labels: &[u32], log_probabilities: &Tensor) -> Result<()> {
    if log_probabilities.dims2()?.0 == labels.len() {
        return Ok(());
    }
    let expected = format!("a row for each of {} labels", labels.len());
    let found = log_probabilities.dims();
    Err(Error::shape("prediction", found, expected))
}

fn no_wrong_class(classes: usize) -> Error {
    let problem = format!("a prediction of {classes} classes has no wrong class");
    Error::unfit("hard negatives", problem)
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
    let likeliest = likeliest.map(|(class, _)| *class as u32);
    likeliest.ok_or_else(|| no_wrong_class(row.len()))
}
