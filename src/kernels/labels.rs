//! Labels as tensors.

use candle_core::{Device, Tensor};

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
