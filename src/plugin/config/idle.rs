//! Settings that were set, but have no effect beside the others.

use toml::{Table, Value};

use super::{list_paths, respell, Config};
use crate::contract::architecture::Architecture;
use crate::contract::layer::LocalLayer;
use crate::contract::sampler::NegativeSampler;
use crate::error::{printable, Result};
use crate::plugin::facts;
use crate::plugin::registry::{self, Info};
use crate::plugin::source::Source;
use crate::settings::{Idle, PluginKind};

impl Config {
    /// A warning for each setting of `sources` that has no effect. Those of a complete
    /// configuration, which repeats its run, are not looked at.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub(crate) fn without_effect(&self, sources: &[Source], is_text: bool) -> Result<Vec<String>> {
        let known = Self::known(self.info()?);
        let idle = self.idle(is_text)?;
        let now = self.to_table();
        let mut warnings: Vec<(String, String)> = Vec::new();
        for source in sources {
            let mut source = source.clone();
            source.canonical(&known)?;
            if source.is_complete() {
                continue;
            }
            respell(&mut source.table, &now, &source.origin, &known)?;
            let mut paths = Vec::new();
            list_paths(&source.table, "", &mut paths);
            for path in paths.into_iter().chain(in_lists(&source.table)) {
                let Some((_, because)) = idle.iter().find(|(key, _)| *key == path) else {
                    continue;
                };
                warnings.retain(|(other, _)| *other != path);
                let from = printable(&source.origin);
                let warning = format!("warning: `{path}` (from {from}) has no effect: {because}");
                warnings.push((path, warning));
            }
        }
        Ok(warnings.into_iter().map(|(_, warning)| warning).collect())
    }

    /// The settings that have no effect beside the others, by their paths, and why.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn idle(&self, is_text: bool) -> Result<Vec<(String, String)>> {
        let info = self.info()?;
        let all = self.to_table();
        let of_run = self.run.idle(is_text).into_iter();
        let own = of_run.chain((info.idle)(&self.settings, &all)?);
        let own = own.chain(self.unused_sampler(info)?);
        let mut idle: Vec<(String, String)> = own
            .map(|idle| (idle.key.to_string(), idle.because))
            .collect();
        idle.extend(overruled_widths(&all));
        for setting in Self::known(info) {
            let (Some(kind), Some(value)) = (setting.kind, all.get(setting.key)) else {
                continue;
            };
            let one = std::slice::from_ref(value);
            let picks = value.as_array().map_or(one, Vec::as_slice);
            let found = picks.iter().map(|pick| of_plugin(kind, pick, &all));
            let found = found.collect::<Result<Vec<_>>>()?;
            let Some((first, others)) = found.split_first() else {
                continue;
            };
            // Of several plugins, one for each layer, all have to ignore a setting.
            let by_all = |(path, _): &&(String, String)| {
                others
                    .iter()
                    .all(|idle| idle.iter().any(|(other, _)| other == path))
            };
            for (path, because) in first.iter().filter(by_all) {
                let path = match path.strip_prefix("own.") {
                    Some(own) => format!("{}.{own}", setting.key),
                    None if info.reads.contains(&&**path) => continue,
                    None => path.clone(),
                };
                idle.push((path, because.clone()));
            }
        }
        Ok(idle)
    }

    /// The sampler, if all that it makes of the examples is views to learn from, and the
    /// architecture learns from the examples alone.
    fn unused_sampler(&self, info: &Info) -> Result<Vec<Idle>> {
        let Some(sampler) = &self.run.sampler else {
            return Ok(Vec::new());
        };
        let of_sampler = facts::of(registry::info(<dyn NegativeSampler>::KIND, &sampler.name)?);
        // A view that labels change is another one than the example.
        let makes_views = [of_sampler.negatives, of_sampler.labels].contains(&Some(true));
        let is_apart = makes_views && of_sampler.keeps_examples;
        if !is_apart || facts::of(info).negatives != Some(false) {
            return Ok(Vec::new());
        }
        let because = format!("{} learns from the examples as they are", info.name);
        Ok(Idle::all(&["sampler.name"], because))
    }

    fn info(&self) -> Result<&'static Info> {
        registry::info(<dyn Architecture>::KIND, &self.architecture)
    }
}

/// The architecture's widths, if every layer has one of its own
/// ([`units_or`](crate::contract::build_context::BuildContext::units_or)).
fn overruled_widths(all: &Table) -> Option<(String, String)> {
    let one = all.get(<dyn LocalLayer>::KIND).map(std::slice::from_ref)?;
    let layers = one[0].as_array().map_or(one, Vec::as_slice);
    let is_set = |layer: &Value| layer.get("units").is_some();
    let because = "each layer has a width of its own (`layer.units`); only the number of layers \
                   is taken from it";
    (!layers.is_empty() && layers.iter().all(is_set)).then(|| ("hidden".into(), because.into()))
}

/// The paths of the settings of plugins in lists, one for each layer.
fn in_lists(table: &Table) -> Vec<String> {
    let mut paths = Vec::new();
    for (key, value) in table {
        let each = value.as_array().into_iter().flatten();
        for plugin in each.filter_map(Value::as_table) {
            list_paths(plugin, &format!("{key}."), &mut paths);
        }
    }
    paths
}

/// What has no effect beside a plugin; `own.` is put before its own settings.
fn of_plugin(kind: &'static str, pick: &Value, all: &Table) -> Result<Vec<(String, String)>> {
    let default = Table::new();
    let own = pick.as_table().unwrap_or(&default);
    let name = own.get("name").unwrap_or(pick);
    let Some(name) = name.as_str() else {
        return Ok(Vec::new());
    };
    let info = registry::info(kind, name)?;
    let settings = (info.settings)();
    let is_own = |key: &str| settings.iter().any(|setting| setting.key == key);
    let found = (info.idle)(own, all)?.into_iter();
    let path = |Idle { key, because }: Idle| match is_own(key) {
        true => (format!("own.{key}"), because),
        false => (key.to_string(), because),
    };
    Ok(found.map(path).collect())
}
