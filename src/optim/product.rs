//! Matrix products as parts of a gradient, in two forms: computed with candle's
//! operations, and packed for the fast path.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::output_gradient::{is_zero, OutputGradient};
use super::picked_rows::Scatter;
use crate::error::Result;
use crate::flow::input::{Picks, Values};
use crate::kernels::gemm::{accumulate, consume, Matrix};
use crate::kernels::{add, is_fast, matmul, with_rows};

/// A matrix product in a gradient: `valuesᵀ · delta`, for the rows of the weight by which
/// `values` were multiplied.
#[derive(Clone, Debug)]
pub struct Product {
    /// The input columns that were multiplied by these rows of the weight, `(R, D)`.
    pub values: Values,
    /// The gradient of the loss with respect to the output, `(R, N)`.
    pub delta: OutputGradient,
}

impl Product {
    pub(super) fn is_fast(&self) -> bool {
        is_fast(self.delta.own())
    }

    /// The same with `f` of every tensor of numbers.
    pub(super) fn map(&self, f: &impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let values = match &self.values {
            Values::Dense { matrix, columns } => Values::Dense {
                matrix: f(matrix)?,
                columns: columns.clone(),
            },
            Values::Sparse {
                index,
                entries,
                width,
            } => Values::Sparse {
                index: index.clone(),
                entries: f(entries)?,
                width: *width,
            },
            values => values.clone(),
        };
        let delta = self.delta.map(f)?;
        Ok(Self { values, delta })
    }

    /// The product as a tensor, computed with candle's operations.
    pub(super) fn whole(&self, dtype: DType) -> Result<Tensor> {
        let matrix = self
            .values
            .to_matrix(dtype, self.delta.own().device())?
            .t()?
            .contiguous()?;
        matmul(&matrix, &self.delta.whole()?)
    }

    /// Computes `dst ← keep·dst + factor·valuesᵀ·delta`, then calls `finish` with each
    /// row and the same row of `beside`.
    ///
    /// Zero rows of the delta are left out; for dense values only if at least half of the
    /// rows are zero.
    pub(super) fn add_to(
        &self,
        dst: &mut [f32],
        beside: &mut [f32],
        keep: f32,
        factor: f32,
        finish: impl Fn(&mut [f32], &mut [f32]) + Sync,
    ) -> Result<()> {
        match (&self.values, Picks::of(&self.values)?) {
            (Values::Dense { matrix, columns }, _) => {
                self.with_factors(matrix, columns, |x, delta| {
                    accumulate(dst, beside, keep, factor, x, delta, finish);
                })
            }
            (_, Some(picks)) => Scatter::with(&picks, &self.delta, factor, |scatter| {
                let work = |place: usize, dst: &mut [f32], beside: &mut [f32]| {
                    dst.iter_mut().for_each(|dst| *dst *= keep);
                    scatter.add_to(place, dst);
                    finish(dst, beside);
                };
                if beside.is_empty() {
                    scatter.each_place([dst], |place, [dst]| work(place, dst, &mut []));
                } else {
                    scatter.each_place([dst, beside], |place, [dst, beside]| {
                        work(place, dst, beside);
                    });
                }
            }),
            (_, None) => {
                dst.iter_mut().for_each(|dst| *dst *= keep);
                finish(dst, beside);
                Ok(())
            }
        }
    }

    /// Computes `valuesᵀ·delta`, with dense values that are these columns of a matrix,
    /// and calls `finish` with each piece of a row and the same piece of each of
    /// `beside`. No matrix of its size is allocated.
    pub(super) fn consume<const N: usize>(
        &self,
        (matrix, columns): (&Tensor, &Range<usize>),
        beside: [&mut [f32]; N],
        finish: impl Fn(&mut [f32], [&mut [f32]; N]) + Sync,
    ) -> Result<()> {
        self.with_factors(matrix, columns, |x, delta| {
            consume(beside, x, delta, finish)
        })
    }

    /// Calls `f` with the factors `valuesᵀ` and `delta`, without the rows that do not
    /// count if these are at least half.
    fn with_factors(
        &self,
        matrix: &Tensor,
        columns: &Range<usize>,
        f: impl FnOnce(Matrix<'_>, Matrix<'_>),
    ) -> Result<()> {
        let mut packed = Packed::default();
        if packed.push(self)? {
            let (x, delta) = packed.matrices(columns.len(), self.delta.units());
            f(x.transposed(), delta);
            return Ok(());
        }
        let matrix = matrix.narrow(1, columns.start, columns.len())?;
        with_rows(&matrix, |x| {
            with_rows(&self.delta.whole()?, |delta| {
                let x = Matrix::of_rows(x.data, x.rows, x.width, x.stride).transposed();
                let delta = Matrix::of_rows(delta.data, delta.rows, delta.width, delta.stride);
                f(x, delta);
            })
        })?
    }
}

/// Concatenated products of dense values, without the rows that do not count. Kept are
/// the rows with a non-zero delta, and one row for each common row.
#[derive(Default)]
pub(super) struct Packed {
    /// `(rows, D)`.
    pub values: Vec<f32>,
    /// `(rows, N)`.
    pub delta: Vec<f32>,
    pub rows: usize,
}

impl Packed {
    /// Adds a product and returns true. Products of one-hot values, and those with more
    /// than half of the rows counting, are not added: they are faster unpacked.
    pub fn push(&mut self, product: &Product) -> Result<bool> {
        let Values::Dense { matrix, columns } = &product.values else {
            return Ok(false);
        };
        let matrix = matrix.narrow(1, columns.start, columns.len())?;
        let common = product.delta.common();
        let shares = common
            .iter()
            .map(|(shares, _)| Ok(shares.to_vec1::<f32>()?))
            .collect::<Result<Vec<_>>>()?;
        let is_packed = with_rows(&matrix, |x| {
            with_rows(product.delta.own(), |delta| {
                let counting: Vec<usize> = (0..delta.rows)
                    .filter(|&row| !is_zero(delta.row(row)))
                    .collect();
                let rows = counting.len() + common.len();
                if 2 * rows > delta.rows {
                    return false;
                }
                self.rows += rows;
                self.values.reserve(rows * x.width);
                self.delta.reserve(rows * delta.width);
                for row in counting {
                    self.values.extend_from_slice(x.row(row));
                    self.delta.extend_from_slice(delta.row(row));
                }
                for shares in &shares {
                    let start = self.values.len();
                    self.values.resize(start + x.width, 0.);
                    for (row, &share) in
                        shares.iter().enumerate().filter(|(_, share)| **share != 0.)
                    {
                        add(&mut self.values[start..], share, x.row(row));
                    }
                }
                true
            })
        })??;
        if is_packed {
            for (_, row) in common {
                self.delta.extend(row.to_vec1::<f32>()?);
            }
        }
        Ok(is_packed)
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The number of columns of the deltas.
    pub fn units(&self) -> usize {
        self.delta.len() / self.rows.max(1)
    }

    pub fn into_product(self, width: usize, units: usize) -> Result<Product> {
        let Self {
            values,
            delta,
            rows,
        } = self;
        let values = Values::dense(Tensor::from_vec(values, (rows, width), &Device::Cpu)?)?;
        Ok(Product {
            values,
            delta: Tensor::from_vec(delta, (rows, units), &Device::Cpu)?.into(),
        })
    }

    /// The values and the deltas, with `width` and `units` columns.
    pub fn matrices(&self, width: usize, units: usize) -> (Matrix<'_>, Matrix<'_>) {
        let of = |data, columns| Matrix::of_rows(data, self.rows, columns, columns);
        (of(&self.values, width), of(&self.delta, units))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::step::Step;
    use crate::flow::vars::Vars;
    use crate::optim::{Algorithm, Gradient, Optimiser, OptimiserSpec, Schedule, Span};
    use candle_nn::Init;

    const STEP: Step = Step::first(1);

    fn random(rows: usize, columns: usize, shift: usize) -> Result<Tensor> {
        let numbers: Vec<f32> = (0..rows * columns)
            .map(|i| ((i * 37 + shift * 11) % 101) as f32 / 50. - 1.)
            .collect();
        Ok(Tensor::from_vec(numbers, (rows, columns), &Device::Cpu)?)
    }

    /// A delta in which every `nth` row is non-zero, or none if `nth` is 0; optionally
    /// with a common row for the first half.
    fn delta(rows: usize, nth: usize, common: bool) -> Result<OutputGradient> {
        let kept: Vec<f32> = (0..rows)
            .map(|row| if nth > 0 && row % nth == 0 { 1. } else { 0. })
            .collect();
        let kept = Tensor::from_vec(kept, (rows, 1), &Device::Cpu)?;
        let delta = OutputGradient::from(random(rows, 3, 1)?.broadcast_mul(&kept)?);
        if !common {
            return Ok(delta);
        }
        delta.with_common(&random(1, 3, 2)?, rows / 2)
    }

    fn one_hot(rows: usize) -> Result<Values> {
        let index: Vec<u32> = (0..rows as u32 * 2).map(|i| i * 7 % 4).collect();
        Ok(Values::OneHot {
            index: Tensor::from_vec(index, (rows, 2), &Device::Cpu)?,
            classes: 4,
            strength: 0.5,
        })
    }

    /// A variable after lessons on these products, one by one or accumulated, and the
    /// same with gradients given as tensors.
    fn both(lessons: &[Vec<Product>], method: Algorithm, gathered: bool) -> Result<[Tensor; 2]> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let descent = OptimiserSpec {
            optimiser: method,
            lr: 0.1,
            weight_decay: 0.01,
            momentum: 0.5,
            schedule: Schedule::Constant,
        };
        let mut optimiser = Optimiser::new(vars.clone(), descent, Span::Epochs(0..1));
        let rows = lessons[0]
            .iter()
            .map(|product| product.values.width())
            .sum::<Result<usize>>()?;
        let found = vars.get("found", (rows, 3), Init::Const(1.))?;
        let expected = vars.get("expected", (rows, 3), Init::Const(1.))?;
        // Two steps, so that state left by the first one is detected.
        for _ in 0..2 {
            if gathered {
                optimiser.accumulate(lessons.len());
            }
            for products in lessons {
                optimiser.update("found", &found, Gradient::Products(products), &STEP)?;
                let whole = products
                    .iter()
                    .map(|product| product.whole(DType::F32))
                    .collect::<Result<Vec<_>>>()?;
                optimiser.update(
                    "expected",
                    &expected,
                    Gradient::Whole(&Tensor::cat(&whole, 0)?),
                    &STEP,
                )?;
            }
            if gathered {
                optimiser.apply_accumulated(&STEP)?;
            }
        }
        Ok([found.as_detached_tensor(), expected.as_detached_tensor()])
    }

    fn assert_same([found, expected]: [Tensor; 2], what: &str) -> Result<()> {
        let worst = ((found - &expected)?.abs()? / (expected.abs()? + 1.)?)?
            .flatten_all()?
            .max(0)?;
        let worst = worst.to_scalar::<f32>()?;
        assert!(worst < 1e-5, "{worst}: {what}");
        Ok(())
    }

    #[test]
    fn zero_rows_are_left_out_and_common_rows_are_added() -> Result<()> {
        // All, some or none of the rows count. Several lessons exceed the limit of packed
        // rows, or do not.
        for (nth, common) in [(1, true), (3, true), (0, true), (3, false), (0, false)] {
            for sizes in [vec![8], vec![300, 40], vec![400, 400, 400]] {
                let lesson = |&rows: &usize| -> Result<Vec<Product>> {
                    let delta = delta(rows, nth, common)?;
                    let dense = Product {
                        values: Values::dense(random(rows, 5, rows)?)?,
                        delta: delta.clone(),
                    };
                    Ok(vec![
                        dense,
                        Product {
                            values: one_hot(rows)?,
                            delta,
                        },
                    ])
                };
                let lessons = sizes.iter().map(lesson).collect::<Result<Vec<_>>>()?;
                for (method, gathered) in [
                    (Algorithm::Sgd, false),
                    (Algorithm::Sgd, true),
                    (Algorithm::Adam, true),
                    (Algorithm::SparseAdam, false),
                ] {
                    let what = format!(
                        "1 of {nth}, common: {common}, {sizes:?}, {method:?}, gathered: \
                         {gathered}"
                    );
                    assert_same(both(&lessons, method, gathered)?, &what)?;
                }
            }
        }
        Ok(())
    }

    /// More places than one thread processes at a time.
    #[test]
    fn gradients_of_a_large_table_are_added_to_the_selected_rows() -> Result<()> {
        let (rows, slots, classes) = (50, 3, 20_000);
        let index: Vec<u32> = (0..rows * slots)
            .map(|i| (i * i * 7919 % classes) as u32)
            .collect();
        let index = Tensor::from_vec(index, (rows, slots), &Device::Cpu)?;
        let values = Values::OneHot {
            index,
            classes,
            strength: 0.5,
        };
        let lessons = [vec![Product {
            values,
            delta: delta(rows, 1, true)?,
        }]];
        for method in [Algorithm::Sgd, Algorithm::Adam, Algorithm::SparseAdam] {
            assert_same(both(&lessons, method, false)?, &format!("{method:?}"))?;
        }
        Ok(())
    }

    #[test]
    fn lessons_on_the_same_values_keep_their_common_rows() -> Result<()> {
        for nth in [0, 1] {
            let values = [Values::dense(random(8, 5, 0)?)?, one_hot(8)?];
            let lesson = |shift: usize| -> Result<Vec<Product>> {
                let delta = delta(8, nth, true)?.with_common(&random(1, 3, shift)?, 8)?;
                Ok(values
                    .clone()
                    .map(|values| Product {
                        values,
                        delta: delta.clone(),
                    })
                    .to_vec())
            };
            let lessons = [lesson(3)?, lesson(4)?];
            assert_same(
                both(&lessons, Algorithm::Sgd, true)?,
                &format!("1 of {nth}"),
            )?;
        }
        Ok(())
    }

    #[test]
    fn lessons_may_divide_the_rows_of_a_variable_differently() -> Result<()> {
        for nth in [1, 3] {
            let part = |width: usize| -> Result<Product> {
                let values = Values::dense(random(9, width, width)?)?;
                Ok(Product {
                    values,
                    delta: delta(9, nth, true)?,
                })
            };
            let lessons = [
                vec![part(6)?],
                vec![part(2)?, part(4)?],
                vec![part(4)?, part(2)?],
                vec![part(6)?],
            ];
            assert_same(
                both(&lessons, Algorithm::Sgd, true)?,
                &format!("1 of {nth}"),
            )?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_a_failed_step_are_discarded() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let (method, schedule) = (Algorithm::Sgd, Schedule::Constant);
        let descent = OptimiserSpec {
            optimiser: method,
            lr: 0.1,
            weight_decay: 0.,
            momentum: 0.,
            schedule,
        };
        let mut optimiser = Optimiser::new(vars.clone(), descent, Span::Epochs(0..1));
        let var = vars.get("w", (5, 3), Init::Const(1.))?;
        for nth in [1, 3] {
            let before = var.as_tensor().copy()?;
            let product = Product {
                values: Values::dense(random(9, 5, 0)?)?,
                delta: delta(9, nth, true)?,
            };
            for _ in 0..2 {
                optimiser.accumulate(1);
                optimiser.update(
                    "w",
                    &var,
                    Gradient::Products(std::slice::from_ref(&product)),
                    &STEP,
                )?;
            }
            optimiser.apply_accumulated(&STEP)?;
            assert_same(
                [
                    var.as_detached_tensor(),
                    (before - (product.whole(DType::F32)? * 0.1)?)?,
                ],
                "one step",
            )?;
        }
        Ok(())
    }

    #[test]
    fn only_rows_that_count_are_packed() -> Result<()> {
        let packed = |delta: OutputGradient, rows: usize| -> Result<Option<usize>> {
            let product = Product {
                values: Values::dense(random(rows, 5, 0)?)?,
                delta,
            };
            let mut packed = Packed::default();
            Ok(packed.push(&product)?.then_some(packed.rows))
        };
        assert_eq!(packed(delta(9, 3, true)?, 9)?, Some(3 + 1));
        assert_eq!(packed(delta(9, 0, false)?, 9)?, Some(0));
        assert_eq!(packed(delta(9, 1, false)?, 9)?, None);
        // NaN is not left out.
        let nan = Tensor::from_vec(vec![0., 0., 0., 0., f32::NAN, 0.], (2, 3), &Device::Cpu)?;
        assert_eq!(packed(nan.into(), 2)?, Some(1));
        Ok(())
    }
}
