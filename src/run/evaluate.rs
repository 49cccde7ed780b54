//! Evaluation of a run on a part of its data.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, D};

use super::summary::{Evaluation, Score};
use super::Run;
use crate::contract::net::Readout;
use crate::data::score::Bits;
use crate::data::text::ngram;
use crate::error::{Error, Result};
use crate::flow::examples::{Examples, Split};
use crate::flow::step::Step;
use crate::kernels::entries;

/// The number of examples in a batch of an evaluation.
pub(crate) const EVALUATION_BATCH: usize = 500;

/// Counts of wrong predictions and labels and, for text, `−Σ ln p`.
#[derive(Default)]
struct Sums {
    wrong: usize,
    labels: usize,
    nats: Option<f64>,
}

impl Run {
    /// Evaluates every readout on a part of the data. The result is reported for the
    /// readout `preferred`, by default the first one.
    ///
    /// # Errors
    /// [`Error::Usage`] if the part is empty; errors of the plugins.
    pub fn evaluate(&self, split: Split, preferred: Option<&str>) -> Result<Evaluation> {
        self.evaluate_by(&self.architecture.net().readouts, split, preferred)
    }

    /// As [`Run::evaluate`], with these readouts only.
    pub(super) fn evaluate_by(
        &self,
        readouts: &[Readout],
        split: Split,
        preferred: Option<&str>,
    ) -> Result<Evaluation> {
        let examples = self.data.split(split);
        let place = || format!("{} part of the data", split.word());
        if examples.is_empty() {
            return Err(Error::usage(
                place(),
                "is empty; there is nothing to evaluate",
            ));
        }
        let passages = examples.passages();
        let is_text = passages.is_some();
        let mut sums: Vec<Sums> = readouts.iter().map(|_| Sums::default()).collect();
        let indices: Vec<usize> = (0..examples.len()).collect();
        for indices in indices.chunks(EVALUATION_BATCH) {
            self.stop_if_asked()?;
            self.add_batch(examples, indices, readouts, is_text, &mut sums)?;
        }
        let characters = passages.as_ref().map_or(0, |passages| passages.characters);
        let score = |sums: Sums| {
            let bits = sums
                .nats
                .map(|nats| Bits::new(nats, sums.labels, characters));
            Score::new(sums.wrong, sums.labels, bits)
        };
        let scores = readouts.iter().zip(sums);
        let scores: BTreeMap<String, Score> = scores
            .map(|(readout, sums)| (readout.name.into(), score(sums)))
            .collect();
        let Some(first) = scores.keys().next().cloned() else {
            return Err(Error::usage(
                place(),
                "cannot be evaluated; the network has no readout",
            ));
        };
        let evaluation = Evaluation::of(scores, examples.len(), self.baselines(split));
        Ok(evaluation.by(preferred.unwrap_or(&first)))
    }

    fn add_batch(
        &self,
        examples: &dyn Examples,
        indices: &[usize],
        readouts: &[Readout],
        is_text: bool,
        sums: &mut [Sums],
    ) -> Result<()> {
        let batch = self.prepare(&examples.batch(indices, None)?)?;
        let (hidden, labels) = (batch.hidden(), batch.labels()?);
        let step = Step::evaluation(self.config.run.seed);
        for (readout, sums) in readouts.iter().zip(sums) {
            let scores = self
                .architecture
                .scores(&hidden, &*self.sampler, readout, &step)?;
            // (B, C), or (B, P, C): a row per label.
            let scores = scores.flatten_to(scores.rank() - 2)?;
            let predicted = scores.argmax(D::Minus1)?.to_vec1::<u32>()?;
            sums.wrong += predicted.iter().zip(labels).filter(|(a, b)| a != b).count();
            sums.labels += labels.len();
            if readout.log_probabilities && is_text {
                let nats = surprise(&scores, labels, readout.name)?;
                sums.nats = Some(sums.nats.unwrap_or(0.) + nats);
            }
        }
        Ok(())
    }

    /// The scores of the n-gram baselines, counted on the training part of text.
    fn baselines(&self, split: Split) -> BTreeMap<String, Score> {
        let parts = (
            self.data.train.passages(),
            self.data.split(split).passages(),
        );
        match (&self.data.text, parts, split) {
            (Some(text), (Some(train), Some(test)), Split::Test) => {
                ngram::baselines(&train, &test, text.ngram, self.data.spec.classes.len())
            }
            _ => BTreeMap::new(),
        }
    }
}

/// Returns `−Σ ln p` of the labels under log-probabilities `(B, C)`; refuses scores that
/// are not log-probabilities.
fn surprise(scores: &Tensor, labels: &[u32], readout: &str) -> Result<f64> {
    let scores = scores.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let sums = scores.exp()?.sum(D::Minus1)?.to_vec1::<f64>()?;
    if let Some(sum) = sums
        .iter()
        .find(|sum| (**sum - 1.).abs() > 1e-3 || sum.is_nan())
    {
        let problem = format!("expected log-probabilities, found scores that add up to {sum}");
        return Err(Error::usage(format!("readout {readout}"), problem));
    }
    Ok(-entries(&scores, labels)?.sum_all()?.to_scalar::<f64>()?)
}
