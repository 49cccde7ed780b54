//! Labels as tensors.

use candle_core::{Device, Tensor};

use super::fresh::fresh_rows;
use super::rows::{is_fast, with_rows};
use crate::error::{Error, Result};

/// Class indices as a tensor, `(B,)`.
pub(crate) fn index(labels: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(labels, labels.len(), device)?)
}

/// The entry of each row of `x`, `(B, C)`, at the row's label: `(B,)`.
pub(crate) fn entries(x: &Tensor, labels: &[u32]) -> Result<Tensor> {
    Ok(x.contiguous()?
        .gather(&index(labels, x.device())?.unsqueeze(1)?, 1)?
        .squeeze(1)?)
}

/// The rows of `x`, `(C, D)`, at these indices: `(K, D)`.
pub(crate) fn rows_at(x: &Tensor, index: &[u32]) -> Result<Tensor> {
    let (count, width) = x.dims2()?;
    if !is_fast(x) || index.iter().any(|&at| at as usize >= count) {
        return Ok(x.index_select(&self::index(index, x.device())?, 0)?);
    }
    let rows = with_rows(x, |x| {
        fresh_rows(index.len(), width, |row, out| {
            out.copy_from_slice(x.row(index[row] as usize));
        })
    })?;
    Ok(Tensor::from_vec(rows, (index.len(), width), x.device())?)
}

/// One-hot rows for labels, `(B, C)`, of the type and device of `like`.
///
/// # Errors
/// [`Error::Usage`] for a label that is no class; errors of candle.
pub fn one_hot(labels: &[u32], classes: usize, like: &Tensor) -> Result<Tensor> {
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        let problem = format!("found the label {label}, expected one of {classes} classes");
        return Err(Error::usage("labels", problem));
    }
    let mut values = vec![0f32; labels.len() * classes];
    for (row, &label) in values.chunks_exact_mut(classes.max(1)).zip(labels) {
        row[label as usize] = 1.;
    }
    Ok(
        Tensor::from_vec(values, (labels.len(), classes), &Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())?,
    )
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn rows_are_those_that_candle_selects() -> Result<()> {
        let x = Tensor::arange(0f32, 90_000., &Device::Cpu)?.reshape((300, 300))?;
        let many: Vec<u32> = (0..250).map(|i| i * 7 % 300).collect();
        for index in [&many[..], &[299, 0]] {
            let expected = x.index_select(&super::index(index, &Device::Cpu)?, 0)?;
            let found = rows_at(&x, index)?;
            assert_eq!(found.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
        }
        assert!(rows_at(&x, &[300]).is_err());
        Ok(())
    }

    #[test]
    fn a_label_that_is_no_class_is_refused() -> Result<()> {
        let like = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
        let rows = one_hot(&[1, 0], 2, &like)?.to_vec2::<f32>()?;
        assert_eq!(rows, [[0., 1.], [1., 0.]]);
        for (label, classes) in [(2, 2), (0, 0)] {
            let error = one_hot(&[label], classes, &like).unwrap_err().to_string();
            assert!(error.contains(&format!("the label {label}")), "{error}");
        }
        Ok(())
    }
}
