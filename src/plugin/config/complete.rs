//! Defaults: every setting of an architecture and of its plugins gets its value.

use toml::{Table, Value};

use super::canonical::{canonical, pick};
use super::merge;
use crate::error::{close, Error, Result};
use crate::plugin::registry::{self, Info};
use crate::plugin::source::Source;
use crate::settings::Setting;

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

/// The settings of the chosen plugins that have nearly this key.
fn within(known: &[Setting], given: &Table, key: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for setting in known {
        let chosen = given.get(setting.key).or(setting.default.as_ref());
        let name = chosen.and_then(|chosen| chosen.get("name").unwrap_or(chosen).as_str());
        let (Some(kind), Some(name)) = (setting.kind, name) else {
            continue;
        };
        let settings = registry::info(kind, name).map(|info| (info.settings)());
        let settings = settings.unwrap_or_default().into_iter();
        paths.extend(settings.map(|inner| format!("{}.{}", setting.key, inner.key)));
    }
    let near = close(key, &paths).into_iter();
    near.map(String::from).collect()
}

/// The origin of a setting, by its key.
type OriginOf<'a> = &'a dyn Fn(&str) -> String;

/// Fills in the defaults of all settings in `known`.
pub(super) fn fill(
    known: &[Setting],
    given: Table,
    prefix: &str,
    origin: OriginOf<'_>,
) -> Result<Table> {
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
        // `5` and `5.0` are one setting, and are written as one.
        if setting.allowed.starts_with("a number") {
            in_one_form(&mut value);
        }
        if let (Value::Array(values), true) = (&mut value, is_list_of_numbers(setting)) {
            values.iter_mut().for_each(in_one_form);
        }
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

fn in_one_form(value: &mut Value) {
    if let Value::Integer(number) = value {
        *value = Value::Float(*number as f64);
    }
}

fn is_list_of_numbers(setting: &Setting) -> bool {
    setting.allowed.starts_with("a list") && setting.allowed.contains("each a number")
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
    let Some(Value::String(name)) = table.get("name").cloned() else {
        return Err(unnamed(kind, path, &Value::Table(table), origin));
    };
    table.remove("name");
    let info = registry::info(kind, &name);
    let info = info.map_err(|error| located(error, "", &|_| origin(path)))?;
    let (known, prefix) = ((info.settings)(), format!("{path}."));
    canonical(&known, &mut table).map_err(|error| located(error, &prefix, origin))?;
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
pub(super) fn located(error: Error, prefix: &str, origin: OriginOf<'_>) -> Error {
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
