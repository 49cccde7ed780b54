//! A stack whose levels are on several ranks.

use std::ops::Range;
use std::time::Instant;

use candle_core::{DType, Device};

use super::{Kept, Stack};
use crate::comm::{Message, Team};
use crate::contract::block::Block;
use crate::contract::head::Head;
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::contract::staged::{Cost, Staged};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::{Role, Targets};
use crate::optim::Optimiser;

/// What goes up through the levels, and from one rank to the next.
#[derive(Default)]
pub(super) struct Passing {
    /// The labels, if the head learns.
    pub labels: Option<Vec<u32>>,
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

    /// Tells the optimisers how many examples this replica has in this step.
    pub(super) fn count_rows(&mut self, passing: &Passing) {
        let Some(team) = self.replicas().cloned() else {
            return;
        };
        let of_views = passing.views.as_ref().map(|(way, _)| way.input.batch());
        let of_head = passing.features.first().map(Input::batch);
        let rows = of_views.or(of_head).unwrap_or_default();
        for optimiser in self.own_optimisers() {
            optimiser.average_over(&team, rows);
        }
    }

    /// Averages running means and the like over the replicas.
    pub(super) fn average_statistics(&mut self) -> Result<()> {
        let Some(team) = self.replicas().cloned() else {
            return Ok(());
        };
        for optimiser in self.own_optimisers() {
            for (_, var) in optimiser.vars().statistics() {
                var.set(&team.mean(&var, 1)?)?;
                optimiser.vars().changed();
            }
        }
        Ok(())
    }

    /// The optimisers of this rank.
    fn own_optimisers(&mut self) -> impl Iterator<Item = &mut Optimiser> {
        let (own, is_last) = (self.own_levels(), self.above().is_none());
        let blocks = self.net.blocks[own].iter_mut();
        let heads = self.net.heads.iter_mut().filter(move |_| is_last);
        let blocks = blocks.map(Block::optimiser_mut);
        blocks.chain(heads.map(Head::optimiser_mut))
    }

    /// Sends what the levels above need in this step.
    pub(super) fn send(&self, passing: &Passing, team: &Team, step: &Step) -> Result<()> {
        let end = team.levels().end;
        let mut message = Message::default();
        message.put("labels", &passing.labels);
        for (index, features) in passing.features.iter().enumerate() {
            message.put_input(&format!("features.{index}"), features)?;
        }
        if let Some(neutral) = passing.neutral.as_ref().filter(|_| end < self.readout.end) {
            put_way(&mut message, "neutral", neutral)?;
        }
        if let Some((views, targets)) = &passing.views {
            if end < self.learning(step) {
                put_way(&mut message, "views", views)?;
                put_targets(&mut message, targets);
            }
        }
        team.send_up(&message)
    }

    /// What the level below has sent for this step.
    pub(super) fn received(&self, team: &Team) -> Result<Passing> {
        let message = team.receive_from_below()?;
        let vars = self.net.blocks[0].optimiser().vars();
        let (dtype, device) = (vars.dtype(), vars.device());
        let mut passing = Passing {
            labels: message.note("labels")?.flatten(),
            neutral: way(&message, "neutral", dtype, &device)?,
            ..Passing::default()
        };
        let of_level = |index: usize| message.input(&format!("features.{index}"), dtype, &device);
        while let Some(features) = of_level(passing.features.len())? {
            passing.features.push(features);
        }
        if let Some(views) = way(&message, "views", dtype, &device)? {
            passing.views = Some((views, targets(&message)?));
        }
        Ok(passing)
    }
}

fn put_way(message: &mut Message, name: &str, way: &Way) -> Result<()> {
    message.put_input(name, &way.input)?;
    let levels: Vec<usize> = way.kept.0.keys().copied().collect();
    message.put(&format!("{name}.kept"), &levels);
    for (level, activity) in &way.kept.0 {
        let key = format!("{name}.kept.{level}");
        message.tensors.insert(key, activity.clone());
    }
    Ok(())
}

fn way(message: &Message, name: &str, dtype: DType, device: &Device) -> Result<Option<Way>> {
    let Some(input) = message.input(name, dtype, device)? else {
        return Ok(None);
    };
    let mut way = Way::from(input);
    let levels: Option<Vec<usize>> = message.note(&format!("{name}.kept"))?;
    for level in levels.unwrap_or_default() {
        let activity = message.tensors.get(&format!("{name}.kept.{level}"));
        if let Some(activity) = activity {
            let activity = activity.to_dtype(dtype)?.to_device(device)?;
            way.kept.0.insert(level, activity);
        }
    }
    Ok(Some(way))
}

fn put_targets(message: &mut Message, targets: &Targets) {
    let roles: Vec<bool> = targets
        .roles()
        .iter()
        .map(|role| *role == Role::Positive)
        .collect();
    message.put("roles", &roles);
    message.put("targets", &targets.labels().ok());
}

fn targets(message: &Message) -> Result<Targets> {
    let roles: Vec<bool> = message.note("roles")?.unwrap_or_default();
    let roles = roles.into_iter().map(|is_positive| match is_positive {
        true => Role::Positive,
        false => Role::Negative,
    });
    let labels: Option<Vec<u32>> = message.note("targets")?.flatten();
    Ok(Targets::new(roles.collect())?.with_labels(labels))
}

/// The error of a sampler that asks for the network's prediction in the first stage.
pub(super) fn no_prediction_below() -> Error {
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
        let mut rules = self.net.blocks.iter().map(Block::rule);
        let averages = |rule: &Rule| {
            matches!(
                rule,
                Rule::Contrast | Rule::LocalClassifier | Rule::SecondPass | Rule::Frozen
            )
        };
        if let Some(rule) = rules.find(|rule| team.replicas() > 1 && !averages(rule)) {
            let problem = format!(
                "cannot be averaged over replicas for a rule of the class {:?}, which follows no \
                 gradient; use one replica",
                rule.word()
            );
            return Err(Error::unfit("replicas", problem));
        }
        self.team = Some(team);
        Ok(())
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        let (own, is_last) = (self.own_levels(), self.above().is_none());
        for block in &mut self.net.blocks[own] {
            if block.is_learning(step) {
                block.epoch_ended(step)?;
            }
        }
        for head in self.net.heads.iter_mut().filter(|_| is_last) {
            if head.is_learning(step) {
                head.epoch_ended()?;
            }
        }
        Ok(())
    }

    fn measure(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Cost>> {
        let mut costs = Vec::with_capacity(self.levels());
        let mut passing = self.neutral(batch, sampler, step)?;
        for index in 0..self.levels() {
            let begun = Instant::now();
            self.pass_neutral(&mut passing, index..index + 1, step)?;
            costs.push(Cost {
                time: begun.elapsed(),
                ..Cost::default()
            });
        }
        let log = match passing.labels {
            Some(_) => Some(self.log_probabilities(&passing)?),
            None => None,
        };
        passing.views = self.views(batch, sampler, log.as_ref(), step)?;
        for (index, cost) in costs.iter_mut().enumerate() {
            let begun = Instant::now();
            self.learn_levels(&mut passing, index..index + 1, &step.pass(1))?;
            cost.time += begun.elapsed();
            cost.bytes = passing
                .views
                .as_ref()
                .map_or(0, |(way, _)| bytes(&way.input));
            if index + 1 < self.readout.end && passing.neutral.is_some() {
                // The neutral view is one more view of the same examples.
                let views = passing.views.as_ref();
                let views = views.map_or(1, |(way, _)| way.input.views().max(1));
                cost.bytes += cost.bytes / views as u64;
            }
            let learned = self.net.blocks[index].optimiser().vars().learned();
            let learned = learned.iter().map(|(_, var)| var.elem_count() as u64);
            cost.parameters = learned.sum();
        }
        let begun = Instant::now();
        self.learn_head(&passing, log.as_ref(), step)?;
        if let Some(last) = costs.last_mut() {
            last.time += begun.elapsed();
        }
        Ok(costs)
    }
}

fn bytes(input: &Input) -> u64 {
    let number = input.dtype_and_device().0.size_in_bytes();
    (input.rows() * input.width() * number) as u64
}
