//! The fast form of [`Linear`](super::linear::Linear) for `f32` on the CPU: a product as
//! a sum of terms, one per part.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::flow::input::{Input, Part, Picks, Values};
use crate::kernels::gemm::{product_with, rounds, Matrix, Prepared};
use crate::kernels::{self, add, with_rows, with_values};
use crate::modules::cache::PartCache;

/// A weight matrix `(D, N)` as a slice, with the optional bias and ReLU of each row of
/// the product.
pub(super) struct Affine<'a> {
    /// The weight, row by row.
    pub weight: &'a [f32],
    /// The number of units, `N`.
    pub units: usize,
    pub bias: Option<&'a [f32]>,
    pub relu: bool,
}

/// The cached products of shared parts and rows of the weight, and the current version of
/// the variables.
pub(super) struct Cache<'a> {
    pub products: &'a PartCache<Vec<f32>>,
    pub prepared: &'a PreparedRows,
    /// The weight as a tensor, the key of its rows.
    pub weight: &'a Tensor,
    pub version: u64,
}

/// Rows of the weight, by the first one, as products in bfloat16 take them.
pub(super) type PreparedRows = PartCache<Option<Prepared>>;

/// The contribution of a part to each row of the output.
struct Term {
    kind: Kind,
    /// The number of rows of the part: `V·B`, or `B` if all views share it.
    rows: usize,
    /// Factors of the rows of the output.
    scale: Option<Vec<f32>>,
}

enum Kind {
    /// Rows of a product, `(R, N)`.
    Product(Arc<Vec<f32>>),
    /// Rows of the weight, picked by one-hot or sparse values; with the first of the rows.
    Picked(Picks, usize),
    /// No contribution.
    Zeros,
}

impl Affine<'_> {
    /// `x·W + b` for all views of an input, `(V·B, N)`, row by row.
    pub fn forward(&self, input: &Input, cache: &Cache<'_>) -> Result<Vec<f32>> {
        if let [part @ Part {
            values: Values::Dense { .. },
            ..
        }] = input.parts()
        {
            if part.values.rows()? == input.rows() {
                return self.single(part, cache);
            }
        }
        let mut terms = Vec::with_capacity(input.parts().len());
        let mut first = 0;
        for part in input.parts() {
            terms.push(self.term(part, first, input.batch(), cache)?);
            first += part.values.width()?;
        }
        let out = |row: usize, out: &mut [f32]| {
            for term in &terms {
                term.add_to(row, out, self);
            }
            self.finish(0, out);
        };
        Ok(kernels::fresh_rows(input.rows(), self.units, out))
    }

    /// The output for an input of one part. Bias and ReLU are applied to a row while it
    /// is in the cache.
    fn single(&self, part: &Part, cache: &Cache<'_>) -> Result<Vec<f32>> {
        let scale = numbers(part.scale.as_ref())?;
        self.multiply(&part.values, 0, cache, |row, first, out| {
            if let Some(scale) = &scale {
                out.iter_mut().for_each(|out| *out *= scale[row]);
            }
            self.finish(first, out);
        })
    }

    fn term(&self, part: &Part, first: usize, batch: usize, cache: &Cache<'_>) -> Result<Term> {
        let rows = part.values.rows()?;
        let kind = match &part.values {
            Values::Dense { matrix, columns } => {
                let multiply = || self.multiply(&part.values, first, cache, |_, _, _| ());
                Kind::Product(match rows == batch {
                    true => {
                        let key = (matrix, columns);
                        cache
                            .products
                            .get(first, key, cache.version, true, multiply)?
                    }
                    false => Arc::new(multiply()?),
                })
            }
            values => match Picks::of(values)? {
                Some(picks) => Kind::Picked(picks, first),
                None => Kind::Zeros,
            },
        };
        Ok(Term {
            kind,
            rows,
            scale: numbers(part.scale.as_ref())?,
        })
    }

    /// Computes `values·W` with the rows of the weight from `first` on, then calls
    /// `finish(row, first column, piece)` for each piece of a row.
    fn multiply(
        &self,
        values: &Values,
        first: usize,
        cache: &Cache<'_>,
        finish: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<Vec<f32>> {
        let matrix = values.to_matrix(kernels::FAST, &candle_core::Device::Cpu)?;
        with_rows(&matrix, |x| {
            let weight = &self.weight[first * self.units..];
            let weight = Matrix::of_rows(weight, x.width, self.units, self.units);
            let (key, version) = ((cache.weight, &(first..first + x.width)), cache.version);
            let prepare = || Ok(Prepared::of(weight));
            let prepared = match rounds() {
                true => Some(cache.prepared.get(first, key, version, true, prepare)?),
                false => None,
            };
            Ok(product_with(
                Matrix::of_rows(x.data, x.rows, x.width, x.stride),
                weight,
                prepared.as_deref().and_then(Option::as_ref),
                finish,
            ))
        })?
    }

    /// Applies bias and ReLU to a piece of a row that begins at column `first`.
    #[inline(always)]
    fn finish(&self, first: usize, out: &mut [f32]) {
        if let Some(bias) = self.bias {
            add(out, 1., &bias[first..]);
        }
        if self.relu {
            // Not `max`, which would hide NaN as an inactive unit.
            for out in out.iter_mut() {
                *out = if *out < 0. { 0. } else { *out };
            }
        }
    }
}

impl Term {
    #[inline(always)]
    fn add_to(&self, row: usize, out: &mut [f32], affine: &Affine<'_>) {
        let scale = self.scale.as_ref().map_or(1., |scale| scale[row]);
        let (row, units) = (row % self.rows, affine.units);
        match &self.kind {
            Kind::Product(product) => add(out, scale, &product[row * units..]),
            Kind::Picked(picks, first) => {
                let scale = scale * picks.strength;
                for (place, entry) in picks.row(row) {
                    add(
                        out,
                        scale * entry,
                        &affine.weight[(first + place) * units..],
                    );
                }
            }
            Kind::Zeros => (),
        }
    }
}

/// The numbers of a vector.
pub(super) fn numbers(vector: Option<&Tensor>) -> Result<Option<Vec<f32>>> {
    Ok(vector.map(Tensor::to_vec1::<f32>).transpose()?)
}

/// Calls `f` with the numbers of a weight.
pub(super) fn with_weight<R>(weight: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    with_values(&weight.flatten_all()?, f)?
}
