//! Trials of a plugin inside whole runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use toml::Value;

use super::toys::{self, all_finite, values, Toy};
use super::{ensure, names, Checked, Complaint, Examiner};
use crate::contract::architecture::Architecture;
use crate::contract::sampler::NegativeSampler;
use crate::data::{DataSet, Split};
use crate::error::{Error, Result};
use crate::optim::Span;
use crate::plugin::config::{Config, NO_PRESET};
use crate::plugin::registry;
use crate::plugin::run_settings::RunSettings;
use crate::plugin::source::Source;
use crate::run::observe::Event;
use crate::run::{Run, RunBuilder};
use crate::settings::Settings;

pub(super) fn trials(examiner: &mut Examiner<'_>) {
    let (kind, name) = (examiner.kind, examiner.info.name);
    let mut found = None;
    examiner.check("trains", || trains(found.insert(subject(kind, name)?)));
    let Some(subject) = found else { return };
    examiner.check("repeats", || repeats(&subject));
    examiner.check("resumes", || resumes_after_an_epoch(&subject));
    examiner.check("resumes", || resumes_within_an_epoch(&subject));
    examiner.check("local run", || local(&subject));
    if kind == "architecture" || kind == "sampler" {
        examiner.check("labels", || labels(kind, &subject));
    }
    if kind == "architecture" {
        examiner.check("settings", || round_trip(&subject));
    }
    examiner.note(speed(&subject));
}

type Variables = BTreeMap<String, Vec<u32>>;

/// A run with the plugin.
#[derive(Clone)]
struct Subject {
    architecture: &'static str,
    settings: Vec<(&'static str, Value)>,
    toy: Toy,
}

impl Subject {
    fn on(&self, data: DataSet) -> RunBuilder {
        let run = Run::builder(self.architecture).data_set(data);
        let run = run.set("epochs", 2).set("batch", 20);
        self.settings
            .iter()
            .fold(run, |run, (key, value)| run.set(key, value.clone()))
    }

    fn with(&self, key: &'static str, value: Value) -> Self {
        let mut changed = self.clone();
        changed.settings.retain(|(other, _)| *other != key);
        changed.settings.push((key, value));
        changed
    }

    fn run(&self) -> Result<RunBuilder> {
        Ok(self.on(self.data()?))
    }

    fn data(&self) -> Result<DataSet> {
        match self.toy {
            Toy::Text => toys::text(),
            Toy::Images(_) => toys::images(),
            Toy::Sequences => toys::sequences(),
        }
    }

    fn trained(&self, seed: u32) -> Result<Run> {
        let mut run = self.run()?.seed(seed).build()?;
        run.fit(&mut ())?;
        Ok(run)
    }
}

/// Whether an architecture has a setting.
fn has(architecture: &str, key: &str) -> bool {
    let info = registry::info("architecture", architecture);
    info.is_ok_and(|info| (info.settings)().iter().any(|setting| setting.key == key))
}

/// The architectures for trials of a plugin, the best ones first.
fn architectures(kind: &str, name: &'static str) -> Vec<&'static str> {
    let all = names::<dyn Architecture>().into_iter();
    match kind {
        "architecture" => vec![name],
        // Architectures that contrast views come first: others may use only positive
        // views.
        "sampler" => {
            let (contrasts, others): (Vec<_>, Vec<_>) = all.partition(|a| has(a, "goodness"));
            [contrasts, others].concat()
        }
        // Where layers can be trained one after the other, no block needs the learning of
        // another.
        _ => {
            let all = all.filter(|architecture| has(architecture, kind));
            let (in_turn, others): (Vec<_>, Vec<_>) = all.partition(|a| has(a, "order"));
            [in_turn, others].concat()
        }
    }
}

/// The runs for trials of a plugin: an architecture as it is, any other plugin in a small
/// network.
fn candidates(kind: &'static str, name: &'static str) -> Vec<Subject> {
    let mut samplers = vec![None];
    if kind != "sampler" {
        samplers.extend(names::<dyn NegativeSampler>().into_iter().map(Some));
    }
    // Some layers work only as the first layer.
    let depths = if kind == "architecture" {
        [0, 2, 1]
    } else {
        [2, 1, 0]
    };
    let architectures = architectures(kind, name);
    let mut candidates = Vec::new();
    for sampler in samplers {
        for &architecture in &architectures {
            for loss in [None, Some("cross_entropy"), Some("none")] {
                for depth in depths {
                    let has_loss = loss.is_none() || has(architecture, "loss");
                    if !has_loss || depth > 0 && !has(architecture, "hidden") {
                        continue;
                    }
                    let mut settings: Vec<(&str, Value)> = Vec::new();
                    settings.extend((kind != "architecture").then(|| (kind, name.into())));
                    settings.extend(sampler.map(|sampler| ("sampler", sampler.into())));
                    settings.extend((depth > 0).then(|| ("hidden", vec![12; depth].into())));
                    settings.extend(loss.map(|loss| ("loss", loss.into())));
                    candidates.push((architecture, settings));
                }
            }
        }
    }
    let mut subjects = Vec::new();
    for toy in Toy::ALL {
        subjects.extend(candidates.iter().map(|(architecture, settings)| Subject {
            architecture,
            settings: settings.clone(),
            toy,
        }));
    }
    subjects
}

/// The first run in which the plugin works. Runs in which it does not fit are skipped;
/// any other error is a fault.
fn subject(kind: &'static str, name: &'static str) -> Result<Subject, Complaint> {
    let mut why = "no linked architecture has a setting for it".to_string();
    for subject in candidates(kind, name) {
        match subject.trained(1) {
            Ok(_) => return Ok(subject),
            Err(error) if error.is_unfit() => why = error.to_string(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Complaint::Skip(format!(
        "it fits into none of the trial runs: {why}"
    )))
}

fn trains(subject: &Subject) -> Checked {
    let run = subject.trained(1)?;
    let test = run.evaluate(Split::Test, None)?;
    ensure!(test.error.is_finite(), "a test error of {}", test.error);
    let examples = run.data().test.batch(&[0, 1, 2], None)?.examples().clone();
    let readouts = &run.architecture().net().readouts;
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

fn repeats(subject: &Subject) -> Checked {
    let trained = |seed: u32| values(subject.trained(seed)?.vars());
    let first = trained(1)?;
    ensure!(
        first == trained(1)?,
        "two runs with one seed end with different bits"
    );
    ensure!(
        first != trained(2)?,
        "runs with different seeds end with the same bits: the seed is ignored"
    );
    Ok(())
}

fn resumes_after_an_epoch(subject: &Subject) -> Checked {
    let whole = values(subject.trained(1)?.vars())?;
    let folder = TempDir::new()?;
    let mut half = subject.run()?.seed(1).build()?;
    half.train_until(1, &mut ())?;
    let saved = folder.0.join("saved");
    half.save(&saved)?;
    let mut resumed = Run::open(&saved)?.data_set(subject.data()?).build()?;
    let same = values(resumed.vars())? == values(half.vars())?;
    ensure!(same, "the loaded variables differ from the saved variables");
    resumed.fit(&mut ())?;
    ensure!(
        values(resumed.vars())? == whole,
        "a run that was saved after an epoch ends with different bits than an \
         uninterrupted run; all state that the next step needs belongs in \
         `BuildContext::vars`"
    );
    Ok(())
}

fn resumes_within_an_epoch(subject: &Subject) -> Checked {
    let whole = values(subject.trained(1)?.vars())?;
    let folder = TempDir::new()?;
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
                "its epochs are too short to stop within one".into(),
            ))
        }
    }
    let mut resumed = Run::open(&out)?.data_set(subject.data()?).resume()?;
    resumed.fit(&mut ())?;
    ensure!(
        values(resumed.vars())? == whole,
        "a run that was stopped within an epoch ends with different bits"
    );
    Ok(())
}

/// Checks locality: the updates of the first blocks are the same, bit for bit, whether or
/// not the blocks above learn at that step, and they change no variable of those.
fn local(subject: &Subject) -> Checked {
    let (together, before) = one_epoch(subject, usize::MAX, STEP)?;
    let after_all = values(together.vars())?;
    let blocks = &together.architecture().net().blocks;
    ensure!(!blocks.is_empty(), "it has no block");
    let places: Vec<String> = blocks
        .iter()
        .map(|block| block.optimiser().vars().path(""))
        .collect();
    for index in 0..places.len() {
        let number = index + 1;
        let (without_above, _) = one_epoch(subject, number, STEP)?;
        let (mut changed, mut has_variables) = (false, false);
        for (variable, after) in values(without_above.vars())? {
            let owner = places.iter().position(|place| variable.starts_with(place));
            let Some(owner) = owner else { continue };
            if owner > index {
                let untouched = after == before[&variable];
                ensure!(untouched, "a step of block {number} changes {variable}");
                continue;
            }
            ensure!(
                after == after_all[&variable],
                "{variable} changes differently if blocks above block {number} learn in the \
                 same step"
            );
            if owner == index {
                has_variables = true;
                changed |= after != before[&variable];
            }
        }
        if has_variables && !changed {
            // A block may learn in every second step.
            let (run, before) = one_epoch(subject, number, STEP / 2)?;
            let learned = values(run.vars())?.into_iter();
            let mut learned = learned.filter(|(name, _)| name.starts_with(&places[index]));
            ensure!(
                learned.any(|(name, after)| after != before[&name]),
                "block {number} learns nothing in two steps"
            );
        }
    }
    Ok(())
}

/// At least the number of training examples, so that they are one batch.
const STEP: usize = 60;

/// A run after one epoch in which the first `count` blocks learn, and its variables before
/// it. Blocks that do not learn are evaluated, without dropout, so those below a
/// learning block have to learn.
fn one_epoch(subject: &Subject, count: usize, batch: usize) -> Result<(Run, Variables)> {
    let run = subject.run()?.set("batch", batch as i64);
    let mut run = run.seed(1).build()?;
    let before = values(run.vars())?;
    let net = run.architecture_mut().net_mut();
    for (index, block) in net.blocks.iter_mut().enumerate() {
        let epochs = usize::from(index < count);
        block.optimiser_mut().set_span(Span::Epochs(0..epochs));
    }
    run.train_until(1, &mut ())?;
    Ok((run, before))
}

/// Checks that no label reaches a variable of a block unless that is declared.
///
/// An architecture is tested with the first sampler that uses no labels.
fn labels(kind: &str, subject: &Subject) -> Checked {
    if subject.toy == Toy::Text {
        return Err(Complaint::Skip(
            "the labels of a text are in its examples".into(),
        ));
    }
    let samplers = match kind {
        "architecture" => names::<dyn NegativeSampler>(),
        _ => Vec::new(),
    };
    let with = |sampler: &'static str| subject.with("sampler", sampler.into());
    let subjects = samplers.into_iter().map(with);
    let blind = [subject.clone()]
        .into_iter()
        .chain(subjects)
        .find_map(|subject| {
            let run = subject.trained(1).ok()?;
            let declared = run.sampler().uses_labels() || run.architecture().net().uses_labels();
            (!declared).then_some((subject, run))
        });
    let Some((subject, run)) = blind else {
        let why = "the sampler or a block declares that it uses labels";
        return Err(Complaint::Skip(why.into()));
    };
    let honest = values(run.vars())?;
    let mut run = subject.on(toys::mislabelled()?).seed(1).build()?;
    run.fit(&mut ())?;
    let others = values(run.vars())?;
    for block in &run.architecture().net().blocks {
        let place = block.optimiser().vars().path("");
        let differs = others
            .iter()
            .find(|(path, value)| path.starts_with(&place) && honest[*path] != **value);
        if let Some((path, _)) = differs {
            return Err(Complaint::Fail(format!(
                "{path} depends on labels, but neither the sampler nor the block \
                 declares that it uses them"
            )));
        }
    }
    Ok(())
}

fn round_trip(subject: &Subject) -> Checked {
    let config = subject.run()?.config()?;
    let table = config.to_toml().parse();
    let table = table.map_err(|error: toml::de::Error| Complaint::Fail(error.to_string()))?;
    let written = Source {
        origin: "config.toml".into(),
        table,
    };
    let read = Config::resolve(subject.architecture, Some(NO_PRESET), vec![written])?;
    ensure!(
        read == config,
        "a configuration that is written and read again has changed"
    );
    let error = subject.run()?.set("no_such_key", 1).config();
    let refused = matches!(error, Err(Error::UnknownSetting { .. }));
    ensure!(refused, "a setting `no_such_key` is not refused");
    let own = (registry::info("architecture", subject.architecture)?.settings)();
    for setting in RunSettings::describe() {
        let key = setting.key;
        ensure!(
            own.iter().all(|own| own.key != key),
            "the trainer already has a setting `{key}`"
        );
    }
    Ok(())
}

fn speed(subject: &Subject) -> Result<String> {
    let mut run = subject.run()?.build()?;
    let summary = run.fit(&mut ())?;
    let (examples, of) = (run.data().train.len(), subject.architecture);
    let milliseconds = 1e3 * summary.seconds_per_epoch;
    Ok(format!(
        "{milliseconds:.1} ms for an epoch of {examples} examples in {of}"
    ))
}

/// A temporary folder that is removed when dropped.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn new() -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onward-conformance-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
