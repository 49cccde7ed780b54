//! What is trained, compared or examined: an architecture, its data and its settings.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value as Json;

use super::flags::{DataDir, Device};
use crate::error::{notify, printable, Error, Result};
use crate::plugin::config::NO_PRESET;
use crate::plugin::source::Source;
use crate::run::folder::SUMMARY;
use crate::run::{summary, Run, RunBuilder};

#[derive(Args)]
pub(super) struct Subject {
    /// Architecture: see `onward list architecture`.
    pub architecture: String,
    /// Data set: a name of `onward list data`, or idx:DIR, folder:DIR, text:FILE.
    #[arg(long, value_name = "NAME")]
    pub data: Option<String>,
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Named set of settings: see `onward show <architecture>`. The first is the default;
    /// `none` disables it.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
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
    /// The run that the arguments describe.
    pub fn builder(&self) -> Result<RunBuilder> {
        let mut builder = Run::builder(&self.architecture).device(&self.device.device);
        if let Some(preset) = &self.preset {
            builder = builder.preset(preset);
        }
        if let Some(file) = &self.config {
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
        refuse_twice(
            &[
                ("data", &self.data),
                ("epochs", &self.epochs),
                ("seed", &self.seed),
            ],
            &self.set,
        )?;
        // Plugins first, then their settings, regardless of the given order.
        let is_nested = |assignment: &&String| {
            let key = assignment.split('=').next().unwrap_or_default();
            key.contains('.')
        };
        let (settings, plugins): (Vec<_>, Vec<_>) = self.set.iter().partition(is_nested);
        for assignment in plugins.into_iter().chain(settings) {
            builder = builder.source(Source::assignment(assignment)?);
        }
        Ok(self.data_dir.add_to(builder))
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
        let is_it = |assignment: &&String| {
            let given = assignment.split('=').next().unwrap_or_default();
            given.trim() == *key
        };
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
