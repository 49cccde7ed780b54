//! `onward new --into`: adds a plugin to a crate that exists.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Source;
use crate::disk;
use crate::error::{printable, shell_word, Error, Result};

/// A crate that gets one more plugin.
pub(super) struct Crate {
    folder: PathBuf,
    manifest: Table,
    name: String,
}

impl Crate {
    /// # Errors
    /// [`Error::Run`] for a folder without a package.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("Cargo.toml");
        let manifest: Table = disk::read_text(&path)?
            .parse()
            .map_err(|error| Error::run(&path, format!("is not TOML: {error}")))?;
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name"));
        let Some(name) = name.and_then(Value::as_str).map(String::from) else {
            let problem = "has no package, expected the Cargo.toml of one; name its folder";
            return Err(Error::run(path, problem));
        };
        let folder = folder.into();
        Ok(Self {
            folder,
            manifest,
            name,
        })
    }

    /// Writes the plugin to a module of its own, and declares the module. Returns what is
    /// left to do, as commands.
    ///
    /// # Errors
    /// [`Error::Run`] if the module or a plugin of this name exists, or the crate has neither `src/lib.rs` nor
    /// `src/main.rs`; [`Error::File`].
    pub fn add(&self, plugin: &str, code: &str, conforms: &str, source: &Source) -> Result<String> {
        let module = PathBuf::from(format!("src/{plugin}.rs"));
        let roots = ["src/lib.rs", "src/main.rs"];
        let root = roots.into_iter().find(|root| self.has(root));
        let Some(root) = root else {
            let problem = format!("has neither {} nor {}", roots[0], roots[1]);
            return Err(Error::run(&self.folder, problem));
        };
        let path = self.folder.join(root);
        let text = disk::read_text(&path)?;
        let declaration = format!("mod {plugin};");
        let file = self.folder.join(&module);
        if let Some(other) = self.registers(plugin, &file) {
            let problem = format!("registers a plugin `{plugin}` already; choose another name");
            return Err(Error::run(other, problem));
        }
        let mut lines = text.lines().map(str::trim);
        let is_declared =
            lines.any(|line| line == declaration || line == format!("pub {declaration}"));
        // An earlier call may have been interrupted before it declared the module.
        let is_half_done = || {
            let is_same = disk::read_text(&file).is_ok_and(|found| found == code);
            is_same && !is_declared
        };
        if disk::create(&file, code.as_bytes())?.is_none() && !is_half_done() {
            let problem = "already exists and is never overwritten; choose another name";
            return Err(Error::run(file, problem));
        }
        if !is_declared {
            let text = format!("{}\n\n{declaration}\n", text.trim_end());
            disk::rewrite(&path, text.trim_start().as_bytes())?;
        }

        let mut next = vec![format!(
            "cd {}",
            shell_word(&self.folder.display().to_string())
        )];
        next.extend(self.missing_dependency(source));
        let mut done = format!("{} and `{declaration}` in {root}", module.display());
        // A test links the plugins of a library.
        let test = Path::new("tests/conforms.rs");
        if root == roots[0] && !self.has(test) {
            let tests = self.folder.join("tests");
            std::fs::create_dir_all(&tests).map_err(Error::file("create", &tests))?;
            let text = conforms.replace("my_plugin", &self.name.replace('-', "_"));
            disk::create(&self.folder.join(test), text.as_bytes())?;
            done += &format!(", and {}", test.display());
        }
        if self.has(test) {
            next.push("cargo test --release".into());
        }
        next.extend(self.attempt(code));
        Ok(format!(
            "{} has {done}. Next:\n\n    {}\n",
            printable(&self.folder.display().to_string()),
            next.join("\n    ")
        ))
    }

    /// Another file in `src` that registers a plugin of this name, as far as its text tells.
    fn registers(&self, plugin: &str, file: &Path) -> Option<PathBuf> {
        let name = format!("\"{plugin}\"");
        let files = std::fs::read_dir(self.folder.join("src")).ok()?;
        let mut others = files.flatten().map(|entry| entry.path());
        others.find(|path| {
            let text = || disk::read_text(path).unwrap_or_default();
            let is_rust = path.extension().is_some_and(|ending| ending == "rs");
            is_rust && path != file && text().contains("register!") && text().contains(&name)
        })
    }

    fn has(&self, file: impl AsRef<Path>) -> bool {
        self.folder.join(file).is_file()
    }

    /// The command that adds onward to the dependencies.
    fn missing_dependency(&self, source: &Source) -> Option<String> {
        let dependencies = self.manifest.get("dependencies").and_then(Value::as_table);
        match dependencies.is_some_and(|found| found.contains_key("onward")) {
            true => None,
            false => Some(source.to_add()),
        }
    }

    /// The command that trains with the plugin, if the crate has the program.
    fn attempt(&self, code: &str) -> Option<String> {
        let main = disk::read_text(&self.folder.join("src/main.rs")).ok()?;
        let is_program = main.contains("onward::cli::main()");
        let command = code
            .lines()
            .find_map(|line| line.strip_prefix("//! cargo run "));
        command
            .filter(|_| is_program)
            .map(|command| format!("cargo run {command}"))
    }
}
