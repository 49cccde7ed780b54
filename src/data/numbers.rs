//! Examples of any shape in memory, as numbers of 32 bits.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::images::{moved_into, moves};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples};

/// Labelled examples of one shape.
///
/// ```
/// use onward_core::data::{numbers::Numbers, Examples};
///
/// let examples = Numbers::new(vec![0.5, 1., -2., 4.], vec![1, 0], &[2])?;
/// let batch = examples.batch(&[1], None)?;
/// assert_eq!(batch.examples().to_vec2::<f32>()?, [[-2., 4.]]);
/// assert_eq!(batch.labels()?, [0]);
/// # Ok::<(), onward_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Numbers {
    values: Arc<[f32]>,
    labels: Arc<[u32]>,
    shape: Vec<usize>,
}

impl Numbers {
    /// The examples in one array, one after the other, each of shape `shape`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not one label for each example, or a value is not
    /// finite.
    pub fn new(values: Vec<f32>, labels: Vec<u32>, shape: &[usize]) -> Result<Self> {
        let size: usize = shape.iter().product();
        let (found, count) = (values.len(), labels.len());
        if size == 0 || found != count * size {
            let problem =
                format!("found {found} numbers for {count} labels of examples of shape {shape:?}");
            return Err(Error::usage("examples", problem));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let problem = format!(
                "number {} of example {} is {}, expected finite numbers",
                at % size,
                at / size,
                values[at]
            );
            return Err(Error::usage("examples", problem));
        }
        Ok(Self {
            values: values.into(),
            labels: labels.into(),
            shape: shape.to_vec(),
        })
    }
}

impl Examples for Numbers {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        let size: usize = self.shape.iter().product();
        let moves = augment.and_then(|augment| moves(indices.len(), augment));
        let example = |index: &usize| &self.values[index * size..][..size];
        let values = match (moves, &self.shape[..]) {
            (None, _) => indices.iter().flat_map(example).copied().collect(),
            (Some(moves), &[channels, height, width]) => {
                let mut values = vec![0f32; indices.len() * size];
                let places = indices.iter().zip(values.chunks_exact_mut(size));
                for ((index, values), by) in places.zip(moves) {
                    let shape = [channels, height, width];
                    moved_into(example(index), values, shape, by, |from, to| {
                        to.copy_from_slice(from)
                    });
                }
                values
            }
            (Some(_), shape) => {
                let problem = format!(
                    "`shift` and `flip` are for images (channels, height, width); found examples of \
                     shape {shape:?}"
                );
                return Err(Error::unfit("augmentation", problem));
            }
        };
        let shape = [&[indices.len()], &self.shape[..]].concat();
        let labels = indices.iter().map(|&index| self.labels[index]).collect();
        Batch::new(Tensor::from_vec(values, shape, &Device::Cpu)?, labels)
    }
}
