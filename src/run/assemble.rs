//! Assembly of a run from its configuration: data, sampler, network.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{DType, Device, Tensor};

use super::evaluate::EVALUATION_BATCH;
use super::feed::last_batch;
use super::tally::Tally;
use super::{device, Run};
use crate::contract::architecture::Architecture;
use crate::contract::build_context::BuildContext;
use crate::contract::negatives::every_class;
use crate::contract::sampler::NegativeSampler;
use crate::data::channels::Channels;
use crate::data::text::tokenizer::Tokenizer;
use crate::data::text::Text;
use crate::data::{Content, DataSet, ExampleSpec};
use crate::error::{notify, Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::Split;
use crate::flow::input::{Values, LABEL};
use crate::flow::vars::Vars;
use crate::kernels::memory;
use crate::plugin::checked::Checkable;
use crate::plugin::config::Config;
use crate::plugin::registry;
use crate::plugin::run_settings::{Precision, RunSettings};
use crate::plugin::{build, build_complete};
use crate::settings::{Pick, PluginKind};

/// The data of the first of several runs of one configuration, for the others.
pub(super) type Shared = Arc<Mutex<Option<(Pick<DataSet>, DataSet)>>>;

/// The source of a run's data.
pub(super) enum Source {
    /// The data set that the configuration names, read once for all runs that share it.
    Named(Option<Shared>),
    /// Data that are already in memory.
    Given(DataSet),
    /// No examples, only to predict.
    Empty(DataSet),
}

impl Source {
    /// No examples, but what they would be.
    pub fn empty(spec: ExampleSpec, tokenizer: Option<Arc<Tokenizer>>) -> Self {
        let text = tokenizer.map(|tokenizer| Text {
            tokenizer,
            ngram: 1,
            least: 1,
        });
        Self::Empty(DataSet::empty(spec, text))
    }
}

/// The folders and the device of a run, and what is known of a saved one; they are not
/// part of its configuration.
pub(super) struct Surroundings {
    pub data_dirs: Vec<PathBuf>,
    pub device: String,
    /// The tokenizer of the opened run.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What the saved run was trained on, if the weights are those of one.
    pub trained_on: Option<Content>,
    /// [`BuildContext::reads_examples`].
    pub reads_examples: bool,
    /// The checksum of the part that a saved run was trained on, unless it trains on: its
    /// setting `examples` holds for those data alone.
    pub trained_part: Option<u32>,
}

/// Refuses a precision that this device does not have.
pub(super) fn check_precision(precision: Precision, device: &Device) -> Result<()> {
    if precision.rounding().suits(device) {
        return Ok(());
    }
    let all = [
        Precision::F32,
        Precision::Tf32,
        Precision::Bf16,
        Precision::F64,
    ];
    let known = all.iter().filter(|known| known.rounding().suits(device));
    let known: Vec<&str> = known.map(|known| known.word()).collect();
    let expected = format!(
        "{} on this device; bf16 needs a CPU with AVX-512 BF16 or a GPU with CUDA, tf32 such a GPU",
        known.join(" or ")
    );
    Err(Error::refused("precision", precision.word(), expected))
}

/// Builds a run.
///
/// # Errors
/// Errors of the data and the plugins; [`Error::Setting`] for settings that do not fit
/// the data.
pub(super) fn assemble(config: Config, source: Source, around: Surroundings) -> Result<Run> {
    let device = device::open(&around.device)?;
    let dtype = match config.run.precision {
        Precision::F32 | Precision::Tf32 | Precision::Bf16 => DType::F32,
        Precision::F64 => DType::F64,
    };
    match check_precision(config.run.precision, &device) {
        // A saved run can be used, though not trained, where its precision is missing.
        Err(error) if around.trained_on.is_some() => notify(format_args!(
            "warning: {error}; products have 32 bits instead"
        )),
        checked => checked?,
    }
    let vars = Vars::new(config.run.seed, dtype, &device);
    let mut context = BuildContext::new(vars.clone(), config.run.seed);
    context.epochs = config.run.epochs;
    context.data_dirs = around.data_dirs;
    context.cache = crate::data::cache();
    context.reads_examples = around.reads_examples;
    context.tokenizer = around.tokenizer;

    let trains = !matches!(source, Source::Empty(_));
    let mut data = open_data(source, &config, &context)?;
    let examples = config.run.examples;
    if trains && examples > 0 {
        data = drawn(data, examples, config.run.seed, around.trained_part)?;
    }
    check_content(data.spec.content, &config, around.trained_on)?;
    describe_data(&data, &mut context)?;
    let sampler = build_sampler(&config, &context)?;
    if trains {
        check_batches(&config.run, &data, &*sampler)?;
    }
    let example = example(&data, trains)?.to(&device, dtype)?;
    describe_views(&*sampler, &example, &config, &mut context)?;
    let plugin = registry::named::<dyn Architecture>(&config.architecture)?;
    let architecture = build_complete(plugin, &config.settings, &context)?;
    let channels = match config.run.standardise {
        true => Some(Channels::new(&vars.scope("data"), &data)?),
        false => None,
    };
    let run = Run {
        config,
        data,
        sampler,
        architecture,
        vars,
        device,
        dtype,
        channels,
        stored: None,
        epoch: 0,
        step: 0,
        tally: Tally::default(),
        best: None,
        chosen: None,
        mixed: None,
        has_own_data: true,
        counted: OnceLock::new(),
        widest: OnceLock::new(),
        fingerprints: OnceLock::new(),
        previous: None,
        changes: Vec::new(),
        origin: None,
        folder: None,
        team: None,
        certificate: None,
        stop: Arc::default(),
    };
    if let Some(readout) = &run.config.run.readout {
        run.check_readout(readout)?;
    }
    if trains {
        run.check_patience()?;
    }
    Ok(run)
}

fn open_data(source: Source, config: &Config, context: &BuildContext) -> Result<DataSet> {
    let data = match (source, &config.run.data) {
        (Source::Empty(data), _) => return Ok(data),
        (Source::Given(data), _) => {
            DataSet::checked(Box::new(data), "the program's own data".into(), context)?
        }
        (Source::Named(None), Some(data)) => build(data, context)?,
        (Source::Named(Some(shared)), Some(data)) => {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match &*shared {
                Some((of, _)) if of != data => {
                    let problem = "the builders that share data differ in `data`";
                    return Err(Error::usage("data", problem));
                }
                Some((_, found)) => Box::new(found.clone()),
                None => {
                    let read = *build(data, context)?;
                    Box::new(shared.insert((data.clone(), read)).1.clone())
                }
            }
        }
        (Source::Named(_), None) => return Err(missing(config, "data")),
    };
    if data.train.is_empty() {
        return Err(Error::usage("data", "the training part is empty"));
    }
    match config.run.validate {
        true => Ok(*data),
        false => Ok(data.without_validation()),
    }
}

/// The data with `count` drawn training examples. With the checksum of the part that a
/// run was trained on, only if those are drawn; data of another origin stay whole.
fn drawn(data: DataSet, count: usize, seed: u64, trained_part: Option<u32>) -> Result<DataSet> {
    let Some(trained_part) = trained_part else {
        return data.with_drawn(count, seed);
    };
    if count > data.train.len() || data.spec.content == Content::Text {
        return Ok(data);
    }
    let drawn = data.clone().with_drawn(count, seed)?;
    match drawn.train.fingerprint()? == trained_part {
        true => Ok(drawn),
        false => Ok(data),
    }
}

/// Refuses images for a network that learns from text, and the other way round, before
/// its sampler does in other words.
fn check_content(found: Content, config: &Config, trained_on: Option<Content>) -> Result<()> {
    let is_text = |content| content == Content::Text;
    let word = |content| if is_text(content) { "text" } else { "images" };
    let data = config.run.data.as_ref();
    let data = data.map_or("the data".into(), |data| format!("data {}", data.name));
    if let Some(content) = trained_on.filter(|content| is_text(*content) != is_text(found)) {
        let problem = format!(
            "found {}, but the run was trained on {}; choose such data",
            word(found),
            word(content)
        );
        return Err(Error::unfit(data, problem));
    }
    let info = registry::info(<dyn Architecture>::KIND, &config.architecture)?;
    if info.of_text && !is_text(found) {
        let problem = format!(
            "found {}, but the architecture {} learns from text alone; choose text, such as \
             --data text:FILE, or another architecture (see: onward list architecture)",
            word(found),
            info.name
        );
        return Err(Error::unfit(data, problem));
    }
    Ok(())
}

fn missing(config: &Config, key: &str) -> Error {
    let expected = format!(
        "a name, as in --set {key}=NAME, since the chosen preset of {} has none; see: onward list",
        config.architecture
    );
    Error::setting(key, "nothing", "the defaults", expected)
}

/// Describes the data to the plugins.
fn describe_data(data: &DataSet, context: &mut BuildContext) -> Result<()> {
    context.example = data.spec.shape.clone();
    context.before = data.spec.before;
    context.classes = data.spec.classes.len();
    context.positions = data.spec.positions;
    context.tokenizer = data.text.as_ref().map(|text| text.tokenizer.clone());
    if data.train.passages().is_some() {
        context.class_counts = Some(Arc::new(data.class_counts(Split::Train)?));
    }
    Ok(())
}

fn build_sampler(config: &Config, context: &BuildContext) -> Result<Box<dyn NegativeSampler>> {
    let sampler = config.run.sampler.as_ref();
    build(
        sampler.ok_or_else(|| missing(config, "sampler"))?,
        &context.scope("sampler"),
    )
}

/// One example that determines the shapes of the sampler's inputs.
fn example(data: &DataSet, trains: bool) -> Result<Batch> {
    if trains {
        return Ok(data.train.batch(&[0], None)?.hidden());
    }
    let shape = [&[1], &data.spec.shape[..]].concat();
    let is_text = data.spec.content == Content::Text;
    let dtype = if is_text { DType::U32 } else { DType::F32 };
    Batch::unlabelled(Tensor::zeros(shape, dtype, &candle_core::Device::Cpu)?)
}

/// Describes the sampler's views to the architecture.
fn describe_views(
    sampler: &dyn NegativeSampler,
    example: &Batch,
    config: &Config,
    context: &mut BuildContext,
) -> Result<()> {
    let neutral = sampler.neutral(example)?;
    let is_token = |values: &Values| match values {
        Values::Dense { matrix, .. } => !matrix.dtype().is_float(),
        _ => false,
    };
    if neutral.parts().iter().any(|part| is_token(&part.values)) {
        let name = config
            .run
            .sampler
            .as_ref()
            .map_or("", |sampler| &sampler.name);
        let problem = "takes token indices for values; choose a sampler for text";
        return Err(Error::unfit(format!("sampler {name}"), problem));
    }
    let label = neutral.part(LABEL).map(|part| part.values.width());
    context.label = label.transpose()?.unwrap_or(0);
    context.input = neutral.shape().to_vec();
    context.neutral = Some(neutral);
    let candidates = every_class(1, example)?;
    context.hypotheses = sampler.hypotheses(example, &candidates)?.is_some();
    Ok(())
}

/// Refuses batches that would fail in the middle of an epoch.
fn check_batches(
    settings: &RunSettings,
    data: &DataSet,
    sampler: &dyn NegativeSampler,
) -> Result<()> {
    if data.spec.content == Content::Text {
        let refused = |key: &str, value: String, expected: &str| {
            let expected = format!("{expected}, since text cannot be shifted or mirrored");
            Err(Error::refused(key, value, expected))
        };
        if settings.shift > 0 {
            return refused("shift", settings.shift.to_string(), "0");
        }
        if settings.flip {
            return refused("flip", "true".into(), "false");
        }
    }
    let (examples, least) = (data.train.len(), sampler.smallest_batch());
    let batch = settings.batch.min(examples);
    let last = last_batch(examples, batch);
    if last < least {
        let name = settings
            .sampler
            .as_ref()
            .map_or("", |sampler| &sampler.name);
        let expected = format!(
            "a number that divides the {examples} training examples into batches of at \
             least {least}, for the sampler {name}; the last batch would have {last}"
        );
        return Err(Error::refused("batch", settings.batch, expected));
    }
    check_memory(batch, data.spec.classes.len())
}

/// Refuses predictions that do not fit into memory: the system would kill the process
/// without a message.
fn check_memory(batch: usize, classes: usize) -> Result<()> {
    // Predictions, their logarithms, and targets.
    let scores = batch.max(EVALUATION_BATCH).saturating_mul(classes);
    let needed = scores.saturating_mul(4 * std::mem::size_of::<f32>());
    if memory::available().is_none_or(|free| needed as u64 <= free) {
        return Ok(());
    }
    let problem = format!(
        "predictions of {classes} classes for batches of {batch} need {} MB, more than \
         the free memory; use fewer classes (for text, a smaller vocabulary) or a \
         smaller `batch`",
        needed >> 20
    );
    Err(Error::usage("data", problem))
}
