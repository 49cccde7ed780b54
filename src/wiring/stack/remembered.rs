//! What levels make of the training examples once they have stopped learning, kept from
//! one epoch to the next.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use flate2::Crc;

use super::kept_rows::{KeptRows, Limits};
use super::pace::Pace;
use super::stages::Passing;
use super::Stack;
use crate::contract::block::Block;
use crate::error::Result;
use crate::flow::batch::{Batch, Places};
use crate::flow::input::{Input, Part, Values};
use crate::flow::step::Step;
use crate::kernels::gemm::PANELS;
use crate::kernels::{is_fast, with_rows, with_values};
use crate::optim::Span;

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
    /// The folder of a temporary file, if one can be made.
    folder: Option<PathBuf>,
    /// What it is the input of.
    above: Option<Above>,
    /// The epoch in which the levels below were last compared, and their checksum.
    checked: Option<(usize, u32)>,
    /// The number of examples of a batch.
    size: usize,
    kept: Option<KeptInputs>,
    /// Whether there is no room, the disk is too slow, or the inputs are no plain numbers.
    is_refused: bool,
    pace: Pace,
}

/// The width of a part, and whether it has a scale.
type Columns = (usize, bool);

struct KeptInputs {
    /// The numbers of each part and its scale, one part after the other.
    rows: KeptRows,
    parts: Vec<Columns>,
    shape: Vec<usize>,
}

impl Remembered {
    /// Nothing is known. A temporary file is made in `folder`.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }

    /// Forgets what is kept: it is the input of another level, or levels have changed.
    fn begin(&mut self, above: Above) {
        *self = Self {
            above: Some(above),
            ..Self::new(self.folder.take())
        };
    }

    fn refuse(&mut self) {
        (self.kept, self.is_refused) = (None, true);
    }

    /// The input for these examples, if all are known.
    fn recall(&mut self, places: &Places) -> Result<Option<Input>> {
        self.pace.begin();
        let has_all = |kept: &&KeptInputs| places.indices.iter().all(|place| kept.rows.has(*place));
        let Some(kept) = self.kept.as_ref().filter(has_all) else {
            return Ok(None);
        };
        let Ok(rows) = kept.rows.read(&places.indices) else {
            self.refuse(); // what cannot be read is computed
            return Ok(None);
        };
        let (mut parts, mut first) = (Vec::new(), 0);
        for (width, has_scale) in &kept.parts {
            let mut values = Vec::with_capacity(rows.len() * width);
            rows.iter()
                .for_each(|row| values.extend_from_slice(&row[first..][..*width]));
            first += width;
            let scale = has_scale.then(|| {
                let scales = rows.iter().map(|row| row[first]);
                Tensor::from_iter(scales, &Device::Cpu)
            });
            first += usize::from(*has_scale);
            let matrix = Tensor::from_vec(values, (rows.len(), *width), &Device::Cpu)?;
            parts.push(Part {
                scale: scale.transpose()?,
                ..Values::dense(matrix)?.into()
            });
        }
        let input = Input::new(parts, rows.len(), 1, &kept.shape)?;
        let is_file = kept.rows.is_file();
        self.pace.has_read();
        if is_file && self.pace.reading_is_slower() {
            self.refuse();
        }
        Ok(Some(input))
    }

    /// Keeps the input for these examples, if there is room for those of all.
    fn keep(
        &mut self,
        places: &Places,
        input: &Input,
        limits: impl FnOnce() -> Limits,
    ) -> Result<()> {
        self.pace.has_computed();
        let are_plain = input.parts().iter().all(|part| is_plain(part, input));
        if !are_plain || input.batch() != places.indices.len() {
            self.refuse();
        }
        if self.is_refused {
            return Ok(());
        }
        let (rows, parts) = rows_of(input)?;
        let width = rows.len() / input.batch();
        if self.kept.is_none() {
            let folder = self.folder.as_deref();
            let rows = KeptRows::new(places.of, width, limits(), folder);
            self.kept = rows.map(|rows| KeptInputs {
                rows,
                parts,
                shape: input.shape().to_vec(),
            });
        }
        let is_kept = self.kept.as_mut().is_some_and(|kept| {
            // Those of the smaller last batch of an epoch are met among others that are known.
            let rows = places.indices.iter().copied().zip(rows.chunks_exact(width));
            let new: Vec<_> = rows.filter(|(place, _)| !kept.rows.has(*place)).collect();
            kept.rows.write(&new).is_ok()
        });
        if !is_kept {
            self.refuse();
        }
        Ok(())
    }
}

/// The numbers of an input with plain parts, row by row, and the width of each part with
/// whether it has a scale.
fn rows_of(input: &Input) -> Result<(Vec<f32>, Vec<Columns>)> {
    let parts = input.parts().iter();
    let parts: Vec<_> = parts
        .map(|part| Ok((part.values.width()?, part.scale.is_some())))
        .collect::<Result<_>>()?;
    let of_row: usize = parts
        .iter()
        .map(|(width, scale)| width + usize::from(*scale))
        .sum();
    let mut numbers = vec![0.; input.batch() * of_row];
    let mut first = 0;
    for part in input.parts() {
        if let Values::Dense { matrix, columns } = &part.values {
            with_rows(matrix, |rows| {
                for (index, row) in numbers.chunks_exact_mut(of_row).enumerate() {
                    row[first..][..columns.len()]
                        .copy_from_slice(&rows.row(index)[columns.clone()]);
                }
            })?;
            first += columns.len();
        }
        if let Some(scale) = &part.scale {
            with_values(scale, |scale| {
                let rows = numbers.chunks_exact_mut(of_row).zip(scale);
                rows.for_each(|(row, scale)| row[first] = *scale);
            })?;
            first += 1;
        }
    }
    Ok((numbers, parts))
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
            true if known.kept.is_some() => true,
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
                self.remembered.begin(above);
            }
            self.remembered.checked = Some((step.epoch, sum));
        }
        // Only the last batch of an epoch is smaller.
        if batch.size() > self.remembered.size {
            self.remembered.kept = None;
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
                let folder = self.remembered.folder.clone();
                let limits = || Limits::of(folder.as_deref());
                self.remembered.keep(places, input, limits)
            }
            _ => Ok(()),
        }
    }
}

/// A checksum of what levels have learned.
fn checksum(levels: &[Block]) -> Result<u32> {
    let mut crc = Crc::new();
    for block in levels {
        crc.update(&block.optimiser().vars().checksum()?.to_le_bytes());
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
    use crate::error::Error;
    use crate::wiring::stack::pace::TRIAL;

    const NONE: Limits = Limits { memory: 0, disk: 0 };

    /// Four examples of a batch of five, with the numbers of each example side by side.
    fn parts(indices: &[usize]) -> Result<Input> {
        let column = |factor: f32| {
            let rows = indices.iter().map(move |index| *index as f32 * factor);
            Tensor::from_iter(rows, &Device::Cpu)
        };
        let pair = Tensor::stack(&[column(1.)?, column(2.)?, column(3.)?], 1)?;
        let scaled = Part {
            scale: Some(column(0.5)?),
            ..Values::dense(pair)?.into()
        };
        let plain = Values::dense(column(7.)?.reshape(((), 1))?)?;
        Input::new([scaled, plain.into()], indices.len(), 1, &[2, 2])
    }

    fn places(indices: &[usize]) -> Places {
        Places {
            indices: indices.into(),
            of: 5,
        }
    }

    #[test]
    fn what_is_kept_is_what_was_computed() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        // Of five examples, each of three and one numbers, and a scale.
        let bytes = 5 * 5 * 4;
        let [in_memory, on_disk] = [
            Limits {
                memory: bytes,
                disk: 0,
            },
            Limits {
                memory: bytes - 1,
                disk: bytes,
            },
        ];
        for limits in [in_memory, on_disk] {
            let mut known = Remembered::new(Some(folder.path().into()));
            let mut computed = 0;
            for batch in [[0, 1], [2, 3], [3, 4], [0, 2], [4, 1]] {
                let (places, input) = (places(&batch), parts(&batch)?);
                let found = match known.recall(&places)? {
                    Some(found) => found,
                    None => {
                        computed += 1;
                        known.keep(&places, &input, || limits)?;
                        known.recall(&places)?.expect("it was kept")
                    }
                };
                assert_eq!(found.shape(), [2, 2]);
                assert!(found.parts()[0].scale.is_some() && found.parts()[1].scale.is_none());
                let rows = |input: &Input| Ok::<_, Error>(input.join()?.to_vec3::<f32>()?);
                assert_eq!(rows(&found)?, rows(&input)?);
            }
            assert_eq!(computed, 3);
        }
        Ok(())
    }

    #[test]
    fn nothing_is_kept_without_room_or_on_a_slow_disk() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (places, input) = (places(&[0, 1]), parts(&[0, 1])?);
        let mut known = Remembered::new(Some(folder.path().into()));
        known.keep(&places, &input, || NONE)?;
        assert!(known.is_refused && known.recall(&places)?.is_none());

        let room = Limits { disk: 100, ..NONE };
        known.begin(Above::Head);
        known.keep(&places, &input, || room)?;
        known.pace = Pace::default(); // as if computing took no time
        for _ in 1..TRIAL {
            assert!(known.recall(&places)?.is_some() && !known.is_refused);
        }
        assert!(known.recall(&places)?.is_some() && known.is_refused);
        assert!(known.recall(&places)?.is_none());
        Ok(())
    }
}
