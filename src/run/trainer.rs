//! The loop: batches, steps, events, evaluation. It knows no rule, no layer and no data set.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, D};

use crate::contract::architecture::Readout;
use crate::contract::block::Report;
use crate::data::text::ngram;
use crate::data::{Augment, Split};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::random;
use crate::flow::step::Step;
use crate::kernels::entries;
use crate::plugin::checked;
use crate::run::observe::{Event, Observer};
use crate::run::summary::{Bits, Evaluation, Labels, Score, Summary};
use crate::run::Run;

/// Examples that are predicted at once.
pub(crate) const EVALUATION_BATCH: usize = 500;

/// Trains from where the run stands to the end, and evaluates.
pub(crate) fn fit(run: &mut Run, observer: &mut dyn Observer) -> Result<Summary> {
    checked::caught(|| fit_here(run, observer))
}

fn fit_here(run: &mut Run, observer: &mut dyn Observer) -> Result<Summary> {
    let started = Instant::now();
    let (first, last) = (run.epoch, run.architecture.epochs());
    let training = train(run, last, observer)?;
    let (validation, test) = rayon::scope(|_| judge(run, observer))?;
    let learned = run.vars.learned();
    // Of a frozen network only the head learns; of one that shows no blocks nobody knows.
    let blocks = run.architecture.blocks();
    let is_learning = blocks.is_empty() || blocks.iter().any(|block| !block.span().is_empty());
    let settings = &run.config.run;
    let summary = Summary {
        architecture: run.config.architecture.clone(),
        data: settings
            .data
            .as_ref()
            .map(|data| data.name.clone())
            .unwrap_or_default(),
        seed: settings.seed,
        epochs: run.epoch,
        parameters: learned.iter().map(|(_, var)| var.elem_count()).sum(),
        seconds: started.elapsed().as_secs_f64(),
        seconds_per_epoch: training / (last.saturating_sub(first)).max(1) as f64,
        peak_memory_mb: peak_memory_mb(),
        threads: rayon::current_num_threads(),
        labels: Labels {
            blocks: is_learning
                && (run.sampler.is_supervised() || run.architecture.is_supervised()),
            heads: !run.architecture.heads().is_empty(),
        },
        validation,
        test,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    observer.on(&Event::Finished { summary: &summary });
    Ok(summary)
}

/// Trains from where the run stands until `last` epochs are complete; returns the seconds that the steps took.
///
/// The loop runs on a thread of the pool that the arithmetic is divided among: from outside, every one of its many small
/// operations would put this thread to sleep and wake another.
pub(crate) fn train(run: &mut Run, last: usize, observer: &mut dyn Observer) -> Result<f64> {
    checked::caught(|| rayon::scope(|_| train_here(run, last, observer)))
}

fn train_here(run: &mut Run, last: usize, observer: &mut dyn Observer) -> Result<f64> {
    let settings = run.config.run.clone();
    let examples = run.data.train.len();
    if examples == 0 {
        let problem = "there are no examples to train on; open the run with its data".to_string();
        return Err(Error::Mismatch {
            place: "data".into(),
            problem,
        });
    }
    let batch = settings.batch.min(examples);
    let epochs = run.architecture.epochs();
    let names: Vec<String> = run
        .architecture
        .blocks()
        .iter()
        .map(|block| block.name().into())
        .collect();
    let mut training = 0.;
    let first = run.epoch;
    let steps = examples.div_ceil(batch);
    observer.on(&Event::Started {
        config: &run.config,
        blocks: &names,
        epoch: first,
        epochs,
        steps,
    });
    for epoch in first..last.min(epochs) {
        let order = random::shuffled(
            &mut random::stream(settings.seed, "shuffle", epoch as u64),
            examples,
        );
        let mut tally = Tally::default();
        let clock = Instant::now();
        // A run that was stopped within an epoch goes on within it.
        let done = run
            .step
            .checked_sub((epoch * steps) as u64)
            .filter(|&done| done <= steps as u64);
        let done = done.ok_or_else(|| Error::Mismatch {
            place: "checkpoint".into(),
            problem: format!(
                "step {} is not in epoch {} of {steps} steps: other data or batch?",
                run.step,
                epoch + 1
            ),
        })? as usize;
        // Within an epoch the sampler goes on with what it had.
        if done == 0 {
            refresh(run, epoch, epochs)?;
        }
        for indices in order.chunks(batch).skip(done) {
            let step = Step {
                seed: settings.seed,
                index: run.step,
                epoch,
                epochs,
                train: true,
                pass: 0,
            };
            let augment = Augment {
                shift: settings.shift,
                flip: settings.flip,
                step: &step,
            };
            let batch = run.prepare(&run.data.train.batch(indices, Some(&augment))?)?;
            let reports = run.architecture.learn(&batch, &mut *run.sampler, &step)?;
            tally.add(&reports);
            observer.on(&Event::Stepped {
                step: &step,
                examples: indices.len(),
                reports: &reports,
            });
            run.step += 1;
            if run.step == ((epoch + 1) * steps) as u64 {
                // It is saved below, as the end of the epoch.
                break;
            }
            let is_stopped = run.stop.load(Ordering::Relaxed);
            let is_due = settings.checkpoint_every > 0
                && run.step.is_multiple_of(settings.checkpoint_every as u64);
            if is_stopped || is_due {
                save(run, observer)?;
            }
            unless_stopped(run)?;
        }
        let seconds = clock.elapsed().as_secs_f64();
        training += seconds;
        run.epoch = epoch + 1;
        observer.on(&Event::EpochEnded {
            epoch: run.epoch,
            epochs,
            seconds,
            reports: &tally.means(),
        });
        save(run, observer)?;
        unless_stopped(run)?;
        let architecture = &run.architecture;
        let useful = |readout: &Readout| readout.cheap && architecture.is_ready(readout, run.epoch);
        let cheap: Vec<Readout> = architecture.readouts().into_iter().filter(useful).collect();
        let due = run.epoch.is_multiple_of(settings.evaluate_every) && run.epoch < epochs;
        if due && !cheap.is_empty() && !run.data.validation.is_empty() {
            let evaluation = &evaluate(run, Split::Validation, &cheap, None)?;
            observer.on(&Event::Evaluated {
                epoch: run.epoch,
                split: Split::Validation,
                evaluation,
            });
        }
    }
    Ok(training)
}

/// Lets the sampler make what it remembers for an epoch, from the network's own predictions.
fn refresh(run: &mut Run, epoch: usize, epochs: usize) -> Result<()> {
    let step = Step {
        seed: run.config.run.seed,
        index: run.step,
        epoch,
        epochs,
        train: true,
        pass: 0,
    };
    let readout = run
        .architecture
        .readouts()
        .into_iter()
        .find(|readout| readout.cheap);
    let predict = |batch: &Batch| {
        unless_stopped(run)?;
        let readout = readout.ok_or_else(|| Error::Mismatch {
            place: "sampler".into(),
            problem:
                "it asks for the network's own prediction, but there is no readout that is cheap; set `head = true`"
                    .into(),
        })?;
        let batch = run.prepare(batch)?.hidden();
        run.architecture.scores(
            &batch,
            &*run.sampler,
            readout.name,
            &Step::evaluation(step.seed),
        )
    };
    let remembered = run.sampler.refresh(&*run.data.train, &predict, &step)?;
    remembered.map_or(Ok(()), |tensors| run.sampler.restore(&tensors))
}

/// An error if the run was asked to stop; whatever is under way is done anew when it is resumed.
fn unless_stopped(run: &Run) -> Result<()> {
    if run.stop.load(Ordering::Relaxed) {
        return Err(Error::Stopped {
            step: run.step,
            folder: run.folder().map(PathBuf::from),
        });
    }
    Ok(())
}

/// Saves the run, if it has a folder.
fn save(run: &Run, observer: &mut dyn Observer) -> Result<()> {
    let Some(folder) = run.folder() else {
        return Ok(());
    };
    run.save(folder)?;
    observer.on(&Event::Saved { folder });
    Ok(())
}

/// Evaluates on the validation part, chooses the readout by it, and looks at the test part once.
fn judge(run: &mut Run, observer: &mut dyn Observer) -> Result<(Option<Evaluation>, Evaluation)> {
    let readouts = run.architecture.readouts();
    let validation = match run.data.validation.is_empty() {
        true => None,
        false => Some(evaluate(run, Split::Validation, &readouts, None)?),
    };
    let best = |evaluation: &Evaluation| {
        // Of text the fewest bits, as far as there are any.
        let bits = |score: &Score| score.bits.map_or(f64::INFINITY, |bits| bits.bits_per_token);
        let order = |a: &Score, b: &Score| bits(a).total_cmp(&bits(b)).then(a.wrong.cmp(&b.wrong));
        let best = evaluation
            .readouts
            .iter()
            .min_by(|(_, a), (_, b)| order(a, b));
        best.map(|(name, _)| name.clone())
    };
    let preferred = run
        .config
        .run
        .readout
        .clone()
        .or_else(|| validation.as_ref().and_then(best));
    let validation = validation.map(|evaluation| evaluation.by(preferred.as_deref()));
    let test = evaluate(run, Split::Test, &readouts, preferred.as_deref())?;
    for (split, evaluation) in [
        (Split::Validation, validation.as_ref()),
        (Split::Test, Some(&test)),
    ] {
        if let Some(evaluation) = evaluation {
            observer.on(&Event::Evaluated {
                epoch: run.epoch,
                split,
                evaluation,
            });
        }
    }
    Ok((validation, test))
}

/// How well a part is predicted by each of `readouts`.
pub(crate) fn evaluate(
    run: &Run,
    split: Split,
    readouts: &[Readout],
    preferred: Option<&str>,
) -> Result<Evaluation> {
    let examples = run.data.split(split);
    let fault = |problem: String| Error::Mismatch {
        place: format!("{split:?} part of the data"),
        problem,
    };
    if examples.is_empty() {
        return Err(fault("is empty; nothing can be evaluated on it".into()));
    }
    let step = Step::evaluation(run.config.run.seed);
    let passages = examples.passages();
    let mut sums: BTreeMap<&str, (usize, Option<f64>)> = BTreeMap::new();
    let indices: Vec<usize> = (0..examples.len()).collect();
    for indices in indices.chunks(EVALUATION_BATCH) {
        unless_stopped(run)?;
        let batch = run.prepare(&examples.batch(indices, None)?)?;
        let hidden = batch.hidden();
        for readout in readouts {
            let scores = run
                .architecture
                .scores(&hidden, &*run.sampler, readout.name, &step)?;
            if scores.dims() != [indices.len(), run.data.kind.classes.len()] {
                let (found, expected) = (
                    scores.dims().to_vec(),
                    format!(
                        "scores ({}, {})",
                        indices.len(),
                        run.data.kind.classes.len()
                    ),
                );
                return Err(Error::Shape {
                    place: format!("readout {}", readout.name),
                    found,
                    expected,
                });
            }
            let predicted = scores.argmax(D::Minus1)?.to_vec1::<u32>()?;
            let misses = predicted
                .iter()
                .zip(batch.labels()?)
                .filter(|(found, label)| found != label)
                .count();
            let (wrong, nats) = sums.entry(readout.name).or_default();
            *wrong += misses;
            if readout.log_probabilities && passages.is_some() {
                *nats =
                    Some(nats.unwrap_or(0.) + surprise(&scores, batch.labels()?, readout.name)?);
            }
        }
    }
    let score = |(wrong, nats): (usize, Option<f64>)| {
        let characters = passages.as_ref().map_or(0, |passages| passages.characters);
        Score::new(
            wrong,
            examples.len(),
            nats.map(|nats| Bits::new(nats, examples.len(), characters)),
        )
    };
    let scores: BTreeMap<String, Score> = sums
        .into_iter()
        .map(|(name, sums)| (name.into(), score(sums)))
        .collect();
    let Some((first, of_first)) = scores.iter().next() else {
        return Err(fault("there is no readout".into()));
    };
    let (readout, error, accuracy) = (first.clone(), of_first.error, of_first.accuracy);
    let bits = of_first.bits;
    let baselines = match (&run.data.text, run.data.train.passages(), passages, split) {
        (Some(text), Some(train), Some(test), Split::Test) => {
            ngram::baselines(&train, &test, text.ngram, run.data.kind.classes.len())
        }
        _ => BTreeMap::new(),
    };
    Ok(Evaluation {
        readout,
        error,
        accuracy,
        bits,
        examples: examples.len(),
        readouts: scores,
        baselines,
    }
    .by(preferred))
}

/// `−Σ ln p` of the labels by log-probabilities `(B, C)`, which have to be some.
fn surprise(scores: &Tensor, labels: &[u32], readout: &str) -> Result<f64> {
    let scores = scores.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let sums = scores.exp()?.sum(D::Minus1)?.to_vec1::<f64>()?;
    if let Some(sum) = sums
        .iter()
        .find(|sum| (**sum - 1.).abs() > 1e-3 || sum.is_nan())
    {
        let problem = format!(
            "its probabilities add up to {sum}, but it says that its scores are log-probabilities"
        );
        return Err(Error::Mismatch {
            place: format!("readout {readout}"),
            problem,
        });
    }
    Ok(-entries(&scores, labels)?.sum_all()?.to_scalar::<f64>()?)
}

impl Evaluation {
    /// The same, its result being that of the readout `preferred`.
    fn by(mut self, preferred: Option<&str>) -> Self {
        if let Some((name, score)) = preferred.and_then(|name| self.readouts.get_key_value(name)) {
            (self.readout, self.error, self.accuracy, self.bits) =
                (name.clone(), score.error, score.accuracy, score.bits);
        }
        self
    }
}

/// Means of the reports of an epoch.
#[derive(Default)]
struct Tally {
    sums: BTreeMap<usize, (Report, f64)>,
}

impl Tally {
    fn add(&mut self, reports: &[(usize, Report)]) {
        for (block, report) in reports {
            let (sum, count) = self.sums.entry(*block).or_default();
            sum.add(report, 1.);
            *count += 1.;
        }
    }

    fn means(&self) -> Vec<(usize, Report)> {
        let mean = |(block, (sum, count)): (&usize, &(Report, f64))| {
            let (loss, positive) = (sum.loss / count, sum.positive / count);
            (
                *block,
                Report {
                    loss,
                    positive,
                    negative: sum.negative.map(|negative| negative / count),
                },
            )
        };
        self.sums.iter().map(mean).collect()
    }
}

/// The most memory that this process has held, in units of 10⁶ bytes.
fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kibibytes * 1.024).round() / 1000.)
}
