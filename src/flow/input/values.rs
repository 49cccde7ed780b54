//! The values of a part of an input: dense, one-hot, sparse, or zeros.

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
    /// Rows with few entries that are not zero, such as counts of words.
    Sparse {
        /// The column of each entry, `(R, K)`, `u32`. An entry that is not zero has a
        /// column of its own in its row.
        index: Tensor,
        /// The entries, `(R, K)`, `f32`, of which some may be zero.
        entries: Tensor,
        /// The number of columns.
        width: usize,
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
            Self::Sparse { width, .. } | Self::Zeros { width, .. } => *width,
        })
    }

    /// The number of rows.
    ///
    /// # Errors
    /// Errors of candle: for a tensor without a dimension.
    pub fn rows(&self) -> Result<usize> {
        Ok(match self {
            Self::Dense { matrix, .. } => matrix.dim(0)?,
            Self::OneHot { index, .. } | Self::Sparse { index, .. } => index.dim(0)?,
            Self::Zeros { rows, .. } => *rows,
        })
    }

    /// The device of the values; `None` for zeros.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::Dense { matrix, .. } => Some(matrix.device()),
            Self::OneHot { index, .. } | Self::Sparse { index, .. } => Some(index.device()),
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
            Self::Sparse {
                index,
                entries,
                width,
            } => {
                let zeros = Tensor::zeros((index.dim(0)?, *width), dtype, index.device())?;
                let entries = entries.to_dtype(dtype)?.contiguous()?;
                Ok(zeros.scatter_add(&index.contiguous()?, &entries, 1)?)
            }
            Self::Zeros { rows, width } => Ok(Tensor::zeros((*rows, *width), dtype, device)?),
        }
    }

    /// Whether they pick rows of a weight: see [`Picks`].
    pub(crate) fn picks(&self) -> bool {
        matches!(self, Self::OneHot { .. } | Self::Sparse { .. })
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
            Self::Sparse {
                index,
                entries,
                width,
            } => Self::Sparse {
                index: index.narrow(0, first, count)?,
                entries: entries.narrow(0, first, count)?,
                width: *width,
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
            Self::Sparse { entries, .. } => kernels::sum_squares(&entries.to_dtype(dtype)?),
            Self::Zeros { rows, .. } => Ok(Tensor::zeros(*rows, dtype, device)?),
        }
    }
}

/// The entries of one-hot or sparse values that are not zero, row by row: they pick rows
/// of a weight.
pub(crate) struct Picks {
    places: Vec<u32>,
    /// The entries beside the places, if they differ.
    entries: Option<Vec<f32>>,
    per_row: usize,
    /// The number of places.
    pub width: usize,
    /// A factor of all entries.
    pub strength: f32,
}

impl Picks {
    /// `None` for dense values and zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] for an index of a place that does not exist.
    pub fn of(values: &Values) -> Result<Option<Self>> {
        Ok(Some(match values {
            Values::OneHot {
                index,
                classes,
                strength,
            } => {
                let (mut places, slots) = (indices(index, *classes)?, index.dim(1)?);
                if slots.saturating_mul(*classes) > u32::MAX as usize {
                    let expected = format!("at most {} columns", u32::MAX);
                    return Err(Error::shape("one-hot part", [slots, *classes], expected));
                }
                for row in places.chunks_exact_mut(slots.max(1)) {
                    let starts = (0u32..).map(|slot| slot * *classes as u32);
                    row.iter_mut()
                        .zip(starts)
                        .for_each(|(place, start)| *place += start);
                }
                Self {
                    places,
                    entries: None,
                    per_row: slots,
                    width: slots * classes,
                    strength: *strength as f32,
                }
            }
            Values::Sparse {
                index,
                entries,
                width,
            } => Self {
                places: indices(index, *width)?,
                entries: Some(entries.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?),
                per_row: index.dim(1)?,
                width: *width,
                strength: 1.,
            },
            Values::Dense { .. } | Values::Zeros { .. } => return Ok(None),
        }))
    }

    /// The places that a row picks, each with its entry but for [`Picks::strength`].
    #[inline(always)]
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let here = row * self.per_row..(row + 1) * self.per_row;
        let entries = self.entries.as_ref().map(|entries| &entries[here.clone()]);
        let places = self.places[here].iter().enumerate();
        let picks = places.map(move |(slot, place)| {
            (*place as usize, entries.map_or(1., |entries| entries[slot]))
        });
        picks.filter(|(_, entry)| *entry != 0.)
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
