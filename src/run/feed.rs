//! The batches to train on, ready for the network.

use std::sync::Arc;

use candle_core::{DType, Device};

use super::Run;
use crate::data::channels::Channels;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples};
use crate::flow::random;
use crate::flow::step::Step;

/// The order of the examples in an epoch: four bytes for each, since a text has many
/// windows.
///
/// # Errors
/// [`Error::Usage`] for 2³² examples and more.
pub(super) fn order(seed: u64, epoch: usize, examples: usize) -> Result<Vec<u32>> {
    let Ok(last) = u32::try_from(examples) else {
        let problem = format!("has {examples} examples, expected at most {}", u32::MAX);
        return Err(Error::usage("the data", problem));
    };
    let mut order: Vec<u32> = (0..last).collect();
    let mut rng = random::stream(seed, "shuffle", epoch as u64);
    random::shuffle(&mut rng, &mut order);
    Ok(order)
}

/// The number of examples in the last batch of an epoch, which may be smaller.
pub(super) fn last_batch(examples: usize, batch: usize) -> usize {
    let batch = batch.min(examples).max(1);
    match examples % batch {
        0 => batch,
        rest => rest,
    }
}

/// Makes the batches of a run. It borrows nothing of the run, so that a batch can be made
/// while the network learns from the one before.
pub(super) struct Feed {
    /// `None` for a rank that does not read the examples.
    examples: Option<Arc<dyn Examples>>,
    channels: Option<Channels>,
    device: Device,
    dtype: DType,
    shift: usize,
    flip: bool,
}

impl Feed {
    pub fn of(run: &Run) -> Self {
        let settings = &run.config.run;
        let examples = run.stored.as_ref().unwrap_or(&run.data.train);
        Self {
            examples: run.reads_examples().then(|| examples.clone()),
            channels: run.channels.clone(),
            device: run.device.clone(),
            dtype: run.dtype,
            shift: settings.shift,
            flip: settings.flip,
        }
    }

    /// Whether the batch of the next step is made beside a step: on the processor. On a
    /// GPU the steps form one queue.
    pub fn is_ahead(&self) -> bool {
        self.device.is_cpu()
    }

    /// The batch of the examples at `indices`, for a step.
    ///
    /// # Errors
    /// Errors of the examples.
    pub fn batch(&self, indices: &[u32], step: &Step) -> Result<Batch> {
        let Some(examples) = &self.examples else {
            return Batch::empty(indices.len(), &self.device);
        };
        let augment = Augment {
            shift: self.shift,
            flip: self.flip,
            step,
        };
        let moves = self.shift > 0 || self.flip;
        let indices: Vec<usize> = indices.iter().map(|index| *index as usize).collect();
        let batch = examples.batch(&indices, moves.then_some(&augment))?;
        let batch = prepared(&batch, &self.device, self.dtype, self.channels.as_ref())?;
        Ok(match moves {
            true => batch,
            false => batch.at(&indices, examples.len()),
        })
    }
}

/// A batch on a device and with an element type, standardised if there are channels.
///
/// # Errors
/// Errors of candle.
pub(super) fn prepared(
    batch: &Batch,
    device: &Device,
    dtype: DType,
    channels: Option<&Channels>,
) -> Result<Batch> {
    let batch = batch.to(device, dtype)?;
    match channels {
        Some(channels) => channels.standardise(&batch),
        None => Ok(batch),
    }
}
