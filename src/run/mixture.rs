//! Counts as a part of a language model: the readout `mixture`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::checkpoint::{self, Header};
use super::folder::{MODEL, SUMMARY};
use super::summary::{self, Evaluation};
use super::Run;
use crate::contract::net::Readout;
use crate::data::text::mixture::{Examples as Fit, Mixture};
use crate::data::text::ngram::KneserNey;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::Split;
use crate::flow::step::Step;

/// The name of the readout.
pub(super) const NAME: &str = "mixture";

/// The readout that mixes a readout of the network with n-grams.
const MIXTURE: Readout = Readout {
    name: NAME,
    cheap: false,
    log_probabilities: true,
    from_epoch: 0,
};

/// The numbers of the network's log-probabilities from which the weights are learned, at
/// most.
const MOST: usize = 1 << 24;

/// The names of the tensors in a model.
const NGRAMS: &str = "mixture.ngrams";
const WEIGHTS: &str = "mixture.weights";

/// A mixture, and the readout of the network in it.
pub(super) struct Mixed {
    mixture: Mixture,
    readout: Readout,
}

impl Mixed {
    /// The name of the network's readout.
    pub fn readout(&self) -> &'static str {
        self.readout.name
    }

    /// The tensors that a model keeps.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let bytes = self.mixture.ngrams().to_bytes();
        let weights = self.mixture.weights();
        let shape = (weights.len(), 2);
        let weights = Tensor::from_slice(weights.as_flattened(), shape, &Device::Cpu)?;
        let size = bytes.len();
        Ok(BTreeMap::from([
            (
                NGRAMS.to_string(),
                Tensor::from_vec(bytes, size, &Device::Cpu)?,
            ),
            (WEIGHTS.to_string(), weights),
        ]))
    }
}

impl Run {
    /// What can be read out: the readouts of the network and, for a language model that
    /// was trained to the end with a validation part, `mixture`: see
    /// [`Mixture`].
    pub fn readouts(&self) -> Vec<Readout> {
        let mixture = self.mixed.as_ref().map(|_| MIXTURE);
        let of_net = self.architecture.net().readouts.iter().copied();
        of_net.chain(mixture).collect()
    }

    /// The readout with this name.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names of those there are.
    pub fn readout(&self, name: &str) -> Result<Readout> {
        Readout::named(name, &self.readouts()).copied()
    }

    /// Refuses a readout that this run will not have.
    pub(super) fn check_readout(&self, name: &str) -> Result<()> {
        let refused = |expected: String| {
            Err(Error::setting(
                "readout",
                format!("{name:?}"),
                "the settings",
                expected,
            ))
        };
        if name != NAME {
            let readouts = &self.architecture.net().readouts;
            if readouts.iter().any(|readout| readout.name == name) {
                return Ok(());
            }
            let names: Vec<_> = readouts.iter().map(|readout| readout.name).collect();
            return refused(format!("one of {}", names.join(", ")));
        }
        let has_text = self.data.text.is_some() && self.of_net().next().is_some();
        if !has_text {
            return refused("a readout of the network: only text is counted".into());
        }
        if !self.config.run.mixture {
            return refused("`mixture = true` beside it".into());
        }
        if self.data.validation.is_empty() && !self.data.train.is_empty() {
            return refused(
                "a validation part beside it, since the mixture learns its weights there: \
                 remove `validate = false`, or choose another readout"
                    .into(),
            );
        }
        Ok(())
    }

    /// The readouts of the network that counts can be mixed with.
    fn of_net(&self) -> impl Iterator<Item = &Readout> {
        let readouts = self.architecture.net().readouts.iter();
        readouts.filter(|readout| readout.log_probabilities)
    }

    /// The scores of a prepared batch by any readout of the run.
    pub(super) fn read_out(&self, batch: &Batch, readout: &Readout, step: &Step) -> Result<Tensor> {
        let of_net = |readout| {
            self.architecture
                .scores(batch, &*self.sampler, readout, step)
        };
        let Some(mixed) = self.mixed.as_ref().filter(|_| readout.name == NAME) else {
            return of_net(readout);
        };
        let scores = of_net(&mixed.readout)?;
        let mut rows = flat(&scores)?;
        mixed.mixture.mix(&contexts(batch)?, &mut rows);
        let rows = Tensor::from_vec(rows, scores.shape(), &Device::Cpu)?;
        Ok(rows.to_dtype(scores.dtype())?.to_device(scores.device())?)
    }

    /// Evaluates the validation part, also by the mixture, which is learned there.
    pub(super) fn evaluate_and_mix(&mut self) -> Result<Evaluation> {
        self.mixed = None;
        let mut evaluation = self.evaluate(Split::Validation, None)?;
        self.mix(&evaluation)?;
        if self.mixed.is_some() {
            let mixture = self.evaluate_by(&[MIXTURE], Split::Validation, None)?;
            evaluation.readouts.extend(mixture.readouts);
        }
        Ok(evaluation)
    }

    /// Learns the mixture of the best readout of the network on the validation part with
    /// the n-grams of the training part.
    fn mix(&mut self, validation: &Evaluation) -> Result<()> {
        let is_flat = self.data.spec.positions == 1;
        if !self.config.run.mixture || !is_flat {
            return Ok(());
        }
        let bits = |readout: &&Readout| {
            let score = validation.readouts.get(readout.name);
            let bits = score.and_then(|score| score.bits);
            bits.map_or(f64::INFINITY, |bits| bits.bits_per_token)
        };
        let best = self.of_net().min_by(|a, b| bits(a).total_cmp(&bits(b)));
        let (Some(readout), Some(counts)) = (best.copied(), self.ngrams()) else {
            return Ok(());
        };
        let ngrams = counts.ngrams().clone();
        let mut fit = Fit::new(ngrams.clone());
        let part = &self.data.validation;
        let most = (MOST / ngrams.vocabulary().max(1)).max(1);
        let indices: Vec<usize> = (0..part.len())
            .step_by(part.len().div_ceil(most).max(1))
            .collect();
        let step = Step::evaluation(self.config.run.seed);
        for indices in indices.chunks(self.evaluation_batch()) {
            self.stop_if_asked()?;
            let batch = self.prepare(&part.batch(indices, None)?)?;
            let scores = self.read_out(&batch.hidden(), &readout, &step)?;
            fit.add(&contexts(&batch)?, batch.labels()?, &flat(&scores)?);
        }
        let mixture = fit.fit();
        self.mixed = Some(Mixed { mixture, readout });
        Ok(())
    }

    /// Takes the mixture from the tensors of a model.
    pub(super) fn restore_mixture(
        &mut self,
        path: &Path,
        header: &Header,
        tensors: &mut HashMap<String, Tensor>,
    ) -> Result<()> {
        let (ngrams, weights) = (tensors.remove(NGRAMS), tensors.remove(WEIGHTS));
        let Some(name) = &header.mixed else {
            return Ok(());
        };
        let found = ngrams.zip(weights);
        let mixture = found.and_then(|(ngrams, weights)| decoded(&ngrams, &weights));
        let mixture =
            mixture.filter(|mixture| mixture.ngrams().vocabulary() == self.data.spec.classes.len());
        let Some(mixture) = mixture else {
            let problem = "its n-grams are damaged, or are of another tokenizer; restore a \
                           copy, or train again";
            return Err(Error::run(path, problem));
        };
        let readout = *self.architecture.net().readout(name)?;
        self.mixed = Some(Mixed { mixture, readout });
        Ok(())
    }

    /// Takes the mixture from the model beside a training state of the same moment.
    pub(super) fn restore_mixture_beside(&mut self, model: &Path, state: &Header) -> Result<()> {
        let has_mixture = |header: Header| header.mixed.is_some();
        let is_there = self.mixed.is_none()
            && checkpoint::is_of(model, state)
            && checkpoint::header_of(model).is_some_and(has_mixture);
        match is_there.then(|| checkpoint::read(model)) {
            // A damaged model is written again.
            Some(Ok(mut saved)) => self.restore_mixture(model, &saved.header, &mut saved.tensors),
            _ => Ok(()),
        }
    }

    /// Refuses to answer without the counts that the finished run in this folder has.
    pub(super) fn check_mixture(&self, folder: &Path) -> Result<()> {
        let is_of = |summary: &serde_json::Value| {
            let readouts = &summary["test"]["readouts"];
            summary["epochs"] == self.epoch && readouts.get(NAME).is_some()
        };
        let had_one = summary::read(&folder.join(SUMMARY)).is_ok_and(|summary| is_of(&summary));
        if self.mixed.is_some() || !had_one {
            return Ok(());
        }
        let problem = "the n-grams of its readout `mixture` are missing or damaged; `onward \
                       resume` counts them again";
        Err(Error::run(folder.join(MODEL), problem))
    }
}

fn decoded(ngrams: &Tensor, weights: &Tensor) -> Option<Mixture> {
    let ngrams = KneserNey::from_bytes(&ngrams.to_vec1::<u8>().ok()?)?;
    let weights = weights.to_vec2::<f64>().ok()?.into_iter();
    let weights: Option<Vec<[f64; 2]>> = weights.map(|pair| pair.try_into().ok()).collect();
    Mixture::new(Arc::new(ngrams), weights?)
}

/// The windows of a batch.
fn contexts(batch: &Batch) -> Result<Vec<Vec<u32>>> {
    let rows = batch.rows().to_device(&Device::Cpu)?;
    Ok(rows.to_dtype(DType::U32)?.to_vec2()?)
}

fn flat(scores: &Tensor) -> Result<Vec<f32>> {
    let scores = scores.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(scores.flatten_all()?.to_vec1()?)
}

/// The readout that validation chose. Of a mixture, that of the network in it: `resume`
/// counts the n-grams again, a training state has none.
pub(super) fn readout_of(summary: &serde_json::Value) -> Option<String> {
    let chosen = summary["test"]["readout"].as_str()?;
    if chosen != NAME {
        return Some(chosen.into());
    }
    let readouts = summary["validation"]["readouts"].as_object()?.iter();
    let others = readouts.filter(|(name, _)| *name != NAME);
    let with_bits =
        others.filter_map(|(name, score)| Some((name, score["bits_per_token"].as_f64()?)));
    let best = with_bits.min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(name, _)| name.clone())
}
