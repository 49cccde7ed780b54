//! `onward new`: writes a crate with one plugin, or adds a plugin to a crate.

mod existing;

use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::Args;
use toml::Value;

use self::existing::Crate;
use super::output::print;
use crate::disk;
use crate::error::{shell_word, Error, Result};
use crate::plugin::registry::{self, KINDS};

/// The `src/lib.rs` of each kind of plugin. Its documentation has the command that tries
/// the plugin.
const TEMPLATES: [(&str, &str); 5] = [
    ("goodness", include_str!("../../../templates/goodness.rs")),
    ("sampler", include_str!("../../../templates/sampler.rs")),
    ("layer", include_str!("../../../templates/layer.rs")),
    (
        "architecture",
        include_str!("../../../templates/architecture.rs"),
    ),
    ("data", include_str!("../../../templates/data.rs")),
];

/// The files that all kinds share.
const FILES: [(&str, &str); 5] = [
    (
        "Cargo.toml",
        include_str!("../../../templates/manifest.toml"),
    ),
    (".gitignore", include_str!("../../../templates/gitignore")),
    ("README.md", include_str!("../../../templates/README.md")),
    ("src/main.rs", include_str!("../../../templates/main.rs")),
    ("tests/conforms.rs", CONFORMS),
];

/// The test of a crate with plugins.
const CONFORMS: &str = include_str!("../../../templates/conforms.rs");

/// Names that are reserved by cargo or the compiler, those of a crate's own files, and of
/// the dependencies.
const RESERVED: &str =
    "alloc build core deps examples incremental lib main onward onward_core proc_macro std test \
     aux con nul prn abstract as async await become box break const continue crate do \
     dyn else enum extern false final fn for gen if impl in let loop macro match mod \
     move mut override priv pub ref return self static struct super trait true try type \
     typeof unsafe unsized use virtual where while yield";

#[derive(Args)]
pub(super) struct New {
    /// Name of the crate and its folder; the plugin gets the same name, with _ for -.
    name: String,
    /// Crate to add the plugin to, as a module, instead of a new crate.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Kind of plugin to write.
    #[arg(
        long,
        default_value = "goodness",
        value_name = "KIND",
        value_parser = PossibleValuesParser::new(KINDS.iter().copied())
    )]
    kind: String,
    /// Clone of onward to depend on; by default the source of this program, or else the
    /// registry.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

impl New {
    pub(super) fn run(self) -> Result<()> {
        let plugin = self.plugin()?;
        let source = Source::of(self.path.as_deref())?;
        let (_, code) = TEMPLATES
            .into_iter()
            .find(|(kind, _)| *kind == self.kind)
            .expect("every kind has a template");
        if let Some(folder) = &self.into {
            let code = code.replace("my_plugin", &plugin);
            return print(&Crate::open(folder)?.add(&plugin, &code, CONFORMS, &source)?);
        }
        let attempt = code
            .lines()
            .find_map(|line| line.strip_prefix("//! cargo run "))
            .unwrap_or_default();
        let attempt = format!("cargo run {attempt}").replace("my_plugin", &plugin);

        let folder = Path::new(&self.name);
        let filled = |text: &str| {
            // Two steps, since the name itself may contain a placeholder.
            let text = text
                .replace("my-plugin", "\u{1}")
                .replace("my_plugin", "\u{2}");
            let text = text.replace('\u{1}', &self.name).replace('\u{2}', &plugin);
            source.depended_on(&text.replace("KIND", &self.kind).replace("TRY", &attempt))
        };
        let files = FILES.into_iter().chain([("src/lib.rs", code)]);
        let written = disk::create_folder(folder, |folder| {
            files.into_iter().try_for_each(|(file, text)| {
                let path = folder.join(file);
                let parent = disk::parent(&path);
                fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
                fs::write(&path, filled(text)).map_err(Error::file("write", &path))
            })
        })?;
        if written.is_none() {
            let problem = "already exists and is never overwritten; choose another name";
            return Err(Error::run(folder, problem));
        }
        print(&format!(
            "{name}/ is a crate with the {kind} `{plugin}`; it depends on onward {source}. Next:\n\n    \
             cd {name}\n    {attempt}\n    cargo test --release\n",
            name = self.name,
            kind = self.kind,
        ))
    }

    /// The name of the plugin, if the name of the crate is valid.
    fn plugin(&self) -> Result<String> {
        let fault = |expected: String| {
            Err(Error::setting(
                "name",
                format!("{:?}", self.name),
                "the command line",
                expected,
            ))
        };
        let of_a_name =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let begins = self.name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || !self.name.chars().all(of_a_name) || self.name.len() > 64 {
            return fault(
                "a crate name: a letter, then letters, digits, - and _, all lower case, \
                 at most 64 characters"
                    .into(),
            );
        }
        let plugin = self.name.replace('-', "_");
        if RESERVED.split(' ').any(|reserved| reserved == plugin) {
            return fault("another name: this one is reserved".into());
        }
        match registry::infos(&self.kind)?
            .into_iter()
            .find(|info| info.name == plugin)
        {
            Some(info) => fault(format!(
                "another name: the package {} already has a {} `{plugin}`",
                info.package, self.kind
            )),
            None => Ok(plugin),
        }
    }
}

/// The source of the dependency on onward.
enum Source {
    /// A clone of the repository.
    Clone(String),
    /// The package registry.
    Registry,
}

impl Source {
    fn of(given: Option<&Path>) -> Result<Self> {
        let is_clone = |path: &Path| {
            path.join("Cargo.toml").is_file() && path.join("plugins/Cargo.toml").is_file()
        };
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = match given {
            Some(path) if is_clone(path) => {
                path.canonicalize().map_err(Error::file("read", path))?
            }
            None if is_clone(built_from) => built_from.into(),
            None => return Ok(Self::Registry),
            Some(path) => {
                return Err(Error::setting(
                    "path",
                    path.display().to_string(),
                    "--path",
                    "a clone of onward, a folder with Cargo.toml and plugins/Cargo.toml",
                ));
            }
        };
        match path.to_str() {
            Some(path) => Ok(Self::Clone(path.into())),
            None => Err(Error::run(
                path,
                "not UTF-8, as a manifest requires; choose another folder with --path",
            )),
        }
    }

    /// The command that adds onward to the dependencies of a crate.
    fn to_add(&self) -> String {
        match self {
            Self::Clone(root) => {
                let path = Path::new(root).join("plugins");
                format!("cargo add --path {}", shell_word(&path.to_string_lossy()))
            }
            Self::Registry => "cargo add onward".into(),
        }
    }

    /// Fills in the dependency on onward.
    fn depended_on(&self, manifest: &str) -> String {
        let version = concat!(
            env!("CARGO_PKG_VERSION_MAJOR"),
            ".",
            env!("CARGO_PKG_VERSION_MINOR")
        );
        let specified = match self {
            Self::Clone(root) => {
                let path = Path::new(root).join("plugins");
                let path = Value::String(path.to_string_lossy().into_owned());
                format!("{{ path = {path} }}")
            }
            Self::Registry => format!("{version:?}"),
        };
        manifest.replace(
            "\nonward = \"VERSION\"\n",
            &format!("\nonward = {specified}\n"),
        )
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clone(path) => write!(f, "in {path}"),
            Self::Registry => write!(f, "in the registry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str) -> New {
        New {
            name: name.into(),
            into: None,
            kind: "goodness".into(),
            path: None,
        }
    }

    #[test]
    fn a_name_is_valid_for_cargo_and_the_plugin_registry() {
        assert_eq!(new("my-2nd_rule").plugin().unwrap(), "my_2nd_rule");
        let long = "a".repeat(65);
        for name in [
            "",
            "2nd",
            "-a",
            "_a",
            "Rule",
            "rüle",
            "a b",
            "../a",
            "a.b",
            "fn",
            "self",
            "proc-macro",
            &long,
        ] {
            let error = new(name).plugin().unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains(&format!("{name:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn every_kind_has_a_template_with_a_command_that_tries_it() {
        for kind in KINDS {
            let (_, code) = TEMPLATES
                .iter()
                .find(|(of, _)| of == kind)
                .unwrap_or_else(|| panic!("no template of {kind}"));
            assert!(
                code.contains("\n//! cargo run --release -- train "),
                "{kind}"
            );
            assert!(code.contains("\"my_plugin\","), "{kind}");
        }
        assert_eq!(TEMPLATES.len(), KINDS.len());
    }

    #[test]
    fn a_manifest_depends_on_a_clone_or_on_this_version() {
        let (_, manifest) = FILES[0];
        let read = |source: Source| {
            source.depended_on(manifest).parse::<toml::Table>().unwrap()["dependencies"].clone()
        };
        let path = r#"/a "quoted" place"#;
        let cloned = read(Source::Clone(path.into()));
        assert_eq!(
            cloned["onward"]["path"].as_str(),
            Some(format!("{path}/plugins").as_str())
        );
        let registered = read(Source::Registry);
        assert!(env!("CARGO_PKG_VERSION").starts_with(registered["onward"].as_str().unwrap()));
    }

    #[test]
    fn a_folder_that_is_not_a_clone_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = Source::of(Some(empty.path())).err().unwrap();
        assert!(
            error.is_usage() && error.to_string().contains("plugins/Cargo.toml"),
            "{error}"
        );
    }
}
