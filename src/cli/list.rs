//! `onward list`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::output::{entry, print, print_json};
use super::show::{glossary, settings_named};
use crate::error::{nearest, printable, Error, Result};
use crate::guide::glossary;
use crate::plugin::facts;
use crate::plugin::registry::{self, Info, KINDS};

#[derive(Args)]
pub(super) struct List {
    /// Kind: architectures, layers, goodness, samplers, data, presets or glossary; by
    /// default all kinds of plugins.
    kind: Option<String>,
    /// Print JSON, with every setting.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<()> {
        // Singular or plural; "goodness" itself ends in s.
        let wanted = self.kind.as_deref().map(|kind| kind.trim_end_matches('s'));
        let is_wanted = |kind: &&str| wanted.is_none_or(|w| w == kind.trim_end_matches('s'));
        let kinds: Vec<&str> = KINDS.iter().copied().filter(is_wanted).collect();
        if wanted == Some("preset") {
            return match self.json {
                true => presets_as_json(),
                false => presets(),
            };
        }
        if wanted == Some("glossary") {
            return match self.json {
                true => print_json(&glossary::words().collect::<BTreeMap<_, _>>()),
                false => print(&glossary()),
            };
        }
        if kinds.is_empty() {
            let setting = settings_named("", self.kind.as_deref().unwrap_or_default())?;
            if !setting.is_empty() && self.json {
                let problem = "is for plugins, with all of their settings: onward list --json";
                return Err(Error::usage("--json", problem));
            }
            if !setting.is_empty() {
                return print(&setting);
            }
            let kinds = KINDS.iter().copied().chain(["presets", "glossary"]);
            let kinds: Vec<String> = kinds.map(String::from).collect();
            let kind = self.kind.unwrap_or_default();
            let near = nearest(&kind, &kinds);
            let problem = format!("expected one of {}{near}", kinds.join(", "));
            return Err(Error::usage(format!("list {}", printable(&kind)), problem));
        }
        if self.json {
            let mut listed = serde_json::Map::new();
            for kind in kinds {
                let infos = registry::infos(kind)?.into_iter().map(to_json);
                listed.insert(kind.into(), infos.collect());
            }
            return print_json(&listed);
        }
        let mut text = String::new();
        for kind in kinds {
            text += &format!("{kind}\n");
            for info in registry::infos(kind)? {
                text += &entry(info.name, info.about);
            }
        }
        print(&text)
    }
}

/// The presets of each plugin that has any, by kind.
fn presets_as_json() -> Result<()> {
    let mut listed = serde_json::Map::new();
    for kind in KINDS {
        let mut of_kind = serde_json::Map::new();
        for info in registry::infos(kind)? {
            let presets = info.presets().into_iter().map(|preset| {
                json!({
                    "name": preset.name,
                    "about": preset.about,
                    "settings": preset.settings,
                })
            });
            let presets: Vec<_> = presets.collect();
            if !presets.is_empty() {
                of_kind.insert(info.name.into(), presets.into());
            }
        }
        if !of_kind.is_empty() {
            listed.insert((*kind).into(), of_kind.into());
        }
    }
    print_json(&listed)
}

/// Every preset, after the plugin that has it.
fn presets() -> Result<()> {
    let mut text = String::new();
    for kind in KINDS {
        for info in registry::infos(kind)?
            .into_iter()
            .filter(|info| !info.presets().is_empty())
        {
            text += &format!("{kind} {}\n", info.name);
            for preset in info.presets() {
                text += &entry(preset.name, preset.about);
            }
        }
    }
    print(&text)
}

fn to_json(info: &Info) -> serde_json::Value {
    let presets: Vec<_> = info
        .presets()
        .into_iter()
        .map(|preset| json!({ "name": preset.name, "about": preset.about }))
        .collect();
    json!({
        "name": info.name,
        "about": info.about,
        "doc": info.doc,
        "package": info.package,
        "rule": facts::of(info),
        "settings": (info.settings)(),
        "presets": presets,
    })
}
