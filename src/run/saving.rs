//! The files of a run: what is written to its folder, and how it is restored from there.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;

use super::checkpoint::{self, Header, Saved, FORMAT};
use super::folder::{Folder, CERTIFICATE, CONFIG, MODEL, STATE, SUMMARY, TOKENIZER};
use super::{settings, Run};
use crate::disk;
use crate::error::{notify, printable, Error, Result};
use crate::flow::examples::Split;

impl Run {
    /// Whether the model in a folder is that of this moment, and undamaged.
    pub(super) fn has_model(&self, folder: &Path) -> bool {
        let path = folder.join(MODEL);
        let is_of = |header: Header| checkpoint::is_of(&path, &header);
        self.header().is_ok_and(is_of) && checkpoint::read(&path).is_ok()
    }

    /// Writes what a run that was killed had no time for, and settings that were changed
    /// on purpose: the state first, which everything else follows from.
    pub(super) fn bring_up_to_date(&mut self, folder: &Path) -> Result<()> {
        self.check_folder(folder)?;
        checkpoint::set_aside(folder, &self.header()?);
        if let Some(previous) = &self.previous {
            // So that a kill from here on leaves settings that the new state knows.
            let mut table: toml::Table = previous.parse().unwrap_or_default();
            let data = self.config.to_table().remove("data");
            table.extend(data.map(|data| ("data".to_string(), data)));
            write_settings(folder, &table)?;
            if !self.is_trained() {
                // They were chosen and learned for fewer epochs.
                (self.chosen, self.mixed) = (None, None);
            }
            self.save(folder)?;
            self.previous = None; // config.toml has the new settings now
            return Ok(());
        }
        self.describe_in(folder)?;
        if self.step > 0 && !self.has_model(folder) {
            self.write_model(folder)?;
        }
        Ok(())
    }

    /// Writes the certificate of locality, or reads that of an earlier sitting.
    pub(super) fn keep_certificate(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(CERTIFICATE);
        match &self.certificate {
            Some(certificate) => {
                let text = serde_json::to_string_pretty(certificate);
                let text = text.expect("plain values can be written");
                disk::replace(&path, (text + "\n").as_bytes())
            }
            None => {
                let text = disk::read_text(&path).ok();
                // One that is damaged is measured again by `onward certify`.
                self.certificate = text.and_then(|text| serde_json::from_str(&text).ok());
                Ok(())
            }
        }
    }

    /// Refuses to write to the folder of this run if it is another one by now.
    pub(super) fn check_folder(&self, folder: &Path) -> Result<()> {
        match &self.folder {
            Some(own) if self.is_own(folder) => own.check(),
            _ => Ok(()),
        }
    }

    /// Whether this is the folder that the run has locked.
    fn is_own(&self, folder: &Path) -> bool {
        self.folder().is_some_and(|own| is_same(own, folder))
    }

    pub(super) fn header(&self) -> Result<Header> {
        let text = self.data.text.as_ref();
        Ok(Header {
            format: FORMAT,
            architecture: self.config.architecture.clone(),
            spec: self.data.spec.clone(),
            tokenizer: text.map(|text| text.tokenizer.fingerprint()),
            examples: Some(self.data.train.len()),
            data: Some(self.fingerprints()?),
            settings: Some(settings::of(&self.config)),
            previous: self.previous.clone(),
            changes: self.changes.clone(),
            sums: self.tally.sums()?,
            shares: self.tally.shares.clone(),
            best: self.best,
            readout: None,
            mixed: None,
            epoch: self.epoch,
            step: self.step,
            checksum: 0,
        })
    }

    /// The fingerprints of the training, validation and test part.
    pub(super) fn fingerprints(&self) -> Result<[u32; 3]> {
        if let Some(known) = self.fingerprints.get() {
            return Ok(*known);
        }
        let mut found = [0; 3];
        for (found, split) in found.iter_mut().zip(PARTS) {
            *found = self.data.split(split).fingerprint()?;
        }
        Ok(*self.fingerprints.get_or_init(|| found))
    }

    fn model(&self) -> BTreeMap<String, Tensor> {
        named(
            "",
            self.vars
                .model()
                .into_iter()
                .map(|(name, var)| (name, var.as_detached_tensor())),
        )
    }

    /// Everything that the next step depends on.
    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = named("model.", self.model());
        let net = self.architecture.net();
        let blocks = net.blocks.iter().map(|block| block.optimiser());
        for optimiser in blocks.chain(net.heads.iter().map(|head| head.optimiser())) {
            state.extend(named("optimiser.", optimiser.save()?));
        }
        let training = self.vars.training_state().into_iter();
        let training = training.map(|(name, var)| (name, var.as_detached_tensor()));
        state.extend(named("training.", training));
        Ok(state)
    }

    /// Writes the files that the weights depend on: the configuration and, for text, the
    /// tokenizer.
    fn describe_in(&self, folder: &Path) -> Result<()> {
        write_settings(folder, &self.config.to_table())?;
        let Some(text) = &self.data.text else {
            return Ok(());
        };
        let (path, json) = (folder.join(TOKENIZER), text.tokenizer.to_json());
        match disk::read_text(&path) {
            Ok(known) if known == json => Ok(()),
            _ => disk::replace(&path, json.as_bytes()),
        }
    }

    /// Writes configuration, training state and model to a folder, which is created if
    /// needed.
    ///
    /// # Errors
    /// [`Error::Run`] for the folder of another run, or of this one at a later time:
    /// neither is overwritten. [`Error::Usage`] for a run that was opened without its
    /// data, and so without its optimisers. [`Error::Diverged`] for values that are not
    /// finite; existing files are then kept. [`Error::File`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        if self.data.train.is_empty() {
            let problem = "opened without its data, to predict; copy its folder instead";
            return Err(Error::usage("saving a run", problem));
        }
        self.check_free(folder)?;
        // The state includes the weights: one file is replaced atomically, two are not.
        let state = self.state()?;
        if let Some(name) = checkpoint::not_finite(&state)? {
            let (block, value) = (name.clone(), f64::NAN);
            return Err(Error::Diverged {
                block,
                what: "variable",
                value,
                step: self.step,
            });
        }
        self.check_folder(folder)?;
        let mut _lock = None;
        if !self.is_own(folder) {
            std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
            _lock = Some(Folder::lock(folder)?);
            // Another process may have written there since.
            self.check_free(folder)?;
        }
        let header = self.header()?;
        // A run without a checkpoint starts from its configuration.
        if !folder.join(CONFIG).exists() {
            self.describe_in(folder)?;
        }
        // Each on its own: another folder may have taken the place of this one since.
        checkpoint::write(&folder.join(STATE), &state, &header)?;
        self.check_folder(folder)?;
        self.write_model(folder)?;
        self.check_folder(folder)?;
        self.describe_in(folder)
    }

    /// Writes the model, of a finished run with the readout that validation chose.
    pub(super) fn write_model(&self, folder: &Path) -> Result<()> {
        let mut header = self.header()?.with_readout(self.chosen.clone());
        let mut tensors = self.model();
        if let Some(mixed) = &self.mixed {
            header.mixed = Some(mixed.readout().into());
            tensors.extend(mixed.tensors()?);
        }
        checkpoint::write(&folder.join(MODEL), &tensors, &header)
    }

    /// Refuses a folder with contents that would be lost.
    fn check_free(&self, folder: &Path) -> Result<()> {
        let is_origin = |origin: &Path| is_same(origin, folder);
        let is_own = self.is_own(folder) || self.origin.as_deref().is_some_and(is_origin);
        let Ok(config) = disk::read_text(&folder.join(CONFIG)) else {
            let files = [STATE, MODEL, SUMMARY].map(|name| folder.join(name));
            return match files.iter().any(|file| file.exists()) {
                false => Ok(()),
                true => Err(Error::run(
                    folder,
                    "holds a run without a readable config.toml; it is not overwritten, choose \
                     another folder",
                )),
            };
        };
        // Compared as TOML, since comments may have been added.
        let read = |text: &str| text.parse::<toml::Table>().ok();
        // After a change of `batch` the same epoch may have fewer steps.
        let step = if self.previous.is_some() {
            u64::MAX
        } else {
            self.step
        };
        let is_later = |header: Header| (header.epoch, header.step) > (self.epoch, step);
        let problem = if !is_own && read(&config) != read(&self.config.to_toml()) {
            "holds another run"
        } else if checkpoint::header_of(&folder.join(STATE)).is_some_and(is_later) {
            "holds this run at a later time"
        } else {
            return Ok(());
        };
        let problem = format!("{problem}; it is not overwritten, choose another folder");
        Err(Error::run(folder, problem))
    }

    /// Restores a checkpoint. Resuming requires the same classes and the same number of
    /// examples.
    pub(super) fn restore_from(&mut self, saved: Saved, resumes: bool) -> Result<()> {
        let Saved {
            path,
            mut tensors,
            header,
        } = saved;
        if header.architecture != self.config.architecture {
            let (found, wanted) = (&header.architecture, &self.config.architecture);
            let problem = format!("holds the architecture {found}, expected {wanted}");
            return Err(Error::run(path, problem));
        }
        self.check_data(&path, &header, resumes)?;
        let found = self.fingerprints()?;
        self.has_own_data = header.data.is_none_or(|wanted| wanted[0] == found[0]);
        self.restore_mixture(&path, &header, &mut tensors)?;
        if let Err(error) = self.restore(tensors) {
            return Err(self.not_restored(&path, &header, &error)?);
        }
        (self.epoch, self.step) = (header.epoch, header.step);
        if resumes {
            self.step = self.step_with_this_batch(&header)?;
        }
        self.changes = header.changes;
        self.note_changes(header.settings)?;
        self.tally = header.sums.into();
        self.tally.shares = header.shares;
        self.best = header.best;
        Ok(())
    }

    /// Refuses data that differ from those of a checkpoint.
    fn check_data(&self, path: &Path, header: &Header, resumes: bool) -> Result<()> {
        let own = self.header()?;
        if header.tokenizer != own.tokenizer {
            let [wanted, found] =
                [&header.tokenizer, &own.tokenizer].map(|tokenizer| match tokenizer {
                    Some(fingerprint) => format!("text with the tokenizer {fingerprint}"),
                    None => "no text".to_string(),
                });
            let problem = format!("was trained on {wanted}; found data with {found}");
            return Err(Error::run(path, problem));
        }
        let [wanted, found] = [&header.spec, &own.spec].map(|spec| {
            let (shape, classes) = (&spec.shape, spec.classes.len());
            let before = match spec.before {
                0 => String::new(),
                tokens => format!(", {tokens} of them before the window"),
            };
            format!("examples of shape {shape:?}{before} in {classes} classes")
        });
        if wanted != found {
            let problem = format!("{} was trained on {wanted}; found {found}", path.display());
            return Err(Error::usage("data", problem));
        }
        if !resumes {
            return of_other_names(&header.spec.classes, &own.spec.classes);
        }
        let mut classes = header.spec.classes.iter().zip(&own.spec.classes);
        if let Some((wanted, found)) = classes.find(|(wanted, found)| wanted != found) {
            let problem =
                format!("the class {wanted:?} of the run is now {found:?}; restore its name");
            return Err(Error::usage("data", problem));
        }
        let parts = header.data.iter().flatten().zip(own.data.iter().flatten());
        let changed = parts
            .zip(PARTS)
            .find(|((wanted, found), _)| wanted != found);
        match (header.examples, own.examples) {
            (Some(wanted), Some(found)) if wanted == found => match changed {
                Some((_, part)) => {
                    let problem = format!(
                        "the {} part is not the one that the run began with: an example or a \
                         label changed; restore the data, or start a new run",
                        part.word()
                    );
                    Err(Error::usage("data", problem))
                }
                None => Ok(()),
            },
            (Some(wanted), Some(found)) => {
                let problem = format!(
                    "the training part had {wanted} examples when the run began and has \
                     {found} now; restore the data and their settings, or start a new run"
                );
                Err(Error::usage("data", problem))
            }
            _ => Ok(()),
        }
    }

    /// Restores a model, or a training state that includes the model.
    fn restore(&mut self, tensors: HashMap<String, Tensor>) -> Result<()> {
        let below = |prefix: &str| -> HashMap<String, Tensor> {
            let own = tensors.iter().filter_map(|(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
            });
            own.collect()
        };
        let model = below("model.");
        if model.is_empty() {
            return self.vars.restore(&tensors);
        }
        if !below("sampler.").is_empty() {
            let problem = "has roll-outs in the format of an older version, which cannot \
                           be resumed; its model can still be used";
            return Err(Error::usage("training state", problem));
        }
        self.vars.restore(&model)?;
        self.vars.restore_training_state(&below("training."))?;
        let moments = below("optimiser.");
        let net = self.architecture.net_mut();
        for block in &mut net.blocks {
            block.optimiser_mut().restore(&moments)?;
        }
        for head in &mut net.heads {
            head.optimiser_mut().restore(&moments)?;
        }
        Ok(())
    }
}

/// Whether both paths lead to one folder.
fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    a == b || real(a).is_some_and(|a| real(b) == Some(a))
}

/// Refuses the same classes in another order, and warns of other classes: a class is
/// known by its place.
pub(super) fn of_other_names(wanted: &[String], found: &[String]) -> Result<()> {
    let differing = wanted
        .iter()
        .zip(found)
        .find(|(wanted, found)| wanted != found);
    let Some((wanted_name, found_name)) = differing else {
        return Ok(());
    };
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    if sorted(wanted) == sorted(found) {
        let problem = format!(
            "has the classes of the run in another order: {found_name:?} where the run has \
             {wanted_name:?}; restore their order"
        );
        return Err(Error::usage("data", problem));
    }
    notify(format_args!(
        "warning: the data have other classes than the run, matched by their order: \
         {} for {}, …",
        printable(found_name),
        printable(wanted_name)
    ));
    Ok(())
}

/// Writes `config.toml`. If it has the same settings, with comments of the user, it stays
/// as it is.
fn write_settings(folder: &Path, settings: &toml::Table) -> Result<()> {
    let path = folder.join(CONFIG);
    let found = disk::read_text(&path).ok();
    let found = found.and_then(|text| text.parse::<toml::Table>().ok());
    if found.as_ref() == Some(settings) {
        return Ok(());
    }
    let text = toml::to_string(settings).expect("tables of plain values can be written");
    disk::replace(&path, text.as_bytes())
}

/// The parts of the data.
pub(super) const PARTS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

/// Tensors with a prefix before each name.
fn named(
    prefix: &str,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
) -> BTreeMap<String, Tensor> {
    let tensors = tensors.into_iter();
    tensors
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
        .collect()
}
