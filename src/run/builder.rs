//! What to train, said piece by piece, and how a run is built from it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use toml::Value;

use super::Run;
use crate::contract::architecture::Architecture;
use crate::contract::build_context::BuildContext;
use crate::contract::sampler::{every_class, NegativeSampler};
use crate::data::channels::Channels;
use crate::data::text::tokenizer::Tokenizer;
use crate::data::text::Text;
use crate::data::{Content, DataSet};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::input::Values;
use crate::flow::vars::{self, Vars};
use crate::plugin::checked;
use crate::plugin::config::{Config, Precision, RunSettings, Source, NO_PRESET};
use crate::plugin::registry::{self, Checkable};
use crate::run::checkpoint;
use crate::run::folder::{Folder, CONFIG, MODEL, STATE};
use crate::run::trainer;

/// Says what to train; made by [`Run::builder`].
#[derive(Clone, Debug)]
pub struct RunBuilder {
    architecture: String,
    preset: Option<String>,
    sources: Vec<Source>,
    data_dirs: Vec<PathBuf>,
    device: String,
    out: Option<PathBuf>,
    saved: Option<PathBuf>,
    data: bool,
    given: Option<DataSet>,
    stop: Arc<AtomicBool>,
}

impl RunBuilder {
    /// The data set: a registered name, or `idx:DIR`, `folder:DIR`, `text:FILE`.
    pub fn data(self, name: &str) -> Self {
        self.set("data", name)
    }

    /// Data that the program has already, instead of a registered data set: made in memory, or shared by several runs.
    /// Nobody can find them by a name, so whoever opens the run again has to give them again.
    pub fn data_set(mut self, data: DataSet) -> Self {
        self.given = Some(data);
        self
    }

    /// The seed that everything random is drawn from.
    pub fn seed(self, seed: u32) -> Self {
        self.set("seed", i64::from(seed))
    }

    /// One setting: a number, a word, a list, or a table; dots in the key for nesting, as in `set("layer.dropout", 0.1)`. What
    /// is set last wins, and another plugin begins without the settings of the one before: name it first.
    pub fn set(self, key: &str, value: impl Into<Value>) -> Self {
        self.source(Source::setting(key, value))
    }

    /// Several settings at once, from a file or a command line.
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// A named set of the architecture's settings; what is set besides wins.
    pub fn preset(mut self, name: &str) -> Self {
        self.preset = Some(name.into());
        self
    }

    /// Where data files are looked for first.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_dirs.insert(0, folder.into());
        self
    }

    /// `cpu`, `cuda`, `cuda:1` or `metal`.
    pub fn device(mut self, name: &str) -> Self {
        self.device = name.into();
        self
    }

    /// The folder that [`Run::fit`] writes to; it must be new or empty. Without one nothing is written.
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out = Some(folder.into());
        self
    }

    /// Of a run that was opened: leaves its data where they are. The network can then predict, and nothing else.
    pub fn without_data(mut self) -> Self {
        self.data = false;
        self
    }

    /// A flag that stops the training after the batch at hand once it is set, by a signal, say; the run then saves its
    /// state and ends with [`Error::Stopped`].
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = flag;
        self
    }

    /// The complete configuration, before anything is built.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn config(&self) -> Result<Config> {
        let (preset, by_name) = (self.preset.as_deref(), self.given.is_none());
        let mut config =
            Config::resolved(&self.architecture, preset, self.sources.clone(), by_name)?;
        if self.given.is_some() {
            config.run.data = None;
        }
        Ok(config)
    }

    /// Loads the data and builds the network; of a run that was opened, its weights and how far it had come as well.
    ///
    /// # Errors
    /// As [`Config::resolve`]; whatever the data or a plugin says of its settings; [`Error::Run`] for a checkpoint that
    /// is damaged or foreign.
    pub fn build(self) -> Result<Run> {
        checked::caught(|| self.built(false))
    }

    /// The run; `go_on` if it is to be trained on.
    fn built(self, go_on: bool) -> Result<Run> {
        let config = self.config()?;
        let (mut data, mut tokenizer, mut saved) = (self.given.clone(), None, None);
        if let Some(folder) = &self.saved {
            let read = checkpoint::read(&saved_in(folder, self.data))?;
            tokenizer = checkpoint::tokenizer(folder, &read.header)?;
            if !self.data {
                let text = tokenizer.clone().map(|tokenizer| Text {
                    tokenizer,
                    ngram: 1,
                });
                data = Some(DataSet::empty(read.header.kind.clone(), text));
            }
            saved = Some(read);
        }
        let with_examples = self.data || self.saved.is_none();
        let mut run = Run::assemble(
            config,
            data,
            with_examples,
            tokenizer,
            self.data_dirs,
            &self.device,
        )?;
        run.stop = self.stop;
        if let Some(saved) = saved {
            run.restore_from(saved, go_on)?;
        }
        run.origin = self.saved;
        if let Some(out) = self.out {
            run.folder = Some(Folder::create(&out)?);
        }
        Ok(run)
    }

    /// Goes on in the folder that was opened, exactly where the run in it stopped or was stopped; a run that has no
    /// checkpoint yet starts over. [`Run::fit`] then writes there.
    ///
    /// # Errors
    /// As [`RunBuilder::build`]; [`Error::Run`] if another process is writing there, or if no run was opened.
    pub fn resume(mut self) -> Result<Run> {
        let Some(path) = self.saved.take() else {
            let problem = "nothing to resume: begin with Run::open".to_string();
            return Err(Error::Run {
                path: PathBuf::new(),
                problem,
            });
        };
        let folder = Folder::lock(&path)?;
        if path.join(STATE).is_file() {
            self.saved = Some(path);
        } else if path.join(MODEL).is_file() {
            // The state is written first, so it was there.
            let problem =
                format!("has a model, but no {STATE} to go on from; put that back, or remove {MODEL} to start over");
            return Err(Error::Run { path, problem });
        }
        let mut run = checked::caught(|| self.built(true))?;
        run.folder = Some(folder);
        Ok(run)
    }
}

impl Run {
    /// Begins to describe a run of the architecture with this name.
    pub fn builder(architecture: &str) -> RunBuilder {
        RunBuilder {
            architecture: architecture.into(),
            preset: None,
            sources: Vec::new(),
            data_dirs: std::env::var_os("ONWARD_DATA")
                .map(PathBuf::from)
                .into_iter()
                .collect(),
            device: "cpu".into(),
            out: None,
            saved: None,
            data: true,
            given: None,
            stop: Arc::default(),
        }
    }

    /// Begins to describe a run that goes on from what [`Run::save`] or [`Run::fit`] left in a folder: by default the
    /// same run, unless other data or another device are named.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Run`] if the folder holds no configuration.
    pub fn open(folder: impl AsRef<Path>) -> Result<RunBuilder> {
        let folder = folder.as_ref();
        let path = folder.join(CONFIG);
        let mut source = Source::file(&path)?;
        let Some(Value::String(architecture)) = source.table.remove("architecture") else {
            let problem =
                "names no `architecture`; it is not the configuration of a run".to_string();
            return Err(Error::Run { path, problem });
        };
        // It is complete: no preset of today adds to it.
        let builder = Self::builder(&architecture)
            .preset(NO_PRESET)
            .source(source);
        Ok(RunBuilder {
            saved: Some(folder.into()),
            ..builder
        })
    }

    /// The run in a folder, as [`Run::save`] or [`Run::fit`] left it: weights, optimisers, and how far it had come.
    ///
    /// # Errors
    /// As [`Run::open`] and [`RunBuilder::build`].
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open(folder)?.build()
    }

    fn assemble(
        config: Config,
        data: Option<DataSet>,
        with_examples: bool,
        tokenizer: Option<Arc<Tokenizer>>,
        data_dirs: Vec<PathBuf>,
        device: &str,
    ) -> Result<Self> {
        let device = open_device(device)?;
        let dtype = match config.run.precision {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        };
        let vars = Vars::new(config.run.seed, dtype, &device);
        let mut context = BuildContext::new(vars.clone(), config.run.seed);
        context.epochs = config.run.epochs;
        (context.data_dirs, context.cache, context.tokenizer) = (data_dirs, cache(), tokenizer);
        let needed = |key: &str| Error::Setting {
            key: key.into(),
            value: "nothing".into(),
            origin: "the defaults".into(),
            expected: format!(
                "a name, since no preset of {} gives one",
                config.architecture
            ),
        };
        let (data, example) = match data {
            Some(data) if !with_examples => {
                let shape = [&[1], &data.kind.shape[..]].concat();
                let dtype = if data.kind.content == Content::Text {
                    DType::U32
                } else {
                    dtype
                };
                (
                    data,
                    Batch::unlabelled(Tensor::zeros(shape, dtype, &device)?)?,
                )
            }
            data => {
                let data = match (data, &config.run.data) {
                    (Some(data), _) => {
                        DataSet::guard(Box::new(data), "the program's own data".into(), &context)
                    }
                    (None, Some(data)) => registry::build(data, &context)?,
                    (None, None) => return Err(needed("data")),
                };
                if data.train.is_empty() {
                    let problem = "its training part is empty".to_string();
                    return Err(Error::Mismatch {
                        place: "data".into(),
                        problem,
                    });
                }
                let example = data.train.batch(&[0], None)?.hidden().to(&device, dtype)?;
                let data = if config.run.validate {
                    *data
                } else {
                    data.without_validation()
                };
                (data, example)
            }
        };
        (context.example, context.classes) = (data.kind.shape.clone(), data.kind.classes.len());
        context.tokenizer = data.text.as_ref().map(|text| text.tokenizer.clone());
        let sampler = registry::build(
            config
                .run
                .sampler
                .as_ref()
                .ok_or_else(|| needed("sampler"))?,
            &context,
        )?;
        // One example tells what the sampler's inputs look like.
        let neutral = sampler.neutral(&example)?;
        let is_number = |values: &Values| matches!(values, Values::Dense { matrix, .. } if !matrix.dtype().is_float());
        if neutral.parts().iter().any(|part| is_number(&part.values)) {
            let name = config
                .run
                .sampler
                .as_ref()
                .map_or("", |sampler| &sampler.name);
            let problem =
                "takes the numbers of tokens for values; text needs a sampler that is made for it"
                    .to_string();
            return Err(Error::Mismatch {
                place: format!("sampler {name}"),
                problem,
            });
        }
        if with_examples {
            check(&config.run, &data, &*sampler)?;
        }
        context.input = neutral.shape().to_vec();
        context.hypotheses = sampler
            .hypotheses(&example, &every_class(1, &example)?)?
            .is_some();
        let plugin = registry::named::<dyn Architecture>(&config.architecture)?;
        let architecture = plugin.at(&config.settings, &context)?;
        if let Some(readout) = &config.run.readout {
            let names: Vec<_> = architecture
                .readouts()
                .iter()
                .map(|readout| readout.name)
                .collect();
            if !names.contains(&readout.as_str()) {
                let (key, value, origin) = (
                    "readout".into(),
                    format!("{readout:?}"),
                    "the settings".into(),
                );
                let expected = format!("one that this network has: {}", names.join(", "));
                return Err(Error::Setting {
                    key,
                    value,
                    origin,
                    expected,
                });
            }
        }
        let channels = match config.run.standardise {
            true => Some(Channels::new(&vars.scope("data"), &data)?),
            false => None,
        };
        let stop = Arc::default();
        let (epoch, step, folder) = (0, 0, None);
        Ok(Self {
            config,
            data,
            sampler,
            architecture,
            vars,
            device,
            dtype,
            channels,
            epoch,
            step,
            origin: None,
            folder,
            stop,
        })
    }
}

/// Refuses what would only be found out in the middle of an epoch.
fn check(settings: &RunSettings, data: &DataSet, sampler: &dyn NegativeSampler) -> Result<()> {
    let refused = |key: &str, value: String, expected: String| {
        Err(Error::Setting {
            key: key.into(),
            value,
            origin: "the settings".into(),
            expected,
        })
    };
    if data.kind.content == Content::Text {
        let expected =
            |what: &str| format!("{what}, since text cannot be moved or mirrored as pictures are");
        if settings.shift > 0 {
            return refused("shift", settings.shift.to_string(), expected("0"));
        }
        if settings.flip {
            return refused("flip", "true".into(), expected("false"));
        }
    }
    let (examples, least) = (data.train.len(), sampler.smallest_batch());
    let batch = settings.batch.min(examples);
    let rest = if examples % batch == 0 {
        batch
    } else {
        examples % batch
    };
    if batch.min(rest) < least {
        let name = settings
            .sampler
            .as_ref()
            .map_or("", |sampler| &sampler.name);
        let expected = format!(
            "a number that cuts the {examples} examples to train on into batches of {least} and more, for the sampler \
             {name}; it leaves one of {}",
            batch.min(rest)
        );
        return refused("batch", settings.batch.to_string(), expected);
    }
    // Predictions, their logarithms, and what they should have been: what is not to be had would end the process.
    let scores = batch
        .max(trainer::EVALUATION_BATCH)
        .saturating_mul(data.kind.classes.len());
    let needed = scores.saturating_mul(4 * std::mem::size_of::<f32>());
    if vars::available().is_some_and(|free| needed as u64 > free) {
        let problem = format!(
            "predictions of {} classes for batches of {batch} need {} MB, more memory than is free; fewer classes (of text, \
             a smaller vocabulary) or a smaller `batch` would fit",
            data.kind.classes.len(),
            needed >> 20
        );
        return Err(Error::Mismatch {
            place: "data".into(),
            problem,
        });
    }
    Ok(())
}

/// The state of the training where there is one, else the model; that as well if it is enough and not behind, as it is
/// if the process was killed between the two.
fn saved_in(folder: &Path, with_state: bool) -> PathBuf {
    let (state, model) = (folder.join(STATE), folder.join(MODEL));
    let is_behind = || {
        checkpoint::standing(&model).is_none_or(|model| checkpoint::standing(&state) != Some(model))
    };
    if state.is_file() && (with_state || is_behind()) {
        state
    } else {
        model
    }
}

/// `onward` in the user's cache.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from)
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("onward"))
}

/// The device with this name.
fn open_device(name: &str) -> Result<Device> {
    let fault = |problem: String| Error::Device {
        name: name.into(),
        problem,
    };
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let number = number
        .parse()
        .map_err(|_| fault("expected a number behind the colon, as in cuda:1".into()))?;
    match kind {
        "cpu" if name == "cpu" => Ok(Device::Cpu),
        "cuda" if !candle_core::utils::cuda_is_available() => Err(fault(
            "this program was built without it; build with --features cuda".into(),
        )),
        "metal" if !candle_core::utils::metal_is_available() => Err(fault(
            "this program was built without it; build with --features metal".into(),
        )),
        "cuda" => Device::new_cuda(number).map_err(|error| fault(error.to_string())),
        "metal" => Device::new_metal(number).map_err(|error| fault(error.to_string())),
        _ => Err(fault("expected cpu, cuda, cuda:N or metal".into())),
    }
}
