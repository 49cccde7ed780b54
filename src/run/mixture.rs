//! Counts as a part of a language model: the readouts `mixture` and `adaptive`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::checkpoint::{self, Header};
use super::folder::{MODEL, SUMMARY};
use super::summary::{self, Evaluation};
use super::Run;
use crate::contract::net::Readout;
use crate::data::text::mixture::{Examples as Fit, Mixture};
use crate::data::text::ngram::{Counted, KneserNey, PassageReader, Reader};
use crate::error::{notify, Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{spread, Examples, Split};
use crate::flow::step::Step;

/// The names of the readouts.
const NAME: &str = "mixture";
const ADAPTIVE: &str = "adaptive";

/// The readout that mixes a readout of the network with n-grams.
const MIXTURE: Readout = Readout {
    name: NAME,
    cheap: false,
    log_probabilities: true,
    from_epoch: 0,
};

/// The same with n-grams that go on counting in the text that they read.
const ADAPTIVE_MIXTURE: Readout = Readout {
    name: ADAPTIVE,
    ..MIXTURE
};

/// The numbers of the network's log-probabilities from which the weights are learned, at
/// most.
const MOST: usize = 1 << 24;

/// The number of tokens that are few for learning the weights.
const FEW: usize = 1000;

/// The names of the tensors in a model.
const NGRAMS: &str = "mixture.ngrams";
const WEIGHTS: &str = "mixture.weights";
const ADAPTIVE_WEIGHTS: &str = "mixture.adaptive";

/// Both mixtures, and the readout of the network in them.
pub(super) struct Mixed {
    mixture: Mixture,
    adaptive: Mixture,
    readout: Readout,
}

impl Mixed {
    /// The name of the network's readout.
    pub fn readout(&self) -> &'static str {
        self.readout.name
    }

    /// The n-grams of the training part.
    pub fn ngrams(&self) -> &Arc<KneserNey> {
        self.mixture.ngrams()
    }

    /// The tensors that a model keeps.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let bytes = self.mixture.ngrams().to_bytes();
        let weights = |mixture: &Mixture| {
            let weights = mixture.weights();
            Tensor::from_slice(weights.as_flattened(), (weights.len(), 2), &Device::Cpu)
        };
        let size = bytes.len();
        let tensors = [
            (NGRAMS, Tensor::from_vec(bytes, size, &Device::Cpu)?),
            (WEIGHTS, weights(&self.mixture)?),
            (ADAPTIVE_WEIGHTS, weights(&self.adaptive)?),
        ];
        Ok(tensors.map(|(name, tensor)| (name.into(), tensor)).into())
    }
}

impl Run {
    /// What can be read out: the readouts of the network and, for a language model that
    /// was trained to the end with a validation part, two mixtures with counts:
    ///
    /// - `mixture`, with n-grams that were counted on the training part: see [`Mixture`];
    /// - `adaptive`, with n-grams that go on counting in the text that they read: see
    ///   [`Reader`].
    pub fn readouts(&self) -> Vec<Readout> {
        let mixed = self.mixed.as_ref().map(|_| [MIXTURE, ADAPTIVE_MIXTURE]);
        let of_net = self.architecture.net().readouts.iter().copied();
        of_net.chain(mixed.into_iter().flatten()).collect()
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
        let refused =
            |expected: String| Err(Error::refused("readout", format!("{name:?}"), expected));
        if !is_mixture(name) {
            let readouts = &self.architecture.net().readouts;
            if readouts.iter().any(|readout| readout.name == name) {
                return Ok(());
            }
            let names: Vec<_> = readouts.iter().map(|readout| readout.name).collect();
            return refused(format!("one of {}", names.join(", ")));
        }
        let has_text = self.data.text.is_some()
            && self.data.spec.positions == 1
            && self.of_net().next().is_some();
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

    /// The scores of a prepared batch by any readout of the run. The text before a window
    /// is not known, so the readout `adaptive` reads the example alone.
    pub(super) fn read_out(&self, batch: &Batch, readout: &Readout, step: &Step) -> Result<Tensor> {
        let mut scores = self.read_out_all(batch, &[*readout], None, step)?;
        Ok(scores.remove(0))
    }

    /// The scores by several readouts; the network computes those that two mixtures share
    /// once. `text` reads the text before each window, given the indices of the windows.
    pub(super) fn read_out_all(
        &self,
        batch: &Batch,
        readouts: &[Readout],
        text: Option<(&mut PassageReader<'_>, &[usize])>,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        let text = text.filter(|_| readouts.iter().any(|readout| readout.name == ADAPTIVE));
        // A text is read in its order, so on one thread.
        let (of_net, read) = rayon::join(
            || self.scores_of_net(batch, readouts, step),
            || text.map(|(reader, indices)| read_at(reader, indices)),
        );
        let (of_net, mut all) = (of_net?, Vec::with_capacity(readouts.len()));
        for readout in readouts {
            let (net, mixture) = self.parts_of(readout);
            let scores = &of_net[net.name];
            all.push(match (mixture, &read) {
                (None, _) => scores.clone(),
                (Some(mixture), Some(counted)) if readout.name == ADAPTIVE => {
                    mixed_scores(scores, mixture, counted)?
                }
                (Some(mixture), _) => {
                    let counted = self.counted(batch, mixture.ngrams(), readout)?;
                    mixed_scores(scores, mixture, &counted)?
                }
            });
        }
        Ok(all)
    }

    /// The scores of the network that these readouts need, by the name of its readout.
    fn scores_of_net(
        &self,
        batch: &Batch,
        readouts: &[Readout],
        step: &Step,
    ) -> Result<BTreeMap<&'static str, Tensor>> {
        let _pass = self.pass()?;
        let mut found = BTreeMap::new();
        for readout in readouts {
            let (net, _) = self.parts_of(readout);
            if !found.contains_key(net.name) {
                let scores = self.architecture.scores(batch, &*self.sampler, net, step)?;
                found.insert(net.name, scores);
            }
        }
        Ok(found)
    }

    /// The readout of the network in a readout, and the mixture, if it is one.
    fn parts_of<'a>(&'a self, readout: &'a Readout) -> (&'a Readout, Option<&'a Mixture>) {
        match &self.mixed {
            Some(mixed) if readout.name == NAME => (&mixed.readout, Some(&mixed.mixture)),
            Some(mixed) if readout.name == ADAPTIVE => (&mixed.readout, Some(&mixed.adaptive)),
            _ => (readout, None),
        }
    }

    /// The probabilities by counts after each window of a batch.
    fn counted(
        &self,
        batch: &Batch,
        ngrams: &Arc<KneserNey>,
        readout: &Readout,
    ) -> Result<Vec<Counted>> {
        let rows = batch.rows().to_device(&Device::Cpu)?;
        let windows: Vec<Vec<u32>> = rows.to_dtype(DType::U32)?.to_vec2()?;
        let text = self
            .data
            .text
            .as_ref()
            .filter(|_| self.data.spec.before > 0);
        let filler = text.map(|text| text.tokenizer.filler().1);
        // The padding at the beginning of a text is not counted as text.
        let padding = |window: &Vec<u32>| {
            let before = window.iter().take(self.data.spec.before);
            before.take_while(|token| Some(**token) == filler).count()
        };
        let counted = windows.par_iter().map(|window| (window, padding(window)));
        let counted = counted.map(|(window, first)| &window[first..]);
        let counted = counted.map(|window| match readout.name {
            ADAPTIVE => {
                let mut reader = Reader::new(ngrams.clone());
                window.iter().for_each(|token| reader.read(*token));
                reader.next_token()
            }
            _ => ngrams.after(window),
        });
        Ok(counted.collect())
    }

    /// Reads a part of the data window by window, if there is a readout that does.
    pub(super) fn reader<'a>(&self, part: &'a dyn Examples) -> Option<PassageReader<'a>> {
        let mixed = self.mixed.as_ref()?;
        let ngrams = mixed.adaptive.ngrams().clone();
        Some(PassageReader::new(part.passages()?, ngrams))
    }

    /// Reads one text for [`scores_after`](Self::scores_after), if this readout does.
    pub(super) fn text_reader(&self, readout: &str) -> Option<Reader> {
        let mixed = self.mixed.as_ref().filter(|_| readout == ADAPTIVE)?;
        Some(Reader::new(mixed.adaptive.ngrams().clone()))
    }

    /// The scores after one window by the readout `adaptive`, `(1, C)`; `reader` has read
    /// the text before.
    pub(super) fn scores_after(&self, window: Tensor, reader: &Reader) -> Result<Tensor> {
        let mixed = self
            .mixed
            .as_ref()
            .ok_or_else(|| Error::usage("the run", "expected a mixture with counts, found none"))?;
        let scores = self.scores(window, mixed.readout.name)?;
        mixed_scores(&scores, &mixed.adaptive, &[reader.next_token()])
    }

    /// Evaluates the validation part, also by the mixtures, which are learned there.
    pub(super) fn evaluate_and_mix(&mut self) -> Result<Evaluation> {
        self.mixed = None;
        let mut evaluation = self.evaluate(Split::Validation, None)?;
        self.mix(&evaluation)?;
        if self.mixed.is_some() {
            let readouts = [MIXTURE, ADAPTIVE_MIXTURE];
            let mixed = self.evaluate_by(&readouts, Split::Validation, None)?;
            evaluation.readouts.extend(mixed.readouts);
        }
        Ok(evaluation)
    }

    /// Learns the mixtures of the best readout of the network on the validation part with
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
        let Some(passages) = self.data.validation.passages() else {
            return Ok(());
        };
        let ngrams = counts.ngrams();
        let mut reader = PassageReader::new(passages, ngrams.clone());
        let mut fits = [Fit::new(ngrams.clone()), Fit::new(ngrams.clone())];
        let part = &self.data.validation;
        let most = (MOST / ngrams.vocabulary().max(1)).max(1);
        let indices = spread(part.len(), most);
        let note = few(indices.len(), part.len(), ngrams.vocabulary());
        if let Some(note) = note.filter(|_| self.is_lead()) {
            notify(note);
        }
        let step = Step::evaluation(self.config.run.seed);
        for indices in indices.chunks(self.evaluation_batch()) {
            self.stop_if_asked()?;
            let batch = self.prepare(&part.batch(indices, None)?)?;
            let of_net = || -> Result<_> {
                let rows = flat(&self.read_out(&batch.hidden(), &readout, &step)?)?;
                Ok((rows, self.counted(&batch, ngrams, &MIXTURE)?))
            };
            let (found, read) = rayon::join(of_net, || read_at(&mut reader, indices));
            let (rows, counted) = found?;
            for (fit, counted) in fits.iter_mut().zip([counted, read]) {
                fit.add(&counted, batch.labels()?, &rows);
            }
        }
        let [mixture, adaptive] = fits.map(Fit::fit);
        self.mixed = Some(Mixed {
            mixture,
            adaptive,
            readout,
        });
        Ok(())
    }

    /// Takes the mixture from the tensors of a model.
    pub(super) fn restore_mixture(
        &mut self,
        path: &Path,
        header: &Header,
        tensors: &mut HashMap<String, Tensor>,
    ) -> Result<()> {
        let found = [NGRAMS, WEIGHTS, ADAPTIVE_WEIGHTS].map(|name| tensors.remove(name));
        let Some(name) = &header.mixed else {
            return Ok(());
        };
        let mixtures = decoded(found);
        let mixtures = mixtures
            .filter(|[mixture, _]| mixture.ngrams().vocabulary() == self.data.spec.classes.len());
        let Some([mixture, adaptive]) = mixtures else {
            let problem = "its n-grams are damaged, or are of another tokenizer or version; \
                           `onward resume` counts them again";
            return Err(Error::run(path, problem));
        };
        let readout = *self.architecture.net().readout(name)?;
        self.mixed = Some(Mixed {
            mixture,
            adaptive,
            readout,
        });
        Ok(())
    }

    /// Takes the mixture from the model beside a training state of the same moment.
    pub(super) fn restore_mixture_beside(&mut self, model: &Path, state: &Header) {
        let has_mixture = |header: Header| header.mixed.is_some();
        let is_there = self.mixed.is_none()
            && checkpoint::is_of(model, state)
            && checkpoint::header_of(model).is_some_and(has_mixture);
        if let Some(Ok(mut saved)) = is_there.then(|| checkpoint::read(model)) {
            // A damaged mixture is learned again.
            let _ = self.restore_mixture(model, &saved.header, &mut saved.tensors);
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

/// What the counts of a text predict after the windows with these indices.
fn read_at(reader: &mut PassageReader<'_>, indices: &[usize]) -> Vec<Counted> {
    indices.iter().map(|index| reader.at(*index)).collect()
}

/// The mixtures with the weights of both, from the n-grams and the weights.
fn decoded([ngrams, weights, adaptive]: [Option<Tensor>; 3]) -> Option<[Mixture; 2]> {
    let ngrams = Arc::new(KneserNey::from_bytes(&ngrams?.to_vec1::<u8>().ok()?)?);
    let mixture = |weights: Option<Tensor>| {
        let weights = weights?.to_vec2::<f64>().ok()?.into_iter();
        let weights: Option<Vec<[f64; 2]>> = weights.map(|pair| pair.try_into().ok()).collect();
        Mixture::new(ngrams.clone(), weights?)
    };
    Some([mixture(weights)?, mixture(adaptive)?])
}

/// A note if a long validation part gives few tokens for learning the weights.
fn few(used: usize, all: usize, vocabulary: usize) -> Option<String> {
    (used < FEW.min(all)).then(|| {
        format!(
            "note: the weights of the mixture are learned from {used} of the {all} tokens of the \
             validation part, since the vocabulary has {vocabulary} tokens"
        )
    })
}

/// The scores of the network, mixed with the probabilities of counts.
fn mixed_scores(scores: &Tensor, mixture: &Mixture, counted: &[Counted]) -> Result<Tensor> {
    let mut rows = flat(scores)?;
    mixture.mix(counted, &mut rows);
    let rows = Tensor::from_vec(rows, scores.shape(), &Device::Cpu)?;
    Ok(rows.to_dtype(scores.dtype())?.to_device(scores.device())?)
}

fn flat(scores: &Tensor) -> Result<Vec<f32>> {
    let scores = scores.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(scores.flatten_all()?.to_vec1()?)
}

/// Whether the readout of this name is a mixture with counts, and not of the network.
pub(super) fn is_mixture(readout: &str) -> bool {
    [NAME, ADAPTIVE].contains(&readout)
}

/// The readout that validation chose. Of a mixture, that of the network in it: `resume`
/// counts the n-grams again, a training state has none.
pub(super) fn readout_of(summary: &serde_json::Value) -> Option<String> {
    let chosen = summary["test"]["readout"].as_str()?;
    if !is_mixture(chosen) {
        return Some(chosen.into());
    }
    let readouts = summary["validation"]["readouts"].as_object()?.iter();
    let others = readouts.filter(|(name, _)| !is_mixture(name));
    let with_bits =
        others.filter_map(|(name, score)| Some((name, score["bits_per_token"].as_f64()?)));
    let best = with_bits.min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_that_few_tokens_are_used_of_many() {
        let note = few(335, 20_000, 50_000).unwrap();
        assert!(note.contains("335 of the 20000 tokens"), "{note}");
        assert_eq!(few(1000, 20_000, 16_000), None);
        // All of a short part is used.
        assert_eq!(few(300, 300, 50_000), None);
    }
}
