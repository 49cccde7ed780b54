//! Normalisation of rows: of an input, and of an activity before the next layer sees it.

use candle_core::{DType, Device, Tensor};

use super::join::is_attached;
use super::{Input, Part, Values};
use crate::error::Result;
use crate::kernels::{self, Squared};

crate::choices! {
    /// How an input or activity is normalised before the next layer sees it. No mean is
    /// subtracted.
    pub enum Normalise {
        /// Scaled so that the mean of the squares is 1, as in Hinton's program.
        MeanSquare = "mean_square",
        /// Scaled to unit length.
        UnitLength = "unit_length",
        /// Not normalised: the next layer can read this layer's goodness off the length.
        None = "none",
    }
}

impl Normalise {
    /// The length of a normalised row of `width` numbers; `None` without normalisation.
    pub fn length(self, width: usize) -> Option<f64> {
        match self {
            Self::MeanSquare => Some((width as f64).sqrt()),
            Self::UnitLength => Some(1.),
            Self::None => None,
        }
    }

    /// The gradient with respect to rows `x`, `(R, …)`, given the gradient with respect
    /// to the normalised rows.
    ///
    /// `∂x = c / ‖x‖ · (∂y − ŷ·(ŷ·∂y))`, with `ŷ = x / ‖x‖` and `c` the length of a
    /// normalised row.
    ///
    /// # Errors
    /// Errors of candle, for example if the gradient has another shape.
    pub fn gradient(self, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let rows = x.flatten_from(1)?;
        let Some(length) = self.length(rows.dim(1)?) else {
            return Ok(gradient.clone());
        };
        let above = gradient.reshape(rows.shape())?;
        let below = kernels::unit_rows_gradient(&rows, &above, length, SHORTEST)?;
        Ok(below.reshape(x.shape())?)
    }
}

/// The smallest divisor of a row. It is far below any relevant length, and keeps rows of
/// zeros at zero.
pub(crate) const SHORTEST: f64 = 1e-8;

impl Input {
    /// The same, which [`Input::normalised`] leaves as it is: the lengths of its rows
    /// mean something.
    pub fn as_is(self) -> Self {
        Self {
            is_final: true,
            ..self
        }
    }

    /// Whether it came from [`Input::as_is`].
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// The same with every row normalised over all parts together. Only [`Part::scale`]
    /// changes; the product is deferred.
    ///
    /// `MeanSquare`: `x·√(D / Σᵢ xᵢ²)`; `UnitLength`: `x / √(Σᵢ xᵢ²)`. A row of zeros
    /// stays zero. An input that is final ([`Input::as_is`]) stays as it is.
    ///
    /// # Errors
    /// Errors of candle, for example if the parts differ in their element type.
    pub fn normalised(mut self, how: Normalise) -> Result<Self> {
        let length = how.length(self.width()).filter(|_| !self.is_final);
        let Some(length) = length else {
            return Ok(self);
        };
        if let [Part {
            values: Values::Dense { matrix, columns },
            scale: None,
            ..
        }] = &mut self.parts[..]
        {
            // Not shared among views, so nothing else would use it without the scale.
            let is_own = matrix.dim(0)? == self.batch * self.views && !matrix.track_op();
            let rows = matrix.narrow(1, columns.start, columns.len())?;
            let unit = is_own.then(|| kernels::unit_rows(&rows, length, SHORTEST));
            if let Some(unit) = unit.transpose()?.flatten() {
                (*columns, *matrix) = (0..unit.dim(1)?, unit);
                return Ok(self);
            }
        }
        let (dtype, device) = self.dtype_and_device();
        if let Some(factor) = self.fast_factors(length, dtype, &device)? {
            return self.times(&factor);
        }
        let mut sum: Option<Tensor> = None;
        for part in &self.parts {
            let mut squares = part.values.sum_squares(dtype, &device)?;
            if squares.dim(0)? != self.rows() {
                squares = squares.repeat(self.views)?;
            }
            if let Some(scale) = &part.scale {
                squares = (squares * scale.sqr()?)?;
            }
            sum = Some(match sum {
                None => squares,
                Some(sum) => (sum + squares)?,
            });
        }
        let Some(sum) = sum else { return Ok(self) };
        let factor = (sum.sqrt()?.maximum(SHORTEST)?.recip()? * length)?;
        self.times(&factor)
    }

    /// The factors of the rows in one pass, where there is a fast form for it.
    fn fast_factors(&self, length: f64, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        if dtype != kernels::FAST || self.parts.iter().any(is_attached) {
            return Ok(None);
        }
        let mut values = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            values.push(match &part.values {
                Values::Dense { matrix, columns } => {
                    (Some(matrix.narrow(1, columns.start, columns.len())?), 0.)
                }
                Values::OneHot {
                    index, strength, ..
                } => (None, strength * strength * index.dim(1)? as f64),
                Values::Sparse { entries, .. } => (Some(entries.clone()), 0.),
                Values::Zeros { .. } => (None, 0.),
            });
        }
        let parts = self.parts.iter().zip(&values);
        let parts = parts.map(|(part, (values, constant))| Squared {
            values: values.as_ref(),
            constant: *constant,
            scale: part.scale.as_ref(),
        });
        kernels::row_factors(parts, self.rows(), (length, SHORTEST), device)
    }

    /// The same with every row multiplied by its factor.
    fn times(mut self, factor: &Tensor) -> Result<Self> {
        for part in &mut self.parts {
            part.scale = Some(match &part.scale {
                None => factor.clone(),
                Some(scale) => (scale * factor)?,
            });
        }
        Ok(self)
    }
}
