//! Trials of a plugin inside whole runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use toml::Value;

use super::toys::{self, all_finite, bits, values, Toy};
use super::{ensure, names, Complaint, Court};
use crate::contract::architecture::Architecture;
use crate::contract::sampler::NegativeSampler;
use crate::data::{DataSet, Split};
use crate::error::{Error, Result};
use crate::flow::step::Step;
use crate::plugin::config::{Config, Source};
use crate::plugin::registry;
use crate::run::observe::Event;
use crate::run::{Run, RunBuilder};

type Variables = BTreeMap<String, Vec<u32>>;

/// A run that the plugin on trial takes part in.
struct Subject {
    architecture: &'static str,
    settings: Vec<(&'static str, Value)>,
    toy: Toy,
}

impl Subject {
    fn on(&self, data: DataSet) -> RunBuilder {
        let run = Run::builder(self.architecture)
            .data_set(data)
            .set("epochs", 2)
            .set("batch", 20);
        self.settings
            .iter()
            .fold(run, |run, (key, value)| run.set(key, value.clone()))
    }

    fn run(&self) -> Result<RunBuilder> {
        Ok(self.on(self.data()?))
    }

    fn data(&self) -> Result<DataSet> {
        if self.toy == Toy::Text {
            toys::text()
        } else {
            toys::images()
        }
    }

    fn trained(&self, seed: u32) -> Result<Run> {
        let mut run = self.run()?.seed(seed).build()?;
        run.fit(&mut ())?;
        Ok(run)
    }
}

/// The first run in which the plugin works: an architecture in itself, anything else in whatever architecture has a
/// setting for it. A run that refuses it as a wrong use is not the right one; any other error is a fault.
fn subject(kind: &'static str, name: &'static str) -> Result<Subject, Complaint> {
    let has = |architecture: &str, key: &str| {
        let info = registry::info("architecture", architecture);
        info.is_ok_and(|info| (info.settings)().iter().any(|setting| setting.key == key))
    };
    let architectures: Vec<&'static str> = match kind {
        "architecture" => vec![name],
        // One that contrasts views comes first: another may look at the positive ones alone.
        "sampler" => {
            let (contrasts, others): (Vec<_>, Vec<_>) = names::<dyn Architecture>()
                .into_iter()
                .partition(|architecture| has(architecture, "goodness"));
            [contrasts, others].concat()
        }
        _ => names::<dyn Architecture>()
            .into_iter()
            .filter(|architecture| has(architecture, kind))
            .collect(),
    };
    // The sampler that the architecture would take first; that of a text is another one than that of images.
    let samplers = if kind == "sampler" {
        Vec::new()
    } else {
        names::<dyn NegativeSampler>()
    };
    let mut why = "no architecture that is linked has a setting for it".to_string();
    for sampler in std::iter::once(None).chain(samplers.into_iter().map(Some)) {
        for &architecture in &architectures {
            for loss in [None, Some("cross_entropy"), Some("none")] {
                // An architecture is tried as it is, all else in a small one; some layers can only be the first.
                let depths = if kind == "architecture" {
                    [0, 2, 1]
                } else {
                    [2, 1, 0]
                };
                for depth in depths {
                    if loss.is_some() && !has(architecture, "loss")
                        || depth > 0 && !has(architecture, "hidden")
                    {
                        continue;
                    }
                    let mut settings: Vec<(&str, Value)> = Vec::new();
                    settings.extend((kind != "architecture").then(|| (kind, name.into())));
                    settings.extend(sampler.map(|sampler| ("sampler", sampler.into())));
                    settings.extend((depth > 0).then(|| ("hidden", vec![12; depth].into())));
                    settings.extend(loss.map(|loss| ("loss", loss.into())));
                    for toy in Toy::ALL {
                        let subject = Subject {
                            architecture,
                            settings: settings.clone(),
                            toy,
                        };
                        match subject.trained(1) {
                            Ok(_) => return Ok(subject),
                            Err(error) if error.is_usage() => why = error.to_string(),
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
            }
        }
    }
    Err(Complaint::Skip(format!(
        "it takes part in no run that is at hand: {why}"
    )))
}

pub(super) fn of(court: &mut Court<'_>) {
    let (kind, name) = (court.kind, court.info.name);
    let mut found = None;
    court.hold("trains", || {
        let subject = found.insert(subject(kind, name)?);
        trains(subject)
    });
    let Some(subject) = found else { return };
    court.hold("repeats", || {
        let trained = |seed: u32| values(subject.trained(seed)?.vars());
        let first = trained(1)?;
        ensure!(
            first == trained(1)?,
            "two runs with one seed end with other bits"
        );
        ensure!(
            first != trained(2)?,
            "runs with other seeds end with the same bits: the seed is ignored"
        );
        Ok(())
    });
    court.hold("resumes", || resumes(&subject));
    court.hold("local run", || local(&subject));
    if kind == "architecture" || kind == "sampler" {
        court.hold("labels", || labels(&subject));
    }
    if kind == "architecture" {
        court.hold("settings", || round_trip(&subject));
    }
    if let Ok(mut run) = subject.run().and_then(RunBuilder::build) {
        if let Ok(summary) = run.fit(&mut ()) {
            let (examples, of) = (run.data().train.len(), subject.architecture);
            court.note(format!(
                "{:.1} ms for an epoch of {examples} examples in {of}",
                1e3 * summary.seconds_per_epoch
            ));
        }
    }
}

fn trains(subject: &Subject) -> Result<(), Complaint> {
    let run = subject.trained(1)?;
    let test = run.evaluate(Split::Test, None)?;
    ensure!(test.error.is_finite(), "a test error of {}", test.error);
    let indices: Vec<usize> = (0..3).collect();
    let examples = run.data().test.batch(&indices, None)?.examples().clone();
    let readouts = run.architecture().readouts();
    ensure!(!readouts.is_empty(), "it has no readout");
    for readout in readouts {
        let scores = run.scores(examples.clone(), readout.name)?;
        ensure!(
            all_finite(&scores)?,
            "scores of the readout {} that are not finite",
            readout.name
        );
    }
    Ok(())
}

fn resumes(subject: &Subject) -> Result<(), Complaint> {
    let whole = values(subject.trained(1)?.vars())?;
    let folder = tempdir()?;
    let mut half = subject.run()?.seed(1).build()?;
    half.train_until(1, &mut ())?;
    let saved = folder.0.join("saved");
    half.save(&saved)?;
    let mut resumed = Run::open(&saved)?.data_set(subject.data()?).build()?;
    ensure!(
        values(resumed.vars())? == values(half.vars())?,
        "variables that were saved are not what is loaded"
    );
    resumed.fit(&mut ())?;
    ensure!(
        values(resumed.vars())? == whole,
        "a run that was saved after an epoch ends with other bits than one that was not; all that the next step \
         depends on header into `BuildContext::vars`, or into `save` of a sampler"
    );

    // Stopped in the middle of an epoch.
    let (stop, out) = (Arc::new(AtomicBool::new(false)), folder.0.join("stopped"));
    let mut stopped = subject
        .run()?
        .seed(1)
        .out(&out)
        .stop_when(stop.clone())
        .build()?;
    let mut after_two = |event: &Event<'_>| {
        if let Event::Stepped { step, .. } = event {
            stop.store(step.index == 1, Ordering::Relaxed);
        }
    };
    match stopped.fit(&mut after_two) {
        Err(Error::Stopped { .. }) => drop(stopped),
        Err(error) => return Err(error.into()),
        Ok(_) => {
            return Err(Complaint::Skip(
                "its epochs are too short to be stopped in".into(),
            ))
        }
    }
    let mut resumed = Run::open(&out)?.data_set(subject.data()?).resume()?;
    resumed.fit(&mut ())?;
    ensure!(
        values(resumed.vars())? == whole,
        "a run that was stopped within an epoch ends with other bits"
    );
    Ok(())
}

/// The point of the field. What a block learns in a step is the same, bit for bit, whether the others learn in it or
/// not; and its step changes no variable of another block.
fn local(subject: &Subject) -> Result<(), Complaint> {
    let one_step = |only: Option<usize>| -> Result<(Run, Variables)> {
        let mut run = subject
            .run()?
            .set("epochs", 1)
            .set("batch", 60)
            .seed(1)
            .build()?;
        let before = values(run.vars())?;
        for (index, block) in run.architecture_mut().blocks_mut().iter_mut().enumerate() {
            let span = if only.is_none_or(|only| only == index) {
                0..1
            } else {
                0..0
            };
            block.optimiser_mut().set_span(span);
        }
        run.train_until(1, &mut ())?;
        Ok((run, before))
    };
    let (together, before) = one_step(None)?;
    let after_all = values(together.vars())?;
    let blocks = together.architecture().blocks();
    ensure!(!blocks.is_empty(), "it has no block");
    let places: Vec<String> = blocks
        .iter()
        .map(|block| block.optimiser().vars().path(""))
        .collect();
    for (index, place) in places.iter().enumerate() {
        let (alone, _) = one_step(Some(index))?;
        let (mut changed, mut has_variables) = (false, false);
        for (variable, after) in values(alone.vars())? {
            if variable.starts_with(place) {
                ensure!(
                    after == after_all[&variable],
                    "{variable} is another one if other blocks learn in the same step"
                );
                has_variables = true;
                changed |= after != before[&variable];
            } else if places.iter().any(|place| variable.starts_with(place)) {
                ensure!(
                    after == before[&variable],
                    "a step of block {} changes {variable}",
                    index + 1
                );
            }
        }
        ensure!(
            changed || !has_variables,
            "block {} learns nothing in a step",
            index + 1
        );
    }
    Ok(())
}

/// No label that is hidden, or of the test part, may reach a variable or a score.
fn labels(subject: &Subject) -> Result<(), Complaint> {
    let run = subject.trained(1)?;
    let batch = run.data().test.batch(&[0, 1, 2], None)?;
    let step = Step::evaluation(1);
    for readout in run.architecture().readouts() {
        let scores = |batch| {
            run.architecture()
                .scores(batch, &*run.sampler, readout.name, &step)
        };
        let same = bits(&scores(&batch)?)? == bits(&scores(&batch.hidden())?)?;
        ensure!(
            same,
            "scores of the readout {} are others where labels are not hidden",
            readout.name
        );
    }
    if subject.toy == Toy::Text {
        return Ok(()); // whose labels are in its examples
    }
    let trained_on = |data: DataSet| -> Result<(Run, Variables)> {
        let mut run = subject.on(data).seed(1).build()?;
        run.fit(&mut ())?;
        let variables = values(run.vars())?;
        Ok((run, variables))
    };
    let honest = values(run.vars())?;
    let (_, untested) = trained_on(toys::mislabelled(true)?)?;
    ensure!(
        untested == honest,
        "with other labels of the test part the training ends with other variables"
    );
    if !run.sampler.is_supervised() && !run.architecture().is_supervised() {
        let (run, others) = trained_on(toys::mislabelled(false)?)?;
        for block in run.architecture().blocks() {
            let place = block.optimiser().vars().path("");
            let differs = others
                .iter()
                .find(|(path, value)| path.starts_with(&place) && honest[*path] != **value);
            ensure!(
                differs.is_none(),
                "{} depends on labels, but both sampler and architecture say that they are not supervised",
                differs.map_or("", |(path, _)| path)
            );
        }
    }
    Ok(())
}

fn round_trip(subject: &Subject) -> Result<(), Complaint> {
    let config = subject.run()?.config()?;
    let table = config
        .to_toml()
        .parse()
        .map_err(|error: toml::de::Error| Complaint::Fail(error.to_string()))?;
    let written = Source {
        origin: "config.toml".into(),
        table,
    };
    let read = Config::resolve(
        subject.architecture,
        Some(crate::plugin::config::NO_PRESET),
        vec![written],
    )?;
    ensure!(
        read == config,
        "a configuration that is written and read again is another one"
    );
    let error = subject.run()?.set("no_such_key", 1).config();
    ensure!(
        matches!(error, Err(Error::UnknownSetting { .. })),
        "a setting `no_such_key` is not refused"
    );
    let own = (registry::info("architecture", subject.architecture)?.settings)();
    let of_the_trainer =
        <crate::plugin::config::RunSettings as crate::settings::Settings>::describe();
    for setting in of_the_trainer {
        ensure!(
            own.iter().all(|own| own.key != setting.key),
            "the trainer has a setting `{}` already",
            setting.key
        );
    }
    Ok(())
}

/// A folder that is gone at the end.
struct TempDir(std::path::PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Result<TempDir> {
    use std::sync::atomic::AtomicUsize;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!(
        "onward-conformance-{}-{number}",
        std::process::id()
    ));
    std::fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
    Ok(TempDir(path))
}
