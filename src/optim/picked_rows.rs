//! Gradients with respect to the rows that one-hot values select: sums of deltas by
//! index.

use candle_core::Tensor;
use rayon::prelude::*;

use super::output_gradient::is_zero;
use super::{OutputGradient, GRAIN};
use crate::error::Result;
use crate::flow::input::indices;
use crate::kernels::{add, with_rows, Rows};

/// `valuesᵀ · delta` of one-hot values, grouped by place; a place is a row of the result.
///
/// The deltas of a place are added in the order of their rows. Places are independent, so
/// that threads can divide them. Most places may be empty.
pub(super) struct Scatter<'a> {
    /// The start of each place in `rows`, followed by the end of the last place.
    starts: Vec<usize>,
    /// Row indices of the delta, grouped by place and in ascending order.
    rows: Vec<u32>,
    delta: Rows<'a>,
    /// Common rows, each with its factor for every place.
    common: Vec<(Vec<f32>, Vec<f32>)>,
    factor: f32,
}

impl Scatter<'_> {
    /// Calls `f` with the rows of `delta` grouped by the classes in `index`, `(R, K)`,
    /// times `factor`.
    pub fn with<R>(
        (index, classes): (&Tensor, usize),
        delta: &OutputGradient,
        factor: f32,
        f: impl FnOnce(&Scatter<'_>) -> R,
    ) -> Result<R> {
        let slots = index.dim(1)?;
        let index = indices(index, classes)?;
        let places = |row: usize| {
            let index = index[row * slots..][..slots].iter().enumerate();
            index.map(|(slot, &class)| slot * classes + class as usize)
        };
        let mut common = Vec::with_capacity(delta.common().len());
        for (shares, row) in delta.common() {
            let mut counts = vec![0f32; slots * classes];
            for (row, share) in shares.to_vec1::<f32>()?.into_iter().enumerate() {
                places(row).for_each(|place| counts[place] += share);
            }
            common.push((row.to_vec1::<f32>()?, counts));
        }
        with_rows(delta.own(), |delta| {
            let counting: Vec<usize> = (0..delta.rows)
                .filter(|&row| !is_zero(delta.row(row)))
                .collect();
            let mut starts = vec![0usize; slots * classes + 1];
            counting
                .iter()
                .flat_map(|&row| places(row))
                .for_each(|place| starts[place + 1] += 1);
            for place in 0..slots * classes {
                starts[place + 1] += starts[place];
            }
            let mut ends = starts.clone();
            let mut rows = vec![0u32; counting.len() * slots];
            for row in counting {
                for place in places(row) {
                    rows[ends[place]] = row as u32;
                    ends[place] += 1;
                }
            }
            f(&Scatter {
                starts,
                rows,
                delta,
                common,
                factor,
            })
        })
    }

    /// Whether a place has any deltas.
    pub fn meets(&self, place: usize) -> bool {
        self.starts[place] < self.starts[place + 1]
            || self.common.iter().any(|(_, counts)| counts[place] != 0.)
    }

    /// Adds the deltas of a place to `sum`.
    pub fn add_to(&self, place: usize, sum: &mut [f32]) {
        let rows = &self.rows[self.starts[place]..self.starts[place + 1]];
        rows.iter()
            .for_each(|&row| add(sum, self.factor, self.delta.row(row as usize)));
        let shared = self.common.iter().filter(|(_, counts)| counts[place] != 0.);
        shared.for_each(|(row, counts)| add(sum, self.factor * counts[place], row));
    }

    /// Calls `f` with every place and its row of each of `values`, which have one row per
    /// place.
    pub fn each_place<const N: usize>(
        &self,
        values: [&mut [f32]; N],
        f: impl Fn(usize, [&mut [f32]; N]) + Sync,
    ) {
        let units = self.delta.width;
        debug_assert!(values
            .iter()
            .all(|values| values.len() == units * (self.starts.len() - 1)));
        let places = GRAIN.div_ceil(units.max(1));
        let mut chunks = values.map(|values| values.chunks_mut((places * units).max(1)));
        let chunks: Vec<_> = std::iter::from_fn(|| next(&mut chunks)).collect();
        chunks
            .into_par_iter()
            .enumerate()
            .for_each(|(chunk, values)| {
                let mut rows = values.map(|values| values.chunks_exact_mut(units.max(1)));
                let rows = std::iter::from_fn(|| next(&mut rows));
                rows.enumerate()
                    .for_each(|(row, values)| f(chunk * places + row, values));
            });
    }
}

/// The next item of each iterator; `None` once one is exhausted.
fn next<I: Iterator, const N: usize>(iterators: &mut [I; N]) -> Option<[I::Item; N]> {
    let items = iterators.each_mut().map(Iterator::next);
    items
        .iter()
        .all(Option::is_some)
        .then(|| items.map(|item| item.expect("each has one")))
}
