//! Gradients with respect to the rows that one-hot or sparse values pick: sums of deltas
//! by place.

use rayon::prelude::*;

use super::output_gradient::is_zero;
use super::{OutputGradient, GRAIN};
use crate::error::Result;
use crate::flow::input::Picks;
use crate::kernels::{add, with_rows, Rows};

/// `valuesᵀ · delta` of one-hot or sparse values, grouped by place; a place is a row of the
/// result.
///
/// The deltas of a place are added in the order of their rows. Places are independent, so
/// that threads can divide them. Most places may be empty.
pub(super) struct Scatter<'a> {
    /// The start of each place in `rows`, followed by the end of the last place.
    starts: Vec<usize>,
    /// Row indices of the delta with the entries of the values, grouped by place and in
    /// ascending order.
    rows: Vec<(u32, f32)>,
    delta: Rows<'a>,
    /// Common rows, each with its factor for every place.
    common: Vec<(Vec<f32>, Vec<f32>)>,
    factor: f32,
}

impl Scatter<'_> {
    /// Calls `f` with the rows of `delta` grouped by the places that they pick, times
    /// `factor`.
    pub fn with<R>(
        picks: &Picks,
        delta: &OutputGradient,
        factor: f32,
        f: impl FnOnce(&Scatter<'_>) -> R,
    ) -> Result<R> {
        let (places, factor) = (picks.width, factor * picks.strength);
        let mut common = Vec::with_capacity(delta.common().len());
        for (shares, row) in delta.common() {
            let mut counts = vec![0f32; places];
            for (row, share) in shares.to_vec1::<f32>()?.into_iter().enumerate() {
                let here = picks.row(row);
                here.for_each(|(place, entry)| counts[place] += share * entry);
            }
            common.push((row.to_vec1::<f32>()?, counts));
        }
        with_rows(delta.own(), |delta| {
            let counting: Vec<usize> = (0..delta.rows)
                .filter(|&row| !is_zero(delta.row(row)))
                .collect();
            let mut starts = vec![0usize; places + 1];
            let picked = counting.iter().flat_map(|&row| picks.row(row));
            picked.for_each(|(place, _)| starts[place + 1] += 1);
            for place in 0..places {
                starts[place + 1] += starts[place];
            }
            let mut ends = starts.clone();
            let mut rows = vec![(0u32, 0f32); starts[places]];
            for row in counting {
                for (place, entry) in picks.row(row) {
                    rows[ends[place]] = (row as u32, entry);
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
        rows.iter().for_each(|&(row, entry)| {
            add(sum, self.factor * entry, self.delta.row(row as usize));
        });
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

/// Calls `f` with the row of each of `values` for every place that has deltas, and with
/// the sum of these: the other places cost nothing. There must be no common rows.
pub(super) fn each_met<const N: usize>(
    picks: &Picks,
    delta: &OutputGradient,
    mut values: [&mut [f32]; N],
    f: impl Fn([&mut [f32]; N], &[f32]) + Sync,
) -> Result<()> {
    debug_assert!(delta.common().is_empty());
    with_rows(delta.own(), |delta| {
        let units = delta.width;
        let counting = (0..delta.rows).filter(|&row| !is_zero(delta.row(row)));
        let picked = |row| {
            picks
                .row(row)
                .map(move |(place, entry)| (place, row, entry))
        };
        let mut picked: Vec<(usize, usize, f32)> = counting.flat_map(picked).collect();
        picked.sort_unstable_by_key(|(place, row, _)| (*place, *row));
        let mut next = 0;
        let mut rows_of = |place: usize| {
            let before = (place - next) * units;
            next = place + 1;
            values.each_mut().map(|values| {
                let (_, rest) = std::mem::take(values).split_at_mut(before);
                let (row, rest) = rest.split_at_mut(units);
                *values = rest;
                row
            })
        };
        let met = picked.chunk_by(|a, b| a.0 == b.0);
        let met: Vec<_> = met.map(|picked| (picked, rows_of(picked[0].0))).collect();
        let grain = GRAIN.div_ceil(units.max(1));
        met.into_par_iter().with_min_len(grain).for_each_init(
            || vec![0f32; units],
            |sum, (picked, rows)| {
                sum.fill(0.);
                for (_, row, entry) in picked {
                    add(sum, picks.strength * entry, delta.row(*row));
                }
                f(rows, sum);
            },
        );
    })
}

/// The next item of each iterator; `None` once one is exhausted.
fn next<I: Iterator, const N: usize>(iterators: &mut [I; N]) -> Option<[I::Item; N]> {
    let items = iterators.each_mut().map(Iterator::next);
    items
        .iter()
        .all(Option::is_some)
        .then(|| items.map(|item| item.expect("each has one")))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::flow::input::Values;
    use crate::flow::random::{below, stream};

    #[test]
    fn places_that_are_met_get_the_sums_of_all_places() -> Result<()> {
        let (rows, slots, classes, units) = (40, 3, 30, 5);
        let mut rng = stream(1, "test", 0);
        let mut number = |most: usize| below(&mut rng, most);
        let index: Vec<u32> = (0..rows * slots).map(|_| number(classes) as u32).collect();
        let index = Tensor::from_vec(index, (rows, slots), &Device::Cpu)?;
        let delta = (0..rows * units).map(|i| match i / units % 4 {
            0 => 0.,
            _ => number(1000) as f32 / 7.,
        });
        let delta = Tensor::from_iter(delta, &Device::Cpu)?.reshape((rows, units))?;
        let delta = OutputGradient::from(delta);
        let entries = (0..rows * slots).map(|_| number(4) as f32);
        let entries = Tensor::from_iter(entries, &Device::Cpu)?.reshape((rows, slots))?;
        let one_hot = Values::OneHot {
            index: index.clone(),
            classes,
            strength: 3.,
        };
        let sparse = Values::Sparse {
            index,
            entries,
            width: 2 * classes,
        };
        for values in [one_hot, sparse] {
            let picks = Picks::of(&values)?.expect("it picks");
            let [mut all, mut met] = [(); 2].map(|()| vec![1f32; picks.width * units]);
            let mut second = vec![0f32; all.len()];
            Scatter::with(&picks, &delta, 1., |scatter| {
                scatter.each_place([&mut all], |place, [row]| {
                    let mut sum = vec![0f32; units];
                    scatter.add_to(place, &mut sum);
                    add(row, 2., &sum);
                });
            })?;
            let rows = [&mut met[..], &mut second[..]];
            each_met(&picks, &delta, rows, |[row, second], sum| {
                add(row, 2., sum);
                second.copy_from_slice(sum);
            })?;
            assert_eq!(met, all);
            let of_second: Vec<f32> = second.iter().map(|sum| 1. + 2. * sum).collect();
            assert_eq!(of_second, all);
            assert!(met.contains(&1.), "every place is met");
        }
        Ok(())
    }
}
