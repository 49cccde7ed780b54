//! `onward completions` and `onward man`: the command line for shells and for `man`.

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;
use crate::disk;
use crate::error::{Error, Result};

#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut program: Command) -> Result<()> {
        let name = program_name();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}

#[derive(Args)]
pub(super) struct Man {
    /// Folder to write the pages to; it is made if it is missing.
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self, program: Command) -> Result<()> {
        let made = std::fs::create_dir_all(&self.folder);
        made.map_err(Error::file("create", &self.folder))?;
        let mut program = program.name(program_name()).disable_help_subcommand(true);
        program.build();
        let commands = program.get_subcommands().cloned().collect::<Vec<_>>();
        let mut count = 0;
        for command in std::iter::once(program).chain(commands) {
            let page = clap_mangen::Man::new(command);
            let path = self.folder.join(page.get_filename());
            let mut text = Vec::new();
            let written = page.render(&mut text);
            written.map_err(Error::file("write", &path))?;
            disk::replace(&path, &text)?;
            count += 1;
        }
        let folder = self.folder.display();
        print(&format!(
            "{count} pages in {folder}; read them with: man -l {folder}/{}.1\n",
            program_name()
        ))
    }
}

/// The name of the program, which is another one with other plugins.
fn program_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let path = std::env::current_exe().ok();
        let stem = path.as_deref().and_then(|path| path.file_stem());
        stem.map_or("onward".into(), |stem| stem.to_string_lossy().into_owned())
    })
}
