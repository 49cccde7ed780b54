//! The command line of `onward` and of every program that links plugins to it.

mod advice;
mod command_line;
mod dry_run;
mod evaluate;
mod flags;
mod generate;
mod list;
mod new;
mod outcome;
mod output;
mod picture;
mod predict;
pub mod progress;
mod report;
pub mod results_table;
mod show;
mod stop;
mod tokenize;
mod train;

use std::error::Error as _;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{notify, printable};

/// Forward-only learning: every layer learns from its own input and output, without
/// backpropagation.
#[derive(Parser)]
#[command(name = "onward", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Number of threads; all cores by default. The results do not depend on it.
    #[arg(
        long,
        global = true,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    threads: Option<u16>,
}

#[derive(Subcommand)]
enum Command {
    /// Train an architecture on a data set, and write a run folder.
    Train(train::Train),
    /// Continue a run exactly where it stopped.
    Resume(train::Resume),
    /// Evaluate a run's model on the test part of its data, or of another data set.
    Evaluate(evaluate::Evaluate),
    /// Classify PNG or JPEG images.
    Predict(predict::Predict),
    /// Draw examples, their views, and the weights of the first layer.
    Picture(picture::Picture),
    /// Generate text from a prompt.
    Generate(generate::Generate),
    /// Train a tokenizer on text.
    Tokenize(tokenize::Tokenize),
    /// Write a Markdown table of finished runs, with the command that repeats each.
    Report(report::Report),
    /// List plugins: architectures, layers, goodness functions, samplers, data sets.
    List(list::List),
    /// Show a plugin: its settings with defaults and ranges, its presets, its paper.
    Show(show::Show),
    /// Write a new crate with a plugin, a program and a test.
    New(new::New),
}

/// Runs the command line, and reports errors on stderr.
///
/// The exit code is 0 for success, 2 for wrong flags, names or settings, and 1 for every
/// other failure.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// How to give a setting that was given as a flag.
fn hint(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let key = flag
        .strip_prefix("--")?
        .split('=')
        .next()?
        .replace('-', "_");
    Some(format!(
        "Settings have no flags of their own; give one as --set {key}=VALUE (see: onward show)."
    ))
}

/// The most threads that are started. More would take minutes to start.
const MOST_THREADS: usize = 1024;

/// Starts the threads that do the arithmetic, or returns a message.
fn start_threads(wanted: Option<u16>) -> Result<(), String> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    let (mut origin, mut count) = (String::new(), None);
    if let Some(threads) = wanted {
        (origin, count) = (format!("--threads {threads}"), Some(usize::from(threads)));
        // candle reads it as well; no other thread runs yet.
        std::env::set_var(VARIABLE, threads.to_string());
    } else if let Ok(given) = std::env::var(VARIABLE) {
        count = given.trim().parse().ok();
        origin = format!("${VARIABLE} = {}", printable(&given));
    }
    if count.is_some_and(|count| count > MOST_THREADS) {
        return Err(format!(
            "{origin}: expected at most {MOST_THREADS} threads; more than cores are of no use"
        ));
    }
    let pool = rayon::ThreadPoolBuilder::new().build_global();
    match pool {
        // The program that calls this one has started them.
        Err(error) if wanted.is_none() && error.source().is_none() => Ok(()),
        Err(error) if origin.is_empty() => Err(format!(
            "threads cannot be started: {error}; try --threads 1"
        )),
        Err(error) => Err(format!("{origin}: {error}; use fewer threads")),
        Ok(()) => Ok(()),
    }
}

/// As [`main`], with these arguments; the first is the name of the program.
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not failures. If printing fails, the pipe is closed.
            let _ = error.print();
            if let Some(hint) = hint(&error) {
                notify(hint);
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Err(message) = start_threads(cli.threads) {
        notify(format_args!("error: {message}"));
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Train(command) => command.run(),
        Command::Resume(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Picture(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Tokenize(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::New(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            notify(format_args!("error: {error}"));
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}
