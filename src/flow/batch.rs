//! A batch of examples.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// `B` examples, with their labels unless these are hidden.
///
/// The trainer hides the labels of every batch to be predicted. The framework hides them
/// from every sampler that does not declare that it uses labels. So no code reads a label
/// by accident.
#[derive(Clone, Debug)]
pub struct Batch {
    examples: Tensor,
    flat: Tensor,
    labels: Option<Vec<u32>>,
    places: Option<Places>,
}

/// Where the examples of a batch are in the training part.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The index of each example.
    pub indices: Arc<[usize]>,
    /// The number of all examples.
    pub of: usize,
}

impl Batch {
    /// Examples `(B, …)` with one label each, or with `P` labels each, one per position.
    /// The `B·P` labels are ordered by example.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of labels is not a multiple of the number of
    /// examples.
    pub fn new(examples: Tensor, labels: Vec<u32>) -> Result<Self> {
        let batch = Self::unlabelled(examples)?;
        let fits = match batch.size() {
            0 => labels.is_empty(),
            size => labels.len() >= size && labels.len().is_multiple_of(size),
        };
        if !fits {
            let expected = format!(
                "(B, …) with B labels, or B·P; found {} labels",
                labels.len()
            );
            return Err(Error::shape("batch", batch.examples.dims(), expected));
        }
        Ok(Self {
            labels: Some(labels),
            ..batch
        })
    }

    /// Examples `(B, …)` without labels.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn unlabelled(examples: Tensor) -> Result<Self> {
        if examples.rank() < 2 {
            return Err(Error::shape("batch", examples.dims(), "(B, …)"));
        }
        Ok(Self {
            flat: examples.flatten_from(1)?,
            examples,
            labels: None,
            places: None,
        })
    }

    /// `size` examples of zero numbers each, for a rank that does not read the examples.
    ///
    /// # Errors
    /// Errors of candle.
    pub(crate) fn empty(size: usize, device: &Device) -> Result<Self> {
        Self::unlabelled(Tensor::zeros((size, 0), DType::F32, device)?)
    }

    /// The same batch on another device. Floating-point examples get this element type;
    /// tokens keep theirs.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn to(&self, device: &Device, dtype: DType) -> Result<Self> {
        let found = self.examples.dtype();
        let dtype = if found.is_float() { dtype } else { found };
        let examples = self.examples.to_dtype(dtype)?.to_device(device)?;
        Ok(Self {
            labels: self.labels.clone(),
            places: self.places.clone(),
            ..Self::unlabelled(examples)?
        })
    }

    /// The same batch with the places of its examples in the training part, where these
    /// are always the same numbers: not moved or mirrored.
    pub(crate) fn at(self, indices: &[usize], of: usize) -> Self {
        let places = Places {
            indices: indices.into(),
            of,
        };
        Self {
            places: Some(places),
            ..self
        }
    }

    /// The places of the examples in the training part, if they are known.
    pub(crate) fn places(&self) -> Option<&Places> {
        self.places.as_ref()
    }

    /// The same examples without their labels.
    pub fn hidden(&self) -> Self {
        Self {
            labels: None,
            ..self.clone()
        }
    }

    /// The examples, `(B, …)`.
    pub fn examples(&self) -> &Tensor {
        &self.examples
    }

    /// The examples as rows, `(B, D)`. This is always the same tensor, so that products
    /// with it can be shared.
    pub fn rows(&self) -> &Tensor {
        &self.flat
    }

    /// The shape of one example.
    pub fn shape(&self) -> &[usize] {
        &self.examples.dims()[1..]
    }

    /// The number of examples, `B`.
    pub fn size(&self) -> usize {
        self.examples.dims()[0]
    }

    /// The device of the examples.
    pub fn device(&self) -> &Device {
        self.examples.device()
    }

    /// The label of each example, `(B,)`, or of each position of each example, `(B·P,)`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the labels are hidden: in evaluation and prediction, and for
    /// data without labels.
    pub fn labels(&self) -> Result<&[u32]> {
        self.labels.as_deref().ok_or_else(|| {
            let problem = "labels are hidden here; only training batches of labelled \
                           data have labels";
            Error::unfit("batch", problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_has_one_or_several_labels() -> Result<()> {
        let examples = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        assert_eq!(Batch::new(examples.clone(), vec![0, 1])?.labels()?, [0, 1]);
        assert_eq!(Batch::new(examples.clone(), vec![0; 6])?.labels()?.len(), 6);
        for labels in [vec![], vec![0], vec![0; 3]] {
            let error = Batch::new(examples.clone(), labels)
                .unwrap_err()
                .to_string();
            assert!(error.contains("found"), "{error}");
        }
        assert!(Batch::new(examples, vec![0, 1])?.hidden().labels().is_err());
        Ok(())
    }
}
