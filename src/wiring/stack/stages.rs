//! A stack whose levels are on several ranks.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};

use super::{Kept, Stack};
use crate::comm::{Averager, Message, Team};
use crate::contract::block::Block;
use crate::contract::head::Head;
use crate::contract::prediction::Prediction;
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::contract::staged::{Cost, Measured, Staged};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::input::Input;
use crate::flow::sampled_classes::SampledClasses;
use crate::flow::step::Step;
use crate::flow::views::{Role, Targets};
use crate::optim::Optimiser;

/// What goes up through the levels, and from one rank to the next.
#[derive(Default)]
pub(super) struct Passing {
    /// The labels, if the head learns.
    pub labels: Option<Vec<u32>>,
    /// The classes that the step compares, if it does not compare all.
    pub sampled: Option<Arc<SampledClasses>>,
    /// The neutral view, if the head learns, up to the last level that is read out.
    pub neutral: Option<Way>,
    /// The inputs of the head from the levels that it has passed.
    pub features: Vec<Input>,
    /// The views, if a level learns.
    pub views: Option<(Way, Targets)>,
}

/// Views on their way up: the input of the next level.
pub(super) struct Way {
    pub input: Input,
    pub kept: Kept,
}

impl From<Input> for Way {
    fn from(input: Input) -> Self {
        Self {
            input,
            kept: Kept::default(),
        }
    }
}

impl Stack {
    /// The levels of this rank.
    pub(super) fn own_levels(&self) -> Range<usize> {
        match &self.team {
            Some(team) => team.levels(),
            None => 0..self.net.blocks.len(),
        }
    }

    /// The ranks, if there is a stage below.
    pub(super) fn below(&self) -> Option<&Team> {
        self.team.as_ref().filter(|team| !team.is_first())
    }

    /// The ranks, if there is a stage above.
    pub(super) fn above(&self) -> Option<&Team> {
        self.team.as_ref().filter(|team| !team.is_last())
    }

    /// The ranks, if there are several replicas.
    pub(super) fn replicas(&self) -> Option<&Team> {
        self.team.as_ref().filter(|team| team.replicas() > 1)
    }

    /// Tells the optimisers how many examples this replica has in this step, and returns
    /// it.
    pub(super) fn count_rows(&mut self, passing: &Passing) -> usize {
        let of_views = passing.views.as_ref().map(|(way, _)| way.input.batch());
        let of_head = passing.features.first().map(Input::batch);
        let rows = of_views.or(of_head).unwrap_or_default();
        let Some(averager) = self.averager.clone() else {
            return rows;
        };
        let own = self.own_levels();
        for block in &mut self.net.blocks[own] {
            block.optimiser_mut().average_over(&averager, rows);
        }
        for head in &mut self.net.heads {
            head.optimiser_mut().average_over(&averager, rows);
        }
        rows
    }

    /// Averages what the levels that learn change without a gradient, such as running
    /// means, over the replicas, each with its `rows`. One that changed nothing, as
    /// with a single example under batch normalisation, does not count.
    pub(super) fn average_buffers(
        &mut self,
        before: &[Tensor],
        rows: usize,
        step: &Step,
    ) -> Result<()> {
        let Some(team) = self.replicas().cloned() else {
            return Ok(());
        };
        let buffers = self.learning_buffers(step);
        for (buffer, before) in buffers.iter().zip(before) {
            // The mean of the changes leaves those as they are that never change.
            let change = (buffer.as_tensor() - before)?;
            let rows = if is_zero(&change)? { 0 } else { rows };
            let change = team.mean(&change, rows)?;
            buffer.set(&(before + change)?)?;
        }
        if let Some(optimiser) = self.own_optimisers().next() {
            optimiser.vars().changed();
        }
        Ok(())
    }

    /// The values of these buffers before a step, if there are several replicas.
    pub(super) fn buffers_before(&mut self, step: &Step) -> Result<Vec<Tensor>> {
        if self.replicas().is_none() {
            return Ok(Vec::new());
        }
        let buffers = self.learning_buffers(step);
        let copies = buffers.iter().map(|buffer| Ok(buffer.copy()?.detach()));
        copies.collect()
    }

    fn learning_buffers(&mut self, step: &Step) -> Vec<Var> {
        let learning = self.own_optimisers();
        let learning = learning.filter(|optimiser| optimiser.span().contains(step));
        learning
            .flat_map(|optimiser| optimiser.vars().buffers())
            .map(|(_, buffer)| buffer)
            .collect()
    }

    /// The optimisers of this rank.
    pub(super) fn own_optimisers(&mut self) -> impl Iterator<Item = &mut Optimiser> {
        let (own, is_last) = (self.own_levels(), self.above().is_none());
        let blocks = self.net.blocks[own].iter_mut();
        let heads = self.net.heads.iter_mut().filter(move |_| is_last);
        let blocks = blocks.map(Block::optimiser_mut);
        blocks.chain(heads.map(Head::optimiser_mut))
    }

    /// What the levels from `end` on need in this step.
    pub(super) fn message(&self, passing: &Passing, end: usize, step: &Step) -> Result<Message> {
        let mut message = Message::default();
        message.put("labels", &passing.labels);
        for (index, features) in passing.features.iter().enumerate() {
            message.put_input(&format!("features.{index}"), features)?;
        }
        let neutral = passing.neutral.as_ref();
        if let Some(neutral) = neutral.filter(|_| end < self.readout.end) {
            let is_feature = self.readout.contains(&(end - 1)) && !self.has_shortcut(end);
            put_way(&mut message, "neutral", neutral, !is_feature)?;
        }
        if let Some((views, targets)) = &passing.views {
            if end < self.learning(step) {
                put_way(&mut message, "views", views, true)?;
                put_targets(&mut message, targets);
            }
        }
        Ok(message)
    }

    /// What the level below has sent for this step.
    pub(super) fn received(&self, team: &Team) -> Result<Passing> {
        let message = team.receive_from_below()?;
        let vars = self.net.blocks[0].optimiser().vars();
        let (dtype, device) = (vars.dtype(), vars.device());
        let mut passing = Passing {
            labels: message.note("labels")?.flatten(),
            ..Passing::default()
        };
        let of_level = |index: usize| message.input(&format!("features.{index}"), dtype, &device);
        while let Some(features) = of_level(passing.features.len())? {
            passing.features.push(features);
        }
        let last = passing.features.last();
        passing.neutral = way(&message, "neutral", last, dtype, &device)?;
        if let Some(views) = way(&message, "views", None, dtype, &device)? {
            passing.views = Some((views, targets(&message)?));
        }
        Ok(passing)
    }
}

/// Adds views on their way up; without their input where the head has it already.
fn put_way(message: &mut Message, name: &str, way: &Way, with_input: bool) -> Result<()> {
    if with_input {
        message.put_input(name, &way.input)?;
    }
    let levels: Vec<usize> = way.kept.0.keys().copied().collect();
    message.put(&format!("{name}.kept"), &levels);
    for (level, activity) in &way.kept.0 {
        let key = format!("{name}.kept.{level}");
        message.tensors.insert(key, activity.clone());
    }
    Ok(())
}

/// The views of this name, if any are in the message. `last` is their input if that is
/// left out.
fn way(
    message: &Message,
    name: &str,
    last: Option<&Input>,
    dtype: DType,
    device: &Device,
) -> Result<Option<Way>> {
    let levels: Option<Vec<usize>> = message.note(&format!("{name}.kept"))?;
    let Some(levels) = levels else {
        return Ok(None);
    };
    let sent = message.input(name, dtype, device)?;
    let Some(input) = sent.or_else(|| last.cloned()) else {
        return Ok(None);
    };
    let mut way = Way::from(input);
    for level in levels {
        let activity = message.tensors.get(&format!("{name}.kept.{level}"));
        if let Some(activity) = activity {
            let activity = activity.to_dtype(dtype)?.to_device(device)?;
            way.kept.0.insert(level, activity);
        }
    }
    Ok(Some(way))
}

fn is_zero(tensor: &Tensor) -> Result<bool> {
    let numbers = tensor.flatten_all()?.to_device(&Device::Cpu)?;
    let numbers = numbers.to_dtype(DType::F64)?;
    Ok(numbers.to_vec1::<f64>()?.iter().all(|number| *number == 0.))
}

fn put_targets(message: &mut Message, targets: &Targets) {
    let roles: Vec<bool> = targets
        .roles()
        .iter()
        .map(|role| *role == Role::Positive)
        .collect();
    message.put("roles", &roles);
    message.put("targets", &targets.labels().ok());
    message.put("tell_label", &targets.tell_label());
}

fn targets(message: &Message) -> Result<Targets> {
    let roles: Vec<bool> = message.note("roles")?.unwrap_or_default();
    let roles = roles.into_iter().map(|is_positive| match is_positive {
        true => Role::Positive,
        false => Role::Negative,
    });
    let labels: Option<Vec<u32>> = message.note("targets")?.flatten();
    let targets = Targets::new(roles.collect())?.with_labels(labels);
    Ok(match message.note("tell_label")? {
        Some(true) => targets.that_tell_label(),
        _ => targets,
    })
}

/// The error of a sampler that asks for the network's prediction in the first stage.
pub(crate) fn no_prediction_below() -> Error {
    let problem = "the sampler draws from the network's own prediction, which the last stage \
                   would have to send back; choose negatives without it, such as `--set \
                   sampler.negatives=uniform`, or one stage";
    Error::unfit("stages", problem)
}

impl Staged for Stack {
    fn levels(&self) -> usize {
        self.net.blocks.len()
    }

    fn join(&mut self, team: Team) -> Result<()> {
        let (levels, end) = (self.levels(), team.levels_of(team.stages() - 1).end);
        if end != levels {
            let problem = format!("expected stages of {levels} levels, found {team:?}");
            return Err(Error::unfit("stages", problem));
        }
        if team.replicas() > 1 {
            self.check_replicas()?;
            self.averager = Some(Averager::start(team.clone()));
        }
        self.team = Some(team);
        Ok(())
    }

    fn check_replicas(&self) -> Result<()> {
        let refused = |what: String| {
            let problem = format!("{what} is not averaged over replicas; use one replica");
            Err(Error::unfit("replicas", problem))
        };
        let follows_gradient = |rule: &Rule| {
            matches!(
                rule,
                Rule::Contrast | Rule::LocalClassifier | Rule::SecondPass | Rule::Frozen
            )
        };
        let mut rules = self.net.blocks.iter().map(Block::rule);
        if let Some(rule) = rules.find(|rule| !follows_gradient(rule)) {
            return refused(format!("a rule of the class {:?}", rule.word()));
        }
        match self.net.heads.iter().any(Head::is_solved) {
            true => refused("a head that is solved for (`head_rule = ridge`)".into()),
            false => Ok(()),
        }
    }

    fn settle(&mut self) -> Result<()> {
        self.own_optimisers().try_for_each(Optimiser::settle)
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        let (own, is_last) = (self.own_levels(), self.above().is_none());
        self.net.epoch_ended_of(own, is_last, step)
    }

    fn measure(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Measured> {
        let mut passing = self.neutral(batch, sampler, step)?;
        let is_asked = Cell::new(false);
        let alike = Prediction::new(|| {
            is_asked.set(true);
            let vars = self.net.blocks[0].optimiser().vars();
            let shape = (batch.size(), self.labels);
            Ok(Tensor::zeros(shape, vars.dtype(), &vars.device())?)
        });
        passing.views = self.views(batch, sampler, &alike, step)?;
        drop(alike);
        self.sample(&mut passing, step)?;
        let mut levels = Vec::with_capacity(self.levels());
        for index in 0..self.levels() {
            let begun = Instant::now();
            self.pass_neutral(&mut passing, index..index + 1, step)?;
            self.learn_levels(&mut passing, index..index + 1, &step.pass(1))?;
            let time = begun.elapsed();
            let learned = self.net.blocks[index].optimiser().vars().learned();
            levels.push(Cost {
                time,
                bytes: match index + 1 < self.levels() {
                    true => self.message(&passing, index + 1, step)?.size(),
                    false => 0,
                },
                parameters: learned.iter().map(|(_, var)| var.elem_count() as u64).sum(),
                learns: self.net.blocks[index].is_learning(step),
            });
        }
        let begun = Instant::now();
        let read = self.read_head(&passing)?;
        self.learn_head(&passing, read.as_ref(), step)?;
        if let Some(last) = levels.last_mut() {
            last.time += begun.elapsed();
        }
        Ok(Measured {
            levels,
            needs_prediction: is_asked.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_reach_the_next_stage_as_they_are() -> Result<()> {
        let sent = Targets::new(vec![Role::Positive, Role::Negative])?;
        let labelled = sent.clone().with_labels(Some(vec![3, 1]));
        for sent in [labelled.that_tell_label(), sent] {
            let mut message = Message::default();
            put_targets(&mut message, &sent);
            let found = targets(&message)?;
            assert_eq!(format!("{found:?}"), format!("{sent:?}"));
        }
        Ok(())
    }
}
