//! The preset for what the data look like, where nothing about the network is chosen.

use toml::{Table, Value};

use crate::contract::architecture::Architecture;
use crate::data::DataSet;
use crate::error::Result;
use crate::plugin::registry::{self, DataKind};
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

/// What suits some data.
pub struct Suited {
    /// The kind of the data.
    pub kind: DataKind,
    /// The preset of the architecture.
    pub preset: &'static str,
    /// The settings of the data.
    pub data: Source,
}

/// What suits the data that the sources choose, if they choose nothing about the network.
///
/// # Errors
/// Errors of the settings, as of [`Config::resolve`](super::Config::resolve).
pub(super) fn suited(architecture: &str, sources: &[Source]) -> Result<Option<Suited>> {
    let info = registry::info(<dyn Architecture>::KIND, architecture)?;
    if info.suits.is_empty() {
        return Ok(None);
    }
    let known = RunSettings::describe();
    let mut data = Table::new();
    for source in sources {
        let mut source = source.clone();
        source.is_for(architecture)?;
        source.canonical(&known)?;
        // A shorthand of the architecture may be a setting of the data. What is wrong with
        // one is reported with its origin when the settings are merged.
        if (info.rewrite)(&mut source.table, &mut Table::new()).is_err() {
            return Ok(None);
        }
        if !source.table.keys().all(|key| is_about_the_run(key)) {
            return Ok(None);
        }
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
    let Some(name) = data.get("name").and_then(Value::as_str) else {
        return Ok(None);
    };
    let look = registry::info(DataSet::KIND, name)?.look;
    let Some((kind, mut settings)) = look.and_then(|look| look(&data)) else {
        return Ok(None);
    };
    let preset = info.suits.iter().find(|(known, _)| *known == kind);
    settings.insert("name".into(), name.into());
    let table = Table::from_iter([(DataSet::KIND.to_string(), Value::Table(settings))]);
    let data = Source {
        origin: "the look of the data".into(),
        table,
    };
    Ok(preset.map(|(kind, preset)| Suited {
        kind: *kind,
        preset,
        data,
    }))
}
