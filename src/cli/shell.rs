//! `onward completions` and `onward man`: the command line for shells and for `man`.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;
use super::program;
use crate::disk;
use crate::error::{printable, Error, Result};

#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut program: Command) -> Result<()> {
        let name = program::name();
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
        let mut program = program.name(program::name()).disable_help_subcommand(true);
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
        let folder = printable(&self.folder.display().to_string());
        print(&format!(
            "{count} pages in {folder}; read them with: man -l {folder}/{}.1\n",
            program::name()
        ))
    }
}
