//! `onward train` and `onward resume`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use clap::Args;

use super::flags::{DataDir, Device};
use super::output::{print, print_json};
use super::progress::Progress;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::plugin::source::Source;
use crate::run::folder::SUMMARY;
use crate::run::observe::Observer;
use crate::run::{Run, RunBuilder};

#[derive(Args)]
pub(super) struct Train {
    /// Architecture: see `onward list architecture`.
    architecture: String,
    /// Data set: a name of `onward list data`, or idx:DIR, folder:DIR, text:FILE.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Named set of settings: see `onward show <architecture>`. The first is the default;
    /// `none` disables it.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// File of settings, such as the config.toml of a run.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting: a TOML value or a word; dots nest, as in layer.dropout=0.1. Can be
    /// repeated; the last one wins.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Passes over the training part.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    epochs: Option<String>,
    /// Seed of all random numbers.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<String>,
    #[command(flatten)]
    device: Device,
    /// Folder to write; by default runs/<architecture>-<data>-<seed>, with a number if it
    /// exists.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show no progress on stderr.
    #[arg(long)]
    quiet: bool,
}

impl Train {
    pub(super) fn run(self) -> Result<()> {
        let builder = self.builder()?.stop_when(stop_on_signals());
        let run = match &self.out {
            Some(out) => builder.out(out).build()?,
            None => {
                let mut run = builder.build()?;
                let config = run.config();
                let seed = config.run.seed;
                let name = format!("{}-{}-{seed}", config.architecture, data_name(&run));
                run.write_to_numbered(&PathBuf::from("runs").join(name))?;
                run
            }
        };
        fit(run, self.quiet)
    }

    fn builder(&self) -> Result<RunBuilder> {
        let mut builder = Run::builder(&self.architecture).device(&self.device.device);
        if let Some(preset) = &self.preset {
            builder = builder.preset(preset);
        }
        if let Some(file) = &self.config {
            builder = builder.source(Source::file(file)?);
        }
        for (key, value) in [
            ("data", &self.data),
            ("epochs", &self.epochs),
            ("seed", &self.seed),
        ] {
            if let Some(value) = value {
                builder = builder.source(flag(key, value)?);
            }
        }
        // Plugins first, then their settings, regardless of the given order.
        let is_nested = |assignment: &&String| {
            let key = assignment.split('=').next().unwrap_or_default();
            key.contains('.')
        };
        let (settings, plugins): (Vec<_>, Vec<_>) = self.set.iter().partition(is_nested);
        for assignment in plugins.into_iter().chain(settings) {
            builder = builder.source(Source::assignment(assignment)?);
        }
        Ok(self.data_dir.add_to(builder))
    }
}

#[derive(Args)]
pub(super) struct Resume {
    /// Folder of a run.
    run: PathBuf,
    /// Train for N epochs in total; decaying schedules are stretched to match.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    epochs: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    device: Device,
    /// Show no progress on stderr.
    #[arg(long)]
    quiet: bool,
}

impl Resume {
    pub(super) fn run(self) -> Result<()> {
        let builder = Run::open(&self.run)?.device(&self.device.device);
        let mut builder = self.data_dir.add_to(builder).stop_when(stop_on_signals());
        if let Some(epochs) = &self.epochs {
            builder = builder.source(flag("epochs", epochs)?);
        }
        let run = builder.resume()?;
        if let Some(epochs) = self.epochs.filter(|_| run.epochs() < run.epoch()) {
            let expected = format!("at least the {} epochs that are complete", run.epoch());
            let origin = format!("--epochs {epochs}");
            return Err(Error::setting("epochs", epochs, origin, expected));
        }
        if run.is_finished() {
            let path = self.run.join(SUMMARY);
            return print(&std::fs::read_to_string(&path).map_err(Error::file("read", &path))?);
        }
        fit(run, self.quiet)
    }
}

/// The setting of a dedicated flag, such as `--seed`.
fn flag(key: &str, value: &str) -> Result<Source> {
    let assignment = Source::assignment(&format!("{key}={value}"))?;
    Ok(Source {
        origin: format!("--{key} {value}"),
        ..assignment
    })
}

/// Returns a flag that Ctrl-C and SIGTERM set. A second signal ends the program
/// immediately; the steps since the last checkpoint are then lost.
fn stop_on_signals() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this batch; repeat to stop immediately");
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
        let architecture = &run.config().architecture;
        eprintln!(
            "{architecture} on {}, writing {folder}",
            describe_data(&run)
        );
    }
    let mut progress = Progress::default();
    let observer: &mut dyn Observer = if quiet { &mut () } else { &mut progress };
    print_json(&run.fit(observer)?)
}

fn data_name(run: &Run) -> &str {
    run.config()
        .run
        .data
        .as_ref()
        .map_or("data", |data| data.name.as_str())
}

fn describe_data(run: &Run) -> String {
    let count = |split| run.data().split(split).len();
    let [train, validation, test] = [Split::Train, Split::Validation, Split::Test].map(count);
    let name = data_name(run);
    format!("{name} ({train} to train, {validation} to validate, {test} to test)")
}
