//! A batch of examples, and the passes that a layer learns from.

use candle_core::{DType, Device, Tensor};

use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Result};

/// `B` examples, and their labels where these may be seen.
///
/// The trainer hides the labels of every batch that it predicts, so nothing that makes views or scores can use them.
#[derive(Clone, Debug)]
pub struct Batch {
    examples: Tensor,
    flat: Tensor,
    labels: Option<Vec<u32>>,
}

impl Batch {
    /// Examples `(B, …)` with a class each.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one label for each example.
    pub fn new(examples: Tensor, labels: Vec<u32>) -> Result<Self> {
        if examples.rank() < 2 || examples.dim(0)? != labels.len() {
            let expected = format!("(B, …) with B = {}, the number of labels", labels.len());
            return Err(Error::Shape {
                place: "batch".into(),
                found: examples.dims().to_vec(),
                expected,
            });
        }
        Ok(Self {
            labels: Some(labels),
            ..Self::unlabelled(examples)?
        })
    }

    /// Examples `(B, …)` of which nothing else is known.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no dimension besides the batch.
    pub fn unlabelled(examples: Tensor) -> Result<Self> {
        if examples.rank() < 2 {
            let found = examples.dims().to_vec();
            return Err(Error::Shape {
                place: "batch".into(),
                found,
                expected: "(B, …)".into(),
            });
        }
        Ok(Self {
            flat: examples.flatten_from(1)?,
            examples,
            labels: None,
        })
    }

    /// The same on another device, numbers that are not whole being of this element type.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn to(&self, device: &Device, dtype: DType) -> Result<Self> {
        let dtype = if self.examples.dtype().is_float() {
            dtype
        } else {
            self.examples.dtype()
        };
        let examples = self.examples.to_dtype(dtype)?.to_device(device)?;
        Ok(Self {
            labels: self.labels.clone(),
            ..Self::unlabelled(examples)?
        })
    }

    /// The same examples, their labels hidden.
    pub fn hidden(&self) -> Self {
        Self {
            labels: None,
            ..self.clone()
        }
    }

    /// What a sampler gets to see of it: the labels as well only if it is supervised.
    pub fn shown_to(&self, sampler: &dyn NegativeSampler) -> Self {
        if sampler.is_supervised() {
            return self.clone();
        }
        self.hidden()
    }

    /// The examples, `(B, …)`.
    pub fn examples(&self) -> &Tensor {
        &self.examples
    }

    /// The examples as rows, `(B, D)`; always the same tensor, so that products with it can be shared.
    pub fn rows(&self) -> &Tensor {
        &self.flat
    }

    /// The shape of one example.
    pub fn shape(&self) -> &[usize] {
        &self.examples.dims()[1..]
    }

    /// How many: `B`.
    pub fn size(&self) -> usize {
        self.examples.dims()[0]
    }

    /// Where the examples lie.
    pub fn device(&self) -> &Device {
        self.examples.device()
    }

    /// The class of each example.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the labels are hidden: in evaluation and prediction, or for data without labels.
    pub fn labels(&self) -> Result<&[u32]> {
        self.labels.as_deref().ok_or_else(|| Error::Mismatch {
            place: "batch".into(),
            problem: "its labels are hidden here; only training batches of labelled data show them"
                .into(),
        })
    }
}
