//! The settings of one source in their usual form: keys instead of aliases, tables
//! instead of short forms.

use toml::{Table, Value};

use super::complete::located;
use crate::error::{Error, Result};
use crate::plugin::registry;
use crate::plugin::run_settings::RunSettings;
use crate::plugin::source::Source;
use crate::settings::{Setting, Settings};

impl Source {
    /// Refuses a file that names another architecture.
    pub(super) fn is_for(&mut self, architecture: &str) -> Result<()> {
        match self.table.remove("architecture") {
            Some(Value::String(name)) if name == architecture => Ok(()),
            None => Ok(()),
            Some(other) => Err(Error::setting(
                "architecture",
                other.as_str().map_or(other.to_string(), String::from),
                &self.origin,
                format!("{architecture}, the requested architecture"),
            )),
        }
    }

    /// Keeps the settings that the architecture has and, within a plugin's, those that
    /// the plugin has which `sources` choose.
    pub(super) fn keep_known(&mut self, known: &[Setting], sources: &[Self]) {
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
    pub(super) fn canonical(&mut self, known: &[Setting]) -> Result<()> {
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

/// The usual key of a setting: `epochs` for `num_epochs`, `batch` for `batch_size`, `data`
/// for `data.name`. An alias that only an architecture or a plugin has stays as it is.
pub(crate) fn usual(key: &str) -> &str {
    let key = key.trim();
    let key = match key.strip_suffix(".name") {
        Some(plugin) if registry::KINDS.contains(&plugin) => plugin,
        _ => key,
    };
    let spelt = SPELLINGS.iter().find(|(spelling, _)| *spelling == key);
    let key = spelt.map_or(key, |(_, usual)| usual);
    let of_run = RunSettings::describe().into_iter();
    let mut aliased = of_run.filter(|setting| setting.alias == Some(key));
    aliased.next().map_or(key, |setting| setting.key)
}

/// Whether a setting is meant by this word: its key, its alias, or another spelling.
pub(crate) fn is_called(setting: &Setting, word: &str) -> bool {
    let mut spelt = SPELLINGS.iter();
    setting.key == word
        || setting.alias == Some(word)
        || spelt.any(|(spelling, key)| *spelling == word && *key == setting.key)
}

pub(super) fn canonical(known: &[Setting], table: &mut Table) -> Result<()> {
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

/// Brings a value that can be meant in one way only into the form of its setting: `.5` is
/// 0.5, `1e2` is the whole number 100, `100` and `100,200` are lists.
fn adapt(value: &mut Value, setting: &Setting) {
    let in_toml = |text: &str| -> Option<Value> {
        let table = format!("value = {text}").parse::<Table>().ok();
        table.filter(|table| table.len() == 1)?.remove("value")
    };
    let allowed = setting.allowed.as_str();
    let of_whole = allowed.starts_with("a list") && allowed.contains("each a whole number");
    let adapted = match value {
        Value::String(text) if allowed.starts_with("a number") => {
            let is_number = text
                .chars()
                .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
            let number = text.parse::<f64>().ok().filter(|_| is_number);
            number.map(Value::Float)
        }
        Value::Float(number) if allowed.starts_with("a whole number") => whole(*number),
        Value::String(text) if allowed.starts_with("true or false") => {
            text.to_lowercase().parse().ok().map(Value::Boolean)
        }
        Value::String(text) if allowed.starts_with("a list") => {
            let text = text.trim();
            let bare = [('(', ')'), ('[', ']')]
                .into_iter()
                .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close));
            let inside = bare.unwrap_or(text);
            let is_whole = !inside.contains(['(', ')', '[', ']']);
            is_whole.then(|| in_toml(&format!("[{inside}]"))).flatten()
        }
        Value::Integer(_) | Value::Float(_) if allowed.starts_with("a list") => {
            Some(Value::Array(vec![value.clone()]))
        }
        _ => None,
    };
    if let Some(adapted) = adapted {
        *value = adapted;
    }
    if let (Value::Array(values), true) = (value, of_whole) {
        for value in values {
            if let Some(number) = value.as_float().and_then(whole) {
                *value = number;
            }
        }
    }
}

/// A number without a fraction as a whole number. Larger ones are not exact.
fn whole(number: f64) -> Option<Value> {
    let is_whole = number.fract() == 0. && number.abs() < 9e15;
    is_whole.then_some(Value::Integer(number as i64))
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
pub(super) fn pick(kind: &'static str, text: &str) -> Result<Table> {
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
