//! A run: a configuration, the data, the network, and how far it has come.

mod builder;
mod checkpoint;
pub(crate) mod folder;
pub mod generate;
pub mod observe;
pub mod picture;
pub mod summary;
pub(crate) mod trainer;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

pub use self::builder::RunBuilder;
use crate::contract::architecture::{Architecture, Readout};
use crate::contract::sampler::NegativeSampler;
use crate::data::channels::Channels;
use crate::data::{pictures, Content, DataSet, Split};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::plugin::checked;
use crate::plugin::config::Config;
use crate::run::checkpoint::{Header, Saved, FORMAT};
use crate::run::folder::{Folder, CONFIG, MODEL, STATE, SUMMARY, TOKENIZER};
use crate::run::observe::metrics::Metrics;
use crate::run::observe::{Event, Observer};
use crate::run::summary::{Evaluation, Summary};

/// A network on its data, and how far it has come.
pub struct Run {
    pub(crate) config: Config,
    pub(crate) data: DataSet,
    pub(crate) sampler: Box<dyn NegativeSampler>,
    pub(crate) architecture: Box<dyn Architecture>,
    pub(crate) vars: Vars,
    pub(crate) device: Device,
    pub(crate) dtype: DType,
    channels: Option<Channels>,
    pub(crate) epoch: usize,
    pub(crate) step: u64,
    /// The folder that it was read from.
    pub(crate) origin: Option<PathBuf>,
    pub(crate) folder: Option<Folder>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Run {
    /// The complete configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The data.
    pub fn data(&self) -> &DataSet {
        &self.data
    }

    /// The network.
    pub fn architecture(&self) -> &dyn Architecture {
        &*self.architecture
    }

    /// The network, to change the spans of its blocks, say.
    pub fn architecture_mut(&mut self) -> &mut dyn Architecture {
        &mut *self.architecture
    }

    /// All variables of the network.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The folder that is written to, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.path())
    }

    /// Whether nothing is left to be done: all epochs are complete, and what came of them is written.
    pub fn is_finished(&self) -> bool {
        // A summary may be of a run that was shorter then.
        let is_mine = |folder: &Path| {
            summary::of_folder(folder).is_some_and(|summary| summary["epochs"] == self.epoch)
        };
        self.epoch >= self.architecture.epochs() && self.folder().is_none_or(is_mine)
    }

    /// Epochs completed.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// Trains to the end, evaluates, and writes what a run's folder holds if there is one.
    ///
    /// # Errors
    /// [`Error::Diverged`]; [`Error::File`]; whatever a plugin refuses.
    pub fn fit(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let Some(folder) = self.folder().map(PathBuf::from) else {
            return trainer::fit(self, observer);
        };
        self.describe_in(&folder)?;
        let mut metrics = Metrics::after(&folder, self.epoch)?;
        let mut both = |event: &Event<'_>| {
            metrics.on(event);
            observer.on(event);
        };
        let summary = trainer::fit(self, &mut both)?;
        let text =
            serde_json::to_string_pretty(&summary).expect("plain values can always be written");
        folder::write(&folder.join(SUMMARY), format!("{text}\n").as_bytes())?;
        Ok(summary)
    }

    /// Trains until `epochs` epochs are complete, and no further than the configuration says; evaluates nothing at the
    /// end. What [`Run::save`] then writes can be loaded and trained on as if it had not stopped.
    ///
    /// # Errors
    /// As [`Run::fit`].
    pub fn train_until(&mut self, epochs: usize, observer: &mut dyn Observer) -> Result<()> {
        trainer::train(self, epochs, observer).map(|_| ())
    }

    /// How well a part of the data is predicted, by every readout; `preferred` is the one that the result is of, the
    /// first if it is not named.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the part is empty; whatever a plugin refuses.
    pub fn evaluate(&self, split: Split, preferred: Option<&str>) -> Result<Evaluation> {
        checked::caught(|| trainer::evaluate(self, split, &self.architecture.readouts(), preferred))
    }

    /// Examples as the network takes them: on its device, of its element type, standardised where it was set.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn prepare(&self, batch: &Batch) -> Result<Batch> {
        let batch = batch.to(&self.device, self.dtype)?;
        self.channels
            .as_ref()
            .map_or(Ok(batch.clone()), |channels| channels.standardise(&batch))
    }

    /// How good each class is for each of `examples`, `(B, …)`, by one readout, `(B, C)`: higher is better.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for an unknown readout; whatever a plugin refuses.
    pub fn scores(&self, examples: Tensor, readout: &str) -> Result<Tensor> {
        let known: Vec<Readout> = checked::caught(|| Ok(self.architecture.readouts()))?;
        if !known.iter().any(|known| known.name == readout) {
            let names: Vec<_> = known.iter().map(|known| known.name).collect();
            let problem = format!(
                "there is no readout {readout}; there are {}",
                names.join(", ")
            );
            return Err(Error::Mismatch {
                place: self.config.architecture.clone(),
                problem,
            });
        }
        let batch = self.prepare(&Batch::unlabelled(examples)?)?;
        let step = Step::evaluation(self.config.run.seed);
        self.architecture
            .scores(&batch, &*self.sampler, readout, &step)
    }

    /// How good each class is for the pictures in some files, PNG or JPEG, by one readout: a list of as many scores as
    /// there are classes for each, higher being better.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] for files that are no pictures; [`Error::Mismatch`] if the network's examples
    /// are no pictures, or for an unknown readout.
    pub fn predict(&self, files: &[impl AsRef<Path>], readout: &str) -> Result<Vec<Vec<f64>>> {
        let kind = &self.data.kind;
        if kind.content == Content::Text {
            let problem =
                "its examples are text, not pictures; go on with a text by: onward generate"
                    .to_string();
            return Err(Error::Mismatch {
                place: self.config.architecture.clone(),
                problem,
            });
        }
        let mut values = Vec::new();
        for file in files {
            let bytes = pictures::example(&pictures::open(file.as_ref())?, kind)?;
            values.extend(bytes.into_iter().map(|byte| f32::from(byte) / 255.));
        }
        let shape = [&[files.len()], &kind.shape[..]].concat();
        let scores = self.scores(Tensor::from_vec(values, shape, &Device::Cpu)?, readout)?;
        Ok(scores
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .to_vec2()?)
    }

    fn header(&self) -> Header {
        let (architecture, kind) = (self.config.architecture.clone(), self.data.kind.clone());
        let tokenizer = self
            .data
            .text
            .as_ref()
            .map(|text| text.tokenizer.fingerprint());
        let (examples, epoch, step) = (Some(self.data.train.len()), self.epoch, self.step);
        Header {
            format: FORMAT,
            architecture,
            kind,
            tokenizer,
            examples,
            epoch,
            step,
            checksum: 0,
        }
    }

    pub(crate) fn model(&self) -> BTreeMap<String, Tensor> {
        self.vars
            .all()
            .into_iter()
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect()
    }

    /// Writes what the weights are of no use without: the configuration and, for text, the tokenizer.
    fn describe_in(&self, folder: &Path) -> Result<()> {
        folder::write(&folder.join(CONFIG), self.config.to_toml().as_bytes())?;
        let Some(text) = &self.data.text else {
            return Ok(());
        };
        folder::write(&folder.join(TOKENIZER), text.tokenizer.to_json().as_bytes())
    }

    /// Writes configuration, the state of training and the model to a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Run`] for the folder of another run, or of this one that has come further: neither is overwritten.
    /// [`Error::Mismatch`] for a run that was opened without its data, and so without its optimisers.
    /// [`Error::Diverged`] if they hold values that are not finite: what could not be read again replaces nothing.
    /// [`Error::File`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        if self.data.train.is_empty() {
            let problem =
                "it was opened without its data, to predict; copy its folder instead".to_string();
            return Err(Error::Mismatch {
                place: "saving a run".into(),
                problem,
            });
        }
        self.check_free(folder)?;
        // The state holds the weights as well: one file is replaced at once, two are not.
        let mut state: BTreeMap<String, Tensor> = self
            .model()
            .into_iter()
            .map(|(name, tensor)| (format!("model.{name}"), tensor))
            .collect();
        let optimisers = self
            .architecture
            .blocks()
            .iter()
            .map(|block| block.optimiser());
        for optimiser in optimisers.chain(
            self.architecture
                .heads()
                .iter()
                .map(|head| head.optimiser()),
        ) {
            let saved = optimiser.save()?.into_iter();
            state.extend(saved.map(|(name, tensor)| (format!("optimiser.{name}"), tensor)));
        }
        state.extend(
            self.sampler
                .save()
                .into_iter()
                .map(|(name, tensor)| (format!("sampler.{name}"), tensor)),
        );
        if let Some(name) = checkpoint::not_finite(&state)? {
            return Err(Error::Diverged {
                block: name.clone(),
                what: "variable",
                value: f64::NAN,
                step: self.step,
            });
        }
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        self.describe_in(folder)?;
        checkpoint::write(&folder.join(STATE), &state, &self.header())?;
        checkpoint::write(&folder.join(MODEL), &self.model(), &self.header())
    }

    /// Refuses a folder in which something would be lost.
    fn check_free(&self, folder: &Path) -> Result<()> {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let is_own = [self.folder(), self.origin.as_deref()]
            .into_iter()
            .flatten()
            .any(|own| real(own) == real(folder));
        let Ok(config) = std::fs::read_to_string(folder.join(CONFIG)) else {
            return Ok(());
        };
        let refused = |problem: &str| {
            Err(Error::Run {
                path: folder.into(),
                problem: format!("{problem}; it is not overwritten, name another folder"),
            })
        };
        // Not byte by byte: somebody may have written a comment into it.
        let read = |text: &str| text.parse::<toml::Table>().ok();
        if !is_own && read(&config) != read(&self.config.to_toml()) {
            return refused("holds another run");
        }
        if checkpoint::standing(&folder.join(STATE))
            .is_some_and(|there| there > (self.epoch, self.step))
        {
            return refused("holds this run when it had come further");
        }
        Ok(())
    }

    /// Takes what was saved; `go_on` if the training is to go on from it, for which the very same classes are needed.
    fn restore_from(&mut self, saved: Saved, go_on: bool) -> Result<()> {
        let Saved {
            path,
            tensors,
            header,
        } = saved;
        if header.architecture != self.config.architecture {
            let (found, wanted) = (&header.architecture, &self.config.architecture);
            return Err(Error::Run {
                path,
                problem: format!("holds the architecture {found}, not {wanted}"),
            });
        }
        let tokenizer = self.header().tokenizer;
        if header.tokenizer != tokenizer {
            let [wanted, found] = [&header.tokenizer, &tokenizer].map(|cut| match cut {
                Some(fingerprint) => format!("text cut by the tokenizer {fingerprint}"),
                None => "no text".to_string(),
            });
            return Err(Error::Run {
                path,
                problem: format!("was trained on {wanted}; these data are {found}"),
            });
        }
        let [wanted, found] = [&header.kind, &self.data.kind].map(|kind| {
            format!(
                "examples of shape {:?} in {} classes",
                kind.shape,
                kind.classes.len()
            )
        });
        if wanted != found {
            let problem = format!(
                "{} was trained on {wanted}; these are {found}",
                path.display()
            );
            return Err(Error::Mismatch {
                place: "data".into(),
                problem,
            });
        }
        let mut both = header.kind.classes.iter().zip(&self.data.kind.classes);
        if let Some((wanted, found)) = both.find(|(wanted, found)| go_on && wanted != found) {
            let problem =
                format!("the class that was {wanted:?} when the run began is now {found:?}; name it as it was");
            return Err(Error::Mismatch {
                place: "data".into(),
                problem,
            });
        }
        let found = self.data.train.len();
        if let Some(wanted) = header.examples.filter(|wanted| go_on && *wanted != found) {
            let problem = format!(
                "the training part had {wanted} examples when the run began and has {found} now; put the data and their \
                 settings back as they were, or train anew"
            );
            return Err(Error::Mismatch {
                place: "data".into(),
                problem,
            });
        }
        // It is the file that does not fit the configuration beside it, not what somebody wrote on the command line.
        self.restore(tensors).map_err(|error| Error::Run {
            path,
            problem: error.to_string(),
        })?;
        (self.epoch, self.step) = (header.epoch, header.step);
        Ok(())
    }

    /// Takes a model alone, or the state of a training with the model in it.
    fn restore(&mut self, tensors: HashMap<String, Tensor>) -> Result<()> {
        let below = |prefix: &str| -> HashMap<String, Tensor> {
            let inside = tensors
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
            inside
                .map(|(name, tensor)| (name.to_string(), tensor.clone()))
                .collect()
        };
        let model = below("model.");
        if model.is_empty() {
            return self.vars.restore(&tensors);
        }
        self.vars.restore(&model)?;
        let moments = below("optimiser.");
        for block in self.architecture.blocks_mut() {
            block.optimiser_mut().restore(&moments)?;
        }
        for head in self.architecture.heads_mut() {
            head.optimiser_mut().restore(&moments)?;
        }
        self.sampler.restore(&below("sampler."))
    }
}
