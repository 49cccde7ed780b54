//! What is trained, compared or examined: an architecture, its data and its settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};
use serde_json::Value as Json;
use toml::Value;

use super::flags::{DataDir, Device};
use super::method::Method;
use crate::error::{notify, printable, Error, Result};
use crate::plugin::config::{usual, NO_PRESET};
use crate::plugin::registry::KINDS;
use crate::plugin::source::Source;
use crate::run::folder::SUMMARY;
use crate::run::{summary, Run, RunBuilder};

#[derive(Args)]
pub(super) struct Subject {
    /// Architecture: see `onward list architecture`, or a file of settings, FILE.toml. A
    /// preset may follow after a colon, and settings after commas, as in
    /// progressive:hinton,lr=0.02.
    #[arg(value_name = "METHOD")]
    pub method: Method,
    /// Data set: a name of `onward list data`, or idx:DIR, folder:DIR, text:FILE.
    #[arg(long, value_name = "NAME")]
    pub data: Option<String>,
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Named set of settings: see `onward show <architecture>`. The first is the default;
    /// `none` disables it.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// File of settings, such as the config.toml of a run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting: a TOML value or a word; dots nest, as in layer.dropout=0.1. Can be
    /// repeated; the last one wins.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Passes over the training part.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub epochs: Option<String>,
    /// Seed of all random numbers.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub seed: Option<String>,
    #[command(flatten)]
    pub device: Device,
}

impl Subject {
    /// The subject of these arguments of `onward train`.
    pub fn of(words: &[OsString]) -> Result<Self> {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            subject: Subject,
        }
        let words = std::iter::once("onward".into()).chain(words.iter().cloned());
        let only = Only::try_parse_from(words);
        let only = only.map_err(|error| Error::usage("settings", error.to_string()))?;
        Ok(only.subject)
    }

    /// A method, with settings of all methods before its own.
    pub fn of_method(method: &Method, of_all: &[String], data: Option<&str>) -> Result<Self> {
        let data = data.map(|name| ["--data".to_string(), name.into()]);
        let words = method.words(of_all).into_iter();
        let words = words.chain(data.into_iter().flatten()).map(OsString::from);
        Self::of(&words.collect::<Vec<_>>())
    }

    /// The chosen preset.
    pub fn preset(&self) -> Option<&str> {
        self.preset.as_deref().or(self.method.preset())
    }

    /// The assignments of the method, and then those of `--set`.
    pub fn assignments(&self) -> Vec<String> {
        [self.method.settings(), &self.set].concat()
    }

    /// Refuses what both the method and a flag give.
    fn check(&self) -> Result<()> {
        if let (Some(first), Some(second)) = (self.method.preset(), &self.preset) {
            let origin = format!("{} and --preset {second}", self.method.label());
            return Err(Error::setting(
                "preset",
                first,
                origin,
                "only one of the two",
            ));
        }
        if let (Some(first), Some(second)) = (self.method.file(), &self.config) {
            let (first, second) = (first.display(), second.display());
            let problem = format!("found {first} and --config {second}, expected one of the two");
            return Err(Error::usage("settings", problem));
        }
        let flags = [
            ("data", &self.data),
            ("epochs", &self.epochs),
            ("seed", &self.seed),
        ];
        refuse_twice(&flags, &self.set)
    }

    /// The run that the arguments describe.
    pub fn builder(&self) -> Result<RunBuilder> {
        self.check()?;
        let builder = Run::builder(self.method.architecture());
        let mut builder = builder.device(&self.device.device);
        if let Some(preset) = self.preset() {
            builder = builder.preset(preset);
        }
        if let Some(file) = self.config.as_deref().or(self.method.file()) {
            let source = Source::file(file)?;
            if source.table.is_empty() {
                let name = printable(&file.display().to_string());
                notify(format_args!("note: {name} has no settings"));
            }
            warn_of_changes(file);
            self.warn_of_idle_preset(&source);
            builder = builder.source(source);
        }
        for (key, value) in [
            ("data", &self.data),
            ("epochs", &self.epochs),
            ("seed", &self.seed),
        ] {
            if let Some(value) = value {
                builder = builder.source(flag(key, value)?);
            }
        }
        let assignments = self.assignments();
        for (at, mut source) in in_order(&assignments)? {
            if at < self.method.settings().len() {
                source.origin = self.method.label().into();
            }
            builder = builder.source(source);
        }
        self.data_dir.add_to(builder)
    }

    /// Warns of a preset beside a file that overrides everything in it.
    fn warn_of_idle_preset(&self, file: &Source) {
        let preset = self.preset.as_deref().filter(|name| *name != NO_PRESET);
        if let Some(preset) = preset.filter(|_| file.is_complete()) {
            notify(format_args!(
                "warning: --preset {} has no effect: {} sets all settings; give one of the two",
                printable(preset),
                printable(&file.origin)
            ));
        }
    }
}

/// The sources of assignments in their order, each with its place among them. But where a
/// plugin is chosen by its name alone, or a list of plugins is, its settings come after it:
/// `layer.field=3` and then `layer=conv` are a convolution with that field.
fn in_order(assignments: &[String]) -> Result<Vec<(usize, Source)>> {
    let sources = assignments.iter().map(|text| Source::assignment(text));
    let sources = sources.collect::<Result<Vec<_>>>()?;
    let key = |at: usize| assignments[at].split('=').next().unwrap_or_default().trim();
    let is_name = |value: &Value| match value {
        Value::Array(values) => values.iter().all(Value::is_str),
        value => value.is_str(),
    };
    let is_choice = |at: usize, plugin: &str| {
        let by_name = key(at).strip_suffix(".name") == Some(plugin);
        let is_alone = || key(at) == plugin && is_name(&sources[at].table[plugin]);
        KINDS.contains(&plugin) && (by_name || is_alone())
    };
    let after = |at: usize| {
        let (plugin, of_plugin) = key(at).split_once('.')?;
        let mut later = at + 1..sources.len();
        later.rfind(|&later| of_plugin != "name" && is_choice(later, plugin))
    };
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&at| (after(at).unwrap_or(at), after(at).is_some()));
    let sources = order.into_iter().map(|at| (at, sources[at].clone()));
    Ok(sources.collect())
}

/// Warns where the settings of a run are not those that it had from its beginning.
fn warn_of_changes(file: &Path) {
    let summary = file.parent().map(|run| run.join(SUMMARY));
    let summary = summary.and_then(|path| summary::read(&path).ok());
    let changes = summary
        .as_ref()
        .and_then(|summary| summary["changes"].as_array());
    let changes: Vec<&str> = changes
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    if !changes.is_empty() {
        notify(format_args!(
            "warning: {} has the last settings of a run that were changed on the way ({}); it does \
             not repeat that run",
            printable(&file.display().to_string()),
            printable(&changes.join("; "))
        ));
    }
}

/// Refuses a setting that is given by its flag and by `--set`: one of them would be
/// ignored.
pub(super) fn refuse_twice(flags: &[(&str, &Option<String>)], set: &[String]) -> Result<()> {
    for (key, value) in flags {
        let is_it =
            |assignment: &&String| usual(assignment.split('=').next().unwrap_or_default()) == *key;
        let Some(value) = value else { continue };
        if let Some(assignment) = set.iter().find(is_it) {
            let origin = format!("--{key} {value} and --set {assignment}");
            return Err(Error::setting(*key, value, origin, "only one of the two"));
        }
    }
    Ok(())
}

/// The setting of a dedicated flag, such as `--seed`.
pub(super) fn flag(key: &str, value: &str) -> Result<Source> {
    let assignment = Source::assignment(&format!("{key}={value}"))?;
    Ok(Source {
        origin: format!("--{key} {value}"),
        ..assignment
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_chosen_before_its_settings_and_else_the_last_one_wins() {
        let order = |given: &[&str]| -> Vec<String> {
            let given: Vec<String> = given.iter().map(|text| text.to_string()).collect();
            let sources = in_order(&given).unwrap();
            let origin = |source: &Source| source.origin.replacen("--set ", "", 1);
            sources.iter().map(|(_, source)| origin(source)).collect()
        };
        let table = "layer={name=\"dense\"}";
        for (given, expected) in [
            (
                &["layer.field=3", "lr=1", "layer=conv", "lr=2"][..],
                &["lr=1", "layer=conv", "layer.field=3", "lr=2"][..],
            ),
            (&["layer.peer=0", table], &["layer.peer=0", table]),
            (
                &["layer=conv", "layer.pool=2", "layer=dense"],
                &["layer=conv", "layer=dense", "layer.pool=2"],
            ),
            (
                &["layer.field=3", "layer=[conv, conv]"],
                &["layer=[conv, conv]", "layer.field=3"],
            ),
            (
                &["layer.field=3", "layer.name=conv"],
                &["layer.name=conv", "layer.field=3"],
            ),
            (
                &["data.window=7", "window=5"],
                &["data.window=7", "window=5"],
            ),
            (
                &["head.lr=7", "head=conv"], // not a plugin
                &["head.lr=7", "head=conv"],
            ),
        ] {
            assert_eq!(order(given), expected);
        }
    }

    #[test]
    fn a_setting_by_flag_and_by_another_spelling_is_refused() {
        for (key, assignment) in [
            ("epochs", "num_epochs=5"),
            ("data", "data.name=digits"),
            ("epochs", " epochs =5"),
        ] {
            let given = (key, &Some("3".to_string()));
            assert!(refuse_twice(&[given], &[assignment.into()]).is_err());
        }
    }
}
