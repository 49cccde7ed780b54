//! The error type of the crate: what went wrong, where, and what to do.

mod nearest;
mod refused;
mod safe;

use std::any::Any;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) use self::nearest::{close, nearest};
use self::nearest::{linked, meant, nearest_or_all};
pub(crate) use self::safe::{is_obeyed, printable, shell_word};

/// The result type of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Writes a message to stderr, with nothing in it that a terminal would obey. A stderr
/// that is closed or full is ignored: a message must not end a run.
pub(crate) fn notify(message: impl Display) {
    let text = message.to_string();
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    let _ = writeln!(std::io::stderr().lock(), "{}", lines.join("\n"));
}

/// An error with its place: a setting's key and origin, a file, a block, a plugin's name.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has a value that its plugin does not allow.
    #[error("setting `{key}` = {value}{}: expected {expected}", from(origin))]
    Setting {
        /// The dotted path of the setting, `sampler.strength`.
        key: String,
        /// The value as it was written.
        value: String,
        /// Where the value came from: the defaults, a preset, a file, the command line;
        /// empty where that is plain.
        origin: String,
        /// The allowed values.
        expected: String,
    },

    /// A setting that does not exist.
    #[error(
        "unknown setting `{key}` (from {origin}){}",
        nearest_or_all(key, known)
    )]
    UnknownSetting {
        /// The dotted path that was given.
        key: String,
        /// Where the setting came from.
        origin: String,
        /// The settings that exist at this place.
        known: Vec<String>,
    },

    /// A name that no linked plugin has registered.
    #[error(
        "unknown {kind} `{name}`{}; known: {}{}",
        meant(kind, name, known), known.join(", "), linked(kind, name, known)
    )]
    UnknownPlugin {
        /// The kind of plugin: architecture, layer, goodness, sampler, data.
        kind: &'static str,
        /// The requested name.
        name: String,
        /// The known names.
        known: Vec<String>,
    },

    /// Two plugins of one kind have the same name.
    #[error(
        "two plugins are called {kind} `{name}`: one in package {first}, one in package \
         {second}; rename one of them"
    )]
    DuplicatePlugin {
        /// The kind of plugin.
        kind: &'static str,
        /// The name of both.
        name: String,
        /// The package of one of them.
        first: String,
        /// The package of the other.
        second: String,
    },

    /// A tensor of another shape than documented.
    #[error("{place}: expected {expected}, found shape {found:?}")]
    Shape {
        /// The place where it was found.
        place: String,
        /// The shape that was found.
        found: Vec<usize>,
        /// The expected shape, in words.
        expected: String,
    },

    /// Two parts of a run that do not fit together, such as a layer and its input.
    #[error("{place}: {problem}")]
    Unfit {
        /// The part that reports the problem.
        place: String,
        /// The problem, and what would fit.
        problem: String,
    },

    /// A request that cannot be carried out, such as a prediction from a run without a
    /// model.
    #[error("{place}: {problem}")]
    Usage {
        /// The request.
        place: String,
        /// The problem, and what to do.
        problem: String,
    },

    /// A data file with unexpected contents.
    #[error("{}: {problem}", file.display())]
    Data {
        /// The file.
        file: PathBuf,
        /// The problem: found and expected contents.
        problem: String,
    },

    /// A data set whose files were not found.
    #[error(
        "data set `{name}`: {file}, plain or .gz, is in {}{}; put the original \
         files there, or choose another folder: with --data-dir or $ONWARD_DATA, for \
         idx:DIR with --data",
        places(looked),
        also(why)
    )]
    MissingData {
        /// The data set.
        name: String,
        /// The missing file, or all missing files.
        file: String,
        /// The folders that were searched.
        looked: Vec<PathBuf>,
        /// Why the download failed; empty for data sets without a download.
        why: String,
    },

    /// A file or folder that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The operation: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// A run folder or checkpoint with unexpected contents.
    #[error("{}: {problem}", path.display())]
    Run {
        /// The folder or file.
        path: PathBuf,
        /// The problem: found and expected contents.
        problem: String,
    },

    /// A loss, goodness or variable that is no longer finite.
    #[error("{}: the {what} became {value} at step {step}; {}", of_block(block), remedy(what, *step))]
    Diverged {
        /// The name of the block, the variable or the readout.
        block: String,
        /// `loss`, `goodness`, `variable`, `change` or `score`.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The step of the run, counted from 0.
        step: u64,
    },

    /// The run was asked to stop; it can be resumed.
    #[error("stopped after step {step}{}", resumption(folder.as_deref()))]
    Stopped {
        /// The number of steps taken.
        step: u64,
        /// The folder of the run, if it has one.
        folder: Option<PathBuf>,
    },

    /// An error inside a block or a plugin.
    #[error("{place}: {source}")]
    At {
        /// The block or plugin.
        place: String,
        /// The error.
        source: Box<Error>,
    },

    /// A plugin that violates the contract of its trait: a fault in its code, not in its
    /// input.
    #[error("{plugin} {problem}")]
    Plugin {
        /// Kind, name and package.
        plugin: String,
        /// The problem, and what was expected.
        problem: String,
        /// What the plugin raised, if it is written in another language.
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// A rank of a run on several ranks has ended, and the others cannot go on.
    #[error("rank {rank} has ended; its own message says why")]
    Rank {
        /// The rank.
        rank: usize,
    },

    /// The requested device is not available.
    #[error("device `{name}`: {problem}")]
    Device {
        /// The requested name.
        name: String,
        /// Why it cannot be used.
        problem: String,
    },

    /// A tensor operation that candle refused.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        if error.to_string().contains("OUT_OF_MEMORY") {
            let problem = "its memory is full; use a smaller `batch` or fewer units, or stop \
                           other programs on this GPU";
            return Self::Device {
                name: "cuda".into(),
                problem: problem.into(),
            };
        }
        Self::Tensor(error)
    }
}

impl Error {
    /// Whether the cause is the request (names, settings, flags), not an event during the
    /// run.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Setting { .. } | Self::UnknownSetting { .. } | Self::UnknownPlugin { .. } => true,
            Self::Unfit { .. } | Self::Usage { .. } | Self::Device { .. } => true,
            Self::At { source, .. } => source.is_usage(),
            _ => false,
        }
    }

    /// Whether the run was asked to stop.
    pub fn is_stopped(&self) -> bool {
        match self {
            Self::At { source, .. } => source.is_stopped(),
            _ => matches!(self, Self::Stopped { .. }),
        }
    }

    /// Whether a file or folder could not be read or written.
    pub fn is_file(&self) -> bool {
        match self {
            Self::At { source, .. } => source.is_file(),
            _ => matches!(self, Self::File { .. }),
        }
    }

    /// Whether parts of a run do not fit together. Other parts or settings may fit.
    pub fn is_unfit(&self) -> bool {
        match self {
            Self::Unfit { .. } | Self::Setting { .. } => true,
            Self::At { source, .. } => source.is_unfit(),
            _ => false,
        }
    }

    /// Whether a plugin violates its contract.
    pub(crate) fn is_of_plugin(&self) -> bool {
        match self {
            Self::At { source, .. } => source.is_of_plugin(),
            _ => matches!(self, Self::Plugin { .. }),
        }
    }

    /// Whether another rank has ended, so that this one cannot go on.
    pub fn is_of_another_rank(&self) -> bool {
        match self {
            Self::At { source, .. } => source.is_of_another_rank(),
            _ => matches!(self, Self::Rank { .. }),
        }
    }

    /// An [`Error::Rank`].
    pub(crate) fn gone(rank: usize) -> Self {
        Self::Rank { rank }
    }

    /// Another rank, which does not take the same steps.
    pub fn apart(rank: usize) -> Self {
        Self::usage(
            format!("rank {rank}"),
            "sent another number of values than expected; start the same program on all ranks",
        )
    }

    /// An [`Error::Setting`].
    pub fn setting(
        key: impl Into<String>,
        value: impl Display,
        origin: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Setting {
            key: key.into(),
            value: value.to_string(),
            origin: origin.into(),
            expected: expected.into(),
        }
    }

    /// An [`Error::Unfit`].
    pub fn unfit(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unfit {
            place: place.into(),
            problem: problem.into(),
        }
    }

    /// An [`Error::Usage`].
    pub fn usage(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Usage {
            place: place.into(),
            problem: problem.into(),
        }
    }

    /// An [`Error::Shape`].
    pub fn shape(
        place: impl Into<String>,
        found: impl Into<Vec<usize>>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Shape {
            place: place.into(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// An [`Error::Data`].
    pub fn data(file: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Data {
            file: file.into(),
            problem: problem.into(),
        }
    }

    /// An [`Error::Run`].
    pub fn run(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Run {
            path: path.into(),
            problem: problem.into(),
        }
    }

    /// Turns an error of the system into an [`Error::File`].
    pub(crate) fn file<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::File {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Adds a place to an error.
pub trait Located<T> {
    /// Names the place: `block 2`, `layer conv of package my-plugins`.
    fn at(self, place: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Located<T> for Result<T, E> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::At {
            place: place(),
            source: Box::new(source.into()),
        })
    }
}

/// The origin of a setting in brackets.
fn from(origin: &str) -> String {
    match origin {
        "" => String::new(),
        origin => format!(" (from {origin})"),
    }
}

/// A block by its name, or a variable of one.
fn of_block(name: &str) -> String {
    match name.contains('.') {
        true => name.into(),
        false => format!("block {name}"),
    }
}

/// What to change after numbers that were not finite. Before the first update the rate
/// has done nothing yet.
fn remedy(what: &str, step: u64) -> &'static str {
    match step {
        0 => {
            "before anything was learned, so the numbers of the input, or settings of the \
             loss such as `theta`, are too large"
        }
        _ if what == "change" => "a lower `layer.rate` usually helps",
        _ => "a lower `lr` or a higher `temperature` usually helps",
    }
}

/// How to resume a stopped run.
fn resumption(folder: Option<&Path>) -> String {
    folder.map_or(String::new(), |folder| {
        let folder = shell_word(&folder.display().to_string());
        format!("; continue with: onward resume {folder}")
    })
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message")
}

fn places(looked: &[PathBuf]) -> String {
    if looked.is_empty() {
        return "no folder that was searched, since none is known".into();
    }
    let places = looked.iter().map(|path| path.display().to_string());
    format!("none of: {}", places.collect::<Vec<_>>().join(", "))
}

fn also(why: &str) -> String {
    if why.is_empty() {
        String::new()
    } else {
        format!("; {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_known_name() {
        let known = vec!["mean_squares".to_string(), "sum_squares".to_string()];
        let error = Error::UnknownPlugin {
            kind: "goodness",
            name: "sum_square".into(),
            known,
        };
        let text = error.to_string();
        assert!(text.contains("did you mean `sum_squares`?"), "{text}");
        assert!(!text.contains("use your_crate as _;"), "{text}");
    }
}
