//! The gradient of the loss with respect to a layer's output.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels;

/// The gradient of a loss with respect to the rows of a product, `(R, N)`:
/// `own + Σₛ sharesₛ·commonₛᵀ`.
///
/// Terms that rows have in common, such as that of peer normalisation, are stored
/// separately. The loss of a view far on the right side of the threshold is flat to the
/// last bit. Its own row is then zero and can be left out of the gradient of a weight. A
/// common row adds one term to that gradient, `xᵀ·shares·commonᵀ`, for any number of rows
/// that share it.
///
/// Made from a tensor, `(R, …)`, it has no common rows.
#[derive(Clone, Debug)]
pub struct OutputGradient {
    own: Tensor,
    /// Shares, `(R,)`, and the common row, `(N,)`.
    common: Vec<(Tensor, Tensor)>,
}

impl From<Tensor> for OutputGradient {
    fn from(own: Tensor) -> Self {
        Self {
            own,
            common: Vec::new(),
        }
    }
}

impl From<&Tensor> for OutputGradient {
    fn from(own: &Tensor) -> Self {
        own.clone().into()
    }
}

impl OutputGradient {
    /// Adds `row`, `(N,)`, to each of the first `count` rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if the row has another width, or there are fewer than `count`
    /// rows.
    pub fn with_common(mut self, row: &Tensor, count: usize) -> Result<Self> {
        let (rows, units) = (
            self.own.dim(0)?,
            self.own.dims()[1..].iter().product::<usize>(),
        );
        if row.elem_count() != units || count > rows {
            return Err(Error::shape(
                "common row of a gradient",
                row.dims().to_vec(),
                format!("{units} numbers, added to at most {rows} rows, not {count}"),
            ));
        }
        let shares =
            Tensor::ones(count, row.dtype(), row.device())?.pad_with_zeros(0, 0, rows - count)?;
        self.common.push((shares, row.flatten_all()?));
        Ok(self)
    }

    /// The same with rows of one dimension.
    pub(crate) fn flattened(self) -> Result<Self> {
        Ok(Self {
            own: self.own.flatten_from(1)?,
            ..self
        })
    }

    /// The shape, `[R, N]`.
    pub fn dims(&self) -> &[usize] {
        self.own.dims()
    }

    /// The gradient as one tensor, `(R, N)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn whole(&self) -> Result<Tensor> {
        kernels::add_common(&self.own, &self.common)
    }

    /// The sum of the rows, `(N,)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn column_sums(&self) -> Result<Tensor> {
        let own = kernels::column_sums(&self.own)?;
        self.common.iter().try_fold(own, |sum, (shares, row)| {
            Ok((sum + row.broadcast_mul(&shares.sum_all()?)?)?)
        })
    }

    /// The gradient with respect to the rows before they were repeated over `views` and
    /// multiplied by `factors`: `(V·B, N)` to `(B, N)`.
    pub(crate) fn through_scale(&self, factors: Option<&Tensor>, views: usize) -> Result<Self> {
        let factors = factors
            .map(|factors| factors.to_dtype(self.own.dtype()))
            .transpose()?;
        let factors = factors.as_ref();
        let own = match factors {
            _ if views != 1 => kernels::sum_views(&self.own, factors, views)?,
            Some(factors) => kernels::scale_rows(&self.own, factors)?,
            None => self.own.clone(),
        };
        let common = self.common.iter().map(|(shares, row)| {
            let shares = factors.map_or_else(|| Ok(shares.clone()), |factors| shares * factors)?;
            Ok((shares.reshape((views, ()))?.sum(0)?, row.clone()))
        });
        Ok(Self {
            own,
            common: common.collect::<Result<_>>()?,
        })
    }

    pub(super) fn times(&self, factor: f64) -> Result<Self> {
        if !self.own.device().is_cpu() && self.common.is_empty() {
            return Ok((&self.own * factor)?.into());
        }
        // Made on the CPU: not every device has 64-bit numbers.
        let factors =
            Tensor::full(factor, self.own.dim(0)?, &Device::Cpu)?.to_dtype(self.own.dtype())?;
        self.through_scale(Some(&factors.to_device(self.own.device())?), 1)
    }

    /// Adds another gradient with the same number of rows.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        self.own = kernels::sum(&self.own, &other.own)?;
        self.common.extend(other.common.iter().cloned());
        Ok(())
    }

    /// The same with `f` of every tensor.
    pub(super) fn map(&self, f: &impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let common = self.common.iter();
        Ok(Self {
            own: f(&self.own)?,
            common: common
                .map(|(shares, row)| Ok((f(shares)?, f(row)?)))
                .collect::<Result<_>>()?,
        })
    }

    pub(crate) fn units(&self) -> usize {
        self.own.dims().last().copied().unwrap_or_default()
    }

    pub(super) fn own(&self) -> &Tensor {
        &self.own
    }

    pub(super) fn common(&self) -> &[(Tensor, Tensor)] {
        &self.common
    }
}

/// Whether all numbers are zero; NaN is not zero.
pub(super) fn is_zero(row: &[f32]) -> bool {
    // Pieces without branches inside, so that they are vectorised.
    row.chunks(64)
        .all(|piece| piece.iter().fold(0, |bits, x| bits | x.to_bits() << 1) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_zero_if_no_number_differs_from_zero() {
        assert!(is_zero(&[0., -0.]));
        assert!(!is_zero(&[0., f32::NAN]) && !is_zero(&[1e-45]));
    }
}
