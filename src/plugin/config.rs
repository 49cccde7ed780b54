//! Merging of settings from several sources into a complete configuration.
//!
//! Sources are merged in this order, and later sources win: defaults, the architecture's
//! preset, what the chosen goodness needs, the settings that the data set suggests, files,
//! the command line. A preset that is requested by name wins over the data set's suggestion.
//!
//! A complete configuration has every default written out. It is the `config.toml` of a
//! run; read again, it repeats the run. Mistakes are found here, before any work, and
//! reported with the key and its origin.

use toml::{Table, Value};

use super::preset;
use super::registry::{self, Info};
use super::run_settings::RunSettings;
use super::source::Source;
use crate::contract::architecture::Architecture;
use crate::contract::goodness::GoodnessFn;
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::settings::{PluginKind, Setting, Settings};

/// A complete configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture's name.
    pub architecture: String,
    /// The settings of the trainer.
    pub run: RunSettings,
    /// The settings of the architecture.
    pub settings: Table,
}

/// The name for no preset, used for complete configurations.
pub(crate) const NO_PRESET: &str = "none";

impl Config {
    /// Completes the settings of `sources` for the architecture of this name; later
    /// sources win.
    ///
    /// # Errors
    /// [`Error::UnknownPlugin`], [`Error::UnknownSetting`], [`Error::Setting`].
    pub fn resolve(architecture: &str, preset: Option<&str>, sources: Vec<Source>) -> Result<Self> {
        Self::resolve_for(architecture, preset, sources, true)
    }

    /// As [`Config::resolve`]; `by_name` says whether the data set is chosen by the
    /// settings, so that its suggestion applies.
    pub(crate) fn resolve_for(
        architecture: &str,
        preset: Option<&str>,
        sources: Vec<Source>,
        by_name: bool,
    ) -> Result<Self> {
        let info = registry::info(<dyn Architecture>::KIND, architecture)?;
        let known = [RunSettings::describe(), (info.settings)()].concat();
        let mut sources = [vec![preset_of(info, preset)?], sources].concat();
        for source in &mut sources {
            source.is_for(architecture)?;
            source.canonical(&known)?;
        }
        // The first source is the preset, which has what its goodness needs.
        if let Some(mut suggested) = of_goodness(&sources[1..])? {
            suggested.keep_known(&known, &sources);
            suggested.canonical(&known)?;
            sources.insert(1, suggested);
        }
        if by_name {
            if let Some(mut suggested) = suggestion(&sources)? {
                suggested.canonical(&known)?;
                sources.insert(usize::from(preset.is_none()), suggested);
            }
        }
        let mut merged = Merged::default();
        for source in sources {
            merged.add(source, info, &known)?;
        }
        let origin = |key: &str| merged.origin(key);
        let table = fill(&known, merged.table.clone(), "", &origin)?;
        let of_run = RunSettings::describe();
        let (run, settings): (Table, Table) = table
            .into_iter()
            .partition(|(key, _)| of_run.iter().any(|setting| setting.key == key));
        let run = RunSettings::read(&run).map_err(|error| located(error, "", &origin))?;
        (info.check)(&settings).map_err(|error| located(error, "", &origin))?;
        Ok(Self {
            architecture: architecture.into(),
            run,
            settings,
        })
    }

    /// The text of `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.to_table()).expect("tables of plain values can be written")
    }

    /// All settings in one table, with the architecture's name.
    pub fn to_table(&self) -> Table {
        let mut table = self.settings.clone();
        self.run.write_to(&mut table);
        let name = Value::String(self.architecture.clone());
        table.insert("architecture".into(), name);
        table
    }
}

/// Completes the settings of a plugin with every default.
///
/// # Errors
/// [`Error::UnknownSetting`], [`Error::UnknownPlugin`], [`Error::Setting`].
pub(crate) fn complete(kind: &'static str, info: &Info, given: Table) -> Result<Table> {
    let known = (info.settings)();
    let mut source = Source {
        origin: format!("the settings of {kind} {}", info.name),
        table: given,
    };
    source.canonical(&known)?;
    let origin = |_: &str| source.origin.clone();
    let table = fill(&known, source.table.clone(), "", &origin)?;
    (info.check)(&table).map_err(|error| located(error, "", &origin))?;
    Ok(table)
}

/// Merged settings and the origin of each.
#[derive(Default)]
struct Merged {
    table: Table,
    /// The paths that were set and their origins, in order.
    origins: Vec<(String, String)>,
}

impl Merged {
    fn add(&mut self, source: Source, architecture: &Info, known: &[Setting]) -> Result<()> {
        let Source { origin, mut table } = source;
        let rewritten = self.rewrite(&mut table, architecture, known);
        rewritten.map_err(|error| located(error, "", &|_| origin.clone()))?;
        let mut paths = Vec::new();
        list_paths(&table, "", &mut paths);
        self.origins
            .extend(paths.into_iter().map(|path| (path, origin.clone())));
        merge(&mut self.table, table);
        Ok(())
    }

    /// Lets the architecture, and every plugin with settings in the source, adjust the
    /// source.
    fn rewrite(&mut self, table: &mut Table, architecture: &Info, known: &[Setting]) -> Result<()> {
        (architecture.rewrite)(table, &mut self.table)?;
        for setting in known {
            let Some(kind) = setting.kind else { continue };
            let (Some(Value::Table(given)), Some(Value::Table(before))) =
                (table.get_mut(setting.key), self.table.get_mut(setting.key))
            else {
                continue;
            };
            let Some(Value::String(name)) = before.get("name") else {
                continue;
            };
            if same_name(before, given) {
                let rewrite = registry::info(kind, name)?.rewrite;
                rewrite(given, before)?;
            }
        }
        Ok(())
    }

    /// The last origin of a setting, or of the table or list that contains it.
    fn origin(&self, key: &str) -> String {
        let is_within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let written = self.origins.iter().rev();
        let mut written = written.filter(|(path, _)| is_within(path, key) || is_within(key, path));
        written
            .next()
            .map_or("the defaults".into(), |(_, origin)| origin.clone())
    }
}

/// The paths of all values in a table.
fn list_paths(table: &Table, prefix: &str, paths: &mut Vec<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => list_paths(inner, &format!("{path}."), paths),
            _ => paths.push(path),
        }
    }
}

impl Source {
    /// Refuses a file that names another architecture.
    fn is_for(&mut self, architecture: &str) -> Result<()> {
        match self.table.remove("architecture") {
            Some(Value::String(name)) if name != architecture => Err(Error::setting(
                "architecture",
                name,
                &self.origin,
                format!("{architecture}, the requested architecture"),
            )),
            _ => Ok(()),
        }
    }

    /// Keeps the settings that the architecture has and, within a plugin's, those that the
    /// plugin has which `sources` choose.
    fn keep_known(&mut self, known: &[Setting], sources: &[Self]) {
        let setting = |key: &str| known.iter().find(|setting| setting.key == key);
        self.table.retain(|key, _| setting(key).is_some());
        for (key, value) in &mut self.table {
            let (Some(kind), Value::Table(inner)) = (setting(key).and_then(|s| s.kind), value)
            else {
                continue;
            };
            let names = sources.iter().rev();
            let mut names = names.filter_map(|source| source.table.get(key)?.get("name")?.as_str());
            let default = setting(key).and_then(|setting| setting.default.as_ref());
            let default = default.map(|default| default.get("name").unwrap_or(default));
            let name = names.next().or_else(|| default?.as_str());
            let info = name.and_then(|name| registry::info(kind, name).ok());
            let settings = info.map_or(Vec::new(), |info| (info.settings)());
            inner.retain(|key, _| settings.iter().any(|setting| setting.key == key));
        }
        let is_empty = |value: &Value| value.as_table().is_some_and(Table::is_empty);
        self.table.retain(|_, value| !is_empty(value));
    }

    /// Replaces every alias by its key and every plugin's name by a table.
    fn canonical(&mut self, known: &[Setting]) -> Result<()> {
        let written = canonical(known, &mut self.table);
        written.map_err(|error| located(error, "", &|_| self.origin.clone()))
    }
}

/// Spellings of other programs and countries, and ours.
const SPELLINGS: [(&str, &str); 8] = [
    ("learning_rate", "lr"),
    ("optimizer", "optimiser"),
    ("head_optimizer", "head_optimiser"),
    ("color", "colour"),
    ("normalize", "normalise"),
    ("standardize", "standardise"),
    ("num_epochs", "epochs"),
    ("wd", "weight_decay"),
];

fn canonical(known: &[Setting], table: &mut Table) -> Result<()> {
    for setting in known {
        let spellings = SPELLINGS.iter().filter(|(_, key)| *key == setting.key);
        let spellings = spellings.map(|(spelling, _)| *spelling);
        for alias in setting.alias.into_iter().chain(spellings) {
            rename(table, alias, setting.key)?;
        }
        if let Some(value) = table.get_mut(setting.key) {
            adapt(value, setting);
        }
        let (Some(kind), Some(value)) = (setting.kind, table.get_mut(setting.key)) else {
            continue;
        };
        let values = match value {
            Value::Array(values) => values.as_mut_slice(),
            value => std::slice::from_mut(value),
        };
        for value in values {
            if let Value::String(text) = value {
                *value = Value::Table(pick(kind, text)?);
            }
        }
    }
    Ok(())
}

/// Brings a value that can be meant in one way only into the form of its setting: `.5` is 0.5,
/// `1e2` is the whole number 100, `100` and `100,200` are lists.
fn adapt(value: &mut Value, setting: &Setting) {
    let in_toml = |text: &str| -> Option<Value> {
        let table = format!("value = {text}").parse::<Table>().ok();
        table.filter(|table| table.len() == 1)?.remove("value")
    };
    let allowed = setting.allowed.as_str();
    let adapted = match value {
        Value::String(text) if allowed.starts_with("a number") => {
            let is_number = text
                .chars()
                .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
            let number = text.parse::<f64>().ok().filter(|_| is_number);
            number.map(Value::Float)
        }
        Value::Float(number) if allowed.starts_with("a whole number") => {
            // Larger ones are not exact.
            let is_whole = number.fract() == 0. && number.abs() < 9e15;
            is_whole.then_some(Value::Integer(*number as i64))
        }
        Value::String(text) if allowed.starts_with("true or false") => {
            text.to_lowercase().parse().ok().map(Value::Boolean)
        }
        Value::String(text) if allowed.starts_with("a list") => {
            let inside = text.trim().trim_matches(['(', ')', '[', ']']);
            in_toml(&format!("[{inside}]"))
        }
        Value::Integer(_) | Value::Float(_) if allowed.starts_with("a list") => {
            Some(Value::Array(vec![value.clone()]))
        }
        _ => None,
    };
    if let Some(adapted) = adapted {
        *value = adapted;
    }
}

fn rename(table: &mut Table, alias: &str, key: &str) -> Result<()> {
    let Some(value) = table.remove(alias) else {
        return Ok(());
    };
    match table.insert(key.into(), value.clone()) {
        None => Ok(()),
        Some(other) => {
            let expected = format!("one of the two: `{key}` is already set to {other}");
            Err(Error::setting(alias, value, "", expected))
        }
    }
}

/// Parses `name`, or `name:argument`, into a table.
fn pick(kind: &'static str, text: &str) -> Result<Table> {
    let (name, argument) = match text.split_once(':') {
        Some((name, argument)) => (name, Some(argument)),
        None => (text, None),
    };
    let mut table = Table::from_iter([("name".to_string(), name.into())]);
    if let Some(argument) = argument {
        let Some(key) = registry::info(kind, name)?.argument else {
            let expected = format!("{name} alone: it takes no argument after a colon");
            return Err(Error::setting(kind, text, "", expected));
        };
        table.insert(key.into(), argument.into());
    }
    Ok(table)
}

fn preset_of(info: &Info, name: Option<&str>) -> Result<Source> {
    let preset = match name {
        None => info.own_presets.first(),
        Some(NO_PRESET) => None,
        Some(name) => {
            let found = preset::named(info, name)?;
            Some(found.ok_or_else(|| unknown_preset(info, name))?)
        }
    };
    let Some(preset) = preset else {
        return Ok(Source {
            origin: format!("preset {NO_PRESET}"),
            table: Table::new(),
        });
    };
    let table = preset.settings.parse().map_err(|error| {
        let place = format!(
            "preset {} of {} (package {})",
            preset.name, info.name, info.package
        );
        Error::usage(place, format!("{error}"))
    })?;
    Ok(Source {
        origin: format!("preset {}", preset.name),
        table,
    })
}

fn unknown_preset(info: &Info, name: &str) -> Error {
    let names: Vec<_> = info.presets().iter().map(|preset| preset.name).collect();
    let expected = match names.is_empty() {
        true => format!("{NO_PRESET}: {} has no presets", info.name),
        false => format!("one of {}, or {NO_PRESET}", names.join(", ")),
    };
    Error::setting("preset", name, "--preset", expected)
}

/// The settings that the data set suggests: its first preset.
fn suggestion(sources: &[Source]) -> Result<Option<Source>> {
    let names = sources
        .iter()
        .rev()
        .filter_map(|source| source.table.get("data")?.get("name"));
    let Some(name) = names.map(Value::as_str).next().flatten() else {
        return Ok(None);
    };
    let info = registry::info(DataSet::KIND, name)?;
    if info.own_presets.is_empty() {
        return Ok(None);
    }
    Ok(Some(Source {
        origin: format!("the suggestion of data {name}"),
        ..preset_of(info, None)?
    }))
}

/// What the goodness that the user chose needs: its first preset.
fn of_goodness(sources: &[Source]) -> Result<Option<Source>> {
    let kind = <dyn GoodnessFn>::KIND;
    // A complete configuration has what it needs, and repeats its run.
    let defaults = RunSettings::describe();
    let is_complete = |source: &Source| {
        let mut written = defaults.iter().filter(|setting| setting.default.is_some());
        written.all(|setting| source.table.contains_key(setting.key))
    };
    let chosen = sources.iter().rev().find_map(|source| {
        if is_complete(source) {
            return None;
        }
        let goodness = source.table.get(kind)?;
        // Of a list, one for each layer, the first.
        let first = goodness.as_array().and_then(|all| all.first());
        first.unwrap_or(goodness).get("name")?.as_str()
    });
    let Some(name) = chosen else { return Ok(None) };
    let info = registry::info(kind, name)?;
    if info.own_presets.is_empty() {
        return Ok(None);
    }
    Ok(Some(Source {
        origin: format!("the suggestion of goodness {name}"),
        ..preset_of(info, None)?
    }))
}

/// Merges `later` into a table.
///
/// `later` wins. Two tables are merged unless they name different plugins. Settings
/// without a plugin's name apply to all plugins of a list.
fn merge(into: &mut Table, later: Table) {
    for (key, value) in later {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if same_name(old, &new) => merge(old, new),
            (Some(Value::Array(old)), Value::Table(new))
                if !new.contains_key("name") && old.iter().all(Value::is_table) =>
            {
                for old in old.iter_mut().filter_map(Value::as_table_mut) {
                    merge(old, new.clone());
                }
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

/// The settings of the chosen plugins that have this key.
fn within(known: &[Setting], given: &Table, key: &str) -> Vec<String> {
    let of_plugin = |setting: &Setting| {
        let chosen = given.get(setting.key)?.get("name")?.as_str()?;
        let info = registry::info(setting.kind?, chosen).ok()?;
        let is_there = (info.settings)().iter().any(|inner| inner.key == key);
        is_there.then(|| format!("{}.{key}", setting.key))
    };
    known.iter().filter_map(of_plugin).collect()
}

/// The origin of a setting, by its key.
type OriginOf<'a> = &'a dyn Fn(&str) -> String;

/// Fills in the defaults of all settings in `known`.
fn fill(known: &[Setting], given: Table, prefix: &str, origin: OriginOf<'_>) -> Result<Table> {
    let is_known = |key: &String| known.iter().any(|setting| setting.key == key);
    if let Some(key) = given.keys().find(|key| !is_known(key)) {
        // A setting of a plugin, such as `dropout` for `layer.dropout`, comes first.
        let own = known.iter().map(|setting| setting.key.to_string());
        let known = within(known, &given, key).into_iter().chain(own).collect();
        let key = format!("{prefix}{key}");
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
        let mut value = value.clone();
        if let Some(kind) = setting.kind {
            // Settings without a plugin's name are settings of the default plugin.
            if let (Value::Table(given), Some(default)) = (&value, &setting.default) {
                if !given.contains_key("name") {
                    value = on_default(kind, default, given.clone())?;
                }
            }
            value = fill_pick(kind, value, &format!("{prefix}{}", setting.key), origin)?;
        }
        table.insert(setting.key.into(), value);
    }
    Ok(table)
}

/// The default plugin with other settings.
fn on_default(kind: &'static str, default: &Value, given: Table) -> Result<Value> {
    let mut table = match default {
        Value::String(text) => pick(kind, text)?,
        Value::Table(table) => table.clone(),
        _ => Table::new(),
    };
    merge(&mut table, given);
    Ok(Value::Table(table))
}

fn fill_pick(kind: &'static str, value: Value, path: &str, origin: OriginOf<'_>) -> Result<Value> {
    let mut table = match value {
        Value::String(text) => pick(kind, &text)?,
        Value::Table(table) => table,
        Value::Array(values) => {
            let values = values.into_iter();
            let filled = values.map(|value| fill_pick(kind, value, path, origin));
            return Ok(Value::Array(filled.collect::<Result<_>>()?));
        }
        other => return Err(unnamed(kind, path, &other, origin)),
    };
    let Some(Value::String(name)) = table.remove("name") else {
        return Err(unnamed(kind, path, &Value::Table(table), origin));
    };
    let info = registry::info(kind, &name)?;
    let (known, prefix) = ((info.settings)(), format!("{path}."));
    canonical(&known, &mut table)?;
    let mut filled = fill(&known, table, &prefix, origin)?;
    (info.check)(&filled).map_err(|error| located(error, &prefix, origin))?;
    filled.insert("name".into(), Value::String(name));
    Ok(Value::Table(filled))
}

fn unnamed(kind: &str, path: &str, value: &Value, origin: OriginOf<'_>) -> Error {
    let expected =
        format!("the name of a registered {kind}, or a table with `name` and its settings");
    Error::setting(path, value, origin(path), expected)
}

/// Adds the full key and the origin to an error about a setting.
fn located(error: Error, prefix: &str, origin: OriginOf<'_>) -> Error {
    match error {
        Error::Setting {
            key,
            value,
            expected,
            ..
        } => {
            let key = format!("{prefix}{key}");
            let origin = origin(&key);
            Error::setting(key, value, origin, expected)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_merge_unless_they_name_different_plugins() {
        let mut table = toml::toml! { sampler = { name = "a", strength = 1 } };
        merge(&mut table, toml::toml! { sampler = { negatives = "hard" } });
        let expected = toml::toml! { sampler = { name = "a", strength = 1, negatives = "hard" } };
        assert_eq!(table, expected);
        merge(&mut table, toml::toml! { sampler = { name = "b" } });
        assert_eq!(table, toml::toml! { sampler = { name = "b" } });
    }

    #[test]
    fn the_origin_of_a_setting_is_the_source_that_set_it_last() {
        let mut merged = Merged::default();
        for (origin, text) in [
            ("preset", "sampler = { name = \"a\", strength = 1 }\nlr = 1"),
            ("--set", "sampler = { strength = 2 }"),
        ] {
            let mut paths = Vec::new();
            list_paths(&text.parse().unwrap(), "", &mut paths);
            merged
                .origins
                .extend(paths.into_iter().map(|path| (path, origin.to_string())));
        }
        let found = ["sampler.strength", "sampler.name", "lr", "lr.x", "hidden"]
            .map(|key| merged.origin(key));
        assert_eq!(
            found,
            ["--set", "preset", "preset", "preset", "the defaults"]
        );
        assert_eq!(merged.origin("sampler"), "--set");
    }
}
