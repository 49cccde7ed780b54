//! Data sets: what they are made of, and the formats they are read from. Named data sets are plugins.

mod bytes;
pub(crate) mod channels;
pub mod cifar;
pub mod hub;
pub mod idx;
pub mod images;
pub mod pictures;
pub mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::step::Step;
use text::{Passages, Text};

crate::choices! {
    /// A part of a data set.
    pub enum Split {
        /// What is learned from.
        Train = "train",
        /// What choices are made by.
        Validation = "validation",
        /// What is looked at once.
        Test = "test",
    }
}

/// What one example of a data set is, and what can be said of it. A trained network remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// The shape of one example, `[1, 28, 28]`.
    pub shape: Vec<usize>,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// What an example shows.
    #[serde(alias = "framing")]
    pub content: Content,
}

/// What the examples of a data set show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Tokens of a text, the class being the token that follows; the shape is `[K]`, the length of the window.
    Text,
    /// A picture; one from elsewhere has to be framed like this to look like an example.
    #[serde(untagged)]
    Picture(Framing),
}

/// How pictures of a data set are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// The whole picture, resized.
    Whole,
    /// One light object on a dark background, cut out, scaled to leave this margin, in pixels, on the side where it is
    /// longest, and moved so that its centre of mass is in the middle. MNIST's margin is 4.
    Object(usize),
}

/// A data set in three parts. A copy shares the examples, so that several runs can be trained on one.
#[derive(Clone)]
pub struct DataSet {
    /// What its examples are.
    pub kind: Kind,
    /// What is learned from.
    pub train: Arc<dyn Examples>,
    /// What choices are made by; may be empty.
    pub validation: Arc<dyn Examples>,
    /// What is looked at once.
    pub test: Arc<dyn Examples>,
    /// What text has besides; nothing if the examples are none.
    pub text: Option<Text>,
}

impl DataSet {
    /// No examples at all, of this kind: for a network that only predicts.
    pub fn empty(kind: Kind, text: Option<Text>) -> Self {
        Self {
            kind,
            train: Arc::new(Nothing),
            validation: Arc::new(Nothing),
            test: Arc::new(Nothing),
            text,
        }
    }

    /// The same with nothing to validate on: that part is trained on as well.
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
        let sizes =
            [Split::Train, Split::Validation, Split::Test].map(|split| self.split(split).len());
        f.debug_struct("DataSet")
            .field("kind", &self.kind)
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
        let problem = "the run was opened without its data".to_string();
        Err(Error::Mismatch {
            place: "data".into(),
            problem,
        })
    }
}

/// Two parts, one behind the other.
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
        // Otherwise the examples of the two parts would be varied alike.
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

/// Labelled examples that can be asked for by the batch.
///
/// # For implementors
/// You are guaranteed indices below [`len`](Self::len). You guarantee the same batch for the same indices and step.
pub trait Examples: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The examples at `indices`, augmented where `augment` says so; on the CPU, images as `f32` in `[0, 1]`, tokens as
    /// `u32`.
    ///
    /// # Errors
    /// Whatever candle refuses.
    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch>;

    /// The text behind the examples, if they are windows of text; by default there is none.
    fn passages(&self) -> Option<Passages<'_>> {
        None
    }
}

/// How training examples are varied.
#[derive(Clone, Copy, Debug)]
pub struct Augment<'a> {
    /// Images are moved by up to this many pixels in both directions, the border being filled with zeros.
    pub shift: usize,
    /// Half of the images, drawn at random, are mirrored left to right.
    pub flip: bool,
    /// What the variation is drawn from.
    pub step: &'a Step,
}

/// The folder that a data set's setting `dir` names; `usage` says how it is given, `--data idx:DIR`.
///
/// # Errors
/// [`Error::Setting`] if it names none.
pub fn folder<'a>(dir: &'a str, usage: &str) -> Result<&'a Path> {
    if !dir.is_empty() {
        return Ok(Path::new(dir));
    }
    let (key, value, origin) = ("data.dir".into(), "\"\"".into(), "the settings".into());
    Err(Error::Setting {
        key,
        value,
        origin,
        expected: format!("a folder, as in {usage}"),
    })
}

/// Looks in each of `folders` for `file`, then for `file.gz`; `name` is the data set's, for messages.
///
/// # Errors
/// [`Error::MissingData`] with the folders that were looked in.
pub fn find(folders: &[PathBuf], name: &str, file: &str) -> Result<PathBuf> {
    let places = folders
        .iter()
        .flat_map(|dir| [dir.join(file), dir.join(format!("{file}.gz"))]);
    let found = places.into_iter().find(|path| path.is_file());
    let (looked, why) = (folders.to_vec(), String::new());
    found.ok_or_else(|| Error::MissingData {
        name: name.into(),
        file: file.into(),
        looked,
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::images::Images;
    use super::*;

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
            assert_eq!(
                found.rows().to_vec2::<f32>()?,
                expected.rows().to_vec2::<f32>()?
            );
        }
        Ok(())
    }
}
