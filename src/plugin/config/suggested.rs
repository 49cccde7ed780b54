//! The settings that come with a choice: a preset, what the data set suggests, what the
//! goodness needs.

use toml::Table;

use super::complete::located;
use super::NO_PRESET;
use crate::contract::goodness::GoodnessFn;
use crate::data::DataSet;
use crate::error::{nearest, Error, Result};
use crate::plugin::preset;
use crate::plugin::registry::{self, Info};
use crate::plugin::source::Source;
use crate::settings::PluginKind;

pub(super) fn preset_of(info: &Info, name: Option<&str>) -> Result<Source> {
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
    let presets = info.presets().into_iter();
    let names: Vec<String> = presets.map(|preset| preset.name.into()).collect();
    let expected = match names.is_empty() {
        true => format!("{NO_PRESET}: {} has no presets", info.name),
        false => {
            let meant = nearest(name, &names);
            format!("one of {}, or {NO_PRESET}{meant}", names.join(", "))
        }
    };
    Error::setting("preset", name, "", expected)
}

/// The settings that the data set suggests: its first preset.
pub(super) fn suggestion(sources: &[Source]) -> Result<Option<Source>> {
    let mut named = sources.iter().rev().filter_map(|source| {
        let name = source.table.get("data")?.get("name")?;
        Some((source, name.as_str()))
    });
    let Some((source, Some(name))) = named.next() else {
        return Ok(None);
    };
    let info = info_of(DataSet::KIND, name, source)?;
    if info.own_presets.is_empty() {
        return Ok(None);
    }
    Ok(Some(Source {
        origin: format!("the suggestion of data {name}"),
        ..preset_of(info, None)?
    }))
}

/// The plugin of this name, which a source chooses.
fn info_of(kind: &'static str, name: &str, source: &Source) -> Result<&'static Info> {
    let info = registry::info(kind, name);
    info.map_err(|error| located(error, "", &|_| source.origin.clone()))
}

/// The settings that every complete configuration has. Later settings may be missing in
/// that of an older version, which is complete all the same.
const ALWAYS: [&str; 9] = [
    "batch",
    "checkpoint_every",
    "epochs",
    "evaluate_every",
    "flip",
    "precision",
    "seed",
    "shift",
    "validate",
];

impl Source {
    /// Whether it is a complete configuration, which repeats its run.
    pub(crate) fn is_complete(&self) -> bool {
        ALWAYS.iter().all(|key| self.table.contains_key(*key))
    }
}

/// What the goodness that the user chose needs: its first preset.
pub(super) fn of_goodness(sources: &[Source]) -> Result<Option<Source>> {
    let kind = <dyn GoodnessFn>::KIND;
    let chosen = sources.iter().rev().find_map(|source| {
        // A complete configuration has what it needs.
        if source.is_complete() {
            return None;
        }
        let goodness = source.table.get(kind)?;
        // Of a list, one for each layer, the first.
        let first = goodness.as_array().and_then(|all| all.first());
        let name = first.unwrap_or(goodness).get("name")?.as_str()?;
        Some((source, name))
    });
    let Some((source, name)) = chosen else {
        return Ok(None);
    };
    let info = info_of(kind, name, source)?;
    if info.own_presets.is_empty() {
        return Ok(None);
    }
    Ok(Some(Source {
        origin: format!("the suggestion of goodness {name}"),
        ..preset_of(info, None)?
    }))
}
