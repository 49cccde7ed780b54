//! From what somebody wrote to a complete configuration: defaults, preset, what the data set suggests, file, command line,
//! in that order; a preset that was asked for by its name stands above what the data set suggests.
//!
//! The complete configuration has every default written out and is what `config.toml` of a run holds: read back, it
//! repeats the run. Whatever is wrong in it is found here, before any work, with the key and where it came from.

use std::path::Path;

use toml::{Table, Value};

use crate::contract::architecture::Architecture;
use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::plugin::registry::{self, Info, Kind};
use crate::settings::{Pick, Setting, Settings};

crate::choices! {
    /// The element type of a run's numbers.
    pub enum Precision {
        /// 32 bits; the fast paths are made for it.
        F32 = "f32",
        /// 64 bits, by candle's own operations: slow, for checking results.
        F64 = "f64",
    }
}

crate::settings! {
    /// What the trainer reads; the same for every architecture.
    pub struct RunSettings {
        /// The data set: a registered name, or `idx:DIR`, `folder:DIR`, `text:FILE`. Default: what the architecture's preset says.
        data: Option<Pick<DataSet>> = None;
        /// Where negative views come from. Default: what the architecture's preset says.
        sampler: Option<Pick<dyn NegativeSampler>> = None;
        /// Everything random in the run is drawn from it.
        seed: u64 = 1;
        /// Passes over the training part; of each layer where layers learn one after the other.
        epochs: usize = 100, in 1..;
        /// Examples in a step. A larger one than the training part means all of it.
        batch | batch_size: usize = 100, in 1..;
        /// Augmentation: training images are moved by up to this many pixels in both directions.
        shift: usize = 0, in 0..=64;
        /// Augmentation: half of the training images, drawn at random, are mirrored left to right.
        flip: bool = false;
        /// Whether every channel of images is standardised: its mean over the training part is subtracted, and what is
        /// left divided by its standard deviation.
        standardise: bool = false;
        /// Whether the validation part is kept apart to choose the readout by; if not, it is trained on as well.
        validate: bool = true;
        /// The readout that the result is of. Default: the one that validation prefers.
        readout: Option<String> = None;
        /// Epochs between two evaluations on the validation part.
        evaluate_every: usize = 1, in 1..;
        /// Steps between two checkpoints, besides the one after every epoch; 0 for no others.
        checkpoint_every: usize = 0;
        /// The element type of all numbers.
        precision: Precision = Precision::F32;
    }
}

/// Settings, and where they were written.
#[derive(Clone, Debug)]
pub struct Source {
    /// How a message names it: `--set lr=2`, `preset nebuly`, the path of a file.
    pub origin: String,
    /// What is set there.
    pub table: Table,
}

impl Source {
    /// The settings in a TOML file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, [`Error::Data`] if it is no TOML.
    pub fn file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        let table = text.parse::<Table>().map_err(|error| Error::Data {
            file: path.to_path_buf(),
            problem: format!("not a configuration in TOML: {error}"),
        })?;
        Ok(Self {
            origin: path.display().to_string(),
            table,
        })
    }

    /// The setting in `key=value`: a TOML value, a bare word being a string, dots for nesting.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no `=`.
    pub fn assignment(text: &str) -> Result<Self> {
        let origin = format!("--set {text}");
        let Some((key, value)) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
        else {
            let expected = "key=value, as in --set lr=0.01".to_string();
            return Err(Error::Setting {
                key: text.into(),
                value: String::new(),
                origin,
                expected,
            });
        };
        // A value is parsed inside a document, since TOML has no value alone.
        let parsed = format!("value = {value}").parse::<Table>().ok();
        let parsed = parsed
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"));
        let value = parsed.unwrap_or_else(|| Value::String(value.trim().to_string()));
        let keys: Vec<_> = key.trim().split('.').collect();
        if keys.len() > DEEPEST {
            let expected =
                format!("a key of at most {DEEPEST} parts, as in --set layer.dropout=0.1");
            let (key, value) = (format!("{}…", &keys[..4].join(".")), value.to_string());
            return Err(Error::Setting {
                key,
                value,
                origin,
                expected,
            });
        }
        Ok(Self {
            origin,
            table: nested(key.trim(), value),
        })
    }

    /// One setting by its key, dots for nesting, and its value.
    pub(crate) fn setting(key: &str, value: impl Into<Value>) -> Self {
        Self {
            origin: format!("set({key})"),
            table: nested(key, value.into()),
        }
    }
}

/// The tables that a key with dots stands for.
fn nested(key: &str, value: Value) -> Table {
    let mut keys: Vec<_> = key.splitn(DEEPEST, '.').collect();
    let first = keys.remove(0).to_string();
    let value = keys.into_iter().rev().fold(value, |value, key| {
        Value::Table(Table::from_iter([(key.to_string(), value)]))
    });
    Table::from_iter([(first, value)])
}

/// No key has more parts.
const DEEPEST: usize = 16;

/// A complete configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture's name.
    pub architecture: String,
    /// What the trainer reads.
    pub run: RunSettings,
    /// What the architecture reads.
    pub settings: Table,
}

impl Config {
    /// Completes what `sources` give, later ones winning over earlier ones, for the architecture of this name.
    ///
    /// # Errors
    /// [`Error::UnknownPlugin`], [`Error::UnknownSetting`], [`Error::Setting`].
    pub fn resolve(architecture: &str, preset: Option<&str>, sources: Vec<Source>) -> Result<Self> {
        Self::resolved(architecture, preset, sources, true)
    }

    /// The same; `by_name` says whether the data are those that it names, which may then suggest settings.
    pub(crate) fn resolved(
        architecture: &str,
        preset: Option<&str>,
        sources: Vec<Source>,
        by_name: bool,
    ) -> Result<Self> {
        let info = registry::info(<dyn Architecture>::KIND, architecture)?;
        let known: Vec<Setting> = [RunSettings::describe(), (info.settings)()].concat();
        let mut layers = vec![preset_of(info, preset)?];
        layers.extend(sources);
        for layer in &mut layers {
            layer.take_architecture(architecture)?;
        }
        let (mut merged, mut renewed) = (Table::new(), Vec::with_capacity(layers.len() + 1));
        for layer in &mut layers {
            let anew = canonical(&known, &mut layer.table)
                .map_err(|error| from_origin(error, &layer.origin))?;
            (info.shorthand)(&mut layer.table, &merged)
                .map_err(|error| from_origin(error, &layer.origin))?;
            merge_anew(&mut merged, layer, &anew);
            renewed.push(anew);
        }
        if let Some(mut suggested) = suggestion(&merged)?.filter(|_| by_name) {
            canonical(&known, &mut suggested.table)
                .map_err(|error| from_origin(error, &suggested.origin))?;
            // What the user says stands above it, a preset among that.
            let place = usize::from(preset.is_none());
            layers.insert(place, suggested);
            renewed.insert(place, Vec::new());
            merged = Table::new();
            for (layer, anew) in layers.iter().zip(&renewed) {
                merge_anew(&mut merged, layer, anew);
            }
        }
        let origin = |key: &str| origin_of(&layers, key);
        let table = fill(&known, merged, "", &origin)?;
        let of_run = |key: &String| {
            RunSettings::describe()
                .iter()
                .any(|setting| setting.key == key)
        };
        let (run, settings): (Table, Table) = table.into_iter().partition(|(key, _)| of_run(key));
        let run = RunSettings::read(&run).map_err(|error| place(error, "", &origin))?;
        (info.check)(&settings).map_err(|error| place(error, "", &origin))?;
        Ok(Self {
            architecture: architecture.into(),
            run,
            settings,
        })
    }

    /// The text of `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.to_table()).expect("tables of plain values can always be written")
    }

    /// All settings in one table, the architecture's name among them.
    pub fn to_table(&self) -> Table {
        let mut table = Table::try_from(&self.run).expect("settings are plain values");
        table.extend(self.settings.clone());
        table.insert(
            "architecture".into(),
            Value::String(self.architecture.clone()),
        );
        table
    }
}

impl Source {
    /// A file may say which architecture it is for; then it has to be this one.
    fn take_architecture(&mut self, architecture: &str) -> Result<()> {
        match self.table.remove("architecture") {
            Some(Value::String(name)) if name != architecture => Err(Error::Setting {
                key: "architecture".into(),
                value: name,
                origin: self.origin.clone(),
                expected: format!("{architecture}, the architecture that was asked for"),
            }),
            _ => Ok(()),
        }
    }
}

/// The name that stands for no preset at all: for configurations that are complete.
pub(crate) const NO_PRESET: &str = "none";

fn preset_of(info: &Info, name: Option<&str>) -> Result<Source> {
    let preset = match name {
        None => info.presets.first(),
        Some(NO_PRESET) => None,
        Some(name) => Some(
            info.presets
                .iter()
                .find(|preset| preset.name == name)
                .ok_or_else(|| Error::Setting {
                    key: "preset".into(),
                    value: name.into(),
                    origin: "--preset".into(),
                    expected: match info
                        .presets
                        .iter()
                        .map(|preset| preset.name)
                        .collect::<Vec<_>>()
                    {
                        names if names.is_empty() => {
                            format!("{NO_PRESET}: {} has no presets", info.name)
                        }
                        names => format!("one of {}, or {NO_PRESET}", names.join(", ")),
                    },
                })?,
        ),
    };
    let table = preset.map_or(Ok(Table::new()), |preset| preset.settings.parse::<Table>());
    let table = table.map_err(|error| Error::Mismatch {
        place: format!("a preset of {} (package {})", info.name, info.package),
        problem: error.to_string(),
    })?;
    Ok(Source {
        origin: format!("preset {}", preset.map_or("none", |preset| preset.name)),
        table,
    })
}

/// What the data set suggests for itself: its first preset.
fn suggestion(merged: &Table) -> Result<Option<Source>> {
    let Some(Value::Table(data)) = merged.get("data") else {
        return Ok(None);
    };
    let Some(Value::String(name)) = data.get("name") else {
        return Ok(None);
    };
    let info = registry::info(DataSet::KIND, name)?;
    match info.presets.first() {
        None => Ok(None),
        Some(_) => {
            let source = preset_of(info, None)?;
            Ok(Some(Source {
                origin: format!("what data {name} suggests"),
                ..source
            }))
        }
    }
}

/// Writes every alias as its key and every plugin's name as a table; returns what an argument, as in `name:ARGUMENT`,
/// makes void of what was said before: settings that belong to another argument.
fn canonical(known: &[Setting], table: &mut Table) -> Result<Vec<Renewed>> {
    let mut renewed = Vec::new();
    for setting in known {
        if let Some((alias, value)) = setting
            .alias
            .and_then(|alias| Some((alias, table.remove(alias)?)))
        {
            if let Some(other) = table.insert(setting.key.into(), value.clone()) {
                let expected = format!("one of both: `{}` says {other} already", setting.key);
                return Err(Error::Setting {
                    key: alias.into(),
                    value: value.to_string(),
                    origin: String::new(),
                    expected,
                });
            }
        }
        let (Some(kind), Some(value)) = (setting.kind, table.get_mut(setting.key)) else {
            continue;
        };
        for value in each(value) {
            if let Value::String(text) = value {
                let table = pick(kind, text)?;
                if let (true, Some(name)) = (text.contains(':'), table["name"].as_str()) {
                    renewed.push((setting.key, registry::info(kind, name)?.beside));
                }
                *value = Value::Table(table);
            }
        }
    }
    Ok(renewed)
}

/// A setting, and which of the settings below it were for another argument.
type Renewed = (&'static str, &'static [&'static str]);

/// A value by itself, or those of a list.
fn each(value: &mut Value) -> &mut [Value] {
    match value {
        Value::Array(values) => values,
        value => std::slice::from_mut(value),
    }
}

/// `name`, or `name:argument`, as a table.
fn pick(kind: &'static str, text: &str) -> Result<Table> {
    let (name, argument) = text
        .split_once(':')
        .map_or((text, None), |(name, argument)| (name, Some(argument)));
    let mut table = Table::from_iter([("name".to_string(), Value::String(name.into()))]);
    if let Some(argument) = argument {
        let Some(key) = registry::info(kind, name)?.argument else {
            return Err(Error::Setting {
                key: kind.into(),
                value: text.into(),
                origin: String::new(),
                expected: format!("{name} alone: it takes nothing behind a colon"),
            });
        };
        table.insert(key.into(), Value::String(argument.into()));
    }
    Ok(table)
}

/// Merges a layer, after what header to other arguments than those that it names was left out.
fn merge_anew(merged: &mut Table, layer: &Source, renewed: &[Renewed]) {
    for (key, beside) in renewed {
        if let Some(Value::Table(old)) = merged.get_mut(*key) {
            beside.iter().for_each(|key| drop(old.remove(*key)));
        }
    }
    merge(merged, layer.table.clone());
}

/// `later` wins; two tables are merged unless they name different plugins. Settings of plugins that nobody names are for
/// all in a list.
fn merge(into: &mut Table, later: Table) {
    for (key, value) in later {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if same_name(old, &new) => merge(old, new),
            (Some(Value::Array(old)), Value::Table(new))
                if !new.contains_key("name") && old.iter().all(Value::is_table) =>
            {
                old.iter_mut()
                    .filter_map(Value::as_table_mut)
                    .for_each(|old| merge(old, new.clone()));
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn same_name(old: &Table, new: &Table) -> bool {
    new.get("name").is_none() || new.get("name") == old.get("name")
}

/// The settings of a plugin with every default written out.
///
/// # Errors
/// [`Error::UnknownSetting`], [`Error::UnknownPlugin`], [`Error::Setting`].
pub(crate) fn complete(kind: &'static str, info: &Info, mut given: Table) -> Result<Table> {
    let known = (info.settings)();
    let origin = |_: &str| format!("the settings of {kind} {}", info.name);
    canonical(&known, &mut given)?;
    let table = fill(&known, given, "", &origin)?;
    (info.check)(&table).map_err(|error| place(error, "", &origin))?;
    Ok(table)
}

/// Settings upon the plugin that a default names.
fn upon(kind: &'static str, default: &Value, given: Table) -> Result<Value> {
    let mut table = match default {
        Value::String(text) => pick(kind, text)?,
        Value::Table(table) => table.clone(),
        _ => Table::new(),
    };
    merge(&mut table, given);
    Ok(Value::Table(table))
}

fn fill(
    known: &[Setting],
    given: Table,
    prefix: &str,
    origin: &dyn Fn(&str) -> String,
) -> Result<Table> {
    if let Some(key) = given
        .keys()
        .find(|key| !known.iter().any(|setting| setting.key == *key))
    {
        let key = format!("{prefix}{key}");
        let known = known
            .iter()
            .map(|setting| setting.key.to_string())
            .collect();
        return Err(Error::UnknownSetting {
            origin: origin(&key),
            key,
            known,
        });
    }
    let mut table = Table::new();
    for setting in known {
        let Some(value) = given.get(setting.key).or(setting.default.as_ref()) else {
            continue;
        };
        let path = format!("{prefix}{}", setting.key);
        let value = match (setting.kind, value, &setting.default) {
            // Settings of a plugin that nobody names are settings of the default.
            (Some(kind), Value::Table(given), Some(default)) if !given.contains_key("name") => {
                fill_pick(kind, upon(kind, default, given.clone())?, &path, origin)?
            }
            (Some(kind), value, _) => fill_pick(kind, value.clone(), &path, origin)?,
            (None, value, _) => value.clone(),
        };
        table.insert(setting.key.into(), value);
    }
    Ok(table)
}

fn fill_pick(
    kind: &'static str,
    value: Value,
    path: &str,
    origin: &dyn Fn(&str) -> String,
) -> Result<Value> {
    let mut table = match value {
        Value::String(text) => pick(kind, &text)?,
        Value::Table(table) => table,
        Value::Array(values) => {
            let filled = values
                .into_iter()
                .map(|value| fill_pick(kind, value, path, origin));
            return Ok(Value::Array(filled.collect::<Result<_>>()?));
        }
        other => return Err(unnamed(kind, path, other.to_string(), origin)),
    };
    let Some(Value::String(name)) = table.remove("name") else {
        return Err(unnamed(kind, path, Value::Table(table).to_string(), origin));
    };
    let info = registry::info(kind, &name)?;
    let prefix = format!("{path}.");
    let mut known = table;
    canonical(&(info.settings)(), &mut known)?;
    let mut filled = fill(&(info.settings)(), known, &prefix, origin)?;
    (info.check)(&filled).map_err(|error| place(error, &prefix, origin))?;
    filled.insert("name".into(), Value::String(name));
    Ok(Value::Table(filled))
}

fn unnamed(kind: &str, path: &str, value: String, origin: &dyn Fn(&str) -> String) -> Error {
    let expected =
        format!("the name of a registered {kind}, or a table with `name` and its settings");
    Error::Setting {
        key: path.into(),
        value,
        origin: origin(path),
        expected,
    }
}

/// Gives an error about a setting its full key and its origin.
fn place(error: Error, prefix: &str, origin: &dyn Fn(&str) -> String) -> Error {
    match error {
        Error::Setting {
            key,
            value,
            expected,
            ..
        } => {
            let key = format!("{prefix}{key}");
            Error::Setting {
                origin: origin(&key),
                key,
                value,
                expected,
            }
        }
        other => other,
    }
}

fn from_origin(error: Error, name: &str) -> Error {
    place(error, "", &|_| name.to_string())
}

/// The last source that mentions `key`, or the plugin that it is nested in.
fn origin_of(layers: &[Source], key: &str) -> String {
    let mentions = |layer: &&Source| {
        let mut table = &layer.table;
        for part in key.split('.') {
            match table.get(part) {
                Some(Value::Table(inner)) => table = inner,
                Some(_) => return true,
                None => return false,
            }
        }
        true
    };
    layers
        .iter()
        .rev()
        .find(mentions)
        .map_or("the defaults".into(), |layer| layer.origin.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(text: &str) -> Table {
        Source::assignment(text).unwrap().table
    }

    #[test]
    fn an_assignment_takes_toml_values_bare_words_and_dots() {
        assert_eq!(assigned("lr=0.5"), toml::toml! { lr = 0.5 });
        assert_eq!(
            assigned("hidden=[10, 20]"),
            toml::toml! { hidden = [10, 20] }
        );
        assert_eq!(
            assigned("sampler=label_overlay"),
            toml::toml! { sampler = "label_overlay" }
        );
        assert_eq!(
            assigned("sampler.strength=2"),
            toml::toml! { sampler.strength = 2 }
        );
        assert_eq!(
            assigned("data=idx:/tmp/a=b"),
            toml::toml! { data = "idx:/tmp/a=b" }
        );
        assert_eq!(assigned("a=1\nb=2"), toml::toml! { a = "1\nb=2" });
    }

    #[test]
    fn an_assignment_without_a_value_says_how_it_is_written() {
        let error = Source::assignment("lr").unwrap_err().to_string();
        assert!(error.contains("key=value"), "{error}");
    }

    #[test]
    fn tables_merge_unless_they_name_different_plugins() {
        let mut table = toml::toml! { sampler = { name = "a", strength = 1 } };
        merge(&mut table, toml::toml! { sampler = { negatives = "hard" } });
        assert_eq!(
            table,
            toml::toml! { sampler = { name = "a", strength = 1, negatives = "hard" } }
        );
        merge(&mut table, toml::toml! { sampler = { name = "b" } });
        assert_eq!(table, toml::toml! { sampler = { name = "b" } });
    }
}
