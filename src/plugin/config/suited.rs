//! The preset for what the data look like, where no network is chosen.

use toml::{Table, Value};

use super::canonical::canonical;
use super::suggested::preset_of;
use crate::contract::architecture::Architecture;
use crate::data::DataSet;
use crate::error::Result;
use crate::plugin::registry::{self, DataKind, Info};
use crate::plugin::run_settings::RunSettings;
use crate::plugin::source::Source;
use crate::settings::{PluginKind, Settings};

/// The settings of a run that say nothing about its network, but for its weights and its
/// input.
fn is_about_the_run(key: &str) -> bool {
    let known = RunSettings::describe();
    let is_known = known.iter().any(|setting| setting.key == key);
    is_known && !["sampler", "init"].contains(&key)
}

/// Whether a setting of an architecture chooses the network: its plugins and widths. Other
/// settings change a network that a preset describes.
fn chooses_the_network(info: &Info, key: &str, value: &Value) -> bool {
    let settings = (info.settings)();
    let setting = settings.iter().find(|setting| setting.key == key);
    let is_plugin = setting.is_none_or(|setting| setting.kind.is_some());
    is_plugin || value.is_array() || value.is_table()
}

/// Whether a setting is a list of a number for each layer of a preset, such as other widths.
fn fits(preset: &Table, value: &Value) -> bool {
    let widths = preset.get("hidden").and_then(Value::as_array);
    widths.zip(value.as_array()).is_some_and(|(widths, given)| {
        let is_number = |value: &Value| value.is_integer() || value.is_float();
        given.iter().all(is_number) && given.len() == widths.len()
    })
}

/// Whether these are only settings of a plugin that a preset has in this place.
fn is_of_its_plugin(info: &Info, preset: &Table, (key, value): &(String, Value)) -> bool {
    let known = [RunSettings::describe(), (info.settings)()].concat();
    let setting = known.iter().find(|setting| setting.key == key);
    let kind = setting.and_then(|setting| setting.kind);
    let given = value.as_table().filter(|given| !given.contains_key("name"));
    let chosen = preset
        .get(key)
        .or(setting.and_then(|setting| setting.default.as_ref()));
    let name = chosen.and_then(|chosen| chosen.get("name").unwrap_or(chosen).as_str());
    let (Some(kind), Some(given), Some(name)) = (kind, given, name) else {
        return false;
    };
    registry::info(kind, name).is_ok_and(|plugin| {
        let settings = (plugin.settings)();
        let is_its = |key: &String| settings.iter().any(|setting| setting.key == key);
        given.keys().all(is_its)
    })
}

/// What suits some data.
pub struct Suited {
    /// The kind of the data.
    pub kind: DataKind,
    /// The preset of the architecture, if it has one for this kind.
    pub preset: Option<&'static str>,
    /// The setting that chooses another network, if there is one.
    pub unless: Option<String>,
    /// The settings of the data.
    pub data: Source,
}

/// What suits the data that the sources choose.
///
/// # Errors
/// Errors of the settings, as of [`Config::resolve`](super::Config::resolve).
pub(super) fn suited(architecture: &str, sources: &[Source]) -> Result<Option<Suited>> {
    let info = registry::info(<dyn Architecture>::KIND, architecture)?;
    let known = RunSettings::describe();
    let (mut data, mut choices) = (Table::new(), Vec::new());
    let is_complete = sources.iter().any(Source::is_complete);
    for source in sources {
        let mut source = source.clone();
        source.is_for(architecture)?;
        source.canonical(&known)?;
        // A shorthand of the architecture may be a setting of the data. What is wrong with
        // one is reported with its origin when the settings are merged.
        if (info.rewrite)(&mut source.table, &mut Table::new()).is_err() {
            return Ok(None);
        }
        let given = source.table.clone().into_iter();
        let given = given.filter(|(key, _)| !is_about_the_run(key));
        choices.extend(given.filter(|(key, value)| chooses_the_network(info, key, value)));
        if let Some(Value::Table(given)) = source.table.remove(DataSet::KIND) {
            if given
                .get("name")
                .is_some_and(|name| Some(name) != data.get("name"))
            {
                data.clear();
            }
            data.extend(given);
        }
    }
    let Some(name) = data.get("name").and_then(Value::as_str).map(String::from) else {
        return Ok(None);
    };
    // What is wrong is reported later, with its source.
    let Ok(of_data) = registry::info(DataSet::KIND, &name) else {
        return Ok(None);
    };
    let is_known = canonical(&(of_data.settings)(), &mut data).is_ok();
    let look = of_data.look.filter(|_| is_known);
    let Some((kind, mut settings)) = look.and_then(|look| look(&data)) else {
        return Ok(None);
    };
    let preset = info.suits.iter().find(|(known, _)| *known == kind);
    if (preset.is_none() || is_complete) && settings.is_empty() {
        return Ok(None);
    }
    let table = match preset {
        Some((_, preset)) => preset_of(info, Some(preset))?.table,
        None => Table::new(),
    };
    let keeps = |choice: &(String, Value)| {
        fits(&table, &choice.1) || is_of_its_plugin(info, &table, choice)
    };
    let unless = choices.into_iter().find(|choice| !keeps(choice));
    settings.insert("name".into(), name.into());
    let table = Table::from_iter([(DataSet::KIND.to_string(), Value::Table(settings))]);
    let data = Source {
        origin: "the look of the data".into(),
        table,
    };
    Ok(Some(Suited {
        kind,
        // A complete configuration has no use for one.
        preset: preset.map(|(_, preset)| *preset).filter(|_| !is_complete),
        unless: unless.map(|(key, _)| key),
        data,
    }))
}
