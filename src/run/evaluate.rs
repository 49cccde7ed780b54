//! Evaluation of a run on a part of its data.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, D};
use rayon::prelude::*;

use super::observe::{Event, Observer};
use super::summary::{Evaluation, Score};
use super::Run;
use crate::contract::net::Readout;
use crate::data::score::Counts;
use crate::data::text::ngram::{Baselines, PassageReader};
use crate::data::Content;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{spread, Examples, Split};
use crate::flow::step::Step;
use crate::kernels::entries;
use crate::kernels::memory::{self, Kept};

/// The number of examples in a batch of an evaluation; fewer for very wide networks.
pub(crate) const EVALUATION_BATCH: usize = 500;

/// The activities of one layer that an evaluation computes at a time, at most.
const ACTIVITIES: usize = 1 << 27;

/// What is wrong with data without examples.
const NOTHING: &str = "is empty; there is nothing to evaluate";

impl Run {
    /// Evaluates every readout on a part of the data. The result is reported for the
    /// readout `preferred`, by default for [`Run::preferred_readout`].
    ///
    /// # Errors
    /// [`Error::Usage`] if the part is empty, or for a readout that is not known or has not
    /// begun to learn; errors of the plugins.
    pub fn evaluate(&self, split: Split, preferred: Option<&str>) -> Result<Evaluation> {
        let _memory = Kept::new();
        let preferred = self.reported(preferred)?;
        let readouts = self.readouts_begun(&preferred)?;
        let mut evaluation = self.evaluate_by(&readouts, split, Some(&preferred))?;
        evaluation.baselines = self.baselines(split);
        Ok(evaluation)
    }

    /// Evaluates every readout on all parts of the data together, for data that the run
    /// was not trained on.
    ///
    /// # Errors
    /// As [`Run::evaluate`].
    pub fn evaluate_all(&self, preferred: Option<&str>) -> Result<Evaluation> {
        let _memory = Kept::new();
        let preferred = self.reported(preferred)?;
        let readouts = self.readouts_begun(&preferred)?;
        let (mut total, mut count) = (BTreeMap::<String, Counts>::new(), 0);
        for split in [Split::Train, Split::Validation, Split::Test] {
            let examples = self.data.split(split);
            count += examples.len();
            for (name, counts) in self.count(examples, &readouts)? {
                total.entry(name).or_default().add(&counts);
            }
        }
        if count == 0 {
            return Err(Error::usage("the data", NOTHING));
        }
        evaluation(&total, count, Some(&preferred))
    }

    /// The error of a readout with a score that is NaN.
    pub(super) fn no_scores(&self, readout: &str) -> Error {
        Error::Diverged {
            block: readout.into(),
            what: "score",
            value: f64::NAN,
            step: self.step,
        }
    }

    /// Whether the training part is the one that it was trained on.
    pub(crate) fn has_own_data(&self) -> bool {
        self.has_own_data
    }

    /// The name of the readout for which a result is reported.
    fn reported(&self, preferred: Option<&str>) -> Result<String> {
        match preferred {
            Some(name) => Ok(self.readout(name)?.name.into()),
            None => Ok(self.preferred_readout()),
        }
    }

    /// The readouts but for those that have not begun to learn, as a probe before its
    /// epochs: their results would say nothing. `preferred` has to be among them.
    fn readouts_begun(&self, preferred: &str) -> Result<Vec<Readout>> {
        let readouts = self.readouts().into_iter();
        let (begun, later): (Vec<_>, Vec<_>) =
            readouts.partition(|readout| readout.has_begun(self.epoch));
        match later.iter().find(|readout| readout.name == preferred) {
            None => Ok(begun),
            Some(readout) => {
                let problem = format!(
                    "learns from epoch {} on, and {} are trained; choose another one, or train \
                     further",
                    readout.from_epoch + 1,
                    self.epoch
                );
                Err(Error::usage(format!("readout {preferred}"), problem))
            }
        }
    }

    /// As [`Run::evaluate`], with these readouts only.
    pub(super) fn evaluate_by(
        &self,
        readouts: &[Readout],
        split: Split,
        preferred: Option<&str>,
    ) -> Result<Evaluation> {
        let examples = self.data.split(split);
        if examples.is_empty() {
            let place = format!("{} part of the data", split.word());
            return Err(Error::usage(place, NOTHING));
        }
        evaluation(&self.count(examples, readouts)?, examples.len(), preferred)
    }

    /// Evaluates the validation part, if an evaluation is due: by the cheap readouts,
    /// or by all. Before it, some training examples if that is set.
    pub(super) fn evaluate_after(
        &self,
        epoch: usize,
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>> {
        let settings = &self.config.run;
        let is_now =
            |every: usize| every > 0 && epoch.is_multiple_of(every) && epoch < self.epochs();
        let by_all = is_now(settings.evaluate_all_every);
        let readouts = self.architecture.net().readouts.iter().copied();
        let is_used = |readout: &Readout| {
            readout.has_begun(epoch) && (by_all || readout.cheap && is_now(settings.evaluate_every))
        };
        let readouts: Vec<Readout> = readouts.filter(is_used).collect();
        if readouts.is_empty() || self.data.validation.is_empty() {
            return Ok(None);
        }
        memory::give_back();
        let mut tell = |split, evaluation: &Evaluation| {
            observer.on(&Event::Evaluated {
                epoch,
                split,
                evaluation,
            });
        };
        if settings.evaluate_training > 0 {
            let evaluation = self.evaluate_some(settings.evaluate_training, &readouts)?;
            tell(Split::Train, &evaluation);
        }
        let evaluation = self.evaluate_by(&readouts, Split::Validation, None)?;
        tell(Split::Validation, &evaluation);
        memory::give_back();
        Ok(Some(evaluation))
    }

    /// Evaluates at most `count` training examples, spread over them.
    pub(super) fn evaluate_some(&self, count: usize, readouts: &[Readout]) -> Result<Evaluation> {
        let examples = &*self.data.train;
        let indices = spread(examples.len(), count);
        let counts = self.count_at(examples, indices.iter().copied(), readouts)?;
        evaluation(&counts, indices.len(), None)
    }

    /// Counts the wrong predictions of some readouts and, for text, the bits.
    pub(super) fn count(
        &self,
        examples: &dyn Examples,
        readouts: &[Readout],
    ) -> Result<BTreeMap<String, Counts>> {
        self.count_at(examples, 0..examples.len(), readouts)
    }

    /// As [`count`](Self::count), for the examples at `indices`.
    fn count_at(
        &self,
        examples: &dyn Examples,
        mut indices: impl ExactSizeIterator<Item = usize>,
        readouts: &[Readout],
    ) -> Result<BTreeMap<String, Counts>> {
        let passages = examples.passages();
        // Of some of the windows of a text, their part of its characters.
        let characters = passages.as_ref().map_or(0, |passages| passages.characters);
        let characters = characters * indices.len() / examples.len().max(1);
        let none = Counts {
            characters,
            ..Counts::default()
        };
        let mut counts = vec![none; readouts.len()];
        let mut reader = self.reader(examples);
        while indices.len() > 0 {
            let indices: Vec<usize> = indices.by_ref().take(self.evaluation_batch()).collect();
            self.stop_if_asked()?;
            let is_text = passages.is_some();
            self.add_batch(
                examples,
                &indices,
                readouts,
                is_text,
                &mut reader,
                &mut counts,
            )?;
        }
        let names = readouts.iter().map(|readout| readout.name.to_string());
        Ok(names.zip(counts).collect())
    }

    /// The number of examples that are evaluated at once: a search computes every layer
    /// for every class. Architectures for text divide it themselves.
    pub(super) fn evaluation_batch(&self) -> usize {
        let classes = self.candidates();
        let of_example = self.widest().saturating_mul(classes).max(1);
        (ACTIVITIES / of_example).clamp(1, EVALUATION_BATCH)
    }

    /// The number of classes that a search tries for an example at the same time.
    pub(super) fn candidates(&self) -> usize {
        match self.data.spec.content {
            Content::Text => 1,
            _ => self.data.spec.classes.len().max(1),
        }
    }

    /// The most numbers that a layer has for an example.
    pub(super) fn widest(&self) -> usize {
        *self.widest.get_or_init(|| {
            let learned = self.vars.learned();
            let widths = learned.iter().filter_map(|(_, var)| var.dims().last());
            // The maps of a convolution are larger than any of its variables.
            let shown = self.shown().unwrap_or_default();
            let shown = shown.iter().map(Tensor::elem_count);
            widths.copied().chain(shown).max().unwrap_or(1)
        })
    }

    /// The activities that the network shows of one empty example.
    pub(super) fn shown(&self) -> Result<Vec<Tensor>> {
        let spec = &self.data.spec;
        let dtype = match spec.content {
            Content::Text => DType::U32,
            _ => DType::F32,
        };
        let shape = [&[1], &spec.shape[..]].concat();
        let example = Batch::unlabelled(Tensor::zeros(shape, dtype, &Device::Cpu)?)?;
        let step = Step::evaluation(self.config.run.seed);
        let example = self.prepare(&example)?;
        self.architecture
            .activities(&example, &*self.sampler, &step)
    }

    fn add_batch(
        &self,
        examples: &dyn Examples,
        indices: &[usize],
        readouts: &[Readout],
        is_text: bool,
        reader: &mut Option<PassageReader<'_>>,
        counts: &mut [Counts],
    ) -> Result<()> {
        let batch = self.prepare(&examples.batch(indices, None)?)?;
        let (hidden, labels) = (batch.hidden(), batch.labels()?);
        let step = Step::evaluation(self.config.run.seed);
        let text = reader.as_mut().map(|reader| (reader, indices));
        let all = self.read_out_all(&hidden, readouts, text, &step)?;
        for ((readout, counts), scores) in readouts.iter().zip(counts).zip(all) {
            // (B, C), or (B, P, C): a row per label.
            let scores = scores.flatten_to(scores.rank() - 2)?;
            let predicted = best_of_rows(&scores)?.ok_or_else(|| self.no_scores(readout.name))?;
            counts.wrong += predicted.iter().zip(labels).filter(|(a, b)| a != b).count();
            counts.labels += labels.len();
            if readout.log_probabilities && is_text {
                let nats = surprise(&scores, labels, readout.name)?.iter().sum::<f64>();
                counts.nats = Some(counts.nats.unwrap_or(0.) + nats);
            }
        }
        Ok(())
    }

    /// The n-gram models that a network for text is compared with: those of its mixture,
    /// or else counted on its training part. `None` for other networks, and for a run
    /// that has neither.
    pub(super) fn ngrams(&self) -> Option<Arc<Baselines>> {
        let count = || {
            let text = self.data.text.as_ref()?;
            let train = self.data.train.passages();
            let train = train.filter(|train| self.has_own_data && !train.documents.is_empty());
            if let Some(mixed) = &self.mixed {
                let ngrams = mixed.ngrams().clone();
                return Some(Arc::new(Baselines::beside(ngrams, train.as_ref())));
            }
            let classes = self.data.spec.classes.len();
            Some(Arc::new(Baselines::fit(&train?, text, classes)))
        };
        self.counted.get_or_init(count).clone()
    }

    fn baselines(&self, split: Split) -> BTreeMap<String, Score> {
        let passages = self.data.split(split).passages();
        let passages = passages.filter(|_| split != Split::Train);
        let found = passages.and_then(|test| Some(self.ngrams()?.predict(&test)));
        let found = found.unwrap_or_default().into_iter();
        found.map(|(name, counts)| (name, counts.score())).collect()
    }
}

/// The class with the highest score of each row, `(R, C)`; the first of equals. `None`
/// if a score is NaN.
fn best_of_rows(scores: &Tensor) -> Result<Option<Vec<u32>>> {
    if scores.dtype() != DType::F32 || !scores.device().is_cpu() {
        let nans = scores.ne(scores)?.to_dtype(DType::F32)?.sum_all()?;
        let has_nan = nans.to_scalar::<f32>()? > 0.;
        let best = scores.argmax(D::Minus1)?.to_vec1::<u32>()?;
        return Ok((!has_nan).then_some(best));
    }
    let (classes, scores) = (scores.dim(1)?, scores.flatten_all()?.to_vec1::<f32>()?);
    let best = scores.par_chunks_exact(classes.max(1)).map(|row| {
        if row.iter().any(|score| score.is_nan()) {
            return None;
        }
        let first = (0, f32::NEG_INFINITY);
        let best = row.iter().zip(0..).fold(first, |best, (score, class)| {
            if *score > best.1 {
                (class, *score)
            } else {
                best
            }
        });
        Some(best.0)
    });
    Ok(best.collect())
}

/// The scores of these counts, reported for `preferred`, by default the first readout.
fn evaluation(
    counts: &BTreeMap<String, Counts>,
    examples: usize,
    preferred: Option<&str>,
) -> Result<Evaluation> {
    let scores = counts
        .iter()
        .map(|(name, counts)| (name.clone(), counts.score()));
    let scores: BTreeMap<String, Score> = scores.collect();
    let Some(first) = scores.keys().next().cloned() else {
        let problem = "cannot be evaluated; the network has no readout";
        return Err(Error::usage("the run", problem));
    };
    let evaluation = Evaluation::of(scores, examples);
    Ok(evaluation.by(preferred.unwrap_or(&first)))
}

/// Returns `−ln p` of each label under log-probabilities `(B, C)`; refuses scores that
/// are not log-probabilities.
pub(super) fn surprise(scores: &Tensor, labels: &[u32], readout: &str) -> Result<Vec<f64>> {
    let refused = |sum: f64| {
        let problem = format!("expected log-probabilities, found scores that add up to {sum}");
        Err(Error::usage(format!("readout {readout}"), problem))
    };
    // One row of many is enough, where none of the labels has NaN.
    let first = scores.narrow(0, 0, 1)?.to_dtype(DType::F64)?;
    let sum = first.exp()?.sum_all()?.to_scalar::<f64>()?;
    if (sum - 1.).abs() > 1e-3 || sum.is_nan() {
        return refused(sum);
    }
    let picked = entries(scores, labels)?.flatten_all()?;
    let picked = picked.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let nats: Vec<f64> = picked.to_vec1()?.into_iter().map(|log: f64| -log).collect();
    match nats.iter().any(|nats| nats.is_nan()) {
        true => refused(f64::NAN),
        false => Ok(nats),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_scores_counts_and_nan_is_no_score() -> Result<()> {
        let infinite = f64::NEG_INFINITY;
        let rows = [[1., 3., 3.], [infinite, -2., -1.], [infinite; 3]];
        let broken = [[1., f64::NAN, 3.], [0.; 3], [0.; 3]];
        for dtype in [DType::F32, DType::F64] {
            let best = |rows: &[[f64; 3]; 3]| -> Result<_> {
                best_of_rows(&Tensor::new(rows, &Device::Cpu)?.to_dtype(dtype)?)
            };
            assert_eq!(best(&rows)?, Some(vec![1, 2, 0]));
            assert_eq!(best(&broken)?, None);
        }
        Ok(())
    }
}
