//! The builder of a run.

mod settings;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use toml::Value;

use super::assemble::{assemble, Shared, Source as DataSource, Surroundings};
use super::checkpoint::{self, Saved};
use super::folder::{not_a_run, Folder, CONFIG, MODEL, STATE, SUMMARY};
use super::opened::{mend_model, Chosen};
use super::phases::Phases;
use super::places::{check_data, located};
use super::{initial, Run};
use crate::comm::Team;
use crate::data::{Content, DataSet};
use crate::error::{notify, Error, Located, Result};
use crate::plugin::config::{Config, NO_PRESET};
use crate::plugin::source::Source;

/// A builder of runs, made by [`Run::builder`] or [`Run::open`].
#[derive(Clone, Debug)]
pub struct RunBuilder {
    architecture: String,
    preset: Option<String>,
    sources: Vec<Source>,
    data_dirs: Vec<PathBuf>,
    pub(super) device: String,
    pub(super) out: Option<PathBuf>,
    saved: Option<PathBuf>,
    with_data: bool,
    given: Option<DataSet>,
    shared: Option<Shared>,
    pub(super) is_certified: bool,
    pub(super) team: Option<Team>,
    /// Whether the run is built only to be measured: nothing is said about its
    /// settings, and its weights do not matter.
    is_to_measure: bool,
    stop: Arc<AtomicBool>,
}

impl RunBuilder {
    /// Sets the data set: a registered name, or `idx:DIR`, `folder:DIR`, `text:FILE`.
    pub fn data(self, name: &str) -> Self {
        self.set("data", name)
    }

    /// Uses data that are already in memory, for example shared by several runs. They
    /// have no name, so they have to be given again when the run is opened.
    pub fn data_set(mut self, data: DataSet) -> Self {
        self.given = Some(data);
        self
    }

    /// Lets clones of this builder share one copy of the data, which the first run that
    /// is built reads. They must not differ in their settings of data.
    pub fn share_data(mut self) -> Self {
        self.shared = Some(Shared::default());
        self
    }

    /// Sets the seed of all random numbers.
    pub fn seed(self, seed: u32) -> Self {
        self.set("seed", i64::from(seed))
    }

    /// Sets one setting to a number, a word, a list, or a table. Dots in the key nest, as
    /// in `set("layer.dropout", 0.1)`. The last value wins. Choosing another plugin
    /// resets the settings of the previous one, so choose plugins first.
    pub fn set(self, key: &str, value: impl Into<Value>) -> Self {
        self.source(Source::setting(key, value))
    }

    /// Adds several settings at once, from a file or a command line.
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Chooses a preset of the architecture; other settings override it.
    pub fn preset(mut self, name: &str) -> Self {
        self.preset = Some(name.into());
        self
    }

    /// Adds a folder that is searched first for data files.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_dirs.insert(0, folder.into());
        self
    }

    /// Sets the device: `cpu`, `cuda`, `cuda:1`, `metal` or `auto`.
    pub fn device(mut self, name: &str) -> Self {
        self.device = name.into();
        self
    }

    /// Sets the output folder of [`Run::fit`]; it must be new or empty. By default
    /// nothing is written.
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out = Some(folder.into());
        self
    }

    /// Skips reading the data of an opened run. The run can then only predict.
    pub fn without_data(mut self) -> Self {
        self.with_data = false;
        self
    }

    /// Gives the run its place among several ranks. All ranks build the same run; rank
    /// 0 has its folder. See [`ranks`](super::ranks).
    pub fn team(mut self, team: Team) -> Self {
        self.team = Some(team);
        self
    }

    /// The same run from its beginning, on one rank and without a folder, to measure it.
    pub(super) fn to_measure(&self) -> Self {
        Self {
            team: None,
            // A run that was killed early has no weights yet.
            saved: None,
            out: None,
            is_certified: false,
            is_to_measure: true,
            ..self.clone()
        }
    }

    /// Stops the training after the current batch once `flag` is set, for example by a
    /// signal. The run then saves its state and ends with [`Error::Stopped`].
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = flag;
        self
    }

    /// Loads the data and builds the network; for an opened run, also restores its
    /// weights and progress.
    ///
    /// # Errors
    /// As [`Config::resolve`]; errors of the data and the plugins; [`Error::Run`] for a
    /// checkpoint that is damaged or belongs to another run.
    pub fn build(self) -> Result<Run> {
        self.build_for(Purpose::Use)
    }

    fn build_for(self, purpose: Purpose) -> Result<Run> {
        let (builder, said) = self.suited()?;
        if let Some(said) = said.filter(|_| builder.speaks()) {
            notify(said);
        }
        let again = builder.clone();
        let built = builder.build_suited(purpose);
        built.map_err(|error| again.attributed(error))
    }

    /// An error with the source that set the refused setting.
    pub(super) fn attributed(&self, error: Error) -> Error {
        Config::attributed(
            error,
            &self.architecture,
            self.preset.as_deref(),
            &self.sources,
            self.given.is_none(),
        )
    }

    fn build_suited(self, purpose: Purpose) -> Result<Run> {
        let (speaks, is_lead) = (self.speaks(), self.is_lead());
        let certificate = match self.is_certified && self.saved.is_none() && is_lead {
            true => Some(self.clone().certify()?),
            false => None,
        };
        let (mut saved, mut fault) = (None, None);
        if let Some(folder) = &self.saved {
            let (read, problem) = self.read(folder, purpose)?;
            saved = Some(read);
            // A resumed run writes its model anyway.
            fault = problem.filter(|_| purpose == Purpose::Use);
        }
        let mut config = match (&self.saved, &saved) {
            (Some(folder), Some(saved)) => self.bound(folder, &saved.header)?,
            _ => self.resolved()?,
        };
        config = located(config);
        if self.saved.is_some() && purpose == Purpose::Resume {
            self.check_fixed(&config)?;
        }
        let is_trained_on = self.has_same_data();
        let init = config.run.init.clone();
        let init = init.filter(|_| saved.is_none() && !self.is_to_measure);
        let tokenizer = match (&self.saved, &saved) {
            (Some(folder), Some(saved)) => checkpoint::tokenizer(folder, &saved.header)?,
            _ => None,
        };
        let phases = match &saved {
            Some(saved) if purpose == Purpose::Resume => {
                Phases::before(&saved.header, &config, tokenizer.clone())
            }
            _ => None,
        };
        let source = match (&saved, self.given) {
            (Some(Saved { header, .. }), _) if !self.with_data => {
                DataSource::empty(header.spec.clone(), tokenizer.clone())
            }
            (_, Some(data)) => DataSource::Given(data),
            (_, None) => DataSource::Named(self.shared),
        };
        let around = Surroundings {
            data_dirs: self.data_dirs,
            device: self.device,
            tokenizer,
            trained_on: saved.as_ref().map(|saved| saved.header.spec.content),
            reads_examples: self.team.as_ref().is_none_or(Team::is_first),
            trained_part: match (&saved, purpose) {
                (Some(saved), Purpose::Use) => saved.header.data.map(|[train, ..]| train),
                _ => None,
            },
        };
        // What is wrong with other data has nothing to do with the run.
        if let (Some(folder), DataSource::Named(_), true) = (&self.saved, &source, is_trained_on) {
            check_data(folder, &config)?;
        }
        let mut run = assemble(config, source, around)?;
        let is_text = run.data.spec.content == Content::Text;
        let idle = run.config.without_effect(&self.sources, is_text)?;
        if speaks {
            idle.into_iter().chain(run.idle_patience()).for_each(notify);
        }
        run.stop = self.stop;
        if let Some(init) = init {
            initial::load(&init, &run.vars, &run.data.spec).at(|| "setting `init`".into())?;
        }
        if let Some(saved) = saved {
            if let (Some(fault), Some(folder)) = (fault, &self.saved) {
                mend_model(folder, fault, &saved);
            }
            let header = saved.header.clone();
            if let Some(phases) = phases {
                phases.check(&run, header.epoch)?;
            }
            run.restore_from(saved, purpose == Purpose::Resume)?;
            let chosen = |folder: &PathBuf| checkpoint::readout(&folder.join(MODEL), &header);
            run.chosen = self.saved.as_ref().and_then(chosen);
            if let Some(folder) = &self.saved {
                run.restore_mixture_beside(&folder.join(MODEL), &header);
                if purpose == Purpose::Use {
                    run.check_mixture(folder)?;
                }
                if purpose == Purpose::Use && is_trained_on {
                    run.warn_of_changed_data(&header)?;
                }
            }
        }
        run.origin = self.saved;
        run.certificate = certificate;
        if let Some(team) = self.team {
            run.join(team)?;
        }
        if let Some(out) = self.out.filter(|_| is_lead) {
            run.folder = Some(Folder::create(&out)?);
        }
        Ok(run)
    }

    /// The checkpoint of an opened run, and what is wrong with its model.
    fn read(&self, folder: &Path, purpose: Purpose) -> Result<(Saved, Option<&'static str>)> {
        let resumes = purpose == Purpose::Resume;
        Chosen::of(folder, self.with_data).read(folder, resumes)
    }

    /// Whether the data of an opened run are read, and are chosen as for its training.
    fn has_same_data(&self) -> bool {
        // The first source is its config.toml.
        let mut later = self.sources.iter().skip(1);
        let is_chosen = later.any(|source| source.table.contains_key("data"));
        self.with_data && self.given.is_none() && !is_chosen
    }

    fn is_lead(&self) -> bool {
        self.team.as_ref().is_none_or(Team::is_lead)
    }

    /// Whether this rank says what was found about the settings.
    fn speaks(&self) -> bool {
        self.is_lead() && !self.is_to_measure
    }

    /// Builds the opened run so that it continues in its folder, exactly where it
    /// stopped. A run without a checkpoint starts from the beginning. [`Run::fit`] then
    /// writes to that folder.
    ///
    /// # Errors
    /// As [`RunBuilder::build`]; [`Error::Run`] if another process is writing there;
    /// [`Error::Usage`] if no run was opened.
    pub fn resume(mut self) -> Result<Run> {
        let Some(path) = self.saved.take() else {
            return Err(Error::usage(
                "resume",
                "no run was opened; start with Run::open",
            ));
        };
        // The other ranks only read.
        let folder = match self.is_lead() {
            true => Some(Folder::lock(&path)?),
            false => None,
        };
        if path.join(STATE).is_file() {
            self.saved = Some(path.clone());
        } else if path.join(MODEL).is_file() {
            // The state is written before the model, so it has been removed.
            let problem = format!(
                "has a model but no {STATE} to resume from; put it back, \
                 or remove {MODEL} to start over"
            );
            return Err(Error::run(path, problem));
        }
        if self.saved.is_none() && path.join(SUMMARY).is_file() {
            let problem = format!(
                "has a result but no {STATE} to resume from; `onward report` prints the command \
                 that trains it again, in another folder"
            );
            return Err(Error::run(path, problem));
        }
        if self.shared.is_none() {
            self = self.share_data();
        }
        let again = Self {
            is_to_measure: true,
            ..self.clone()
        };
        let mut run = self.build_for(Purpose::Resume)?;
        let least = run.step.div_ceil(run.steps_per_epoch() as u64);
        if least > run.epochs() as u64 {
            let expected = format!("at least the {least} epochs that are begun or complete");
            let epochs = run.config.run.epochs;
            let error = Error::refused("epochs", epochs, expected);
            return Err(again.attributed(error));
        }
        run.check_changes()?;
        if run.trains_otherwise() {
            run.rehearse()?;
            run = again.build_for(Purpose::Resume)?;
        }
        run.folder = folder;
        Ok(run)
    }
}

/// The purpose of opening a run. Resuming requires exactly the same data as before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Use,
    Resume,
}

impl Run {
    /// Starts a builder for a run of this architecture.
    pub fn builder(architecture: &str) -> RunBuilder {
        // An empty one would be the folder in which the program is started.
        let data_dir = std::env::var_os("ONWARD_DATA").filter(|folder| !folder.is_empty());
        let data_dir = data_dir.map(PathBuf::from);
        RunBuilder {
            architecture: architecture.into(),
            preset: None,
            sources: Vec::new(),
            data_dirs: data_dir.into_iter().collect(),
            device: "cpu".into(),
            out: None,
            saved: None,
            with_data: true,
            given: None,
            shared: None,
            is_certified: false,
            team: None,
            is_to_measure: false,
            stop: Arc::default(),
        }
    }

    /// Starts a builder for the run that [`Run::save`] or [`Run::fit`] wrote to a folder.
    /// It is the same run unless other data or another device are chosen.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Run`] if the folder holds no configuration.
    pub fn open(folder: impl AsRef<Path>) -> Result<RunBuilder> {
        let folder = folder.as_ref();
        let path = folder.join(CONFIG);
        let mut source = Source::file(&path).map_err(|error| not_a_run(folder, error))?;
        let Some(Value::String(architecture)) = source.table.remove("architecture") else {
            let problem = "has no `architecture`; it is not the configuration of a run";
            return Err(Error::run(path, problem));
        };
        // The saved configuration is complete, so no preset is added.
        let builder = Self::builder(&architecture)
            .preset(NO_PRESET)
            .source(source);
        Ok(RunBuilder {
            saved: Some(folder.into()),
            ..builder
        })
    }

    /// Loads the run that [`Run::save`] or [`Run::fit`] wrote to a folder: weights,
    /// optimisers, progress. If the training state is damaged, or is not there, only the
    /// weights and the progress.
    ///
    /// # Errors
    /// As [`Run::open`] and [`RunBuilder::build`].
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open(folder)?.build()
    }
}
