//! `onward show`.

use clap::Args;

use super::doc_text;
use super::output::{print, wrap};
use crate::contract::architecture::Architecture;
use crate::error::{nearest, printable, Error, Result};
use crate::guide::glossary;
use crate::plugin::config::is_called;
use crate::plugin::preset::Preset;
use crate::plugin::registry::{self, Info, KINDS};
use crate::plugin::run_settings::RunSettings;
use crate::settings::{Choice, PluginKind, Setting, Settings};

#[derive(Args)]
pub(super) struct Show {
    /// Name of a plugin, a preset, a setting, a loss, a schedule or another choice of a
    /// setting, or a word of the glossary: view, head, search, …
    name: String,
}

impl Show {
    pub(super) fn run(self) -> Result<()> {
        let mut text = String::new();
        let mut known: Vec<String> = Vec::new();
        // All names are in lower case.
        let name = self.name.to_lowercase();
        // A preset as `architecture:preset`, a setting as in `--set layer.dropout=0.1`.
        let (owner, of_owner) = name.split_once(':').unwrap_or(("", &name));
        let (kind, key) = name.split_once('.').unwrap_or(("", &name));
        for kind in KINDS {
            for info in registry::infos(kind)? {
                if info.name == name {
                    text += &plugin(kind, info);
                }
                let presets = info.presets().into_iter();
                // Those of the plugin of this name are shown with it.
                let is_asked = match owner {
                    "" => info.name != name,
                    owner => info.name == owner,
                };
                let presets = presets.filter(|_| is_asked);
                for found in presets.filter(|preset| preset.name == of_owner) {
                    text += &format!("of {kind} {}:{}\n", info.name, preset(found));
                }
                known.push(info.name.into());
                let named = info.presets().into_iter();
                known.extend(named.map(|preset| format!("{}:{}", info.name, preset.name)));
            }
        }
        if let Some((word, meaning)) = glossary::entry(&name) {
            text += &word_with(word, meaning);
        }
        text += &settings_named(kind, key)?;
        text += &choices_named(&name)?;
        if !text.is_empty() {
            return print(&text);
        }
        known.extend(glossary::words().map(|(word, _)| word.to_string()));
        known.extend(
            every_setting()?
                .into_iter()
                .map(|(.., setting)| setting.key.into()),
        );
        known.sort();
        known.dedup();
        let near = nearest(&name, &known);
        let problem = format!(
            "expected a plugin, a preset, a setting, a value of one, or a word of the \
             glossary{near}; see: onward list, onward guide glossary"
        );
        Err(Error::usage(
            format!("show {}", printable(&self.name)),
            problem,
        ))
    }
}

/// Every word of the glossary with its meaning.
pub(super) fn glossary() -> String {
    let all = glossary::words();
    all.map(|(word, meaning)| word_with(word, meaning))
        .collect()
}

fn word_with(word: &str, meaning: &str) -> String {
    format!("{word}\n{}", wrap(meaning, "  "))
}

fn plugin(kind: &str, info: &Info) -> String {
    let mut text = format!("{kind} {} (package {})\n", info.name, info.package);
    text += &wrap(info.about, "");
    if !info.doc.is_empty() {
        text += &format!("\n{}", doc_text::plain(info.doc));
    }
    text += &settings("settings", (info.settings)());
    if kind == <dyn Architecture>::KIND {
        text += &settings("settings of every run", RunSettings::describe());
    }
    text += &info.presets().into_iter().map(preset).collect::<String>();
    text + "\n"
}

fn settings(heading: &str, settings: Vec<Setting>) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{heading}\n");
    for setting in settings {
        let default = setting.default.as_ref();
        let default = default.map_or("not set".into(), |default| default.to_string());
        let alias = setting
            .alias
            .map_or(String::new(), |alias| format!(" (or {alias})"));
        text += &format!(
            "  {}{alias} = {default}\n{}",
            setting.key,
            described(&setting)
        );
    }
    text
}

/// The lines about a setting.
fn described(setting: &Setting) -> String {
    let mut text = wrap(&setting.help, "      ");
    text += &wrap(&format!("Allowed: {}.", setting.allowed), "      ");
    for choice in setting.choices {
        text += &wrap(&format!("{}: {}", choice.word, meaning(choice)), "        ");
    }
    text
}

/// What a setting means to those that have it: all, or with `kind` the plugins of this kind
/// or name.
pub(super) fn settings_named(kind: &str, key: &str) -> Result<String> {
    let mut found = Meanings::default();
    for (of, owner, setting) in every_setting()? {
        let is_asked = kind.is_empty() || [of, owner].contains(&kind);
        if is_called(&setting, key) && is_asked {
            found.add(setting.key, described(&setting), owner);
        }
    }
    Ok(found.text(|key, owners| format!("{key}, a setting of {owners}")))
}

/// The meaning of a choice as one line.
fn meaning(choice: &Choice) -> String {
    choice
        .meaning
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What a word means as the value of a setting, such as `cosine` of `schedule`.
fn choices_named(word: &str) -> Result<String> {
    let mut found = Meanings::default();
    for (_, owner, setting) in every_setting()? {
        for choice in setting.choices.iter().filter(|choice| choice.word == word) {
            found.add(setting.key, wrap(&meaning(choice), "  "), owner);
        }
    }
    Ok(found.text(|key, owners| format!("{word}, as the value of `{key}` of {owners}")))
}

/// Every setting with its owner, a plugin and its kind, or every run.
fn every_setting() -> Result<Vec<(&'static str, &'static str, Setting)>> {
    let of_runs = RunSettings::describe().into_iter();
    let of_runs = of_runs.map(|setting| ("run", "every run", setting));
    let mut all: Vec<_> = of_runs.collect();
    for kind in KINDS {
        for info in registry::infos(kind)? {
            let own = (info.settings)().into_iter();
            all.extend(own.map(|setting| (*kind, info.name, setting)));
        }
    }
    Ok(all)
}

/// Meanings of one word: the key of a setting, the meaning, and whose setting it is.
#[derive(Default)]
struct Meanings(Vec<(&'static str, String, Vec<&'static str>)>);

impl Meanings {
    fn add(&mut self, key: &'static str, text: String, owner: &'static str) {
        let mut known = self.0.iter_mut();
        match known.find(|known| known.0 == key && known.1 == text) {
            Some((_, _, owners)) => owners.push(owner),
            None => self.0.push((key, text, vec![owner])),
        }
    }

    fn text(self, heading: impl Fn(&str, &str) -> String) -> String {
        let texts = self.0.into_iter().map(|(key, text, owners)| {
            let heading = heading(key, &owners.join(", "));
            format!("{}{text}", wrap(&heading, ""))
        });
        texts.collect()
    }
}

fn preset(preset: &Preset) -> String {
    let mut text = format!("\npreset {}\n{}", preset.name, wrap(preset.about, "  "));
    let lines = preset
        .settings
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    for line in lines {
        text += &format!("      {line}\n");
    }
    text
}
