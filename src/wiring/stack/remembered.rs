//! What levels make of the training examples once they have stopped learning, kept from
//! one epoch to the next.

use std::ops::RangeInclusive;

use candle_core::{DType, Device, Tensor};
use flate2::Crc;

use super::stages::Passing;
use super::Stack;
use crate::contract::block::Block;
use crate::error::Result;
use crate::flow::batch::{Batch, Places};
use crate::flow::input::{Input, Part, Values};
use crate::flow::step::Step;
use crate::kernels::gemm::PANELS;
use crate::kernels::{is_fast, memory, with_rows, with_values};
use crate::optim::Span;

/// The share of the free memory that may be used.
const SHARE: u64 = 4;

/// The batches that may be kept have so many examples. The bits must not depend on what
/// is kept, and the order in which a product adds depends on the size of its panels. So
/// all batches must have the same size, and within one batch all rows must be treated
/// alike: a larger batch may have panels of different kinds.
const SIZES: RangeInclusive<usize> = 16..=512;

/// Nothing is kept for fewer epochs: fresh memory costs as much as two or three epochs of
/// small levels.
const EPOCHS: usize = 4;

/// The part that uses what is kept.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Above {
    /// The head, as a probe.
    Head,
    /// This level, counted from 0, where one learns after the other.
    Level(usize),
}

/// The input of a level, or the features of the head, for the training examples: computed
/// once.
///
/// A probe, or a level that learns after those below, would pass the same examples
/// through the same levels again in every epoch.
#[derive(Default)]
pub(super) struct Remembered {
    /// What it is the input of.
    above: Option<Above>,
    /// The epoch in which the levels below were last compared, and their checksum.
    checked: Option<(usize, u32)>,
    /// The number of examples of a batch.
    size: usize,
    /// The inputs of batches.
    kept: Vec<Input>,
    /// The batch and the row in which an example is kept.
    places: Vec<Option<(usize, usize)>>,
    /// Whether there is too little memory, or the inputs are no plain numbers.
    is_refused: bool,
}

impl Remembered {
    /// The input for these examples, if all are known.
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

    /// Keeps the input for these examples, if there is room for those of all.
    fn keep(&mut self, places: &Places, input: &Input) -> Result<()> {
        let are_plain = input.parts().iter().all(|part| is_plain(part, input));
        self.is_refused |= !are_plain || input.batch() != places.indices.len();
        if self.is_refused {
            (self.kept, self.places) = Default::default();
            return Ok(());
        }
        if self.places.is_empty() {
            let numbers = (input.width() + input.parts().len()) * places.of;
            let room = memory::available().unwrap_or(0) / SHARE;
            self.is_refused = 4 * numbers as u64 > room;
            self.places = vec![None; places.of];
            return self.keep(places, input);
        }
        // Those of the smaller last batch of an epoch are met among others that are known.
        let of = places.indices.iter().enumerate();
        let new = of.filter(|(_, place)| self.places[**place].is_none());
        let new: Vec<(usize, usize)> = new.map(|(row, place)| (row, *place)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for (kept, (_, place)) in new.iter().enumerate() {
            self.places[*place] = Some((self.kept.len(), kept));
        }
        self.kept.push(match new.len() == input.batch() {
            true => input.clone(),
            false => {
                let rows = |part| new.iter().map(move |(row, _)| (part, *row));
                let parts = input.parts().iter().map(|part| gathered(rows(part)));
                let parts = parts.collect::<Result<Vec<Part>>>()?;
                Input::new(parts, new.len(), 1, input.shape())?
            }
        });
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

/// The matrix of a part with a row for each example, `(B, D)`.
fn numbers(part: &Part, input: &Input) -> Result<Option<Tensor>> {
    match &part.values {
        Values::Dense { matrix, columns } if is_plain(part, input) => {
            let matrix = matrix.narrow(1, columns.start, columns.len())?;
            Ok(Some(matrix.contiguous()?))
        }
        _ => Ok(None),
    }
}

/// Whether a part has a row of numbers for each example.
fn is_plain(part: &Part, input: &Input) -> bool {
    match &part.values {
        Values::Dense { matrix, .. } => {
            let rows = matrix.dim(0).ok();
            part.name.is_none() && is_fast(matrix) && rows == Some(input.batch())
        }
        _ => false,
    }
}

impl Stack {
    /// The levels below.
    fn below_of(&self, above: Above) -> &[Block] {
        match above {
            Above::Head => &self.net.blocks[..self.readout.end],
            Above::Level(level) => &self.net.blocks[..level],
        }
    }

    /// The epoch after the last one in which it learns.
    fn end_of(&self, above: Above) -> usize {
        let span = match above {
            Above::Head => self.net.heads.first().map(|head| head.optimiser().span()),
            Above::Level(level) => Some(self.net.blocks[level].span()),
        };
        match span {
            Some(Span::Epochs(epochs)) => epochs.end,
            _ => 0,
        }
    }

    /// Whether inputs for it can be kept, and several epochs gain from it.
    fn is_worth_it(&self, above: Above, step: &Step) -> bool {
        let known = &self.remembered;
        match known.above == Some(above) {
            true if known.is_refused => false,
            true if !known.kept.is_empty() => true,
            _ => self.end_of(above) >= step.epoch + EPOCHS,
        }
    }

    /// The places of a batch, where what comes up from the levels below stays as it is
    /// for an example: they have stopped, and nothing random is between.
    fn places<'a>(&self, batch: &'a Batch, above: Above, step: &Step) -> Option<&'a Places> {
        let is_over = |span: &Span| match span {
            Span::Epochs(epochs) => epochs.end <= step.epoch,
            Span::Steps(steps) => steps.end <= step.index,
        };
        let mut below = self.below_of(above).iter();
        let has_stopped = below.all(|block| is_over(block.span()) && !block.has_dropout());
        let is_plain = self.team.is_none() && self.shortcuts.iter().all(Vec::is_empty);
        let size = batch.size();
        // A panel of one row is a product of another kind.
        let has_equal_rows = SIZES.contains(&size) && size % size.div_ceil(PANELS) != 1;
        let is_usable = has_stopped && is_plain && has_equal_rows && is_fast(batch.rows());
        let places = batch.places().filter(|_| is_usable);
        places.filter(|_| self.is_worth_it(above, step))
    }

    /// The input for a batch, if it is known from an epoch before.
    pub(super) fn recalled(
        &mut self,
        batch: &Batch,
        above: Above,
        step: &Step,
    ) -> Result<Option<Input>> {
        let Some(places) = self.places(batch, above, step) else {
            return Ok(None);
        };
        let known = &self.remembered;
        let before = known.checked.filter(|_| known.above == Some(above));
        // The levels may have been restored between two epochs.
        if before.is_none_or(|(epoch, _)| epoch != step.epoch) {
            let sum = checksum(self.below_of(above))?;
            if before.is_none_or(|(_, before)| before != sum) {
                self.remembered = Remembered {
                    above: Some(above),
                    ..Remembered::default()
                };
            }
            self.remembered.checked = Some((step.epoch, sum));
        }
        // Only the last batch of an epoch is smaller.
        if batch.size() > self.remembered.size {
            (self.remembered.kept, self.remembered.places) = Default::default();
            self.remembered.size = batch.size();
        }
        match batch.size() == self.remembered.size {
            true => self.remembered.recall(places),
            false => Ok(None),
        }
    }

    /// Brings the views up to the first level that learns, past levels that have
    /// stopped, and returns the index of the level from which they go on.
    pub(super) fn pass_stopped(
        &mut self,
        passing: &mut Passing,
        batch: &Batch,
        step: &Step,
    ) -> Result<usize> {
        let first = self
            .net
            .blocks
            .iter()
            .position(|block| block.is_learning(step));
        let (Some(first), Some((way, _))) = (first, &mut passing.views) else {
            return Ok(0);
        };
        let above = Above::Level(first);
        if first == 0 || self.head_learns(step) || self.places(batch, above, step).is_none() {
            return Ok(0);
        }
        // Of other views, such as those with a label in them, there are many.
        let examples = Input::of(batch.rows().clone())?.normalised(self.normalise)?;
        if !are_same(&way.input, &examples)? {
            return Ok(0);
        }
        match self.recalled(batch, above, step)? {
            Some(input) => way.input = input,
            None => {
                self.forward_some(0..first, way, first + 1, step)?;
                self.remember(batch, above, &way.input, step)?;
            }
        }
        Ok(first)
    }

    /// Keeps the input for a batch that was not known.
    pub(super) fn remember(
        &mut self,
        batch: &Batch,
        above: Above,
        input: &Input,
        step: &Step,
    ) -> Result<()> {
        match self.places(batch, above, step) {
            Some(places) if batch.size() == self.remembered.size => {
                self.remembered.keep(places, input)
            }
            _ => Ok(()),
        }
    }
}

/// A checksum of what levels have learned.
fn checksum(levels: &[Block]) -> Result<u32> {
    let mut crc = Crc::new();
    for block in levels {
        for (_, var) in block.optimiser().vars().model() {
            let values = var.as_detached_tensor().to_device(&Device::Cpu)?;
            let values = values.to_dtype(DType::F64)?.flatten_all()?;
            for value in values.to_vec1::<f64>()? {
                crc.update(&value.to_le_bytes());
            }
        }
    }
    Ok(crc.sum())
}

/// Whether two inputs are a matrix each, with the same numbers.
fn are_same(a: &Input, b: &Input) -> Result<bool> {
    let same = |a: &Tensor, b: &Tensor| -> Result<bool> {
        if a.dims() != b.dims() || !is_fast(a) || !is_fast(b) {
            return Ok(false);
        }
        with_values(a, |a| {
            with_values(b, |b| {
                a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
            })
        })?
    };
    let ([one], [other]) = (a.parts(), b.parts()) else {
        return Ok(false);
    };
    let scales = match (&one.scale, &other.scale) {
        (None, None) => true,
        (Some(one), Some(other)) => same(one, other)?,
        _ => false,
    };
    let matrices = match (numbers(one, a)?, numbers(other, b)?) {
        (Some(one), Some(other)) => same(&one, &other)?,
        _ => false,
    };
    Ok(scales && matrices && a.views() == b.views())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_kept_once() -> Result<()> {
        let mut known = Remembered::default();
        let places = |indices: &[usize]| Places {
            indices: indices.into(),
            of: 5,
        };
        let input = |indices: &[usize]| -> Result<Input> {
            let rows = indices.iter().map(|index| *index as f32);
            Input::of(Tensor::from_iter(rows, &Device::Cpu)?.reshape(((), 1))?)
        };
        // The last batch of an epoch, of one example, is never kept.
        for batch in [[0, 1], [2, 3], [3, 4], [0, 2], [4, 1]] {
            if known.recall(&places(&batch))?.is_none() {
                known.keep(&places(&batch), &input(&batch)?)?;
            }
            let found = known.recall(&places(&batch))?.expect("it was kept");
            let rows = found.join()?.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(rows, batch.map(|index| index as f32));
            let kept: usize = known.kept.iter().map(Input::batch).sum();
            assert!(kept <= 5, "{kept} are kept");
        }
        assert_eq!(known.kept.len(), 3);
        Ok(())
    }
}
