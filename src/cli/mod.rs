//! The command line of `onward` and of every program that links plugins to it.

mod advice;
mod bench;
mod certify;
mod command_line;
mod doc_text;
mod dry_run;
mod evaluate;
mod export;
mod failures;
mod figures;
mod flags;
mod generate;
mod guide;
mod list;
mod many;
mod method;
mod new;
mod outcome;
mod output;
mod page;
mod picture;
mod plan;
mod plot;
mod predict;
mod program;
mod progress;
mod ranks;
mod report;
pub mod results_table;
mod score;
#[cfg(feature = "tui")]
mod screen;
mod shell;
mod show;
mod stop;
mod subject;
mod tokenize;
mod train;

use std::error::Error as _;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

pub use self::program::started_by;
use crate::comm::Comm;
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

/// The help after the options: lines to copy.
macro_rules! examples {
    ($($line:literal),* $(,)?) => {
        concat!("Examples:", $("\n  onward ", $line),*)
    };
}

#[derive(Subcommand)]
enum Command {
    /// Train an architecture on a data set, and write a run folder.
    #[command(after_help = examples!(
        "train progressive --data digits --seed 1",
        "train progressive --data folder:photos --epochs 10",
        "train nlp --data text:book.txt",
        "train progressive --preset predsim --data mnist --dry-run",
    ))]
    Train(train::Train),
    /// Continue a run exactly where it stopped.
    #[command(after_help = examples!(
        "resume runs/progressive-digits-1",
        "resume runs/progressive-digits-1 --set epochs=20",
    ))]
    Resume(train::Resume),
    /// Evaluate a run's model on the test part of its data, or of another data set.
    #[command(after_help = examples!(
        "evaluate runs/progressive-digits-1",
        "evaluate runs/progressive-digits-1 --json",
    ))]
    Evaluate(evaluate::Evaluate),
    /// Classify images.
    #[command(after_help = examples!(
        "predict runs/progressive-digits-1 seven.png",
        "predict runs/progressive-digits-1 scans/ --csv",
    ))]
    Predict(predict::Predict),
    /// Draw examples, their views, and the weights of the first layer.
    #[command(after_help = examples!(
        "picture runs/progressive-digits-1 --out digits.png",
    ))]
    Picture(picture::Picture),
    /// Write a run's network for other programs, as an ONNX file: most networks on images
    /// with layers `dense` and `conv`. Others are refused with the reason.
    #[command(after_help = examples!(
        "export runs/progressive-digits-1 --out digits.onnx",
        "export runs/progressive-digits-1 --readout head --out digits.onnx",
    ))]
    Export(export::Export),
    /// Generate text from a prompt.
    #[command(after_help = examples!(
        "generate runs/nlp-fables-1 --prompt \"The fox \" --tokens 200",
    ))]
    Generate(generate::Generate),
    /// Print the bits per character of any text, beside those of n-grams.
    #[command(after_help = examples!(
        "score runs/nlp-fables-1 book.txt",
        "score runs/nlp-fables-1 books/ --json",
        "score runs/nlp-fables-1 book.txt --tokens",
    ))]
    Score(score::ScoreTexts),
    /// Train a tokenizer on text.
    #[command(after_help = examples!(
        "tokenize book.txt --kind bpe --vocab 2000 --out tokenizer.json",
        "train nlp --data text:book.txt --set tokenizer=tokenizer.json",
    ))]
    Tokenize(tokenize::Tokenize),
    /// Write a Markdown table of finished runs, with the command that repeats each.
    #[command(after_help = examples!(
        "report runs/*",
        "report runs/* --csv",
        "report runs/* --write RESULTS.md",
    ))]
    Report(report::Report),
    /// Train methods on data sets with several seeds, and write a table of the results.
    #[command(after_help = examples!(
        "compare progressive progressive:predsim --data digits --seeds 1..3 --epochs 5",
        "compare progressive,lr=0.02 progressive,lr=0.05 --data mnist --epochs 10 --out runs/rates",
    ))]
    Compare(many::compare::Compare),
    /// Vary settings of a method, and choose by the validation part.
    #[command(after_help = examples!(
        "sweep progressive --data mnist --grid lr=0.01,0.03 --grid layer.dropout=0,0.1 --epochs 10",
        "sweep progressive:predsim --data digits --random 20 --range lr=0.0001..0.01 --epochs 5",
    ))]
    Sweep(many::sweep::Sweep),
    /// Measure whether a rule is local: what the update of each block depends on.
    #[command(after_help = examples!(
        "certify progressive --data digits",
        "certify backprop --data digits --json",
    ))]
    Certify(certify::Certify),
    /// Measure how fast this machine trains, beside its best matrix product.
    #[command(after_help = examples!(
        "bench",
        "bench progressive progressive,hidden=[2000,2000],batch=500",
        "bench recurrent --data digits --json",
    ))]
    Bench(bench::Bench),
    /// Estimate the speed on several ranks, divided into stages and replicas.
    #[command(after_help = examples!(
        "plan progressive --set sampler.negatives=uniform --ranks 4 --link 10Gbit",
        "plan progressive --preset predsim --data mnist --ranks 2 --threads 1",
    ))]
    Plan(plan::Plan),
    /// Write runs as one page for a browser: curves, layers, predictions, pictures,
    /// settings.
    #[command(after_help = examples!(
        "page runs/progressive-digits-1 --out run.html",
        "page runs/compare/progressive-digits-1 runs/compare/backprop-digits-1",
    ))]
    Page(page::Page),
    /// Write the charts and pictures of runs as files: curves, histograms, predictions,
    /// views.
    #[command(after_help = examples!(
        "plot runs/progressive-digits-1 --out plots",
        "plot runs/compare/progressive-digits-1 runs/compare/backprop-digits-1 --format png",
    ))]
    Plot(plot::Plot),
    /// List plugins: architectures, layers, goodness functions, samplers, data sets.
    #[command(after_help = examples!(
        "list",
        "list goodness",
        "list --json",
    ))]
    List(list::List),
    /// Show a plugin: its settings with defaults and ranges, its presets, its paper.
    #[command(after_help = examples!(
        "show progressive",
        "show cosine",
        "show search",
    ))]
    Show(show::Show),
    /// Print a guide: training, extending, understanding, machines, glossary.
    #[command(after_help = examples!(
        "guide",
        "guide training",
    ))]
    Guide(guide::Guide),
    /// Write a new crate with a plugin, a program and a test.
    #[command(after_help = examples!(
        "new my-rule --kind goodness",
        "new my-layer --kind layer --into ~/my-crate",
    ))]
    New(new::New),
    /// Print a script that completes this program's commands in a shell.
    #[command(after_help = examples!(
        "completions bash > ~/.local/share/bash-completion/completions/onward",
    ))]
    Completions(shell::Completions),
    /// Write the manual pages.
    #[command(after_help = examples!(
        "man pages",
    ))]
    Man(shell::Man),
}

/// Runs the command line, and reports errors on stderr.
///
/// The exit code is 0 for success, 2 for wrong flags, names or settings, and 1 for every
/// other failure.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// As [`main`], in one of several processes that train together, such as those that
/// `mpirun` starts. Rank 0 prints; the others say only why they fail.
pub fn main_on(comm: Arc<dyn Comm>) -> ExitCode {
    ranks::one_of(comm);
    main()
}

/// How to give a setting that was given as a flag.
fn hint(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::UnknownArgument || !takes_settings(error) {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    // Of a flag that is nearly right, as --epoch is, clap says which.
    if let Some(ContextValue::String(near)) = error.get(ContextKind::SuggestedArg) {
        if near.starts_with(flag) || flag.starts_with(near) {
            return None;
        }
    }
    let key = flag
        .strip_prefix("--")?
        .split('=')
        .next()?
        .replace('-', "_");
    if key == "preset" {
        return Some(
            match error.to_string().contains(" resume ") {
                true => {
                    "A run keeps the preset that it began with; change single settings by --set."
                }
                false => "A preset is part of the method here, as in progressive:hinton.",
            }
            .into(),
        );
    }
    Some(format!(
        "Settings have no flags of their own; give one as --set {key}=VALUE (see: onward show)."
    ))
}

/// Whether the command of an error takes settings.
fn takes_settings(error: &clap::Error) -> bool {
    const COMMANDS: [&str; 7] = [
        "train", "resume", "compare", "sweep", "plan", "certify", "bench",
    ];
    // The program may have another name.
    let message = error.to_string();
    let usage = message
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "));
    let command = usage.and_then(|usage| usage.split(' ').nth(1));
    command.is_some_and(|command| COMMANDS.contains(&command))
}

/// Keeps candle from starting threads for its element-wise operations, unless the user
/// has set how many: they wait busily, and take the cores from those that train.
///
/// It changes the environment. [`main`] calls it; a program that starts threads before
/// [`main`] calls it before them.
pub fn without_threads_of_candle() {
    const OF_CANDLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(OF_CANDLE).is_none() {
        std::env::set_var(OF_CANDLE, "1");
    }
}

/// The most threads that are started. More would take minutes to start.
const MOST_THREADS: usize = 1024;

/// Starts the threads that do the arithmetic, or returns a message.
fn start_threads(wanted: Option<u16>) -> Result<(), String> {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    without_threads_of_candle();
    let (mut origin, mut count) = (String::new(), None);
    if let Some(threads) = wanted {
        (origin, count) = (format!("--threads {threads}"), Some(usize::from(threads)));
        // candle reads it as well; no other thread of this program runs yet.
        std::env::set_var(VARIABLE, threads.to_string());
    } else if let Ok(given) = std::env::var(VARIABLE) {
        count = given.trim().parse().ok();
        origin = format!("${VARIABLE} = {}", printable(&given));
    }
    if count.is_some_and(|count| count > MOST_THREADS) {
        return Err(format!(
            "{origin}: expected at most {MOST_THREADS} threads; more threads than cores do not help"
        ));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if count.is_some_and(|count| count > 8 * cores) {
        notify(format_args!(
            "note: {origin}: more threads than the {cores} cores make a training slower"
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
            if !ranks::is_lead() && error.exit_code() == 0 {
                return ExitCode::SUCCESS; // rank 0 prints the help
            }
            ranks::let_the_lead_speak();
            // Help and version are not failures. If printing fails, the pipe is closed.
            let _ = error.print();
            if let Some(hint) = hint(&error) {
                notify(hint);
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Err(message) = start_threads(cli.threads) {
        ranks::let_the_lead_speak();
        notify(format_args!("{}error: {message}", ranks::name()));
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Train(command) => command.run(),
        Command::Resume(command) => command.run(),
        // What is not a training, one process does alone.
        _ if !ranks::is_lead() => Ok(()),
        Command::Evaluate(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Picture(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Score(command) => command.run(),
        Command::Tokenize(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Sweep(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Page(command) => command.run(),
        Command::Plot(command) => command.run(),
        Command::Certify(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::Guide(command) => command.run(),
        Command::New(command) => command.run(),
        Command::Completions(command) => command.run(Cli::command()),
        Command::Man(command) => command.run(Cli::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ranks::let_the_lead_speak();
            notify(format_args!("{}error: {error}", ranks::name()));
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_that_can_be_read() {
        let mut program = Cli::command();
        program.build();
        for command in program.get_subcommands() {
            if command.get_name() == "help" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_else(|| panic!("{} has no examples", command.get_name()));
            for line in help.lines().skip(1) {
                let line = line.split(" > ").next().unwrap_or_default().trim();
                let words = line.replace("\"The fox \"", "The").replace('*', "a");
                let words = words.split(' ').map(OsString::from);
                assert!(Cli::try_parse_from(words).is_ok(), "{line}");
            }
        }
    }
}
