//! Evaluation of a run on a part of its data.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, D};

use super::summary::{Evaluation, Score};
use super::Run;
use crate::contract::net::Readout;
use crate::data::score::Bits;
use crate::data::text::ngram;
use crate::data::Content;
use crate::error::{Error, Result};
use crate::flow::examples::{Examples, Split};
use crate::flow::step::Step;
use crate::kernels::{self, entries};

/// The number of examples in a batch of an evaluation; fewer for very wide networks.
pub(crate) const EVALUATION_BATCH: usize = 500;

/// The activities of one layer that an evaluation computes at a time, at most.
const ACTIVITIES: usize = 1 << 27;

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
        for indices in indices.chunks(self.evaluation_batch()) {
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

    /// The number of examples that are evaluated at once: a search computes every layer
    /// for every class. Architectures for text divide it themselves.
    pub(super) fn evaluation_batch(&self) -> usize {
        let classes = self.candidates();
        let of_example = self.widest().saturating_mul(classes).max(1);
        (ACTIVITIES / of_example).clamp(1, EVALUATION_BATCH)
    }

    /// The number of classes that a search tries for an example at the same time.
    fn candidates(&self) -> usize {
        match self.data.spec.content {
            Content::Text => 1,
            _ => self.data.spec.classes.len().max(1),
        }
    }

    /// The number of units of the widest layer.
    fn widest(&self) -> usize {
        let learned = self.vars.learned();
        let widths = learned.iter().filter_map(|(_, var)| var.dims().last());
        widths.copied().max().unwrap_or(1)
    }

    /// Refuses a training that does not fit into memory: the system would kill the
    /// process without a message.
    pub(super) fn check_memory(&self) -> Result<()> {
        let net = self.architecture.net();
        let optimisers = net.blocks.iter().map(|block| block.optimiser());
        let optimisers = optimisers.chain(net.heads.iter().map(|head| head.optimiser()));
        let of_optimisers: u64 = optimisers.map(|optimiser| optimiser.needs()).sum();
        let rows = (self.config.run.batch.min(self.data.train.len()) * 2)
            .max(self.evaluation_batch() * self.candidates());
        // A layer's activity, what the next one makes of it, and a copy.
        let size = self.dtype.size_in_bytes();
        let of_activities = 3 * (rows.saturating_mul(self.widest()).saturating_mul(size)) as u64;
        let largest = self.vars.all().into_iter().map(|(_, var)| var.elem_count());
        let of_saving = 2 * (largest.max().unwrap_or(0) * size) as u64;
        let needed = of_optimisers + of_activities.max(of_saving);
        let free = kernels::free_memory(&self.device);
        let Some(free) = free.filter(|free| needed > *free) else {
            return Ok(());
        };
        let [needed, of_optimisers, of_activities, free] =
            [needed, of_optimisers, of_activities, free].map(|bytes| bytes >> 20);
        let problem = format!(
            "training needs {needed} MB more ({of_optimisers} for the optimisers, \
             {of_activities} for activities), and {free} MB are free; use fewer units, a \
             smaller `batch`, or `optimiser = \"sgd\"`"
        );
        Err(Error::usage("the network", problem))
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
