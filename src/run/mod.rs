//! A run: a configuration, the data, the network, and the progress of its training.

mod assemble;
mod builder;
mod changes;
mod checkpoint;
mod cost;
mod device;
mod embedded;
pub(crate) mod evaluate;
mod export;
mod feed;
pub(crate) mod folder;
pub mod generate;
pub(crate) mod goodness;
mod initial;
mod layers;
pub mod locality;
mod memory;
mod mixture;
pub mod observe;
pub mod onnx;
mod opened;
mod patience;
mod phases;
pub mod picture;
pub(crate) mod places;
pub mod predict;
mod protobuf;
pub mod ranks;
mod saving;
pub mod score_text;
pub(crate) mod settings;
pub mod summary;
mod tally;
mod trainer;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};

pub use self::builder::RunBuilder;
use self::folder::{Folder, MODEL, SUMMARY};
use self::locality::Certificate;
use self::mixture::Mixed;
use self::observe::metrics::Metrics;
use self::observe::{Event, Observer};
use self::patience::Best;
use self::summary::{Origin, Score, Summary};
use self::tally::Tally;
use crate::comm::Team;
use crate::contract::architecture::Architecture;
use crate::contract::sampler::NegativeSampler;
use crate::data::channels::Channels;
use crate::data::text::ngram::Baselines;
use crate::data::DataSet;
use crate::disk;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::Examples;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels::memory::Kept;
use crate::kernels::rounding::Held;
use crate::plugin::config::Config;

/// A network with its data, and the progress of its training.
pub struct Run {
    config: Config,
    data: DataSet,
    sampler: Box<dyn NegativeSampler>,
    architecture: Box<dyn Architecture>,
    vars: Vars,
    device: Device,
    dtype: DType,
    channels: Option<Channels>,
    /// The training examples, if they are stored on the device.
    stored: Option<Arc<dyn Examples>>,
    /// The number of complete epochs.
    epoch: usize,
    /// The number of steps taken.
    step: u64,
    /// The reports of this epoch or, between epochs, of the last one.
    tally: Tally,
    /// The best evaluation, with `patience`.
    best: Option<Best>,
    /// The readout that validation chose at the end.
    chosen: Option<String>,
    /// The mixture with counts, for text, from the end of the training on.
    mixed: Option<Mixed>,
    /// Whether the training part is the one that the network was trained on.
    has_own_data: bool,
    /// The models of counts that a network for text is compared with.
    counted: OnceLock<Option<Arc<Baselines>>>,
    /// The most numbers that a layer has for an example.
    widest: OnceLock<usize>,
    /// The fingerprints of the parts of the data.
    fingerprints: OnceLock<[u32; 3]>,
    /// The settings before they were changed on purpose, when the run was opened.
    previous: Option<String>,
    /// All settings that were changed on purpose since the run began.
    changes: Vec<String>,
    /// What the update of each block depends on, if it was measured.
    certificate: Option<Certificate>,
    /// The folder from which the run was loaded.
    origin: Option<PathBuf>,
    folder: Option<Folder>,
    /// The place among several ranks, if there are several.
    team: Option<Team>,
    stop: Arc<AtomicBool>,
}

/// The threads of a server share one run.
const _: fn(Run) -> Box<dyn Send + Sync> = |run| Box::new(run);

impl Run {
    /// The complete configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device, for people: `CPU, 8 threads`, `cuda:0, NVIDIA H200`.
    pub fn device(&self) -> String {
        device::describe(&self.device)
    }

    /// The data.
    pub fn data(&self) -> &DataSet {
        &self.data
    }

    /// The sampler.
    pub fn sampler(&self) -> &dyn NegativeSampler {
        &*self.sampler
    }

    /// The network.
    pub fn architecture(&self) -> &dyn Architecture {
        &*self.architecture
    }

    /// The network. What is changed here is not in the settings, so a resumed run does
    /// not have it.
    pub fn architecture_mut(&mut self) -> &mut dyn Architecture {
        &mut *self.architecture
    }

    /// All variables of the network.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The output folder, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.path())
    }

    /// Sets the output folder to `base`, or to `base-2` and so on if it exists.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_to_numbered(&mut self, base: &Path) -> Result<()> {
        self.folder = Some(Folder::create_numbered(base)?);
        Ok(())
    }

    /// The number of steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        let examples = self.data.train.len();
        examples
            .div_ceil(self.config.run.batch.min(examples).max(1))
            .max(1)
    }

    /// The total number of epochs.
    pub fn epochs(&self) -> usize {
        self.architecture.net().epochs(self.steps_per_epoch())
    }

    /// The number of complete epochs.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// Whether nothing is left to do: all epochs are complete, or `patience` has run out,
    /// and model and summary are those of the last one.
    pub fn is_finished(&self) -> bool {
        let is_current = |folder: &Path| {
            let summary = summary::read(&folder.join(SUMMARY)).ok();
            let origin = self.origin_in(folder);
            summary.is_some_and(|summary| {
                let found = serde_json::from_value(summary["of"].clone()).ok();
                found.is_some() && found == origin && self.has_model(folder)
            })
        };
        self.is_trained() && self.folder().is_none_or(is_current)
    }

    /// What a summary in this folder belongs to.
    fn origin_in(&self, folder: &Path) -> Option<Origin> {
        let model = checkpoint::header_of(&folder.join(MODEL))?;
        Some(Origin {
            settings: settings::of(&self.config),
            model: format!("{:08x}", model.checksum),
            data: self.fingerprints().ok()?,
        })
    }

    /// Trains to the end, evaluates, and writes the files of a run if there is a folder.
    ///
    /// # Errors
    /// [`Error::Diverged`]; [`Error::File`];
    /// errors of the plugins.
    pub fn fit(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        self.with_folder(observer, |run, observer| {
            let mut summary = run.train_and_evaluate(observer)?;
            let Some(folder) = run.folder().map(PathBuf::from) else {
                return Ok(summary);
            };
            run.check_folder(&folder)?;
            run.write_model(&folder)?;
            summary.of = run.origin_in(&folder);
            summary.changes = run.changes.clone();
            run.check_folder(&folder)?;
            disk::replace(&folder.join(SUMMARY), summary::to_text(&summary).as_bytes())?;
            Ok(summary)
        })
    }

    /// Trains until `epochs` epochs are complete, at most those of the configuration,
    /// without the final evaluation. After [`Run::save`], or with a folder, the run can
    /// be loaded and continued as if it had not stopped.
    ///
    /// # Errors
    /// As [`Run::fit`].
    pub fn train_until(&mut self, epochs: usize, observer: &mut dyn Observer) -> Result<()> {
        self.with_folder(observer, |run, observer| {
            run.train(epochs, observer).map(|_| ())
        })
    }

    /// Trains with the log in the folder of the run, if there is one.
    fn with_folder<T>(
        &mut self,
        observer: &mut dyn Observer,
        train: impl FnOnce(&mut Self, &mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        // Until the last evaluation; afterwards what is free is given back.
        let _memory = Kept::new();
        let Some(folder) = self.folder().map(PathBuf::from) else {
            return train(self, observer);
        };
        let trained = self.logged(&folder, observer, train);
        if let (Err(error), Some(folder)) = (&trained, &self.folder) {
            // Stopped, or without room on the disk, it can be resumed.
            if !error.is_stopped() && !error.is_file() {
                folder.discard();
            }
        }
        trained
    }

    fn logged<T>(
        &mut self,
        folder: &Path,
        observer: &mut dyn Observer,
        train: impl FnOnce(&mut Self, &mut dyn Observer) -> Result<T>,
    ) -> Result<T> {
        self.bring_up_to_date(folder)?;
        let progress = (self.epoch, self.epochs());
        let mut metrics = Metrics::after(folder, progress, &self.blocks())?;
        self.keep_certificate(folder)?;
        let wanted = &self.config.run.log;
        let mut logs = observe::logs(wanted, folder, self.epoch, &self.blocks())?;
        let has_epoch = metrics.has_epoch(self.epoch);
        let has_evaluation = metrics.has_evaluation(self.epoch);
        self.write_missing(has_epoch, has_evaluation, &mut |event: &Event<'_>| {
            metrics.on(event);
            logs.on(event);
        })?;
        let mut all = |event: &Event<'_>| {
            metrics.on(event);
            logs.on(event);
            observer.on(event);
        };
        train(self, &mut all)
    }

    /// Converts a batch for the network: to its device and element type, standardised if
    /// that is set.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn prepare(&self, batch: &Batch) -> Result<Batch> {
        let channels = self.channels.as_ref();
        feed::prepared(batch, &self.device, self.dtype, channels)
    }

    /// Holds the precision of the run, which all runs of a process share, until the end
    /// of a forward pass.
    ///
    /// # Errors
    /// [`Error::Usage`] while a run of this process trains with another precision.
    pub(crate) fn pass(&self) -> Result<Held> {
        let rounding = self.config.run.precision.rounding();
        rounding.hold_for_a_pass(&self.device)
    }

    /// A prepared batch of given examples, without labels.
    fn without_labels(&self, examples: Tensor) -> Result<Batch> {
        let (found, expected) = (examples.dims(), &self.data.spec.shape[..]);
        if found.len() != expected.len() + 1 || found[1..] != *expected || found[0] == 0 {
            let sizes: Vec<String> = expected.iter().map(usize::to_string).collect();
            let expected = format!("(B, {}), with at least one example", sizes.join(", "));
            return Err(Error::shape("examples", found, expected));
        }
        self.prepare(&Batch::unlabelled(examples)?)
    }

    /// The score of each class for each of `examples`, `(B, …)`, by one readout:
    /// `(B, C)`, or `(B, P, C)` with positions. Higher is better.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown readout;
    /// [`Error::Shape`] if the examples are not as those of the data;
    /// errors of the plugins.
    pub fn scores(&self, examples: Tensor, readout: &str) -> Result<Tensor> {
        let readout = self.readout(readout)?;
        let step = Step::evaluation(self.config.run.seed);
        // As in an evaluation, so that many examples need no more memory.
        let most = self.evaluation_batch();
        let count = examples.dims().first().map_or(0, |count| *count);
        let parts = (0..count.max(1)).step_by(most).map(|first| {
            let part = match count > most {
                true => examples.narrow(0, first, most.min(count - first))?,
                false => examples.clone(),
            };
            self.read_out(&self.without_labels(part)?, &readout, &step)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        match &parts[..] {
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, 0)?),
        }
    }
}
