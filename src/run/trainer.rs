//! The training loop: batches, steps, events, checkpoints. It does not depend on a rule,
//! layer or data set.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::assemble::check_precision;
use super::cost::Cost;
use super::device;
use super::feed::{order, Feed};
use super::observe::metrics;
use super::observe::{Event, Observer};
use super::ranks::Decision;
use super::summary::{Evaluation, Labels, RuleUsed, Summary};
use super::tally::Tally;
use super::Run;
use crate::contract::block::StepReport;
use crate::contract::net::Readout;
use crate::contract::rule::Rule;
use crate::data::Content;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::Split;
use crate::flow::step::Step;
use crate::kernels::energy::Energy;
use crate::kernels::memory;

/// The time between two looks at the means of an epoch.
const LOOK: Duration = Duration::from_secs(1);

impl Run {
    /// Trains to the end and evaluates.
    pub(super) fn train_and_evaluate(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let started = Instant::now();
        let (first, last) = (self.step, self.epochs());
        let cost = self.train(last, observer)?;
        memory::give_back();
        let (validation, test) = rayon::scope(|_| self.final_evaluation(observer))?;
        self.chosen = Some(test.readout.clone());
        let (net, learned) = (self.architecture.net(), self.vars.learned());
        let learns = net.blocks.iter().any(|block| !block.span().is_empty());
        let settings = &self.config.run;
        // Of the first epoch perhaps a part.
        let trained = self.step.saturating_sub(first) as f64 / self.steps_per_epoch() as f64;
        let (seconds_per_epoch, trained) = match trained > 0. {
            true => (cost.seconds / trained, trained),
            false => (self.recorded_seconds(), 1.),
        };
        // Each of several ranks counts its own.
        let (multiply_adds_per_example, energy) = match self.team {
            Some(_) => (None, Energy::default()),
            None => (cost.multiply_adds_per_example(), cost.energy()),
        };
        let summary = Summary {
            architecture: self.config.architecture.clone(),
            data: settings
                .data
                .as_ref()
                .map(|data| data.name.clone())
                .unwrap_or_default(),
            seed: settings.seed,
            epochs: self.epoch,
            training_examples: self.data.train.len(),
            parameters: learned.iter().map(|(_, var)| var.elem_count()).sum(),
            seconds: started.elapsed().as_secs_f64(),
            seconds_per_epoch,
            multiply_adds_per_example,
            processor_joules_per_epoch: energy.processors.map(|joules| joules / trained),
            gpu_joules_per_epoch: energy.gpu.map(|joules| joules / trained),
            peak_memory_mb: memory::peak_mb(),
            threads: rayon::current_num_threads(),
            device: device::describe(&self.device),
            rule: Some(RuleUsed::of(self.architecture.rule())),
            locality: self.certificate.clone(),
            labels: Labels {
                blocks: learns && (self.sampler.uses_labels() || net.uses_labels()),
                heads: !net.heads.is_empty(),
            },
            validation,
            test,
            version: env!("CARGO_PKG_VERSION").into(),
            of: None,
            changes: Vec::new(),
        };
        observer.on(&Event::Finished { summary: &summary });
        Ok(summary)
    }

    /// Trains until `last` epochs are complete or `patience` runs out; returns what the
    /// steps have cost.
    ///
    /// The loop runs on a thread of the pool that does the arithmetic. Called from
    /// another thread, each of the many small operations would cost a switch of threads.
    pub(super) fn train(&mut self, last: usize, observer: &mut dyn Observer) -> Result<Cost> {
        rayon::scope(|_| {
            let epochs = self.epochs();
            let steps = self.steps_per_epoch();
            if self.data.train.is_empty() {
                let problem = "no training examples; open the run with its data";
                return Err(Error::usage("data", problem));
            }
            let precision = self.config.run.precision;
            check_precision(precision, &self.device)?;
            // Ranks without examples have no other moment to set it.
            let _held = precision.rounding().hold(&self.device)?;
            if self.epoch < last.min(epochs) && !self.has_stalled() {
                self.check_memory()?;
                self.check_ranks()?;
                self.chosen = None;
                self.mixed = None;
            }
            let blocks = self.blocks();
            let (config, epoch) = (&self.config, self.epoch);
            observer.on(&Event::Started {
                config,
                blocks: &blocks,
                epoch,
                epochs,
                steps,
                tokens: self.tokens_per_epoch(),
            });
            let mut cost = Cost::new(&self.device);
            self.stored = self.data.train.on_device(&self.device)?;
            // The same on all ranks, until rank 0 evaluates.
            let had_stalled = self.has_stalled();
            let mut goes_on = self.epoch < last.min(epochs) && !had_stalled;
            if self.is_lead() {
                self.catch_up(observer)?;
            }
            if goes_on {
                goes_on = !self.decided(self.decision())?.has_stalled;
            }
            while goes_on {
                self.train_epoch(self.epoch, &mut cost, observer)?;
                if self.is_lead() {
                    self.evaluate_epoch(observer)?;
                }
                let has_stalled = self.decided(self.decision())?.has_stalled;
                goes_on = self.epoch < last.min(epochs) && !has_stalled;
            }
            if self.has_stalled() && !had_stalled {
                self.checkpoint(observer)?; // so that a resumed run knows
            }
            Ok(cost)
        })
    }

    /// The mean time of the epochs of earlier sittings; 0 if it is not known.
    fn recorded_seconds(&self) -> f64 {
        let lines = self.folder().and_then(|folder| metrics::lines(folder).ok());
        let lines = lines.unwrap_or_default();
        let seconds: Vec<f64> = lines
            .iter()
            .filter_map(|line| line["seconds"].as_f64())
            .collect();
        seconds.iter().sum::<f64>() / seconds.len().max(1) as f64
    }

    fn tokens_per_epoch(&self) -> Option<usize> {
        let spec = &self.data.spec;
        let is_text = spec.content == Content::Text;
        is_text.then(|| self.data.train.len() * spec.positions)
    }

    /// Trains one epoch, or the rest of it.
    fn train_epoch(
        &mut self,
        epoch: usize,
        cost: &mut Cost,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let settings = self.config.run.clone();
        let (epochs, steps) = (self.epochs(), self.steps_per_epoch());
        let examples = self.data.train.len();
        let order = order(settings.seed, epoch, examples)?;
        let done = self.done_in(epoch, steps)?;
        // Within an epoch, a resumed sampler keeps what it has prepared.
        if done == 0 && self.reads_examples() {
            self.refresh_sampler(epoch)?;
        }
        // A resumed epoch adds to the means of its first part.
        if done == 0 {
            self.tally = Tally::default();
        }
        let (lap, mut looked) = (cost.begin(), Instant::now());
        let mut trained = 0;
        let feed = Feed::of(self);
        let batches = order.chunks(settings.batch.min(examples)).skip(done);
        let batches = batches.map(|indices| &indices[self.share(indices.len())]);
        let batches: Vec<&[u32]> = batches.collect();
        let mut ahead = None;
        for (place, indices) in batches.iter().enumerate() {
            let step = self.of_replica(self.step_of(epoch));
            let batch = ahead.take().unwrap_or_else(|| feed.batch(indices, &step))?;
            // What a thread of the pool has time for while the network learns.
            let next = batches.get(place + 1).filter(|_| feed.is_ahead());
            let (reports, made) = rayon::join(
                || self.architecture.learn(&batch, &*self.sampler, &step),
                || Some(feed.batch(next?, &step.next())),
            );
            ahead = made;
            let reports = reports?;
            self.tally.add(&reports)?;
            let examples = indices.len();
            trained += examples;
            observer.on(&Event::Stepped {
                step: &step,
                examples,
                reports: &reports,
            });
            self.step += 1;
            if looked.elapsed() >= LOOK {
                self.check(&self.tally.means()?)?;
                cost.look();
                looked = Instant::now();
            }
            if self.step == ((epoch + 1) * steps) as u64 {
                self.end_epoch(&step)?;
                // The end of the epoch is saved below.
                break;
            }
            let every = settings.checkpoint_every as u64;
            let stops = self.decided(self.decision())?.stops;
            if stops || every > 0 && self.step.is_multiple_of(every) {
                let own = self.tally.clone();
                self.tally = self.gather()?;
                self.checkpoint(observer)?;
                self.tally = own;
            }
            if stops {
                return Err(self.stopped());
            }
        }
        self.tally = self.gather()?;
        // On a GPU this waits for the last step.
        let reports = self.tally.means()?;
        let seconds = cost.end(lap, trained);
        self.check(&reports)?;
        self.epoch = epoch + 1;
        observer.on(&Event::EpochEnded {
            epoch: self.epoch,
            epochs,
            seconds,
            reports: &reports,
            rates: &self.rates(epoch),
        });
        self.checkpoint(observer)?;
        match self.decided(self.decision())?.stops {
            true => Err(self.stopped()),
            false => Ok(()),
        }
    }

    /// Refuses means that are not finite. On a GPU, a block does not look at its own
    /// loss.
    pub(super) fn check(&self, means: &[(usize, StepReport<f64>)]) -> Result<()> {
        for (block, report) in means {
            let values = [
                ("loss", report.loss),
                ("goodness", report.positive),
                ("goodness", report.negative),
            ];
            for (what, value) in values {
                if let Some(value) = value.filter(|value| !value.is_finite()) {
                    return Err(Error::Diverged {
                        block: self.architecture.net().blocks[*block].name().into(),
                        what,
                        value,
                        step: self.step.saturating_sub(1),
                    });
                }
            }
        }
        Ok(())
    }

    /// The next step.
    pub(super) fn step_of(&self, epoch: usize) -> Step {
        Step {
            seed: self.config.run.seed,
            index: self.step,
            epoch,
            epochs: self.epochs(),
            train: true,
            neutral: false,
            pass: 0,
        }
    }

    fn last_step_of(&self, epoch: usize) -> Step {
        Step {
            index: ((epoch + 1) * self.steps_per_epoch()) as u64 - 1,
            ..self.step_of(epoch)
        }
    }

    /// The learning rates of the last step of an epoch, with the index of each block that
    /// learned in it.
    fn rates(&self, epoch: usize) -> Vec<(usize, f64)> {
        let step = self.last_step_of(epoch);
        let blocks = self.architecture.net().blocks.iter().enumerate();
        let learning = blocks.filter(|(_, block)| block.is_learning(&step));
        learning
            .map(|(index, block)| (index, block.optimiser().rate(&step)))
            .collect()
    }

    /// The names of the blocks.
    pub(super) fn blocks(&self) -> Vec<String> {
        let blocks = self.architecture.net().blocks.iter();
        blocks.map(|block| block.name().into()).collect()
    }

    /// Reports what a stop left out about the last complete epoch: its training, unless
    /// it `has_epoch`, and its evaluation, unless it `has_evaluation`.
    pub(super) fn write_missing(
        &self,
        has_epoch: bool,
        has_evaluation: bool,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (epoch, steps) = (self.epoch, self.steps_per_epoch());
        if epoch == 0 || self.step != (epoch * steps) as u64 {
            return Ok(());
        }
        let reports = &self.tally.means()?;
        if !has_epoch && !reports.is_empty() {
            observer.on(&Event::EpochEnded {
                epoch,
                epochs: self.epochs(),
                seconds: f64::NAN, // lost with the stop
                reports,
                rates: &self.rates(epoch - 1),
            });
        }
        if !has_evaluation {
            rayon::scope(|_| self.evaluate_after(epoch, observer))?;
        }
        Ok(())
    }

    /// The number of steps already taken in an epoch, in which the run may have been
    /// stopped.
    pub(super) fn done_in(&self, epoch: usize, steps: usize) -> Result<usize> {
        let done = self.step.checked_sub((epoch * steps) as u64);
        match done.filter(|&done| done <= steps as u64) {
            Some(done) => Ok(done as usize),
            None => {
                let (step, epoch) = (self.step, epoch + 1);
                let problem = format!(
                    "step {step} is not in epoch {epoch} of {steps} steps; \
                     resume with the same data and `batch`"
                );
                Err(Error::usage("checkpoint", problem))
            }
        }
    }

    /// Lets the sampler prepare an epoch from the network's own predictions, if a block
    /// learns from its views in this epoch.
    pub(super) fn refresh_sampler(&self, epoch: usize) -> Result<()> {
        let (step, net) = (self.step_of(epoch), self.architecture.net());
        let is_baseline = self.architecture.rule() == Rule::Backpropagation;
        if is_baseline || !net.learns_in_epoch_of(&self.last_step_of(epoch)) {
            return Ok(());
        }
        let readout = net.readouts.iter().find(|readout| readout.cheap);
        let predict = |batch: &Batch| {
            self.stop_if_asked()?;
            if !self.is_lead() {
                let problem = "the sampler asks for the network's prediction before an epoch, \
                               which only rank 0 has; use one replica";
                return Err(Error::unfit("sampler", problem));
            }
            let readout = readout.ok_or_else(|| {
                let problem = "the sampler needs the network's prediction, but the \
                               network has no cheap readout, such as a head";
                Error::unfit("sampler", problem)
            })?;
            let batch = self.prepare(batch)?.hidden();
            let evaluation = Step::evaluation(step.seed);
            self.architecture
                .scores(&batch, &*self.sampler, readout, &evaluation)
        };
        self.sampler.refresh(&*self.data.train, &predict, &step)
    }

    /// Evaluates the validation part, chooses the readout by it, and evaluates the test
    /// part once; also some training examples if that is set.
    fn final_evaluation(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<(Option<Evaluation>, Evaluation)> {
        let validation = match self.data.validation.is_empty() {
            true => None,
            false => Some(self.evaluate_and_mix()?),
        };
        let readouts = self.architecture.net().readouts.iter().copied();
        let begun: Vec<Readout> = readouts.filter(|one| one.has_begun(self.epoch)).collect();
        let training = match self.config.run.evaluate_training {
            0 => None,
            most => Some(self.evaluate_some(most, &begun)?),
        };
        let best = || validation.as_ref().and_then(Evaluation::best);
        let preferred = self.config.run.readout.clone().or_else(best);
        let validation = match (validation, &preferred) {
            (Some(evaluation), Some(preferred)) => Some(evaluation.by(preferred)),
            (evaluation, _) => evaluation,
        };
        let test = self.evaluate(Split::Test, preferred.as_deref())?;
        let parts = [
            (Split::Train, training.as_ref()),
            (Split::Validation, validation.as_ref()),
            (Split::Test, Some(&test)),
        ];
        for (split, evaluation) in parts {
            if let Some(evaluation) = evaluation {
                observer.on(&Event::Evaluated {
                    epoch: self.epoch,
                    split,
                    evaluation,
                });
            }
        }
        Ok((validation, test))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns [`Error::Stopped`] if the run was asked to stop. Unsaved work is repeated
    /// when the run is resumed.
    pub(super) fn stop_if_asked(&self) -> Result<()> {
        match self.is_stopped() {
            true => Err(self.stopped()),
            false => Ok(()),
        }
    }

    fn stopped(&self) -> Error {
        Error::Stopped {
            step: self.step,
            folder: self.folder().map(PathBuf::from),
        }
    }

    fn decision(&self) -> Decision {
        Decision {
            stops: self.is_stopped(),
            has_stalled: self.has_stalled(),
        }
    }

    /// Tells the levels of this rank that an epoch has ended.
    fn end_epoch(&mut self, step: &Step) -> Result<()> {
        match (&self.team, self.architecture.staged()) {
            (Some(_), Some(staged)) => staged.epoch_ended(step),
            _ => self.architecture.epoch_ended(step),
        }
    }

    /// Saves the run, if it has a folder.
    fn checkpoint(&self, observer: &mut dyn Observer) -> Result<()> {
        let Some(folder) = self.folder() else {
            return Ok(());
        };
        self.save(folder)?;
        observer.on(&Event::Saved { folder });
        Ok(())
    }
}
