//! Locality, measured: what the update of each block depends on.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Run, RunBuilder};
use crate::contract::prediction::Prediction;
use crate::contract::sampler::NegativeSampler;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::input::Input;
use crate::flow::random::{stream, unit};
use crate::flow::step::Step;
use crate::flow::views::Views;
use crate::optim::Span;
use crate::plugin::config::NO_PRESET;
use crate::plugin::source::Source;

/// What the update of every block depends on, found by experiment:
/// [`RunBuilder::certify`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The blocks, from the input on.
    pub blocks: Vec<Locality>,
    /// The most blocks that a signal crosses on its way back, heads behind the last
    /// block.
    pub crossed: usize,
    /// Whether no signal comes back to any block, and no block holds more than a layer
    /// and its classifier ([`USUAL_WITHIN`]). Certificates of older versions do not say.
    #[serde(default)]
    pub local: bool,
}

/// What the update of a block depends on, besides its own variables and its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Locality {
    /// The name of the block.
    pub block: String,
    /// The number of its weights: learned variables of at least two dimensions.
    pub weights: usize,
    /// The most of the other weights of the block that the update of one of them depends
    /// on. 1 or 2 for a layer with a classifier of its own; a whole network in one block
    /// shows here.
    pub within: usize,
    /// Blocks whose activity reaches it: those below it, and those whose change changes
    /// its goodness.
    pub activity: Vec<String>,
    /// Blocks above it and heads that change its update but not its goodness: a signal
    /// comes back from them, a gradient or a number such as their goodness.
    pub signal: Vec<String>,
    /// Blocks and heads that matter only for the views, since the sampler makes them from
    /// the prediction of the network: hard negatives, an error in the input.
    pub views: Vec<String>,
}

impl Certificate {
    /// The blocks that hold more than a layer and its classifier, as the one block of
    /// backpropagation does.
    pub fn wide(&self) -> impl Iterator<Item = &Locality> {
        let is_wide = |block: &&Locality| block.within > USUAL_WITHIN;
        self.blocks.iter().filter(is_wide)
    }
}

/// The most other weights of a block on which the update of one depends in a layer with a
/// classifier of its own: the maps of the classifier and of a similarity.
pub const USUAL_WITHIN: usize = 2;

/// The most examples of the step.
const EXAMPLES: usize = 32;

/// The random changes that are tried to find what comes through the views.
const ROUNDS: usize = 4;

impl RunBuilder {
    /// Measures what the update of each block depends on, before the training of a new
    /// run: [`Summary::locality`](crate::run::summary::Summary::locality) has the result.
    /// It takes some steps of training for each block.
    pub fn certified(mut self) -> Self {
        self.is_certified = true;
        self
    }

    /// The same run for an experiment: nothing is written or measured.
    fn for_measuring(mut self) -> Self {
        (self.out, self.team, self.is_certified) = (None, None, false);
        self
    }

    /// Measures on which other blocks the update of each block depends.
    ///
    /// The network is built again for every part: each block, each head, and the learned
    /// variables outside them. The variables of that part are changed, and all blocks
    /// take one step on the same examples with the same random numbers. Then the
    /// variables of every other block are compared bit by bit with those of a step
    /// without the change. This is done for the first and the second step of every span,
    /// and again with a prediction that never changes, which shows what comes through the
    /// views alone.
    ///
    /// What a rule says of its class does not count. One thing is taken from its reports:
    /// where a change above a block changes the goodness that the block reports, the
    /// block is taken to see the activity above it, as in a recurrent network.
    ///
    /// # Errors
    /// As [`RunBuilder::build`]; errors of the step.
    pub fn certify(self) -> Result<Certificate> {
        let device = self.device.clone();
        let first = self.for_measuring().build()?;
        let parts = Parts::of(&first);
        let mut moments: Vec<(usize, u64)> = Vec::new();
        for block in &first.architecture().net().blocks {
            let moment = match block.span() {
                Span::Epochs(epochs) => (epochs.start, 0),
                Span::Steps(steps) => (0, steps.start),
            };
            let (epoch, index) = moment;
            for moment in [moment, (epoch, index + 1)] {
                if !block.span().is_empty() && !moments.contains(&moment) {
                    moments.push(moment);
                }
            }
        }
        // The data are read once; the settings are complete, and the weights random.
        let mut table = first.config().to_table();
        for key in ["architecture", "data", "init"] {
            table.remove(key);
        }
        let origin = "the settings".into();
        let again = Run::builder(&first.config().architecture).device(&device);
        let again = again.preset(NO_PRESET).source(Source { origin, table });
        let again = again.data_set(first.data().clone());
        drop(first);
        let mut found = vec![Marks::default(); parts.blocks];
        for moment in moments {
            again.examine(moment, &parts, &mut found)?;
        }
        let names = |marks: &BTreeSet<usize>| -> Vec<String> {
            marks
                .iter()
                .map(|part| parts.names[*part].clone())
                .collect()
        };
        let blocks = found.iter().enumerate().map(|(index, marks)| Locality {
            block: parts.names[index].clone(),
            weights: parts.weights[index].len(),
            within: marks.within,
            activity: names(&marks.activity),
            signal: names(&marks.signal),
            views: names(&marks.views),
        });
        let distances = found
            .iter()
            .enumerate()
            .flat_map(|(index, marks)| marks.signal.iter().map(move |part| part.abs_diff(index)));
        let mut certificate = Certificate {
            blocks: blocks.collect(),
            crossed: distances.max().unwrap_or(0),
            local: false,
        };
        certificate.local = certificate.crossed == 0 && certificate.wide().next().is_none();
        Ok(certificate)
    }

    /// Finds what the blocks that learn at a moment depend on.
    fn examine(&self, moment: (usize, u64), parts: &Parts, found: &mut [Marks]) -> Result<()> {
        let plain = [true, false].map(|aware| self.step_with(moment, parts, None, aware));
        let [with, without] = plain;
        let (with, without) = (with?, without?);
        let learning: Vec<usize> = without.learning.clone();
        for source in 0..parts.names.len() {
            let change = |round| Some(Change::Part(source, round));
            let others = || learning.iter().copied().filter(|block| *block != source);
            let unaware = self.step_with(moment, parts, change(0), false)?;
            for block in others() {
                if unaware.variables[block] == without.variables[block] {
                    continue;
                }
                let goodness = |of: &Outcome| of.goodness.get(&block).copied();
                let is_other = goodness(&unaware) != goodness(&without);
                match source < block || is_other {
                    true => found[block].activity.insert(source),
                    false => found[block].signal.insert(source),
                };
            }
            // A view changes only if the sampler draws another class.
            for round in 0..ROUNDS {
                let aware = self.step_with(moment, parts, change(round), true)?;
                for block in others() {
                    let marks = &mut found[block];
                    let is_known =
                        marks.activity.contains(&source) || marks.signal.contains(&source);
                    if !is_known && aware.variables[block] != with.variables[block] {
                        marks.views.insert(source);
                    }
                }
            }
        }
        for &block in &learning {
            for weight in &parts.weights[block] {
                let change = Some(Change::Weight(weight));
                let changed = self.step_with(moment, parts, change, false)?;
                // The weights that this one reaches.
                for other in parts.weights[block].iter().filter(|other| *other != weight) {
                    if changed.variables[block].get(other) != without.variables[block].get(other) {
                        found[block]
                            .reached
                            .entry(other.clone())
                            .or_default()
                            .insert(weight.clone());
                    }
                }
            }
            let most = found[block].reached.values().map(BTreeSet::len).max();
            found[block].within = most.unwrap_or(0);
        }
        Ok(())
    }

    /// One step of a new network, of which some variables are changed before it.
    fn step_with(
        &self,
        (epoch, index): (usize, u64),
        parts: &Parts,
        change: Option<Change<'_>>,
        aware: bool,
    ) -> Result<Outcome> {
        let mut run = self.clone().build()?;
        // Weights that start at zero would hide what passes through them.
        for (name, var) in run.vars.learned() {
            shake(&var, "somewhere", &name)?;
        }
        match change {
            None => {}
            Some(Change::Part(part, round)) => {
                for (name, var) in variables(&run, part) {
                    if run.vars.learned().iter().any(|(known, _)| *known == name) {
                        shake(&var, &format!("elsewhere {round}"), &name)?;
                    }
                }
            }
            Some(Change::Weight(weight)) => {
                for (name, var) in run.vars.learned() {
                    if name == weight {
                        shake(&var, "elsewhere", &name)?;
                    }
                }
            }
        }
        run.vars.changed();
        let step = Step {
            seed: run.config.run.seed,
            index,
            epoch,
            epochs: run.epochs(),
            train: true,
            neutral: false,
            pass: 0,
        };
        let blocks = run.architecture.net().blocks.iter().enumerate();
        let learning = blocks.filter(|(_, block)| block.is_learning(&step));
        let learning = learning.map(|(index, _)| index).collect();
        let count = run.config.run.batch.min(EXAMPLES).min(run.data.train.len());
        let indices: Vec<usize> = (0..count).collect();
        let _pass = run.pass()?;
        let batch = run.prepare(&run.data.train.batch(&indices, None)?)?;
        let reports = match aware {
            true => run.architecture.learn(&batch, &*run.sampler, &step)?,
            false => {
                let sampler = Unaware(&*run.sampler);
                run.architecture.learn(&batch, &sampler, &step)?
            }
        };
        run.architecture.epoch_ended(&step)?;
        let mut goodness = BTreeMap::new();
        for (block, report) in &reports {
            let report = report.read()?;
            let bits = [report.positive, report.negative].map(|value| value.map(f64::to_bits));
            goodness.insert(*block, bits);
        }
        let after = |part| -> Result<Bits> {
            let all = variables(&run, part).into_iter();
            all.map(|(name, var)| Ok((name, bits(&var)?))).collect()
        };
        Ok(Outcome {
            learning,
            variables: (0..parts.blocks).map(after).collect::<Result<_>>()?,
            goodness,
        })
    }
}

/// The blocks, then the heads, then what is outside them.
struct Parts {
    names: Vec<String>,
    /// The number of blocks.
    blocks: usize,
    /// The names of the weights of each block.
    weights: Vec<Vec<String>>,
}

impl Parts {
    fn of(run: &Run) -> Self {
        let net = run.architecture().net();
        let blocks = net.blocks.len();
        let mut names: Vec<String> = net.blocks.iter().map(|block| block.name().into()).collect();
        names.extend((0..net.heads.len()).map(|head| match head {
            0 => "head".into(),
            more => format!("head {}", more + 1),
        }));
        let learned = run.vars.learned();
        let is_weight = |name: &String, var: &Var| {
            var.rank() >= 2 && learned.iter().any(|(known, _)| known == name)
        };
        let weights = |part| {
            let all = variables(run, part).into_iter();
            all.filter(|(name, var)| is_weight(name, var))
                .map(|(name, _)| name)
                .collect()
        };
        // What belongs to no block and no head.
        let in_parts: BTreeSet<String> = (0..names.len())
            .flat_map(|part| variables(run, part))
            .map(|(name, _)| name)
            .collect();
        if learned.iter().any(|(name, _)| !in_parts.contains(name)) {
            names.push("other variables".into());
        }
        Self {
            names,
            blocks,
            weights: (0..blocks).map(weights).collect(),
        }
    }
}

/// The variables of a block or, after the blocks, of a head or, after the heads, of
/// neither.
fn variables(run: &Run, part: usize) -> Vec<(String, Var)> {
    let net = run.architecture().net();
    let of_block = |part: usize| net.blocks.get(part).map(|block| block.optimiser());
    let of_head = |part: usize| {
        let head = net.heads.get(part.checked_sub(net.blocks.len())?);
        head.map(|head| head.optimiser())
    };
    if let Some(optimiser) = of_block(part).or_else(|| of_head(part)) {
        return optimiser.vars().all();
    }
    let parts = 0..net.blocks.len() + net.heads.len();
    let known: BTreeSet<String> = parts
        .filter_map(|part| of_block(part).or_else(|| of_head(part)))
        .flat_map(|optimiser| optimiser.vars().all())
        .map(|(name, _)| name)
        .collect();
    let all = run.vars.learned().into_iter();
    all.filter(|(name, _)| !known.contains(name)).collect()
}

#[derive(Clone, Copy)]
enum Change<'a> {
    /// A part, and the number of the random change.
    Part(usize, usize),
    Weight(&'a str),
}

/// The values of variables, by name.
type Bits = BTreeMap<String, Vec<u64>>;

struct Outcome {
    /// The blocks that learn at this step.
    learning: Vec<usize>,
    variables: Vec<Bits>,
    goodness: BTreeMap<usize, [Option<u64>; 2]>,
}

/// What was found for a block.
#[derive(Clone, Default)]
struct Marks {
    activity: BTreeSet<usize>,
    signal: BTreeSet<usize>,
    views: BTreeSet<usize>,
    reached: BTreeMap<String, BTreeSet<String>>,
    within: usize,
}

fn bits(var: &Var) -> Result<Vec<u64>> {
    let values = var.to_device(&candle_core::Device::Cpu)?.flatten_all()?;
    let values = values.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    Ok(values.into_iter().map(f64::to_bits).collect())
}

/// Adds random numbers to a variable, of the size of its values.
fn shake(var: &Var, purpose: &str, name: &str) -> Result<()> {
    if !var.dtype().is_float() {
        return Ok(());
    }
    let size = var
        .sqr()?
        .mean_all()?
        .to_dtype(DType::F64)?
        .to_scalar::<f64>()?
        .sqrt();
    let mut rng = stream(0, &format!("{purpose} {name}"), 0);
    let noise = (0..var.elem_count()).map(|_| ((unit(&mut rng) - 0.5) * (2. * size + 0.2)) as f32);
    let noise = Tensor::from_iter(noise, var.device())?.to_dtype(var.dtype())?;
    Ok(var.set(&(var.as_tensor() + noise.reshape(var.shape())?)?.detach())?)
}

/// A sampler that is told the same prediction whatever the network predicts.
struct Unaware<'a>(&'a dyn NegativeSampler);

impl NegativeSampler for Unaware<'_> {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        let alike = Prediction::new(|| {
            let log = prediction.log_probabilities()?;
            let classes = log.dims().last().copied().unwrap_or(1).max(1);
            Ok((log.zeros_like()?.detach() - (classes as f64).ln())?)
        });
        self.0.views(batch, &alike, step)
    }

    fn uses_labels(&self) -> bool {
        self.0.uses_labels()
    }

    fn smallest_batch(&self) -> usize {
        self.0.smallest_batch()
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.0.neutral(batch)
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        self.0.hypotheses(batch, candidates)
    }
}
