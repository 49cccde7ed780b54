//! A data set: three parts of examples, and the description of an example.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::text::Text;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples, Passages, Split};

/// The description of one example of a data set. It is saved with a trained network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExampleSpec {
    /// The shape of one example, `[1, 28, 28]`.
    pub shape: Vec<usize>,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The kind of content of an example.
    #[serde(alias = "framing")]
    pub content: Content,
    /// The number of labels of an example: 1, or one for each position of a sequence.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub positions: usize,
    /// Of a text, how many of the first tokens of an example are before its window, and may
    /// be missing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: usize,
}

fn one() -> usize {
    1
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

impl ExampleSpec {
    /// Examples of this shape with one label each.
    pub fn new(shape: &[usize], classes: Vec<String>, content: Content) -> Self {
        Self {
            shape: shape.to_vec(),
            classes,
            content,
            positions: 1,
            before: 0,
        }
    }

    /// The number of tokens in the window of a text: of an example without those before.
    pub fn window(&self) -> usize {
        self.shape
            .first()
            .map_or(0, |tokens| tokens.saturating_sub(self.before))
    }
}

/// The kind of content of the examples of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Tokens of a text; the class is the next token. The shape is `[K]`, the number of
    /// tokens that the prediction may look at.
    Text,
    /// An image, with the framing that other images need before they are classified.
    #[serde(untagged)]
    Picture(Framing),
}

/// The framing of the images of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// The whole image, resized.
    Whole,
    /// One light object on a dark background: cut out, scaled so that its longest side
    /// leaves this margin in pixels, and shifted so that its centre of mass is in the
    /// middle. MNIST's margin is 4.
    Object(usize),
}

/// A data set in three parts. A clone shares the examples, so that several runs can train
/// on one copy.
#[derive(Clone)]
pub struct DataSet {
    /// The description of its examples.
    pub spec: ExampleSpec,
    /// The part for training.
    pub train: Arc<dyn Examples>,
    /// The part for choosing between settings; may be empty.
    pub validation: Arc<dyn Examples>,
    /// The part for the final evaluation, used once.
    pub test: Arc<dyn Examples>,
    /// The tokenizer and n-gram settings, for text.
    pub text: Option<Text>,
}

impl DataSet {
    /// A data set without examples, for a network that only predicts.
    pub fn empty(spec: ExampleSpec, text: Option<Text>) -> Self {
        let nothing: Arc<dyn Examples> = Arc::new(Nothing);
        Self {
            spec,
            train: nothing.clone(),
            validation: nothing.clone(),
            test: nothing,
            text,
        }
    }

    /// The same with the validation part merged into the training part.
    pub fn without_validation(self) -> Self {
        let train = Arc::new(Joined {
            first: self.train,
            second: self.validation,
        });
        Self {
            train,
            validation: Arc::new(Nothing),
            ..self
        }
    }

    /// The number of examples of each class in a part.
    ///
    /// # Errors
    /// Errors of the examples.
    pub fn class_counts(&self, split: Split) -> Result<Vec<usize>> {
        let (examples, mut counts) = (self.split(split), vec![0; self.spec.classes.len()]);
        let mut count = |label: u32| {
            if let Some(count) = counts.get_mut(label as usize) {
                *count += 1;
            }
        };
        if let Some(passages) = examples.passages() {
            passages.labels().for_each(count);
            return Ok(counts);
        }
        let indices: Vec<usize> = (0..examples.len()).collect();
        for indices in indices.chunks(1000) {
            examples.labels(indices)?.into_iter().for_each(&mut count);
        }
        Ok(counts)
    }

    /// One of the parts.
    pub fn split(&self, split: Split) -> &dyn Examples {
        match split {
            Split::Train => &*self.train,
            Split::Validation => &*self.validation,
            Split::Test => &*self.test,
        }
    }
}

impl std::fmt::Debug for DataSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let splits = [Split::Train, Split::Validation, Split::Test];
        let sizes = splits.map(|split| self.split(split).len());
        let mut debug = f.debug_struct("DataSet");
        debug
            .field("spec", &self.spec)
            .field("sizes", &sizes)
            .finish_non_exhaustive()
    }
}

struct Nothing;

impl Examples for Nothing {
    fn len(&self) -> usize {
        0
    }

    fn batch(&self, _: &[usize], _: Option<&Augment<'_>>) -> Result<Batch> {
        Err(Error::usage("data", "the run was opened without its data"))
    }
}

/// The concatenation of two parts.
struct Joined {
    first: Arc<dyn Examples>,
    second: Arc<dyn Examples>,
}

impl Examples for Joined {
    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        let middle = self.first.len();
        let (first, second): (Vec<usize>, Vec<usize>) =
            indices.iter().partition(|&&index| index < middle);
        let second: Vec<usize> = second.into_iter().map(|index| index - middle).collect();
        if second.is_empty() {
            return self.first.batch(&first, augment);
        }
        // Otherwise the examples of both parts would have the same augmentation.
        let step = augment.map(|augment| augment.step.pass(1));
        let other = augment
            .zip(step.as_ref())
            .map(|(augment, step)| Augment { step, ..*augment });
        let second = self.second.batch(&second, other.as_ref())?;
        if first.is_empty() {
            return Ok(second);
        }
        let first = self.first.batch(&first, augment)?;
        let (mut next, mut next_second) = (0u32, first.size() as u32);
        let order: Vec<u32> = indices
            .iter()
            .map(|&index| {
                let next = if index < middle {
                    &mut next
                } else {
                    &mut next_second
                };
                *next += 1;
                *next - 1
            })
            .collect();
        let both = Tensor::cat(&[first.examples(), second.examples()], 0)?;
        let examples = both.index_select(&Tensor::new(order.as_slice(), both.device())?, 0)?;
        let (Ok(first), Ok(second)) = (first.labels(), second.labels()) else {
            return Batch::unlabelled(examples);
        };
        let labels = [first, second].concat();
        Batch::new(
            examples,
            order.iter().map(|&row| labels[row as usize]).collect(),
        )
    }

    fn labels(&self, indices: &[usize]) -> Result<Vec<u32>> {
        let middle = self.first.len();
        // Those that lie in one part are asked for together.
        let runs = indices.chunk_by(|a, b| (*a < middle) == (*b < middle));
        let labels = runs.map(|indices| match indices[0] < middle {
            true => self.first.labels(indices),
            false => {
                let indices: Vec<usize> = indices.iter().map(|index| index - middle).collect();
                self.second.labels(&indices)
            }
        });
        Ok(labels.collect::<Result<Vec<_>>>()?.concat())
    }

    fn fingerprint(&self) -> Result<u32> {
        Ok(self.first.fingerprint()? ^ self.second.fingerprint()?.rotate_left(1))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn Examples>>> {
        let first = self.first.on_device(device)?;
        let Some((first, second)) = first.zip(self.second.on_device(device)?) else {
            return Ok(None);
        };
        Ok(Some(Arc::new(Self { first, second })))
    }

    fn passages(&self) -> Option<Passages<'_>> {
        let (first, second) = (self.first.passages()?, self.second.passages()?);
        let documents = [first.documents, second.documents].concat();
        Some(Passages {
            documents,
            characters: first.characters + second.characters,
            ..first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::images::Images;

    #[test]
    fn joined_parts_are_one_part() -> Result<()> {
        let images = Images::new((0..14).collect(), (0..7).collect(), [1, 1, 2])?;
        let (first, second) = images.split_last(3);
        let joined = Joined {
            first: Arc::new(first),
            second: Arc::new(second),
        };
        assert_eq!(joined.len(), images.len());
        for indices in [&[6, 0, 5, 1, 4][..], &[0, 3], &[6, 4]] {
            let (found, expected) = (joined.batch(indices, None)?, images.batch(indices, None)?);
            assert_eq!(found.labels()?, expected.labels()?);
            assert_eq!(joined.labels(indices)?, expected.labels()?);
            assert_eq!(
                found.rows().to_vec2::<f32>()?,
                expected.rows().to_vec2::<f32>()?
            );
        }
        Ok(())
    }
}
