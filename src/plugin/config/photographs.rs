//! The preset for colour photographs, where nothing about the network is chosen.

use toml::{Table, Value};

use crate::contract::architecture::Architecture;
use crate::data::DataSet;
use crate::error::Result;
use crate::plugin::registry;
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

/// The preset of an architecture for colour photographs and the settings of the data, if
/// the sources choose such data, and nothing about the network.
///
/// # Errors
/// Errors of the settings, as of [`Config::resolve`](super::Config::resolve).
pub(super) fn suited(
    architecture: &str,
    sources: &[Source],
) -> Result<Option<(&'static str, Source)>> {
    let info = registry::info(<dyn Architecture>::KIND, architecture)?;
    let Some(preset) = info.for_photographs else {
        return Ok(None);
    };
    let known = RunSettings::describe();
    let mut data = Table::new();
    for source in sources {
        let mut source = source.clone();
        source.is_for(architecture)?;
        source.canonical(&known)?;
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
    let found = look.and_then(|look| look(&data));
    Ok(found.map(|mut settings| {
        settings.insert("name".into(), name.into());
        let table = Table::from_iter([(DataSet::KIND.to_string(), Value::Table(settings))]);
        let origin = "the look of the pictures".into();
        (preset, Source { origin, table })
    }))
}
