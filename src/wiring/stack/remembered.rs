//! What the levels make of the training examples once they have stopped learning, kept from
//! one epoch to the next.

use candle_core::{DType, Device, Tensor};
use flate2::Crc;

use super::Stack;
use crate::error::Result;
use crate::flow::batch::{Batch, Places};
use crate::flow::input::{Input, Part, Values};
use crate::flow::step::Step;
use crate::kernels::{is_fast, memory, with_rows, with_values};
use crate::optim::Span;

/// The share of the free memory that may be used.
const SHARE: u64 = 4;

/// Smaller batches neither use nor add what is kept: products with few rows may add in
/// another order, and the bits must not depend on what is kept.
const FEWEST: usize = 16;

/// Nothing is kept for fewer epochs: fresh memory costs as much as two or three epochs of
/// small levels.
const EPOCHS: usize = 4;

/// The features of a head for the training examples, computed once.
///
/// A probe learns for many epochs from levels that have stopped, and would pass the same
/// examples through them again in each.
#[derive(Default)]
pub(super) struct Remembered {
    /// The epoch in which the levels were last compared, and their checksum.
    checked: Option<(usize, u32)>,
    /// The features of batches.
    kept: Vec<Input>,
    /// The batch and the row in which an example is kept.
    places: Vec<Option<(usize, usize)>>,
    /// Whether there is too little memory, or the features are no plain numbers.
    is_refused: bool,
}

impl Remembered {
    /// The features of these examples, if all are known.
    fn recall(&self, places: &Places) -> Result<Option<Input>> {
        let of = places.indices.iter();
        let rows: Option<Vec<_>> = of.map(|place| *self.places.get(*place)?).collect();
        let (Some(rows), Some(first)) = (rows, self.kept.first()) else {
            return Ok(None);
        };
        let parts = (0..first.parts().len()).map(|index| {
            let parts = rows
                .iter()
                .map(|(batch, row)| (&self.kept[*batch].parts()[index], *row));
            gathered(parts)
        });
        let parts = parts.collect::<Result<Vec<Part>>>()?;
        Ok(Some(Input::new(parts, rows.len(), 1, first.shape())?))
    }

    /// Keeps the features of these examples, if there is room for those of all.
    fn keep(&mut self, places: &Places, features: &Input) -> Result<()> {
        if self.is_refused {
            return Ok(());
        }
        if self.places.is_empty() {
            let numbers = (features.width() + features.parts().len()) * places.of;
            let room = memory::available().unwrap_or(0) / SHARE;
            let are_plain = features.parts().iter().all(|part| is_plain(part, features));
            self.is_refused = 4 * numbers as u64 > room || !are_plain;
            self.places = vec![None; places.of];
            return self.keep(places, features);
        }
        for (row, place) in places.indices.iter().enumerate() {
            self.places[*place] = Some((self.kept.len(), row));
        }
        self.kept.push(features.clone());
        Ok(())
    }
}

/// One row of each of some parts.
fn gathered<'a>(parts: impl Iterator<Item = (&'a Part, usize)>) -> Result<Part> {
    let (mut values, mut scales, mut count) = (Vec::new(), Vec::new(), 0);
    for (part, row) in parts {
        if let Values::Dense { matrix, columns } = &part.values {
            with_rows(matrix, |rows| {
                values.extend_from_slice(&rows.row(row)[columns.clone()]);
            })?;
        }
        if let Some(scale) = &part.scale {
            with_values(scale, |scale| scales.push(scale[row]))?;
        }
        count += 1;
    }
    let width = values.len() / count;
    let matrix = Tensor::from_vec(values, (count, width), &Device::Cpu)?;
    let scale = (!scales.is_empty()).then(|| Tensor::from_vec(scales, count, &Device::Cpu));
    Ok(Part {
        scale: scale.transpose()?,
        ..Values::dense(matrix)?.into()
    })
}

/// Whether a part has a row of numbers for each example.
fn is_plain(part: &Part, features: &Input) -> bool {
    match &part.values {
        Values::Dense { matrix, .. } => {
            let rows = matrix.dim(0).ok();
            part.name.is_none() && is_fast(matrix) && rows == Some(features.batch())
        }
        _ => false,
    }
}

impl Stack {
    /// Whether what the head sees of a training example stays as it is: the levels have
    /// stopped, and nothing random is between.
    fn has_stopped(&self, step: &Step) -> bool {
        let is_over = |span: &Span| match span {
            Span::Epochs(epochs) => epochs.end <= step.epoch,
            Span::Steps(steps) => steps.end <= step.index,
        };
        let below = self.net.blocks[..self.readout.end].iter();
        let are_over = self.net.blocks.iter().all(|block| is_over(block.span()));
        self.team.is_none() && are_over && below.into_iter().all(|block| !block.has_dropout())
    }

    /// The features of the head for a batch, if they are known from an epoch before.
    pub(super) fn recalled(&mut self, batch: &Batch, step: &Step) -> Result<Option<Input>> {
        let Some(places) = batch.places().filter(|_| batch.size() >= FEWEST) else {
            return Ok(None);
        };
        if !self.head_learns(step) || !self.has_stopped(step) {
            return Ok(None);
        }
        // The levels may have been restored between two epochs.
        if self
            .remembered
            .checked
            .is_none_or(|(epoch, _)| epoch != step.epoch)
        {
            let sum = self.checksum()?;
            let before = self.remembered.checked.replace((step.epoch, sum));
            if before.is_some_and(|(_, before)| before != sum) {
                self.remembered = Remembered {
                    checked: Some((step.epoch, sum)),
                    ..Remembered::default()
                };
            }
        }
        self.remembered.recall(places)
    }

    /// Keeps the features of the head for a batch.
    pub(super) fn remember(&mut self, batch: &Batch, features: &Input, step: &Step) -> Result<()> {
        match batch.places().filter(|_| batch.size() >= FEWEST) {
            Some(places) if self.has_stopped(step) && self.is_worth_it(step) => {
                self.remembered.keep(places, features)
            }
            _ => Ok(()),
        }
    }

    /// Whether the head learns for several more epochs.
    fn is_worth_it(&self, step: &Step) -> bool {
        let last = self
            .net
            .heads
            .first()
            .map_or(0, |head| match head.optimiser().span() {
                Span::Epochs(epochs) => epochs.end,
                Span::Steps(_) => 0,
            });
        last >= step.epoch + EPOCHS || !self.remembered.kept.is_empty()
    }

    /// A checksum of what the levels have learned.
    fn checksum(&self) -> Result<u32> {
        let mut crc = Crc::new();
        for block in &self.net.blocks {
            for (_, var) in block.optimiser().vars().model() {
                let values = var.as_detached_tensor().to_device(&Device::Cpu)?;
                let values = values.to_dtype(DType::F64)?.flatten_all()?;
                let values = values.to_vec1::<f64>()?;
                values
                    .iter()
                    .for_each(|value| crc.update(&value.to_le_bytes()));
            }
        }
        Ok(crc.sum())
    }
}
