//! The parts of an input as one tensor.

use candle_core::Tensor;

use super::{Input, Part, Picks, Values};
use crate::error::Result;
use crate::kernels;

impl Input {
    /// The input as one tensor, `(V·B, …)`: shared parts are repeated and scales applied.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an index of a one-hot part that does not
    /// exist; errors of candle, for example if the parts differ in their element type.
    pub fn join(&self) -> Result<Tensor> {
        let (dtype, device) = self.dtype_and_device();
        let shape = [&[self.rows()], &self.shape[..]].concat();
        let is_plain = matches!(
            &self.parts[..],
            [Part {
                values: Values::Dense { .. },
                scale: None,
                ..
            }]
        );
        let is_fast = dtype == kernels::FAST && device.is_cpu();
        // Autograd needs candle's operations.
        if !is_plain && is_fast && !self.parts.iter().any(is_attached) {
            return Ok(Tensor::from_vec(self.joined()?, shape, &device)?);
        }
        let mut columns = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut matrix = part.values.to_matrix(dtype, &device)?;
            if matrix.dim(0)? != self.rows() {
                matrix = matrix.repeat((self.views, 1))?;
            }
            if let Some(scale) = &part.scale {
                matrix = matrix.broadcast_mul(&scale.unsqueeze(1)?)?;
            }
            columns.push(matrix);
        }
        let joined = match columns.len() {
            1 => columns.remove(0),
            _ => Tensor::cat(&columns, 1)?,
        };
        Ok(joined.reshape(shape)?)
    }

    /// The fast form of [`Input::join`]: writes each part to its columns in one pass.
    fn joined(&self) -> Result<Vec<f32>> {
        let (rows, whole) = (self.rows(), self.width());
        let mut joined: Option<Vec<f32>> = None;
        let zeros = || kernels::fresh_rows(rows, whole, |_, _| ());
        let mut first = 0;
        for part in &self.parts {
            let (count, width) = (part.values.rows()?, part.values.width()?);
            let scale = part
                .scale
                .as_ref()
                .map(Tensor::to_vec1::<f32>)
                .transpose()?;
            let factor = |row: usize| scale.as_ref().map_or(1., |scale| scale[row]);
            match (&part.values, Picks::of(&part.values)?) {
                (Values::Dense { matrix, columns }, _) => {
                    let matrix = matrix.narrow(1, columns.start, columns.len())?;
                    kernels::with_rows(&matrix, |values| {
                        let write = |row: usize, out: &mut [f32]| {
                            let (out, factor) = (&mut out[first..first + width], factor(row));
                            for (out, value) in out.iter_mut().zip(values.row(row % count)) {
                                *out = factor * value;
                            }
                        };
                        match &mut joined {
                            Some(joined) => kernels::for_rows(joined, whole, write),
                            none => *none = Some(kernels::fresh_rows(rows, whole, write)),
                        }
                    })?;
                }
                (_, Some(picks)) => {
                    let joined = joined.get_or_insert_with(zeros);
                    for (row, out) in joined.chunks_exact_mut(whole).enumerate() {
                        for (place, entry) in picks.row(row % count) {
                            out[first + place] = factor(row) * picks.strength * entry;
                        }
                    }
                }
                (_, None) => (),
            }
            first += width;
        }
        Ok(joined.unwrap_or_else(zeros))
    }
}

/// Whether a gradient may pass through a part.
pub(super) fn is_attached(part: &Part) -> bool {
    let scale = part.scale.as_ref().is_some_and(Tensor::track_op);
    scale || matches!(&part.values, Values::Dense { matrix, .. } if matrix.track_op())
}
