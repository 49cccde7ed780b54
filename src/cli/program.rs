//! How this program is started, and its name.

use std::ffi::OsString;
use std::process::Command;
use std::sync::OnceLock;

static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Says which words start this program, if it is not a file of its own, such as a script
/// of an interpreter: `python my_rules.py`. `compare` and `sweep` start it again. Later
/// calls change nothing.
pub fn started_by(words: Vec<OsString>) {
    let _ = WORDS.set(words);
}

/// The command that starts this program again, without arguments.
pub(super) fn again() -> std::io::Result<Command> {
    match WORDS.get().and_then(|words| words.split_first()) {
        Some((program, rest)) => {
            let mut command = Command::new(program);
            command.args(rest);
            Ok(command)
        }
        None => Ok(Command::new(std::env::current_exe()?)),
    }
}

/// The name of the program, which is another one with other plugins.
pub(super) fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let path = match WORDS.get() {
            Some(_) => None,
            None => std::env::current_exe().ok(),
        };
        let stem = path.as_deref().and_then(|path| path.file_stem());
        stem.map_or("onward".into(), |stem| stem.to_string_lossy().into_owned())
    })
}
