//! `onward list` and `onward show`: what can be named, and what can be set.

use clap::Args;
use serde_json::json;

use super::{print, print_json};
use crate::error::{Error, Result};
use crate::plugin::config::RunSettings;
use crate::plugin::registry::{self, Info, KINDS};
use crate::settings::{Setting, Settings};

#[derive(Args)]
pub(super) struct List {
    /// architectures, layers, goodness, samplers or data; all of them by default.
    kind: Option<String>,
    /// As JSON, with every setting.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<()> {
        let wanted = self.kind.as_deref().map(|kind| kind.trim_end_matches('s'));
        // "goodness" itself ends in s.
        let chosen: Vec<&str> = KINDS
            .iter()
            .copied()
            .filter(|kind| wanted.is_none_or(|w| w == kind.trim_end_matches('s')))
            .collect();
        if chosen.is_empty() {
            return Err(Error::UnknownPlugin {
                kind: "kind of plugin",
                name: self.kind.unwrap_or_default(),
                known: KINDS.iter().map(|kind| kind.to_string()).collect(),
            });
        }
        if self.json {
            let mut listed = serde_json::Map::new();
            for kind in chosen {
                let infos = registry::infos(kind)?.into_iter().map(as_json);
                listed.insert(kind.into(), infos.collect());
            }
            return print_json(&listed);
        }
        let mut text = String::new();
        for kind in chosen {
            text += &format!("{kind}\n");
            for info in registry::infos(kind)? {
                text += &format!("  {:<16} {}\n", info.name, info.about);
            }
        }
        print(&text)
    }
}

fn as_json(info: &Info) -> serde_json::Value {
    let presets: Vec<_> = info
        .presets
        .iter()
        .map(|p| json!({ "name": p.name, "about": p.about }))
        .collect();
    json!({
        "name": info.name,
        "about": info.about,
        "package": info.package,
        "settings": (info.settings)(),
        "presets": presets,
    })
}

pub(super) fn show(name: &str) -> Result<()> {
    let mut text = String::new();
    for kind in KINDS {
        for info in registry::infos(kind)?
            .into_iter()
            .filter(|info| info.name == name)
        {
            text += &format!(
                "{kind} {name} (package {})\n{}",
                info.package,
                wrap(info.about, "")
            );
            text += &described("settings", (info.settings)());
            if *kind == <dyn crate::Architecture as registry::Kind>::KIND {
                text += &described(
                    "settings of every run",
                    <RunSettings as Settings>::describe(),
                );
            }
            for preset in info.presets {
                text += &format!("\npreset {}\n{}", preset.name, wrap(preset.about, "  "));
                for line in preset
                    .settings
                    .lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                {
                    text += &format!("      {line}\n");
                }
            }
            text += "\n";
        }
    }
    if text.is_empty() {
        let mut known = Vec::new();
        for kind in KINDS {
            known.extend(
                registry::infos(kind)?
                    .into_iter()
                    .map(|info| info.name.to_string()),
            );
        }
        return Err(Error::UnknownPlugin {
            kind: "plugin",
            name: name.into(),
            known,
        });
    }
    print(&text)
}

/// Settings under a heading.
fn described(heading: &str, settings: Vec<Setting>) -> String {
    let mut text = if settings.is_empty() {
        String::new()
    } else {
        format!("\n{heading}\n")
    };
    for setting in settings {
        let default = setting
            .default
            .map_or("not set".into(), |default| default.to_string());
        let alias = setting
            .alias
            .map_or(String::new(), |alias| format!(" (or {alias})"));
        text += &format!("  {}{alias} = {default}\n", setting.key);
        text += &wrap(&setting.help, "      ");
        text += &wrap(&format!("Allowed: {}.", setting.allowed), "      ");
    }
    text
}

/// Lines of at most 100 characters.
fn wrap(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from(indent);
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() > 100 && line.trim() != "" {
            lines += &format!("{}\n", line.trim_end());
            line = String::from(indent);
        }
        line += word;
        line.push(' ');
    }
    lines + &format!("{}\n", line.trim_end())
}
