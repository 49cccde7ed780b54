//! Predictions for pictures.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;

use super::Run;
use crate::contract::net::Readout;
use crate::data::pictures::{self, Contrast, Picture, Seen};
use crate::data::Content;
use crate::error::{Error, Result};

/// The answer of a network for one picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The number of the best class; `None` if nothing can be seen in the picture, such
    /// as on a blank page.
    pub best: Option<usize>,
    /// The name of the best class.
    pub class: Option<String>,
    /// The probability of the best class, if the readout gives probabilities.
    pub probability: Option<f64>,
    /// The score of every class, in the order of the classes; higher is better. Empty if
    /// nothing can be seen.
    pub scores: Vec<f64>,
    /// The number of objects that were found. A network for one object sees several
    /// together.
    pub objects: usize,
    /// Why the answer may be wrong or missing.
    pub remark: Option<String>,
}

/// The pictures whose scores are computed at once.
const TOGETHER: usize = 200;

impl Run {
    /// Classifies picture files of any size, by one readout, by default
    /// [`Run::preferred_readout`].
    ///
    /// ```no_run
    /// # fn main() -> onward_core::Result<()> {
    /// let run = onward_core::Run::open("runs/digits")?.without_data().build()?;
    /// for answer in run.predict(&["a.png", "b.jpg"], None)? {
    ///     println!("{:?} with probability {:?}", answer.class, answer.probability);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] for files that are no pictures;
    /// [`Error::Usage`] if the network's examples are not images, or for an unknown
    /// readout.
    pub fn predict<P: AsRef<Path> + Sync>(
        &self,
        files: &[P],
        readout: Option<&str>,
    ) -> Result<Vec<Answer>> {
        self.predict_each(files, readout)?.into_iter().collect()
    }

    /// As [`Run::predict`], with the error of each file that cannot be read in its place.
    ///
    /// # Errors
    /// [`Error::Usage`], as there.
    pub fn predict_each<P: AsRef<Path> + Sync>(
        &self,
        files: &[P],
        readout: Option<&str>,
    ) -> Result<Vec<Result<Answer>>> {
        let open = |file: &P| pictures::open(file.as_ref());
        self.classify(files, readout, open)
    }

    /// As [`Run::predict`], from the bytes of the files.
    ///
    /// # Errors
    /// As [`Run::predict`].
    pub fn predict_bytes<B: AsRef<[u8]> + Sync>(
        &self,
        pictures: &[B],
        readout: Option<&str>,
    ) -> Result<Vec<Answer>> {
        let decode = |bytes: &B| {
            let decoded = pictures::decode(bytes.as_ref());
            decoded.map_err(|problem| Error::data("picture", problem))
        };
        self.classify(pictures, readout, decode)?
            .into_iter()
            .collect()
    }

    /// As [`Run::predict`], for pictures that are decoded.
    ///
    /// # Errors
    /// As [`Run::predict`].
    pub fn predict_images(
        &self,
        pictures: &[image::DynamicImage],
        readout: Option<&str>,
    ) -> Result<Vec<Answer>> {
        let open = |picture: &image::DynamicImage| Ok(picture.clone().into());
        let answers = self.classify(pictures, readout, open)?;
        answers.into_iter().collect()
    }

    /// The readout that answers by default: the one that validation chose, else the
    /// setting `readout` once that has begun to learn. For a run that is not finished,
    /// the first one that is evaluated after every epoch; else the first one of the
    /// network.
    pub fn preferred_readout(&self) -> String {
        let readouts = &self.architecture.net().readouts;
        let has_begun = |readout: &&Readout| readout.has_begun(self.epoch);
        let is_known = |readout: &&Readout| readout.cheap && has_begun(readout);
        let first = || readouts.iter().find(is_known).or(readouts.first());
        let is_later = |name: &String| {
            let mut later = readouts.iter().filter(|readout| !has_begun(readout));
            later.any(|readout| readout.name == *name)
        };
        let set = self.config.run.readout.clone();
        let chosen = self.chosen.clone();
        chosen
            .or_else(|| set.filter(|name| !is_later(name)))
            .or_else(|| first().map(|readout| readout.name.into()))
            .unwrap_or_default()
    }

    /// Refuses a run on text.
    pub(super) fn check_images(&self) -> Result<()> {
        if self.data.spec.content != Content::Text {
            return Ok(());
        }
        let problem = "expected a run on images, found one on text; \
                       generate text with: onward generate";
        Err(Error::usage(&self.config.architecture, problem))
    }

    fn classify<T: Sync>(
        &self,
        pictures: &[T],
        readout: Option<&str>,
        open: impl Fn(&T) -> Result<Picture> + Sync,
    ) -> Result<Vec<Result<Answer>>> {
        let spec = &self.data.spec;
        self.check_images()?;
        let preferred = self.preferred_readout();
        let readout = readout.unwrap_or(&preferred);
        let is_log = self.architecture.net().readout(readout)?.log_probabilities;
        let mut answers = Vec::with_capacity(pictures.len());
        for some in pictures.chunks(TOGETHER) {
            let seen: Vec<Result<Seen>> = some
                .par_iter()
                .map(|picture| pictures::example(&*open(picture)?, spec))
                .collect();
            let mut scores = self.scores_of(&seen, readout)?.into_iter();
            for seen in seen {
                answers.push(seen.map(|seen| match seen {
                    Seen::Example { objects, .. } => {
                        self.answer(scores.next().unwrap_or_default(), is_log, objects)
                    }
                    Seen::Nothing(contrast) => nothing(contrast),
                }));
            }
        }
        Ok(answers)
    }

    /// The scores of the pictures in which something can be seen.
    fn scores_of(&self, seen: &[Result<Seen>], readout: &str) -> Result<Vec<Vec<f64>>> {
        let mut examples = Vec::with_capacity(seen.len());
        for seen in seen.iter().flatten() {
            if let Seen::Example { bytes, .. } = seen {
                examples.push(bytes);
            }
        }
        if examples.is_empty() {
            return Ok(Vec::new());
        }
        let shape = [&[examples.len()], &self.data.spec.shape[..]].concat();
        let values = examples.into_iter().flatten();
        let values: Vec<f32> = values.map(|&byte| f32::from(byte) / 255.).collect();
        let scores = self.scores(Tensor::from_vec(values, shape, &Device::Cpu)?, readout)?;
        let scores = scores.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let scores = scores.to_vec2::<f64>()?;
        match scores.iter().flatten().any(|score| score.is_nan()) {
            true => Err(self.no_scores(readout)),
            false => Ok(scores),
        }
    }

    fn answer(&self, scores: Vec<f64>, is_log: bool, objects: usize) -> Answer {
        let best = best_of(&scores);
        let together = format!(
            "found {objects} objects, which a network for one object sees together; crop the \
             picture to one of them"
        );
        Answer {
            best,
            class: best.and_then(|best| self.data.spec.classes.get(best).cloned()),
            probability: best.filter(|_| is_log).map(|best| scores[best].exp()),
            scores,
            objects,
            remark: (objects > 1).then_some(together),
        }
    }
}

/// The answer for a picture in which nothing can be seen.
fn nothing(contrast: Contrast) -> Answer {
    Answer {
        best: None,
        class: None,
        probability: None,
        scores: Vec::new(),
        objects: 0,
        remark: Some(format!("nothing found: {contrast}")),
    }
}
/// The class with the highest score; the first of equals, as in an evaluation.
fn best_of(scores: &[f64]) -> Option<usize> {
    let classes = (0..scores.len()).rev();
    classes.max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_scores_is_the_answer() {
        assert_eq!(best_of(&[0.; 3]), Some(0));
        assert_eq!(best_of(&[1., 2., 2.]), Some(1));
        assert_eq!(best_of(&[]), None);
    }
}
