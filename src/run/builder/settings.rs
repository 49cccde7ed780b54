//! The settings of a run: those that suit its data, and those that an opened run keeps.

use std::fmt::Display;
use std::path::Path;

use toml::{Table, Value};

use super::RunBuilder;
use crate::contract::architecture::Architecture;
use crate::data::DataSet;
use crate::error::{shell_word, Error, Result};
use crate::plugin::config::{Config, Suited};
use crate::plugin::registry;
use crate::run::checkpoint::Header;
use crate::run::folder::CONFIG;
use crate::run::settings;
use crate::settings::PluginKind;

/// The error of a setting that a run has kept from its beginning.
fn kept(key: &str, before: impl Display, now: &Value) -> Error {
    let expected = format!("{before}, which the run has kept; a new run can have another");
    Error::refused(key, now, expected)
}

impl RunBuilder {
    /// Returns the complete configuration, before anything is built. If nothing about the
    /// network is chosen, the files of `folder:DIR` or `text:FILE` are looked at:
    /// [`Config::suited`].
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn config(&self) -> Result<Config> {
        self.clone().suited()?.0.resolved()
    }

    /// As [`RunBuilder::config`], without a look at the data.
    pub(super) fn resolved(&self) -> Result<Config> {
        let (preset, by_name) = (self.preset.as_deref(), self.given.is_none());
        let sources = self.sources.clone();
        let mut config = Config::resolve_for(&self.architecture, preset, sources, by_name)?;
        if self.given.is_some() {
            config.run.data = None;
        }
        Ok(config)
    }

    /// The settings that are other than they would be without the suggestion of the data
    /// set.
    ///
    /// # Errors
    /// As [`RunBuilder::config`].
    pub(crate) fn suggested(&self) -> Result<Table> {
        let this = self.clone().suited()?.0;
        let with = this.resolved()?.to_table();
        let (preset, sources) = (this.preset.as_deref(), this.sources);
        let without = Config::resolve_for(&this.architecture, preset, sources, false)?;
        let without = without.to_table();
        let differs = |(key, value): &(String, Value)| without.get(key) != Some(value);
        Ok(with.into_iter().filter(differs).collect())
    }

    /// With what suits the look of the data: settings of the data, and a preset if no
    /// network is chosen. A line says so.
    pub(super) fn suited(mut self) -> Result<(Self, Option<String>)> {
        if self.given.is_some() || self.saved.is_some() {
            return Ok((self, None));
        }
        let suited = Config::suited(&self.architecture, &self.sources)?;
        let Some(suited) = suited else {
            return Ok((self, None));
        };
        let Suited {
            kind,
            preset,
            unless,
            data,
        } = suited;
        let of_data = data.table[DataSet::KIND].as_table().into_iter().flatten();
        let of_data = of_data.filter(|(key, _)| *key != "name");
        let of_data: Vec<String> = of_data
            .map(|(key, value)| format!("data.{key} = {value}"))
            .collect();
        let chosen = preset.filter(|_| self.preset.is_none() && unless.is_none());
        let of_preset = chosen.map(|preset| format!("preset {preset}"));
        let mut said = vec![of_preset
            .into_iter()
            .chain(of_data)
            .collect::<Vec<_>>()
            .join(", ")];
        if let (None, Some(preset), Some(key)) = (&self.preset, preset, unless) {
            let info = registry::info(<dyn Architecture>::KIND, &self.architecture)?;
            let used = match info.own_presets.first() {
                Some(first) => format!("the preset {} is", first.name),
                None => "the defaults are".into(),
            };
            said.push(format!(
                "since `{key}` is set, {used} used instead of {preset}; to use {preset} with it: \
                 --preset {preset}"
            ));
        }
        said.retain(|said| !said.is_empty());
        self.preset = self.preset.or(chosen.map(String::from));
        self.sources.insert(0, data);
        let said = (!said.is_empty()).then(|| format!("{}: {}", kind.words(), said.join("; ")));
        Ok((self, said))
    }

    /// Refuses changes of what an opened run has kept from the beginning.
    pub(super) fn check_fixed(&self, config: &Config) -> Result<()> {
        let Some(file) = self.sources.first() else {
            return Ok(());
        };
        let now = config.to_table();
        // The weights of now do not come from there.
        let [before, init] = [file.table.get("init"), now.get("init")];
        if let Some(init) = init.filter(|init| before != Some(init)) {
            let before = before.map_or("not set".to_string(), Value::to_string);
            return Err(kept("init", before, init));
        }
        // A table would show the result as that of the other seed.
        for key in ["examples", "seed"] {
            let (Some(before), Some(now)) = (file.table.get(key), now.get(key)) else {
                continue;
            };
            if before != now {
                return Err(kept(key, before, now));
            }
        }
        let Some(data) = &config.run.data else {
            return Ok(());
        };
        let before = file.table.get(DataSet::KIND).and_then(Value::as_table);
        for key in registry::info(DataSet::KIND, &data.name)?.fixed {
            let before = before.and_then(|before| before.get(*key));
            let (Some(before), Some(now)) = (before, data.settings.get(*key)) else {
                continue;
            };
            if before != now {
                return Err(kept(&format!("data.{key}"), before, now));
            }
        }
        Ok(())
    }

    /// The configuration of an opened run. Its `config.toml` must have the settings of
    /// the checkpoint beside it, except for those that are set on purpose now.
    ///
    /// A process that was killed while it changed settings leaves a state with the new
    /// ones and a file with the old ones; those of the state then count.
    pub(super) fn bound(&self, folder: &Path, header: &Header) -> Result<Config> {
        let config = self.resolved()?;
        let wanted = header.settings.as_ref();
        // Checkpoints of older versions have none; another architecture is refused later.
        let Some(wanted) = wanted.filter(|_| header.architecture == self.architecture) else {
            return Ok(config);
        };
        let of_checkpoint = self.with_settings(wanted)?;
        let text = settings::of(&config);
        let difference = settings::difference(&settings::of(&of_checkpoint), &text);
        let Some((key, before, now)) = difference else {
            return Ok(config);
        };
        if let Some(previous) = &header.previous {
            if settings::of(&self.with_settings(previous)?) == text {
                return Ok(of_checkpoint);
            }
        }
        let problem = format!(
            "has `{key}` = {now}, but the run was trained with {before}; put that back, or \
             change it on purpose: onward resume {} --set {key}=VALUE",
            shell_word(&folder.display().to_string())
        );
        Err(Error::run(folder.join(CONFIG), problem))
    }

    /// The configuration with the settings of a checkpoint instead of those in the file.
    /// Data and what is set on purpose stay.
    fn with_settings(&self, settings: &str) -> Result<Config> {
        let mut builder = self.clone();
        let file = &mut builder.sources[0].table;
        let data = file.remove("data");
        *file = settings.parse().unwrap_or_default();
        file.remove("architecture");
        file.extend(data.map(|data| ("data".to_string(), data)));
        builder.resolved()
    }
}
