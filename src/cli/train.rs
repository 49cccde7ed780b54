//! `onward train` and `onward resume`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use toml::Table;

use super::advice::Watch;
use super::dry_run;
use super::flags::{DataDir, Device};
use super::outcome;
use super::output::{print, print_json};
use super::progress::{Display, Progress};
use super::ranks::{self, Ranks};
#[cfg(feature = "tui")]
use super::screen::Screen;
use super::stop::Stop;
use super::subject::{flag, refuse_twice, Subject};
use crate::comm::Team;
use crate::data::{Content, DataSet, Split};
use crate::error::{notify, printable, Error, Result};
use crate::plugin::registry;
use crate::plugin::run_settings::Log;
use crate::plugin::source::Source;
use crate::run::folder::SUMMARY;
use crate::run::observe::{Event, Observer};
use crate::run::summary::{self, Summary};
use crate::run::{Run, RunBuilder};
use crate::settings::PluginKind;

/// When a training stops, and what it prints.
#[derive(Args)]
struct Reporting {
    /// Stop once N epochs are complete, without a result; `onward resume` continues as if
    /// it had not stopped.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "json")]
    until: Option<u32>,
    /// Show no progress on stderr, only warnings.
    #[arg(long)]
    quiet: bool,
    /// Show curves in the terminal while it trains; for a program that was built with
    /// --features tui.
    #[arg(long, conflicts_with = "quiet")]
    tui: bool,
    /// Print the summary as JSON at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Train {
    #[command(flatten)]
    subject: Subject,
    /// Folder to write; by default runs/<architecture>-<data>-<seed>, with the preset, the
    /// name of a file of data and the settings that were given, and with a number if it
    /// exists.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// First measure what the update of each block depends on, as `onward certify` does;
    /// summary.json has the result.
    #[arg(long)]
    certify: bool,
    /// Also write a log beside metrics.jsonl: csv or tensorboard; can be repeated. The
    /// same as --set log=[csv,tensorboard].
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(Log::WORDS))]
    log: Vec<String>,
    /// Print the settings in force, the variables, and estimates of memory and time;
    /// write nothing.
    #[arg(long, conflicts_with_all = ["json", "stages", "until", "certify"])]
    dry_run: bool,
    #[command(flatten)]
    ranks: Ranks,
    #[command(flatten)]
    report: Reporting,
}

impl Train {
    pub(super) fn run(self) -> Result<()> {
        let stop = Stop::on_signals();
        self.report.check()?;
        let logs = (!self.log.is_empty()).then(|| self.log.join(","));
        refuse_twice(&[("log", &logs)], &self.subject.set)?;
        self.ranks.refuse_twice(&self.subject.set)?;
        let mut builder = self.subject.builder()?.stop_when(stop.flag());
        if self.certify {
            builder = builder.certified();
        }
        if !self.log.is_empty() {
            builder = builder.set("log", self.log.clone());
        }
        let suggested = suggestion(&builder.suggested()?);
        if self.dry_run {
            let show = |run| dry_run::show(run, &stop.flag());
            return match ranks::is_several() {
                true if !ranks::is_lead() => Ok(()),
                true => show(self.ranks.applied_to(builder)?.build()?),
                // It takes steps of one epoch.
                false => {
                    let ranks = &self.ranks;
                    ranks.train(builder, Some(1), &stop, RunBuilder::build, show)
                }
            };
        }
        if let Some(out) = &self.out {
            builder = builder.out(out);
        }
        let until = self.report.until();
        self.ranks
            .train(builder, until, &stop, RunBuilder::build, |mut run| {
                if self.out.is_none() {
                    let name = self.name_of(&run);
                    run.write_to_numbered(&PathBuf::from("runs").join(name))?;
                }
                self.report.fit(run, suggested, &stop)
            })
    }

    /// The name of the folder: what was chosen, and the seed.
    fn name_of(&self, run: &Run) -> String {
        let config = run.config();
        let mut name = config.architecture.clone();
        for part in self
            .subject
            .preset()
            .into_iter()
            .chain([data_name(run)])
            .chain(data_file(run).as_deref())
        {
            name += &format!("-{}", for_a_name(part));
        }
        for assignment in &self.subject.assignments() {
            let part = for_a_name(assignment);
            if name.len() + part.len() > LONGEST_NAME {
                name += "-and-more";
                break;
            }
            name += &format!("-{part}");
        }
        format!("{name}-{}", config.run.seed)
    }
}

#[derive(Args)]
pub(super) struct Resume {
    /// Folder of a run.
    run: PathBuf,
    /// Train for N epochs in total; decaying schedules are stretched to match.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    epochs: Option<String>,
    /// A setting to change from here on: KEY=VALUE, as for `onward train`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the data are now, if they were moved: as for `onward train`.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    ranks: Ranks,
    #[command(flatten)]
    report: Reporting,
}

impl Resume {
    pub(super) fn run(self) -> Result<()> {
        let stop = Stop::on_signals();
        self.report.check()?;
        let flags = [("epochs", &self.epochs), ("data", &self.data)];
        refuse_twice(&flags, &self.set)?;
        self.ranks.refuse_twice(&self.set)?;
        let builder = Run::open(&self.run)?.device(&self.device.device);
        let mut builder = self.data_dir.add_to(builder)?.stop_when(stop.flag());
        if let Some(epochs) = &self.epochs {
            builder = builder.source(flag("epochs", epochs)?);
        }
        if let Some(data) = &self.data {
            builder = builder.data(data);
        }
        for assignment in &self.set {
            builder = builder.source(Source::assignment(assignment)?);
        }
        let until = self.report.until();
        let lead = |run| self.go_on(run, &stop);
        self.ranks
            .train(builder, until, &stop, RunBuilder::resume, lead)
    }

    fn go_on(&self, run: Run, stop: &Stop) -> Result<()> {
        let mut settings = self.set.iter().filter_map(|set| set.split_once('='));
        let for_training = settings.find(|(key, _)| key.trim() != "readout");
        if let Some((key, value)) = for_training.filter(|_| run.is_trained()) {
            let (origin, epochs) = (format!("--set {key}={value}"), run.epoch());
            let expected = format!(
                "epochs to train with it: all {epochs} are trained; add --epochs N, N above {epochs}"
            );
            return Err(Error::setting(key.trim(), value.trim(), origin, expected));
        }
        if run.is_finished() {
            return self.print_finished(&run);
        }
        self.report.fit(run, None, stop)
    }

    /// Prints the result that is in the folder.
    fn print_finished(&self, run: &Run) -> Result<()> {
        let summary = summary::read(&self.run.join(SUMMARY))?;
        if !self.report.quiet {
            let epochs = run.epoch();
            match run.epochs() > epochs {
                true => notify(format_args!(
                    "ended early, after {epochs} of {} epochs; continue with a larger --set \
                     patience=N, or 0",
                    run.epochs()
                )),
                // Phases that have ended get no more.
                false if run.phases().is_some() => {
                    notify(format_args!("all epochs ({epochs}) are trained"));
                }
                false => notify(format_args!(
                    "all epochs ({epochs}) are trained; continue with --epochs N, N above {epochs}"
                )),
            }
        }
        let summary: Summary = serde_json::from_value(summary).map_err(|error| {
            Error::run(&self.run, format!("{SUMMARY} has another format: {error}"))
        })?;
        if self.report.json {
            return print_json(&Finished::of(run, &summary));
        }
        print(&outcome::of_run(&summary, run, 0))
    }
}

/// The longest name of a folder, without its seed.
const LONGEST_NAME: usize = 80;

/// A setting as a part of a name that needs no quotes in a shell: `hidden=[40,50]`
/// becomes `hidden=40x50`.
pub(super) fn for_a_name(text: &str) -> String {
    let kept = |c: char| match c {
        ',' => Some('x'),
        c if c.is_ascii_alphanumeric() || "._=-".contains(c) => Some(c),
        _ => None,
    };
    let name: String = text.chars().filter_map(kept).collect();
    name.trim_matches(['.', '-']).to_string()
}

impl Reporting {
    /// Refuses `--tui` in a program that was built without it.
    fn check(&self) -> Result<()> {
        match self.tui && !cfg!(feature = "tui") {
            true => Err(Error::usage(
                "--tui",
                "this program was built without it; build with --features tui",
            )),
            false => Ok(()),
        }
    }

    fn until(&self) -> Option<usize> {
        self.until.map(|epochs| epochs as usize)
    }

    /// What shows the training.
    fn display(&self) -> Box<dyn Display> {
        #[cfg(feature = "tui")]
        if self.tui {
            match Screen::open() {
                Ok(screen) => return Box::new(screen),
                Err(problem) => notify(format_args!("--tui: {problem}; lines are printed instead")),
            }
        }
        Box::new(Progress::default())
    }

    /// Trains to the end and prints the result. `more` is said after the first line.
    fn fit(&self, mut run: Run, more: Option<String>, stop: &Stop) -> Result<()> {
        stop.training_begins();
        if !self.quiet {
            notify(describe(&run));
            more.into_iter().for_each(notify);
            run.phases().into_iter().for_each(notify);
        }
        // All but the first are warnings.
        let of_classes = of_classes(&run)?.into_iter();
        of_classes.skip(usize::from(self.quiet)).for_each(notify);
        if !self.quiet {
            let (batch, examples) = (run.config().run.batch, run.data().train.len());
            if batch > examples {
                notify(format_args!(
                    "note: `batch` = {batch} is more than the {examples} training examples, so an \
                     epoch is one step"
                ));
            }
        }
        let done = run.epoch();
        let (mut progress, mut watch) = (self.display(), Watch::new(largest_shares(&run)?));
        let is_quiet = self.quiet;
        let mut observer = |event: &Event<'_>| {
            watch.on(event);
            let warnings = watch.take().into_iter();
            match is_quiet {
                true => warnings.for_each(notify),
                false => {
                    progress.on(event);
                    warnings.for_each(|line| progress.say(line));
                }
            }
        };
        if let Some(until) = self.until().filter(|until| *until < run.epochs()) {
            if until <= done && done > 0 {
                notify(format_args!(
                    "--until {until} trains nothing: {done} of {} epochs are complete",
                    run.epochs()
                ));
            }
            run.train_until(until, &mut observer)?;
            drop(progress);
            return print(&outcome::of_part(&run));
        }
        let summary = run.fit(&mut observer)?;
        drop(progress);
        watch.advice(&summary).into_iter().for_each(notify);
        if self.json {
            return print_json(&Finished::of(&run, &summary));
        }
        print(&outcome::of_run(&summary, &run, done))
    }
}

/// The result of a run as JSON: its folder, and its summary.
#[derive(Serialize)]
struct Finished<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl<'a> Finished<'a> {
    fn of(run: &'a Run, summary: &'a Summary) -> Self {
        Self {
            run: run.folder().map(|folder| folder.display().to_string()),
            summary,
        }
    }
}

fn data_name(run: &Run) -> &str {
    run.config()
        .run
        .data
        .as_ref()
        .map_or("data", |data| data.name.as_str())
}

/// The name of the file or folder that the data are from, if it is a short one.
fn data_file(run: &Run) -> Option<String> {
    let data = run.config().run.data.as_ref()?;
    let key = registry::info(DataSet::KIND, &data.name).ok()?.argument?;
    let path = Path::new(data.settings.get(key)?.as_str()?);
    let name = for_a_name(&path.file_stem()?.to_string_lossy());
    (1..=LONGEST_FILE).contains(&name.len()).then_some(name)
}

/// The longest name of a file that becomes a part of the name of a run.
const LONGEST_FILE: usize = 30;

/// What is trained, on what, and where: the first line of a training.
fn describe(run: &Run) -> String {
    let architecture = &run.config().architecture;
    let count = |split| run.data().split(split).len();
    let [train, validation, test] = [Split::Train, Split::Validation, Split::Test].map(count);
    let folder = run.folder().map(|folder| folder.display().to_string());
    let folder = folder.map_or(String::new(), |folder| format!("\nwriting {folder}"));
    let name = data_name(run);
    let ranks = run.team().map_or(String::new(), divided);
    format!(
        "{architecture} on {name}: {train} training, {validation} validation, {test} test \
         examples\non {}{ranks}{folder}",
        run.device()
    )
}

/// How the layers are divided among ranks.
fn divided(team: &Team) -> String {
    let of_stage = |stage| {
        let levels = team.levels_of(stage);
        match levels.len() {
            1 => levels.end.to_string(),
            _ => format!("{}–{}", levels.start + 1, levels.end),
        }
    };
    let stages: Vec<String> = (0..team.stages()).map(of_stage).collect();
    let (ranks, stages) = (team.ranks(), stages.join(" | "));
    match team.replicas() {
        1 => format!(" in each of {ranks} ranks: layers {stages}"),
        replicas => format!(" in each of {ranks} ranks: layers {stages}, {replicas} replicas"),
    }
}

/// The share of the largest class of the validation and the test part, for images with
/// one label.
fn largest_shares(run: &Run) -> Result<[Option<f64>; 2]> {
    let data = run.data();
    let mut shares = [None; 2];
    if data.spec.content == Content::Text || data.spec.positions > 1 {
        return Ok(shares);
    }
    for (share, split) in shares.iter_mut().zip([Split::Validation, Split::Test]) {
        let counts = data.class_counts(split)?;
        let (most, all) = (counts.iter().max(), counts.iter().sum::<usize>());
        *share = most
            .filter(|_| all > 0)
            .map(|&most| most as f64 / all as f64);
    }
    Ok(shares)
}

/// A line with the sizes of the classes, and then warnings of classes that cannot be
/// learned or tested; nothing of data without classes.
fn of_classes(run: &Run) -> Result<Vec<String>> {
    let data = run.data();
    if data.spec.content == Content::Text || data.spec.positions > 1 {
        return Ok(Vec::new());
    }
    let (train, test) = (
        data.class_counts(Split::Train)?,
        data.class_counts(Split::Test)?,
    );
    if train.iter().sum::<usize>() == 0 {
        return Ok(Vec::new()); // without labels
    }
    let (least, most) = (
        train.iter().min().unwrap_or(&0),
        train.iter().max().unwrap_or(&0),
    );
    let range = match least == most {
        true => most.to_string(),
        false => format!("{least} to {most}"),
    };
    let mut lines = vec![format!(
        "{} classes of {range} training examples",
        train.len()
    )];
    let named = |is_one: &dyn Fn(usize) -> bool| -> Option<(String, bool)> {
        let classes = data.spec.classes.iter().enumerate();
        let classes = classes.filter(|(class, _)| is_one(*class));
        let names: Vec<String> = classes.map(|(_, name)| printable(name)).collect();
        let more = names.len().saturating_sub(8);
        let first = names[..names.len() - more].join(", ");
        match (names.len(), more) {
            (0, _) => None,
            (count, 0) => Some((first, count == 1)),
            _ => Some((format!("{first} and {more} more"), false)),
        }
    };
    for (names, one, several) in [
        (
            named(&|class| train[class] == 0),
            "has no training examples, so it cannot be learned",
            "have no training examples, so they cannot be learned",
        ),
        (
            named(&|class| train[class] == 1),
            "has one training example",
            "have one training example each",
        ),
        (
            named(&|class| test[class] == 0 && train[class] > 0),
            "has no test examples, so the test error says nothing of it",
            "have no test examples, so the test error says nothing of them",
        ),
    ] {
        lines.extend(names.map(|(names, is_one)| match is_one {
            true => format!("warning: the class {names} {one}"),
            false => format!("warning: the classes {names} {several}"),
        }));
    }
    Ok(lines)
}

/// What the data set suggests, in a line, if it suggests anything.
fn suggestion(settings: &Table) -> Option<String> {
    let settings = settings.iter();
    let settings: Vec<_> = settings
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    (!settings.is_empty()).then(|| format!("the data set suggests {}", settings.join(", ")))
}
