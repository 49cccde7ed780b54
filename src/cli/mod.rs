//! The command line of every program made of onward and some plugins.

mod list;
mod new;
pub mod progress;
pub mod results_table;
mod text;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use image::ImageFormat;
use serde_json::json;

use crate::cli::progress::Progress;
use crate::data::Split;
use crate::error::{Error, Located, Result};
use crate::plugin::config::Source;
use crate::run::folder::{self, Folder};
use crate::run::observe::Observer;
use crate::run::picture;
use crate::run::summary;
use crate::run::{Run, RunBuilder};

/// Forward-only learning: every layer learns from what reaches it on the way forward.
#[derive(Parser)]
#[command(name = "onward", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads for the arithmetic; all cores by default. The results do not depend on it.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Subcommand)]
enum Command {
    /// Train an architecture by its name, and write a run folder.
    Train(Train),
    /// Go on exactly where a run stopped, or was stopped.
    Resume(Resume),
    /// Predict the test part of a run's data, or of another data set, with its model.
    Evaluate(Evaluate),
    /// Say what is on pictures, PNG or JPEG, with a run's model.
    Predict(Predict),
    /// Draw what a run sees and what its first layer has learned: examples, views, masks, features.
    Picture {
        /// The folder of a run.
        run: PathBuf,
        /// The PNG file to write; it must not be there.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How many images stand in a row.
        #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
        count: u16,
        /// Where data files are looked for first.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Go on with a text by a run's model, token by token.
    Generate(text::Generate),
    /// Train a tokenizer on text, and say how it cuts what it has not seen.
    Tokenize(text::Tokenize),
    /// A Markdown table of finished runs, with the command that repeats each.
    Report {
        /// The folders of the runs; their config.toml and summary.json are enough.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Put the table into this file, between its two lines `<!-- onward report: begin -->` and `… end -->`.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// What can be named: architectures, layers, goodness, samplers, data.
    List(list::List),
    /// The settings of a plugin, their defaults and ranges, what it is and where it was published.
    Show {
        /// The name of a plugin.
        name: String,
    },
    /// Write a crate with a plugin of one's own to start from, with its program and its test.
    New(new::New),
}

#[derive(Args)]
struct Train {
    /// The architecture: see `onward list architecture`.
    architecture: String,
    /// A data set's name, or idx:DIR, folder:DIR, text:FILE.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    /// Where data files are looked for, before $ONWARD_DATA and the cache: <DIR>/<data>/.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A named set of settings: see `onward show <architecture>`; by default the first one there, `none` for no preset.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Settings from a file, as the config.toml of a run.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting: a TOML value, a bare word being text, dots for nesting. May be repeated; the last one wins.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Passes over the training part.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    epochs: Option<String>,
    /// Everything random is drawn from it.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<String>,
    /// cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
    /// The folder to write; by default runs/<architecture>-<data>-<seed>, numbered if it is taken.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct Resume {
    /// The folder of a run.
    run: PathBuf,
    /// More epochs than it was to have; rates that fall over the epochs then follow the new number from here on.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    epochs: Option<String>,
    /// Where data files are looked for first.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct Evaluate {
    /// The folder of a run.
    run: PathBuf,
    /// Another data set of the same shape.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    /// Where data files are looked for first.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which part of it: train, validation or test.
    #[arg(long, default_value = "test", value_name = "PART")]
    split: String,
    /// cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
}

#[derive(Args)]
struct Predict {
    /// The folder of a run.
    run: PathBuf,
    /// Pictures of any size, grey or colour; for a net of digits, dark on light or light on dark.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How the prediction is read out; by default as validation preferred.
    #[arg(long, value_name = "NAME")]
    readout: Option<String>,
    /// As JSON, with the score of every class.
    #[arg(long)]
    json: bool,
    /// cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
}

/// Reads the command line, does what it says, and reports what went wrong on stderr.
///
/// Exit code 0; 2 for wrong use: flags, names, settings; 1 for everything else that fails.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

/// The same with these arguments, the first of which is the program's name.
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors. What cannot be printed has no reader.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Some(threads) = cli.threads {
        // Candle reads it as well; no other thread runs yet.
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
        if let Err(error) = rayon::ThreadPoolBuilder::new().build_global() {
            eprintln!("error: `--threads {threads}`: {error}; fewer threads are needed");
            return ExitCode::from(2);
        }
    }
    let done = match cli.command {
        Command::Train(train) => train.run(),
        Command::Resume(resume) => resume.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Predict(predict) => predict.run(),
        Command::Picture {
            run,
            out,
            count,
            data_dir,
        } => draw(&run, &out, count.into(), data_dir),
        Command::Generate(generate) => generate.run(),
        Command::Tokenize(tokenize) => tokenize.run(),
        Command::Report { runs, write } => tabulate(&runs, write.as_deref()),
        Command::List(list) => list.run(),
        Command::Show { name } => list::show(&name),
        Command::New(new) => new.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

/// Results go to stdout; a reader that has gone away is no error of ours.
fn print(text: &str) -> Result<()> {
    stream(text).map(drop)
}

/// Prints at once, not by the line; says whether there is still a reader.
fn stream(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::File {
            action: "write",
            path: "stdout".into(),
            source: error,
        }),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&format!(
        "{}\n",
        serde_json::to_string_pretty(value).expect("plain values can always be written")
    ))
}

impl Train {
    fn builder(&self) -> Result<RunBuilder> {
        let mut builder = Run::builder(&self.architecture).device(&self.device);
        if let Some(preset) = &self.preset {
            builder = builder.preset(preset);
        }
        if let Some(file) = &self.config {
            builder = builder.source(Source::file(file)?);
        }
        let flags = [
            ("data", &self.data),
            ("epochs", &self.epochs),
            ("seed", &self.seed),
        ];
        for (key, value) in flags {
            if let Some(value) = value {
                let assignment = Source::assignment(&format!("{key}={value}"))?;
                builder = builder.source(Source {
                    origin: format!("--{key} {value}"),
                    ..assignment
                });
            }
        }
        // A plugin first, then its settings, in whatever order they were given.
        let is_whole = |assignment: &&String| {
            !assignment
                .split('=')
                .next()
                .unwrap_or_default()
                .contains('.')
        };
        let (plugins, settings): (Vec<&String>, Vec<&String>) = self.set.iter().partition(is_whole);
        for assignment in plugins.into_iter().chain(settings) {
            builder = builder.source(Source::assignment(assignment)?);
        }
        if let Some(folder) = &self.data_dir {
            builder = builder.data_dir(folder);
        }
        Ok(builder)
    }

    fn run(self) -> Result<()> {
        let builder = self.builder()?.stop_when(stop_on_signals());
        let run = match &self.out {
            Some(out) => builder.out(out).build()?,
            None => {
                let mut run = builder.build()?;
                let config = run.config();
                let data = config
                    .run
                    .data
                    .as_ref()
                    .map_or("data", |data| data.name.as_str());
                let name = format!("{}-{data}-{}", config.architecture, config.run.seed);
                run.folder = Some(Folder::create_numbered(&PathBuf::from("runs").join(name))?);
                run
            }
        };
        fit(run, self.quiet)
    }
}

impl Resume {
    fn run(self) -> Result<()> {
        let mut builder = Run::open(&self.run)?
            .device(&self.device)
            .stop_when(stop_on_signals());
        if let Some(epochs) = &self.epochs {
            let assignment = Source::assignment(&format!("epochs={epochs}"))?;
            builder = builder.source(Source {
                origin: format!("--epochs {epochs}"),
                ..assignment
            });
        }
        if let Some(folder) = &self.data_dir {
            builder = builder.data_dir(folder);
        }
        let run = builder.resume()?;
        if let Some(epochs) = self
            .epochs
            .filter(|_| run.architecture().epochs() < run.epoch())
        {
            let (key, origin) = ("epochs".into(), format!("--epochs {epochs}"));
            let expected = format!("more than the {} that are complete", run.epoch());
            return Err(Error::Setting {
                key,
                value: epochs,
                origin,
                expected,
            });
        }
        if run.is_finished() {
            let path = self.run.join(folder::SUMMARY);
            return print(&std::fs::read_to_string(&path).map_err(Error::file("read", &path))?);
        }
        fit(run, self.quiet)
    }
}

/// A flag that Ctrl-C and SIGTERM set; a second one ends the program at once, and nothing but the last steps is lost.
fn stop_on_signals() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this batch; once more to stop at once");
    });
    if let Err(error) = installed {
        eprintln!("warning: Ctrl-C will not save the run: {error}");
    }
    flag
}

fn fit(mut run: Run, quiet: bool) -> Result<()> {
    if !quiet {
        let folder = run
            .folder()
            .map_or(String::new(), |folder| folder.display().to_string());
        eprintln!(
            "{} on {}, writing {folder}",
            run.config().architecture,
            describe(&run)
        );
    }
    let mut progress = Progress::default();
    let observer: &mut dyn Observer = if quiet { &mut () } else { &mut progress };
    print_json(&run.fit(observer)?)
}

fn describe(run: &Run) -> String {
    let data = run.data();
    let name = run
        .config()
        .run
        .data
        .as_ref()
        .map_or("data", |data| data.name.as_str());
    let count = |split| data.split(split).len();
    let (train, validation, test) = (
        count(Split::Train),
        count(Split::Validation),
        count(Split::Test),
    );
    format!("{name} ({train} to train, {validation} to validate, {test} to test)")
}

impl Evaluate {
    fn run(self) -> Result<()> {
        let split = toml::Value::String(self.split.clone())
            .try_into()
            .map_err(|_| Error::Setting {
                key: "split".into(),
                value: self.split.clone(),
                origin: "--split".into(),
                expected: "train, validation or test".into(),
            })?;
        let mut builder = Run::open(&self.run)?.device(&self.device);
        if let Some(data) = &self.data {
            builder = builder.data(data);
        }
        if let Some(folder) = &self.data_dir {
            builder = builder.data_dir(folder);
        }
        let run = builder.build()?;
        let preferred = preferred_readout(&self.run, &run);
        print_json(&run.evaluate(split, preferred.as_deref())?)
    }
}

impl Predict {
    fn run(self) -> Result<()> {
        let run = Run::open(&self.run)?
            .without_data()
            .device(&self.device)
            .build()?;
        let first = || {
            run.architecture()
                .readouts()
                .first()
                .map(|readout| readout.name.to_string())
        };
        let readout = self
            .readout
            .or_else(|| preferred_readout(&self.run, &run))
            .or_else(first)
            .unwrap_or_default();
        let (mut answers, mut failed) = (Vec::new(), None);
        for file in &self.files {
            match run.predict(&[file], &readout) {
                Ok(mut scores) => answers.push((file, scores.remove(0))),
                // The other pictures are answered all the same.
                Err(error) if self.files.len() > 1 && !error.is_usage() => {
                    eprintln!("error: {error}");
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let classes = &run.data().kind.classes;
        if self.json {
            let answer = |(file, scores): &(&PathBuf, Vec<f64>)| {
                let named: serde_json::Map<_, _> = classes
                    .iter()
                    .zip(scores)
                    .map(|(class, score)| (class.clone(), json!(score)))
                    .collect();
                json!({ "file": file.to_string_lossy(), "class": classes[best(scores)], "readout": readout, "scores": named })
            };
            print_json(&answers.iter().map(answer).collect::<Vec<_>>())?;
        } else {
            let line = |(file, scores): &(&PathBuf, Vec<f64>)| {
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                let score = |&class: &usize| format!("{} {:.4}", classes[class], scores[class]);
                let shown: Vec<String> = order.iter().take(3).map(score).collect();
                format!(
                    "{}: {}  ({readout}: {})\n",
                    file.display(),
                    classes[best(scores)],
                    shown.join(", ")
                )
            };
            print(&answers.iter().map(line).collect::<String>())?;
        }
        failed.map_or(Ok(()), |error| {
            let problem = format!(
                "{} of {} pictures were not read",
                self.files.len() - answers.len(),
                self.files.len()
            );
            Err(error).at(|| problem)
        })
    }
}

fn best(scores: &[f64]) -> usize {
    // The first of equals, as in the list.
    (0..scores.len())
        .rev()
        .max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
        .unwrap_or(0)
}

/// The readout that validation preferred when the run was finished; before that the one that was set.
fn preferred_readout(folder: &Path, run: &Run) -> Option<String> {
    let preferred = summary::of_folder(folder)
        .and_then(|summary| Some(summary["test"]["readout"].as_str()?.into()));
    preferred.or_else(|| run.config().run.readout.clone())
}

fn draw(run: &Path, out: &Path, count: usize, data_dir: Option<PathBuf>) -> Result<()> {
    if out.exists() {
        let problem = "exists; a picture is never overwritten, name another file".to_string();
        return Err(Error::Run {
            path: out.into(),
            problem,
        });
    }
    let mut builder = Run::open(run)?;
    if let Some(folder) = data_dir {
        builder = builder.data_dir(folder);
    }
    let sheet = picture::sheet(&mut builder.build()?, count)?;
    let mut bytes = std::io::Cursor::new(Vec::new());
    sheet
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("memory can always be written to");
    folder::write(out, &bytes.into_inner())
}

fn tabulate(runs: &[PathBuf], into: Option<&Path>) -> Result<()> {
    let base = into.and_then(Path::parent).unwrap_or(Path::new(""));
    let table = results_table::table(runs, base)?;
    into.map_or_else(|| print(&table), |file| results_table::write(file, &table))
}
