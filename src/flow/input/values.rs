//! The values of a part of an input: dense, one-hot, or zeros.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::Part;
use crate::error::{Error, Result};
use crate::kernels;

/// The values of a part; the number of rows `R` is `V·B`, or `B` if all views share the
/// part.
#[derive(Clone, Debug)]
pub enum Values {
    /// Some columns of a matrix.
    Dense {
        /// `(R, …)`, read as `(R, D)`.
        matrix: Tensor,
        /// The range of the `D` columns.
        columns: Range<usize>,
    },
    /// `K` one-hot slots side by side, each with a single non-zero entry.
    OneHot {
        /// The entry of each slot, `(R, K)`, `u32`.
        index: Tensor,
        /// The width of a slot.
        classes: usize,
        /// The value of the entry.
        strength: f64,
    },
    /// Columns of zeros. They are left out of products.
    Zeros {
        /// The number of rows, `R`.
        rows: usize,
        /// The number of columns.
        width: usize,
    },
}

impl Values {
    /// All columns of a matrix; dimensions after the first are flattened into columns.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn dense(matrix: Tensor) -> Result<Self> {
        if matrix.rank() < 2 {
            return Err(Error::shape("input", matrix.dims(), "(B, …)"));
        }
        let matrix = matrix.flatten_from(1)?;
        let columns = 0..matrix.dim(1)?;
        Ok(Self::Dense { matrix, columns })
    }

    /// A named part of these values.
    pub fn named(self, name: &'static str) -> Part {
        Part {
            name: Some(name),
            ..self.into()
        }
    }

    /// The number of columns.
    ///
    /// # Errors
    /// Errors of candle: for an index that is not `(R, K)`.
    pub fn width(&self) -> Result<usize> {
        Ok(match self {
            Self::Dense { columns, .. } => columns.len(),
            Self::OneHot { index, classes, .. } => index.dim(1)? * classes,
            Self::Zeros { width, .. } => *width,
        })
    }

    /// The number of rows.
    ///
    /// # Errors
    /// Errors of candle: for a tensor without a dimension.
    pub fn rows(&self) -> Result<usize> {
        Ok(match self {
            Self::Dense { matrix, .. } => matrix.dim(0)?,
            Self::OneHot { index, .. } => index.dim(0)?,
            Self::Zeros { rows, .. } => *rows,
        })
    }

    /// The device of the values; `None` for zeros.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::Dense { matrix, .. } => Some(matrix.device()),
            Self::OneHot { index, .. } => Some(index.device()),
            Self::Zeros { .. } => None,
        }
    }

    /// The values as a matrix, `(R, width)`. Zeros are made on `device`.
    ///
    /// # Errors
    /// Errors of candle: for columns that the matrix does not have, or an index of a
    /// one-hot part that does not exist.
    pub fn to_matrix(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        match self {
            Self::Dense { matrix, columns } => {
                Ok(matrix.narrow(1, columns.start, columns.len())?)
            }
            Self::OneHot {
                index,
                classes,
                strength,
            } => {
                let (rows, slots) = index.dims2()?;
                let on = kernels::filled(*strength, (rows, slots, 1), dtype, index.device())?;
                let zeros = Tensor::zeros((rows, slots, *classes), dtype, index.device())?;
                let index = index.unsqueeze(2)?.contiguous()?;
                Ok(zeros.scatter_add(&index, &on, 2)?.flatten_from(1)?)
            }
            Self::Zeros { rows, width } => Ok(Tensor::zeros((*rows, *width), dtype, device)?),
        }
    }

    /// Some of the rows.
    pub(super) fn narrow(&self, first: usize, count: usize) -> Result<Self> {
        Ok(match self {
            Self::Dense { matrix, columns } => Self::Dense {
                matrix: matrix.narrow(0, first, count)?,
                columns: columns.clone(),
            },
            Self::OneHot {
                index,
                classes,
                strength,
            } => Self::OneHot {
                index: index.narrow(0, first, count)?,
                classes: *classes,
                strength: *strength,
            },
            Self::Zeros { width, .. } => Self::Zeros {
                rows: count,
                width: *width,
            },
        })
    }

    /// The sum of the squares of every row, `(R,)`.
    pub(super) fn sum_squares(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        match self {
            Self::Dense { matrix, columns } => {
                kernels::sum_squares(&matrix.narrow(1, columns.start, columns.len())?)
            }
            Self::OneHot {
                index, strength, ..
            } => {
                let (rows, slots) = index.dims2()?;
                let sum = strength * strength * slots as f64;
                kernels::filled(sum, rows, dtype, index.device())
            }
            Self::Zeros { rows, .. } => Ok(Tensor::zeros(*rows, dtype, device)?),
        }
    }
}

/// The indices of one-hot slots, row by row, each checked to be below `classes`.
pub(crate) fn indices(index: &Tensor, classes: usize) -> Result<Vec<u32>> {
    let index = index.flatten_all()?.to_vec1::<u32>()?;
    match index.iter().find(|&&class| class as usize >= classes) {
        None => Ok(index),
        Some(&class) => {
            let expected = format!("an index below {classes}");
            Err(Error::shape("one-hot part", [class as usize], expected))
        }
    }
}
