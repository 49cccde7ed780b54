//! Merging of settings from several sources into a complete configuration.
//!
//! Sources are merged in this order, and later sources win: defaults, the architecture's
//! preset, the settings that the data set suggests, what the chosen goodness needs,
//! files, the command line. A preset that is requested by name wins over the data set's
//! suggestion.
//!
//! A complete configuration has every default written out. It is the `config.toml` of a
//! run; read again, it repeats the run. Mistakes are found here, before any work, and
//! reported with the key and its origin.

mod canonical;
mod complete;
mod idle;
mod suggested;
mod suited;

use toml::{Table, Value};

use self::canonical::canonical;
pub(crate) use self::canonical::{is_called, usual};
pub(crate) use self::complete::complete;
use self::complete::{fill, located};
use self::suggested::{of_goodness, preset_of, suggestion};
pub use self::suited::Suited;
use super::registry::{self, Info};
use super::run_settings::RunSettings;
use super::source::Source;
use crate::contract::architecture::Architecture;
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

    /// The preset and the settings of the data that suit what the data look like, if
    /// `sources` choose such data. It is for people who choose no preset:
    /// [`Config::resolve`] looks at no file.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn suited(architecture: &str, sources: &[Source]) -> Result<Option<Suited>> {
        suited::suited(architecture, sources)
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
        let merged = Merged::of(info, preset, sources, by_name)?;
        let origin = |key: &str| merged.origin(key);
        let table = fill(&Self::known(info), merged.table.clone(), "", &origin)?;
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

    /// An error with the source that set the refused setting last, if it was refused by
    /// what does not know the sources, such as a plugin.
    pub(crate) fn attributed(
        error: Error,
        architecture: &str,
        preset: Option<&str>,
        sources: &[Source],
        by_name: bool,
    ) -> Error {
        let merged = registry::info(<dyn Architecture>::KIND, architecture)
            .and_then(|info| Merged::of(info, preset, sources.to_vec(), by_name));
        match merged {
            Ok(merged) => error.with_origin(&|key| merged.source_of(key)),
            Err(_) => error,
        }
    }

    /// The settings of every run and those of an architecture.
    fn known(info: &Info) -> Vec<Setting> {
        [RunSettings::describe(), (info.settings)()].concat()
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

/// Merged settings and the origin of each.
#[derive(Default)]
struct Merged {
    table: Table,
    /// The paths that were set and their origins, in order.
    origins: Vec<(String, String)>,
}

impl Merged {
    /// The settings of a preset and of `sources`, and what they bring with them.
    fn of(info: &Info, preset: Option<&str>, sources: Vec<Source>, by_name: bool) -> Result<Self> {
        let known = Config::known(info);
        let mut sources = [vec![preset_of(info, preset)?], sources].concat();
        for source in &mut sources {
            source.is_for(info.name)?;
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
        let mut merged = Self::default();
        for source in sources {
            merged.add(source, info, &known)?;
        }
        Ok(merged)
    }

    fn add(&mut self, source: Source, architecture: &Info, known: &[Setting]) -> Result<()> {
        let Source { origin, mut table } = source;
        respell(&mut table, &self.table, &origin, known)?;
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
        let mut written = self.origins.iter().rev();
        let found = written.find(|(path, _)| is_within(path, key) || is_within(key, path));
        found.map_or("the defaults".into(), |(_, origin)| origin.clone())
    }

    /// The same for a setting that may be called as within its plugin: `norm` of
    /// `layer.norm`.
    fn source_of(&self, key: &str) -> Option<String> {
        let mut written = self.origins.iter().rev();
        let found = written.find(|(path, _)| {
            let is_part = format!(".{path}.").contains(&format!(".{key}."));
            is_part || is_within(key, path)
        });
        found.map(|(_, origin)| origin.clone())
    }
}

/// Replaces other spellings within a plugin's settings, so that they win over ours in
/// an earlier source; `before` are the settings of those.
fn respell(table: &mut Table, before: &Table, origin: &str, known: &[Setting]) -> Result<()> {
    for setting in known {
        let given = table.get_mut(setting.key).and_then(Value::as_table_mut);
        let (Some(kind), Some(given)) = (setting.kind, given) else {
            continue;
        };
        let before = before.get(setting.key).or(setting.default.as_ref());
        let name = given
            .get("name")
            .or(before.map(|before| before.get("name").unwrap_or(before)));
        let name = name.and_then(Value::as_str).map(String::from);
        let plugin = name.and_then(|name| registry::info(kind, &name).ok());
        if let Some(plugin) = plugin {
            let prefix = format!("{}.", setting.key);
            let written = canonical(&(plugin.settings)(), given);
            written.map_err(|error| located(error, &prefix, &|_| origin.into()))?;
        }
    }
    Ok(())
}

/// Whether a path is another one, or lies within it.
fn is_within(inner: &str, outer: &str) -> bool {
    let rest = inner.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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
    fn an_error_of_a_plugin_names_the_source_that_set_the_setting_last() {
        let all = ["batch=3", "layer.norm=b", "batch_size=4"];
        let all = all.map(|text| Source::assignment(text).unwrap());
        let mut merged = Merged::default();
        let known = RunSettings::describe();
        for mut source in all {
            source.canonical(&known).unwrap();
            let mut paths = Vec::new();
            list_paths(&source.table, "", &mut paths);
            let origins = paths.into_iter().map(|path| (path, source.origin.clone()));
            merged.origins.extend(origins);
        }
        for (key, expected) in [
            ("batch", Some("--set batch_size=4")),
            ("norm", Some("--set layer.norm=b")),
            ("layer.norm", Some("--set layer.norm=b")),
            ("lr", None),
        ] {
            assert_eq!(merged.source_of(key).as_deref(), expected, "{key}");
        }
        let said = |error: Error| {
            let place = "data".into();
            let source = Box::new(error);
            let error = Error::At { place, source };
            error.with_origin(&|key| merged.source_of(key)).to_string()
        };
        let found = said(Error::refused("norm", 1, "2"));
        assert!(found.contains("(from --set layer.norm=b)"), "{found}");
        let found = said(Error::setting("norm", 1, "a preset", "2"));
        assert!(found.contains("(from a preset)"), "{found}");
        let found = said(Error::refused("lr", 1, "2"));
        assert!(!found.contains("from"), "{found}");
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
