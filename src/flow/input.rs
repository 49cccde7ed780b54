//! What enters a layer: several views of the same examples, in parts that stand side by side.

use std::ops::Range;

use candle_core::{DType, Device, Shape, Tensor};

use crate::error::{Error, Result};
use crate::kernels;

crate::choices! {
    /// How an input or activity is normalised before the next layer sees it; no mean is subtracted.
    pub enum Normalise {
        /// Scaled so that the mean of the squares is 1, as in Hinton's program.
        MeanSquare = "mean_square",
        /// Scaled to unit length.
        UnitLength = "unit_length",
        /// Left alone: the next layer can read this one's goodness off the length.
        None = "none",
    }
}

/// `V` views of the same `B` examples, stacked: row `v·B + b` is view `v` of example `b`.
///
/// An input consists of parts that stand side by side: pixels and label, below and above, context and candidate. A
/// part that all views have in common has `B` rows instead of `V·B` and is multiplied once for all of them. Who does
/// not care calls [`Input::join`] and has one tensor.
#[derive(Clone, Debug)]
pub struct Input {
    parts: Vec<Part>,
    batch: usize,
    views: usize,
    shape: Vec<usize>,
}

/// Some of the columns of an input.
#[derive(Clone, Debug)]
pub struct Part {
    /// The values before scaling.
    pub values: Values,
    /// Factors of the rows, `(V·B,)`: the normalisation, kept apart so that a shared part stays shared.
    pub scale: Option<Tensor>,
}

/// The values of a part; `R` is `V·B`, or `B` if all views share the part.
#[derive(Clone, Debug)]
pub enum Values {
    /// Some columns of a matrix.
    Dense {
        /// `(R, …)`, read as `(R, D)`.
        matrix: Tensor,
        /// Which of the `D` columns.
        columns: Range<usize>,
    },
    /// `K` slots side by side, each with a single entry that is not zero.
    OneHot {
        /// Which entry of each slot, `(R, K)`, `u32`.
        index: Tensor,
        /// The width of a slot.
        classes: usize,
        /// The value of the entry.
        strength: f64,
    },
}

impl Values {
    /// All columns of a matrix; more dimensions than two are flattened into columns.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn dense(matrix: Tensor) -> Result<Self> {
        if matrix.rank() < 2 {
            let found = matrix.dims().to_vec();
            return Err(Error::Shape {
                place: "input".into(),
                found,
                expected: "(B, …)".into(),
            });
        }
        let matrix = matrix.flatten_from(1)?;
        let columns = 0..matrix.dim(1)?;
        Ok(Self::Dense { matrix, columns })
    }

    /// How many columns.
    pub fn width(&self) -> Result<usize> {
        Ok(match self {
            Self::Dense { columns, .. } => columns.len(),
            Self::OneHot { index, classes, .. } => index.dim(1)? * classes,
        })
    }

    /// Whether they are one-hot and nothing but zeros, which need not be multiplied.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::OneHot { strength, .. } if *strength == 0.)
    }

    /// How many rows.
    pub fn rows(&self) -> Result<usize> {
        Ok(match self {
            Self::Dense { matrix, .. } => matrix.dim(0)?,
            Self::OneHot { index, .. } => index.dim(0)?,
        })
    }

    /// The values as a matrix, `(R, width)`.
    pub fn to_matrix(&self, dtype: DType) -> Result<Tensor> {
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
                let on = filled(*strength, (rows, slots, 1), dtype, index.device())?;
                let zeros = Tensor::zeros((rows, slots, *classes), dtype, index.device())?;
                Ok(zeros
                    .scatter_add(&index.unsqueeze(2)?.contiguous()?, &on, 2)?
                    .flatten_from(1)?)
            }
        }
    }

    /// The sum of the squares of every row, `(R,)`.
    fn sum_squares(&self, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Dense { matrix, columns } => {
                kernels::sum_squares(&matrix.narrow(1, columns.start, columns.len())?)
            }
            Self::OneHot {
                index, strength, ..
            } => {
                let (rows, slots) = index.dims2()?;
                let sum = strength * strength * slots as f64;
                filled(sum, rows, dtype, index.device())
            }
        }
    }
}

/// The entries of one-hot slots, slot after slot and row after row, each below `classes`.
pub(crate) fn indices(index: &Tensor, classes: usize) -> Result<Vec<u32>> {
    let index = index.flatten_all()?.to_vec1::<u32>()?;
    if let Some(&class) = index.iter().find(|&&class| class as usize >= classes) {
        let (found, expected) = (vec![class as usize], format!("an index below {classes}"));
        return Err(Error::Shape {
            place: "one-hot part".into(),
            found,
            expected,
        });
    }
    Ok(index)
}

/// A tensor of one value, made on the CPU: not every device has numbers of 64 bits.
fn filled(value: f64, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::full(value, shape, &Device::Cpu)?
        .to_dtype(dtype)?
        .to_device(device)?)
}

impl Input {
    /// `parts` side by side, `views` views of `batch` examples, each of `shape` once the parts are joined.
    ///
    /// # Errors
    /// [`Error::Shape`] if a part has neither `B` nor `V·B` rows, or the widths do not add up to `shape`.
    pub fn new(parts: Vec<Values>, batch: usize, views: usize, shape: &[usize]) -> Result<Self> {
        let mut width = 0;
        for part in &parts {
            let rows = part.rows()?;
            if rows != batch && rows != batch * views {
                let expected = format!("{batch} rows (shared) or {views}·{batch}");
                return Err(Error::Shape {
                    place: "part of an input".into(),
                    found: vec![rows],
                    expected,
                });
            }
            width += part.width()?;
        }
        if width != shape.iter().product::<usize>() {
            let expected = format!("{shape:?} in all");
            return Err(Error::Shape {
                place: "width of an input".into(),
                found: vec![width],
                expected,
            });
        }
        let parts = parts
            .into_iter()
            .map(|values| Part {
                values,
                scale: None,
            })
            .collect();
        Ok(Self {
            parts,
            batch,
            views,
            shape: shape.to_vec(),
        })
    }

    /// One view of a tensor `(B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn of(tensor: Tensor) -> Result<Self> {
        let (batch, shape) = (tensor.dim(0)?, tensor.dims()[1..].to_vec());
        Self::new(vec![Values::dense(tensor)?], batch, 1, &shape)
    }

    /// `views` views that are all alike, `(B, …)`; one part, that all of them share.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn shared(tensor: Tensor, views: usize) -> Result<Self> {
        let (batch, shape) = (tensor.dim(0)?, tensor.dims()[1..].to_vec());
        Self::new(vec![Values::dense(tensor)?], batch, views, &shape)
    }

    /// `views` stacked views, `(V·B, …)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows cannot be divided among the views.
    pub fn stacked(tensor: Tensor, views: usize) -> Result<Self> {
        let (rows, shape) = (tensor.dim(0)?, tensor.dims()[1..].to_vec());
        if views == 0 || rows % views != 0 {
            let expected = format!("a multiple of {views} rows");
            return Err(Error::Shape {
                place: "input".into(),
                found: vec![rows],
                expected,
            });
        }
        Self::new(vec![Values::dense(tensor)?], rows / views, views, &shape)
    }

    /// The inputs side by side; all must have the same views of the same examples.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if they do not, or if there are none.
    pub fn beside(inputs: &[Input]) -> Result<Self> {
        let first = inputs.first();
        if !first.is_some_and(|first| {
            inputs
                .iter()
                .all(|i| (i.batch, i.views) == (first.batch, first.views))
        }) {
            let problem = "inputs that stand side by side need the same views of the same examples"
                .to_string();
            return Err(Error::Mismatch {
                place: "input".into(),
                problem,
            });
        }
        let parts: Vec<_> = inputs
            .iter()
            .flat_map(|input| input.parts.iter().cloned())
            .collect();
        let width = inputs.iter().map(Input::width).sum();
        let mut joined = Self {
            parts,
            batch: inputs[0].batch,
            views: inputs[0].views,
            shape: vec![width],
        };
        // One-hot parts alone cannot know the element type that those beside them have.
        let (dtype, device) = joined.dtype_and_device();
        for scale in joined
            .parts
            .iter_mut()
            .filter_map(|part| part.scale.as_mut())
        {
            *scale = scale.to_dtype(dtype)?.to_device(&device)?;
        }
        Ok(joined)
    }

    /// The same columns, read as rows of another shape: images, `(C, H, W)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if that has another number of columns.
    pub fn shaped(self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.width() {
            let expected = format!("{} columns", self.width());
            return Err(Error::Shape {
                place: "shape of an input".into(),
                found: shape.to_vec(),
                expected,
            });
        }
        Ok(Self {
            shape: shape.to_vec(),
            ..self
        })
    }

    /// The same views, of these parts alone.
    pub(crate) fn with_parts(&self, parts: Vec<Part>) -> Result<Self> {
        let width = parts
            .iter()
            .map(|part| part.values.width())
            .sum::<Result<_>>()?;
        Ok(Self {
            parts,
            batch: self.batch,
            views: self.views,
            shape: vec![width],
        })
    }

    /// The parts, from left to right.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many examples: `B`.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How many views of each: `V`.
    pub fn views(&self) -> usize {
        self.views
    }

    /// `V·B`.
    pub fn rows(&self) -> usize {
        self.batch * self.views
    }

    /// The shape of one row of [`Input::join`].
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many columns the parts have together.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// The element type and device of the values; `f32` on the CPU if all parts are one-hot.
    pub fn dtype_and_device(&self) -> (DType, Device) {
        for part in &self.parts {
            if let Values::Dense { matrix, .. } = &part.values {
                return (matrix.dtype(), matrix.device().clone());
            }
        }
        let device = match self.parts.first() {
            Some(Part {
                values: Values::OneHot { index, .. },
                ..
            }) => index.device().clone(),
            _ => Device::Cpu,
        };
        (DType::F32, device)
    }

    /// Everything in one tensor, `(V·B, …)`: shared parts repeated, scales applied.
    pub fn join(&self) -> Result<Tensor> {
        let (dtype, device) = self.dtype_and_device();
        let shape = [&[self.rows()], &self.shape[..]].concat();
        let is_one = matches!(
            &self.parts[..],
            [Part {
                values: Values::Dense { .. },
                scale: None
            }]
        );
        // What a gradient is to go through is left to candle.
        let is_attached = |part: &Part| {
            let scale = part.scale.as_ref().is_some_and(Tensor::track_op);
            scale || matches!(&part.values, Values::Dense { matrix, .. } if matrix.track_op())
        };
        if !is_one
            && dtype == kernels::FAST
            && device.is_cpu()
            && !self.parts.iter().any(is_attached)
        {
            return Ok(Tensor::from_vec(self.joined()?, shape, &device)?);
        }
        let mut columns = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut matrix = part.values.to_matrix(dtype)?;
            if matrix.dim(0)? != self.rows() {
                matrix = matrix.repeat((self.views, 1))?;
            }
            if let Some(scale) = &part.scale {
                matrix = matrix.broadcast_mul(&scale.unsqueeze(1)?)?;
            }
            columns.push(matrix);
        }
        let joined = if columns.len() == 1 {
            columns.remove(0)
        } else {
            Tensor::cat(&columns, 1)?
        };
        Ok(joined.reshape(shape)?)
    }

    /// The fast form: every part is written where it header, in one pass.
    fn joined(&self) -> Result<Vec<f32>> {
        let (rows, whole) = (self.rows(), self.width());
        let mut joined = vec![0f32; rows * whole];
        let mut first = 0;
        for part in &self.parts {
            let (count, width) = (part.values.rows()?, part.values.width()?);
            let scale = part
                .scale
                .as_ref()
                .map(Tensor::to_vec1::<f32>)
                .transpose()?;
            let factor = |row: usize| scale.as_ref().map_or(1., |scale| scale[row]);
            match &part.values {
                Values::Dense { matrix, columns } => {
                    kernels::with_rows(
                        &matrix.narrow(1, columns.start, columns.len())?,
                        |values| {
                            kernels::for_rows(&mut joined, whole, |row, out| {
                                let (out, factor) = (&mut out[first..first + width], factor(row));
                                let values = values.row(row % count);
                                out.iter_mut()
                                    .zip(values)
                                    .for_each(|(out, value)| *out = factor * value);
                            });
                        },
                    )?;
                }
                Values::OneHot {
                    index,
                    classes,
                    strength,
                } => {
                    let (index, slots) = (indices(index, *classes)?, index.dim(1)?);
                    for (row, out) in joined.chunks_exact_mut(whole).enumerate() {
                        let index = &index[row % count * slots..][..slots];
                        for (slot, &class) in index.iter().enumerate() {
                            out[first + slot * classes + class as usize] =
                                factor(row) * *strength as f32;
                        }
                    }
                }
            }
            first += width;
        }
        Ok(joined)
    }

    /// The same, every row times `factor`; nothing is multiplied yet, only [`Part::scale`] changes.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn scaled(mut self, factor: f64) -> Result<Self> {
        let (dtype, device) = self.dtype_and_device();
        for part in &mut self.parts {
            part.scale = Some(match &part.scale {
                Some(scale) => (scale * factor)?,
                None => Tensor::full(factor, self.batch * self.views, &Device::Cpu)?
                    .to_dtype(dtype)?
                    .to_device(&device)?,
            });
        }
        Ok(self)
    }

    /// The same, every row scaled over all parts together; nothing is multiplied yet, only [`Part::scale`] changes.
    ///
    /// `MeanSquare`: `x·√(D / Σᵢ xᵢ²)`; `UnitLength`: `x / √(Σᵢ xᵢ²)`. A row of zeros stays zero.
    pub fn normalised(mut self, how: Normalise) -> Result<Self> {
        let length = match how {
            Normalise::None => return Ok(self),
            Normalise::MeanSquare => (self.width() as f64).sqrt(),
            Normalise::UnitLength => 1.,
        };
        let (dtype, _) = self.dtype_and_device();
        let mut sum: Option<Tensor> = None;
        for part in &self.parts {
            let mut squares = part.values.sum_squares(dtype)?;
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
        // The smallest length is far below any that matters and keeps a row of zeros at zero.
        let factor = (sum.sqrt()?.maximum(1e-8)?.recip()? * length)?;
        for part in &mut self.parts {
            part.scale = Some(match &part.scale {
                None => factor.clone(),
                Some(scale) => (scale * &factor)?,
            });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels_and_label() -> Result<Input> {
        let pixels = Tensor::new(&[[9f32, 3., 4.], [9., 0., 2.]], &Device::Cpu)?;
        let index = Tensor::new(&[[0u32], [1], [1], [0]], &Device::Cpu)?;
        let label = Values::OneHot {
            index,
            classes: 2,
            strength: 1.,
        };
        Input::new(
            vec![
                label,
                Values::Dense {
                    matrix: pixels,
                    columns: 1..3,
                },
            ],
            2,
            2,
            &[4],
        )
    }

    /// The fast form against candle's, scales and all.
    #[test]
    fn both_forms_of_joining_agree() -> Result<()> {
        let matrix = Tensor::from_iter((0..30).map(|i| i as f32 / 7. - 2.), &Device::Cpu)?
            .reshape((6, 5))?;
        let in_form = |dtype: DType| -> Result<Tensor> {
            let dense = |rows: usize, columns| -> Result<Values> {
                Ok(Values::Dense {
                    matrix: matrix.narrow(0, 0, rows)?.to_dtype(dtype)?,
                    columns,
                })
            };
            let index = Tensor::new(&[[0u32, 2], [1, 0], [2, 2]], &Device::Cpu)?;
            let slots = Values::OneHot {
                index,
                classes: 3,
                strength: 0.5,
            };
            let input = Input::new(vec![dense(3, 1..4)?, slots, dense(6, 0..5)?], 3, 2, &[2, 7])?;
            input.normalised(Normalise::MeanSquare)?.join()
        };
        let (fast, plain) = (in_form(DType::F32)?, in_form(DType::F64)?);
        assert_eq!(
            (fast.dims(), plain.dims()),
            (&[6, 2, 7][..], &[6, 2, 7][..])
        );
        let difference = (fast.to_dtype(DType::F64)? - plain)?
            .abs()?
            .flatten_all()?
            .max(0)?
            .to_scalar::<f64>()?;
        assert!(difference < 1e-6, "{difference}");
        Ok(())
    }

    #[test]
    fn a_shared_part_stands_in_every_view() -> Result<()> {
        let joined = pixels_and_label()?.join()?.to_vec2::<f32>()?;
        assert_eq!(
            joined,
            [
                [1., 0., 3., 4.],
                [0., 1., 0., 2.],
                [0., 1., 3., 4.],
                [1., 0., 0., 2.]
            ]
        );
        Ok(())
    }

    #[test]
    fn rows_are_scaled_over_all_parts_together() -> Result<()> {
        let input = pixels_and_label()?.normalised(Normalise::UnitLength)?;
        let squares = input.join()?.sqr()?.sum(1)?.to_vec1::<f32>()?;
        assert!(
            squares.iter().all(|square| (square - 1.).abs() < 1e-6),
            "{squares:?}"
        );
        let input = pixels_and_label()?.normalised(Normalise::MeanSquare)?;
        let means = input.join()?.sqr()?.mean(1)?.to_vec1::<f32>()?;
        assert!(
            means.iter().all(|mean| (mean - 1.).abs() < 1e-6),
            "{means:?}"
        );
        Ok(())
    }

    #[test]
    fn factors_multiply() -> Result<()> {
        let scaled = pixels_and_label()?.scaled(2.)?.scaled(1.5)?.join()?;
        let expected = (pixels_and_label()?.join()? * 3.)?;
        assert_eq!(scaled.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
        Ok(())
    }

    #[test]
    fn a_row_of_zeros_stays_zero() -> Result<()> {
        let zeros = Tensor::zeros((1, 3), DType::F32, &Device::Cpu)?;
        let joined = Input::of(zeros)?
            .normalised(Normalise::MeanSquare)?
            .join()?;
        assert_eq!(joined.to_vec2::<f32>()?, [[0., 0., 0.]]);
        Ok(())
    }

    #[test]
    fn parts_that_do_not_add_up_are_refused() -> Result<()> {
        let matrix = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        assert!(Input::new(vec![Values::dense(matrix.clone())?], 2, 1, &[4]).is_err());
        assert!(Input::new(vec![Values::dense(matrix)?], 3, 1, &[3]).is_err());
        Ok(())
    }
}
