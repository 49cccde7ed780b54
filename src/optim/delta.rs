//! What a result should have been different by.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::ops;

/// The gradient of a loss with respect to the rows of a product, `(R, N)`: `own + Σₛ sharesₛ·commonₛᵀ`.
///
/// What rows have in common, such as the term of peer normalisation, is kept apart: the rows of examples that are
/// decided already, whose loss no longer changes, stay zero and cost nothing, and to the gradient of a weight the common
/// rows add one row each, `xᵀ·shares·commonᵀ`.
///
/// A tensor is one in which nothing is common.
#[derive(Clone, Debug)]
pub struct Delta {
    own: Tensor,
    /// Shares, `(R,)`, and the common row, `(N,)`.
    common: Vec<(Tensor, Tensor)>,
}

impl From<Tensor> for Delta {
    fn from(own: Tensor) -> Self {
        Self { own, common: Vec::new() }
    }
}

impl From<&Tensor> for Delta {
    fn from(own: &Tensor) -> Self {
        own.clone().into()
    }
}

impl Delta {
    /// Adds `row`, `(N,)`, to each of the first `count` rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if the row is not as wide as the others or these are fewer.
    pub fn with(mut self, row: Tensor, count: usize) -> Result<Self> {
        let rows = self.own.dim(0)?;
        if row.dims() != &self.own.dims()[1..] || count > rows {
            let expected = format!("a row for {count} of {:?}", self.own.dims());
            return Err(Error::Shape { place: "common row".into(), found: row.dims().to_vec(), expected });
        }
        let shares = Tensor::ones(count, row.dtype(), row.device())?.pad_with_zeros(0, 0, rows - count)?;
        self.common.push((shares, row));
        Ok(self)
    }

    /// `[R, N]`.
    pub fn dims(&self) -> &[usize] {
        self.own.dims()
    }

    /// As one tensor, `(R, N)`.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn whole(&self) -> Result<Tensor> {
        self.common.iter().try_fold(self.own.clone(), |sum, (shares, row)| ops::add_row(&sum, shares, row))
    }

    /// The sum of the rows, `(N,)`.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn column_sums(&self) -> Result<Tensor> {
        let own = ops::column_sums(&self.own)?;
        self.common.iter().try_fold(own, |sum, (shares, row)| Ok((sum + row.broadcast_mul(&shares.sum_all()?)?)?))
    }

    /// That of the rows before each was multiplied by its factor and, if `views` is not 1, stood in that many views:
    /// `(V·B, N)` to `(B, N)`.
    pub(crate) fn before(&self, factors: Option<&Tensor>, views: usize) -> Result<Self> {
        let own = match factors {
            _ if views != 1 => ops::sum_views(&self.own, factors, views)?,
            Some(factors) => ops::scale_rows(&self.own, factors)?,
            None => self.own.clone(),
        };
        let common = self.common.iter().map(|(shares, row)| {
            let shares = factors.map_or_else(|| Ok(shares.clone()), |factors| shares * factors)?;
            Ok((shares.reshape((views, ()))?.sum(0)?, row.clone()))
        });
        Ok(Self { own, common: common.collect::<Result<_>>()? })
    }

    pub(super) fn times(&self, factor: f64) -> Result<Self> {
        let factors = Tensor::new(factor, self.own.device())?.to_dtype(self.own.dtype())?;
        self.before(Some(&factors.broadcast_as(self.own.dim(0)?)?.contiguous()?), 1)
    }

    /// Adds another one of as many rows.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.own = ops::sum(&self.own, &other.own)?;
        self.common.extend(other.common.iter().cloned());
        Ok(())
    }

    pub(super) fn units(&self) -> usize {
        self.own.dims().last().copied().unwrap_or_default()
    }

    pub(super) fn own(&self) -> &Tensor {
        &self.own
    }

    pub(super) fn common(&self) -> &[(Tensor, Tensor)] {
        &self.common
    }
}
