//! The shortest command line that gives a configuration.

use std::path::Path;

use toml::{Table, Value};

use crate::contract::architecture::Architecture;
use crate::data::DataSet;
use crate::error::{shell_word, Error, Result};
use crate::plugin::config::{Config, NO_PRESET};
use crate::plugin::registry;
use crate::plugin::source::{is_bare, Source};
use crate::settings::PluginKind;

/// Settings that change when files are written, but not the result.
const SILENT: [&str; 5] = [
    "evaluate_every",
    "evaluate_all_every",
    "evaluate_training",
    "checkpoint_every",
    "log",
];

/// Reads the configuration of a run; settings that are newer than the file get their
/// defaults.
///
/// # Errors
/// As [`Config::resolve`]; [`Error::Run`] if the file names no architecture.
pub(super) fn configuration(file: &Path) -> Result<Config> {
    let (architecture, source) = settings_in(file)?;
    Config::resolve(&architecture, Some(NO_PRESET), vec![source])
}

/// The architecture that a file of settings names, and its settings.
///
/// # Errors
/// As [`Source::file`]; [`Error::Run`] if the file names no architecture.
pub(super) fn settings_in(file: &Path) -> Result<(String, Source)> {
    let source = Source::file(file)?;
    match source.table.get("architecture").cloned() {
        Some(Value::String(architecture)) => Ok((architecture, source)),
        _ => Err(Error::run(
            file,
            "names no architecture; add a line such as architecture = \"progressive\"",
        )),
    }
}

/// The data set as an argument of `--data`: `name`, or `name:ARGUMENT`.
pub(super) fn data_argument(config: &Config) -> Result<Option<String>> {
    let Some(data) = &config.run.data else {
        return Ok(None);
    };
    let argument = registry::info(DataSet::KIND, &data.name)?.argument;
    let argument = argument.and_then(|key| data.settings.get(key)?.as_str());
    Ok(Some(match argument {
        Some(argument) => format!("{}:{argument}", data.name),
        None => data.name.clone(),
    }))
}

/// The shortest command that gives a configuration, which was read from `file`.
pub(super) fn shortest(wanted: &Config, file: &Path) -> Result<String> {
    let data = data_argument(wanted)?;
    let info = registry::info(<dyn Architecture>::KIND, &wanted.architecture)?;
    // Without a preset, the look of the data may choose one, and settings of the data.
    let looks = match &wanted.run.data {
        Some(data) => registry::info(DataSet::KIND, &data.name)?.look.is_some(),
        None => false,
    };
    let named = info.presets().into_iter().map(|preset| Some(preset.name));
    let default = (!looks).then_some(None);
    let presets = default.into_iter().chain(named).chain([Some(NO_PRESET)]);
    let mut commands: Vec<String> = Vec::new();
    for preset in presets {
        commands.extend(command(wanted, preset, data.as_deref()));
    }
    // Without a preset every setting can be given.
    let shortest = commands.into_iter().min_by_key(String::len);
    shortest.ok_or_else(|| Error::run(file, "no command gives this configuration"))
}

/// The command with this preset, if it gives the configuration.
fn command(wanted: &Config, preset: Option<&str>, data: Option<&str>) -> Option<String> {
    let resolve = |sources: Vec<Source>| Config::resolve(&wanted.architecture, preset, sources);
    let data_source = match data {
        Some(data) => vec![Source::assignment(&format!("data={data}")).ok()?],
        None => Vec::new(),
    };
    let base = flat(&resolve(data_source.clone()).ok()?.to_table(), "");
    let mut changed = flat(&wanted.to_table(), "");
    changed.retain(|setting| {
        let is_other = !base.contains(setting) || is_looked_at(wanted, &setting.0);
        is_loud(wanted, &setting.0) && is_other
    });
    // A plugin's name goes before its settings.
    let (plugins, settings): (Vec<_>, Vec<_>) = changed
        .into_iter()
        .partition(|(key, _)| key.ends_with(".name"));
    let plugins = plugins.into_iter().map(|(key, value)| {
        let key = key.trim_end_matches(".name").to_string();
        (key, value)
    });

    let (mut sources, mut words, mut last) = (data_source, Vec::new(), Vec::new());
    for (key, value) in plugins.chain(settings) {
        let text = plain(&value);
        sources.push(Source::assignment(&format!("{key}={text}")).ok()?);
        match key.as_str() {
            "epochs" | "seed" => last.push(format!("--{key} {text}")),
            _ => words.push(format!("--set {}", shell_word(&format!("{key}={text}")))),
        }
    }
    if !last.iter().any(|word| word.starts_with("--seed")) {
        last.push(format!("--seed {}", wanted.run.seed));
    }
    let found = resolve(sources).ok()?;
    let loud = |config: &Config| {
        let mut settings = flat(&config.to_table(), "");
        settings.retain(|(key, _)| is_loud(wanted, key));
        settings
    };
    if loud(&found) != loud(wanted) {
        return None;
    }
    let mut all = vec![format!("onward train {}", wanted.architecture)];
    all.extend(preset.map(|preset| format!("--preset {preset}")));
    all.extend(data.map(|data| format!("--data {}", shell_word(data))));
    Some([all, words, last].concat().join(" "))
}

/// Whether a look at the data may choose this setting.
fn is_looked_at(wanted: &Config, key: &str) -> bool {
    let data = wanted.run.data.as_ref();
    let info = data.and_then(|data| registry::info(DataSet::KIND, &data.name).ok());
    let key = key.strip_prefix("data.");
    let found = info.zip(key);
    found.is_some_and(|(info, key)| info.looked_at.contains(&key))
}

/// Whether a setting has a part in the result. With `patience`, evaluations decide when a
/// run ends.
fn is_loud(wanted: &Config, key: &str) -> bool {
    let decides = key == "evaluate_every" && wanted.run.patience > 0;
    decides || !SILENT.contains(&key)
}

/// All settings with their paths.
fn flat(table: &Table, prefix: &str) -> Vec<(String, Value)> {
    let mut settings = Vec::new();
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => settings.extend(flat(inner, &format!("{path}."))),
            Value::String(_) if path == "architecture" => (),
            value => settings.push((path, value.clone())),
        }
    }
    settings
}

/// Whether a text is read as text without quotes too.
fn is_word(text: &str) -> bool {
    let is_toml = || format!("value = {text}").parse::<Table>().is_ok();
    text.chars().all(is_bare) && !is_toml()
}

/// A value as it is written on a command line: words without quotes, lists without
/// spaces.
fn plain(value: &Value) -> String {
    match value {
        Value::String(word) if is_word(word) => word.clone(),
        Value::Array(values) => {
            format!(
                "[{}]",
                values.iter().map(plain).collect::<Vec<_>>().join(",")
            )
        }
        value => value.to_string(),
    }
}
