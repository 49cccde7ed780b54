//! A method of training as it is written on the command line: an architecture with a preset
//! and settings.

use std::path::Path;
use std::str::FromStr;

use super::command_line::settings_in;
use super::train::for_a_name;
use crate::contract::architecture::Architecture;
use crate::contract::rule::Rule;
use crate::error::Result;
use crate::plugin::config::usual;
use crate::plugin::{facts, registry};
use crate::run::folder::CONFIG;
use crate::settings::PluginKind;

/// An architecture with a preset, or a file of settings; and settings of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Method {
    label: String,
    source: Source,
    settings: Vec<String>,
}

/// The settings that have flags of their own, and make the rows of a table comparable.
pub(super) const FLAGS: [&str; 3] = ["data", "epochs", "seed"];

/// The longest name of a method in the name of a folder.
const LONGEST: usize = 100;

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Named {
        architecture: String,
        preset: Option<String>,
    },
    File {
        path: String,
        architecture: String,
        preset: Option<String>,
    },
}

impl Method {
    /// What every table of methods should have beside them: backpropagation with all its
    /// presets, and random layers with a trained head. The random layers are those of the
    /// architecture of the first method that can be frozen.
    ///
    /// # Errors
    /// [`Error::DuplicatePlugin`](crate::Error::DuplicatePlugin).
    pub fn baselines(methods: &[Self]) -> Result<Vec<Self>> {
        let kind = <dyn Architecture>::KIND;
        let backpropagation = Some(Rule::Backpropagation.word());
        let mut baselines = Vec::new();
        for info in registry::infos(kind)? {
            if facts::of(info).class == backpropagation {
                baselines.extend(Self::all_of(info));
            }
        }
        let can_be_frozen = |method: &&Self| {
            let info = registry::info(kind, method.architecture());
            let settings = info.map(|info| (info.settings)()).unwrap_or_default();
            settings.iter().any(|setting| setting.key == "frozen")
        };
        if let Some(method) = methods.iter().find(can_be_frozen) {
            baselines.push(Self::named(
                method.architecture(),
                vec!["frozen=true".into()],
            ));
        }
        Ok(baselines)
    }

    /// An architecture with its default preset, and with each of the others.
    pub fn all_of(info: &registry::Info) -> Vec<Self> {
        let presets = info.presets();
        // The first of its own is the default.
        let default = info.own_presets.len().min(1);
        let others = presets.iter().skip(default);
        let others = others.map(|preset| Self::with_preset(info.name, preset.name));
        std::iter::once(Self::named(info.name, Vec::new()))
            .chain(others)
            .collect()
    }

    fn with_preset(architecture: &str, preset: &str) -> Self {
        Self {
            label: format!("{architecture}:{preset}"),
            source: Source::Named {
                architecture: architecture.into(),
                preset: Some(preset.into()),
            },
            settings: Vec::new(),
        }
    }

    /// An architecture with its default preset.
    pub fn named(architecture: &str, settings: Vec<String>) -> Self {
        let with = settings.iter().map(|setting| format!(",{setting}"));
        Self {
            label: format!("{architecture}{}", with.collect::<String>()),
            source: Source::Named {
                architecture: architecture.into(),
                preset: None,
            },
            settings,
        }
    }

    pub fn architecture(&self) -> &str {
        match &self.source {
            Source::Named { architecture, .. } | Source::File { architecture, .. } => architecture,
        }
    }

    /// The preset, if one was chosen.
    pub fn preset(&self) -> Option<&str> {
        match &self.source {
            Source::Named { preset, .. } | Source::File { preset, .. } => preset.as_deref(),
        }
    }

    /// The file of settings, if that was chosen.
    pub fn file(&self) -> Option<&Path> {
        match &self.source {
            Source::Named { .. } => None,
            Source::File { path, .. } => Some(Path::new(path)),
        }
    }

    /// The settings of its own, as they were written.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// As it was written.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The label as a part of a folder's name; a long one ends with its checksum.
    pub fn name(&self) -> String {
        let name = for_a_name(&self.label.replace([':', '/'], "-"));
        if name.len() <= LONGEST {
            return name;
        }
        let mut crc = flate2::Crc::new();
        crc.update(self.label.as_bytes());
        format!("{}-{:08x}", &name[..LONGEST - 9], crc.sum())
    }

    /// The arguments of `onward train`, with the settings of all methods before its own.
    pub fn words(&self, of_all: &[String]) -> Vec<String> {
        let mut words = match &self.source {
            Source::Named { architecture, .. } => vec![architecture.clone()],
            Source::File {
                path, architecture, ..
            } => {
                vec![architecture.clone(), "--config".into(), path.clone()]
            }
        };
        if let Some(preset) = self.preset() {
            words.extend(["--preset".into(), preset.into()]);
        }
        for setting in of_all.iter().chain(&self.settings) {
            words.extend(["--set".into(), setting.clone()]);
        }
        words
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut parts = outer_parts(text).into_iter();
        let first = parts.next().unwrap_or_default().to_string();
        let is_known = registry::info(<dyn Architecture>::KIND, &first).is_ok();
        let (name, preset) = match first.split_once(':') {
            // A path may have a colon.
            Some((name, preset)) if !Path::new(&first).is_file() => (name, Some(preset)),
            _ => (&*first, None),
        };
        let preset = preset.map(String::from);
        let source = match Path::new(name).is_file() && !is_known {
            true => Source::File {
                architecture: architecture_of(name)?,
                path: name.into(),
                preset,
            },
            false if name.ends_with(".toml") => return Err(format!("there is no file {name}")),
            false if Path::new(name).join(CONFIG).is_file() && !is_known => {
                return Err(format!("{name} is a folder; its settings: {name}/{CONFIG}"));
            }
            false => Source::Named {
                architecture: name.into(),
                preset,
            },
        };
        let settings: Vec<String> = parts.map(String::from).collect();
        if let Some(wrong) = settings.iter().find(|setting| !setting.contains('=')) {
            return Err(format!(
                "expected KEY=VALUE after the comma, found {wrong:?}, as in progressive,lr=0.1"
            ));
        }
        let keys = || {
            let keys = settings.iter().map(|setting| setting.split('=').next());
            keys.map(Option::unwrap_or_default)
        };
        if let Some(key) = keys().map(usual).find(|key| FLAGS.contains(key)) {
            return Err(format!(
                "`{key}` cannot be set within a method: flags set it for the whole command"
            ));
        }
        let of_data = |key: &&str| {
            key.trim()
                .split_once('.')
                .is_some_and(|(of, _)| of == "data")
        };
        if let Some(key) = keys().find(of_data) {
            return Err(format!(
                "`{key}` belongs to the data, which are the same for the whole command: \
                 --set {key}=VALUE"
            ));
        }
        Ok(Self {
            label: text.into(),
            source,
            settings,
        })
    }
}

fn architecture_of(file: &str) -> std::result::Result<String, String> {
    let found = settings_in(Path::new(file)).map_err(|error| error.to_string())?;
    let (architecture, _) = found;
    let known = registry::info(<dyn Architecture>::KIND, &architecture).map(|_| ());
    known.map_err(|error| format!("{file}: {error}"))?;
    Ok(architecture)
}

/// The parts between commas that are not within brackets or quotes.
pub(super) fn outer_parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0i32, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_a_name_a_preset_and_settings() {
        let method: Method = "progressive:hinton,hidden=[5,6],layer={ name = \"dense\", peer = 0 }"
            .parse()
            .unwrap();
        let words = [
            "progressive",
            "--preset",
            "hinton",
            "--set",
            "hidden=[5,6]",
            "--set",
            "layer={ name = \"dense\", peer = 0 }",
        ];
        assert_eq!(method.words(&[]), words);
        assert_eq!(method.words(&["lr=1".into()])[3..5], ["--set", "lr=1"]);
        for wrong in [
            "progressive,seed=2",
            "progressive,data.size=3",
            "progressive,num_epochs=3",
        ] {
            assert!(wrong.parse::<Method>().is_err(), "{wrong}");
        }
        assert!("progressive,hinton".parse::<Method>().is_err());
        assert_eq!(method.architecture(), "progressive");
        let long = |last: usize| -> Method {
            let hidden = vec!["500"; 100].join(",");
            format!("progressive,hidden=[{hidden},{last}]")
                .parse()
                .unwrap()
        };
        assert_eq!(long(1).name().len(), LONGEST);
        assert_ne!(long(1).name(), long(2).name());
        assert!(
            !method.name().contains([':', '/', '[', ' ']),
            "{}",
            method.name()
        );
    }
}
