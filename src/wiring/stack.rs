//! Layers one upon the other: the wiring that several architectures share.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

#[cfg(doc)]
use crate::contract::architecture::Architecture;
use crate::contract::block::{Block, Objective, Report};
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::head::Head;
use crate::contract::layer::LocalLayer;
use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::input::{Input, Normalise};
use crate::flow::step::Step;
use crate::optim::{Optimiser, OptimiserSpec};
use crate::plugin::registry;
use crate::settings::Pick;

/// One level of a [`Stack`].
#[derive(Clone)]
pub struct Level {
    /// How wide its layer is asked to be.
    pub units: usize,
    /// Its layer.
    pub layer: Pick<dyn LocalLayer>,
    /// Its goodness.
    pub goodness: Pick<dyn GoodnessFn>,
    /// What it minimises.
    pub objective: Objective,
    /// How its gradients become updates.
    pub descent: OptimiserSpec,
    /// The epochs in which it learns.
    pub span: Range<usize>,
}

/// Layers one upon the other, each learning from the normalised activity of the one below, and a head upon them.
///
/// Layer `l` sees `xₗ = norm(aₗ₋₁)`, `x₁ = norm(input)`, for every view; its activity is `aₗ`, its goodness `gₗ`.
/// Nothing else passes between layers. The head, if there is one, is a softmax over the normalised activities of the
/// neutral input, `log softmax(Σₗ norm(aₗ)·Wₗ)`. All views of a step see the weights from before the step.
pub struct Stack {
    /// The levels, from the input on.
    pub blocks: Vec<Block>,
    /// The head: one, or none.
    pub heads: Vec<Head>,
    normalise: Normalise,
    readout: Range<usize>,
    features: usize,
}

impl Stack {
    /// Builds the levels at `context`, from the input on; `example` is an input of one row, to find the shapes with. What
    /// is read out are the levels of `readout`, counted from 0.
    ///
    /// # Errors
    /// As [`registry::build`]; whatever a layer says of the input that it gets; [`Error::Mismatch`] if some levels that
    /// are read out have a goodness for each class and others have not.
    pub fn new(
        context: &BuildContext,
        example: Input,
        normalise: Normalise,
        levels: &[Level],
        readout: Range<usize>,
    ) -> Result<Self> {
        let mut stack = Self {
            blocks: Vec::new(),
            heads: Vec::new(),
            normalise,
            readout,
            features: 0,
        };
        let mut input = example.normalised(normalise)?;
        for (index, level) in levels.iter().enumerate() {
            let place = context
                .scope("blocks")
                .scope(index)
                .with_input(input.shape())
                .with_units(level.units);
            let layer = registry::build(&level.layer, &place.scope("layer"))?;
            let activity = layer.forward(&input, &Step::evaluation(context.seed))?;
            let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
            let goodness = registry::build(&level.goodness, &of_goodness)?;
            let optimiser = Optimiser::new(place.vars.clone(), level.descent, level.span.clone());
            let block = Block::new(
                (index + 1).to_string(),
                layer,
                goodness,
                level.objective,
                normalise,
                optimiser,
            );
            input = block.pass_on(&activity, 1)?;
            if stack.readout.contains(&index) {
                stack.features += input.width();
            }
            stack.blocks.push(block);
        }
        let columns: Vec<_> = stack.blocks[stack.readout.clone()]
            .iter()
            .map(Block::classes)
            .collect();
        if columns.windows(2).any(|pair| pair[0] != pair[1]) {
            let problem = "the goodness of some layers has a column for each class, that of others has one value; \
                           what is read out is their sum, so they have to be alike";
            return Err(Error::Mismatch {
                place: "goodness".into(),
                problem: problem.into(),
            });
        }
        Ok(stack)
    }

    /// Puts a head upon the levels that are read out, at `context`. It learns in all epochs of theirs; or, as a probe, in so
    /// many epochs after theirs, if that is not 0.
    ///
    /// # Errors
    /// As [`Head::new`].
    pub fn with_head(
        mut self,
        context: &BuildContext,
        descent: OptimiserSpec,
        probe_epochs: usize,
    ) -> Result<Self> {
        let span = match (self.epochs(), probe_epochs) {
            (epochs, 0) => 0..epochs.max(context.epochs),
            (epochs, more) => epochs..epochs + more,
        };
        self.heads = vec![Head::new(
            &context.scope("head").vars,
            self.features,
            context.classes,
            descent,
            span,
        )?];
        Ok(self)
    }

    /// How many epochs there are in all: up to the end of the last span, of levels and head.
    pub fn epochs(&self) -> usize {
        let heads = self.heads.iter().map(|head| head.optimiser().span().end);
        self.blocks
            .iter()
            .map(|block| block.span().end)
            .chain(heads)
            .max()
            .unwrap_or(0)
    }

    /// How many columns the goodness of the levels that are read out has, if one for each class.
    pub fn classes(&self) -> Option<usize> {
        self.blocks[self.readout.clone()]
            .last()
            .and_then(Block::classes)
    }

    /// What the head sees of the neutral view: normalised activities of the levels that are read out, side by side.
    ///
    /// # Errors
    /// Whatever a layer refuses.
    pub fn features(&self, neutral: Input, step: &Step) -> Result<Input> {
        let mut input = neutral.normalised(self.normalise)?;
        let mut features = Vec::with_capacity(self.readout.len());
        for (index, block) in self.blocks.iter().enumerate().take(self.readout.end) {
            // A level that no longer learns is as it will be found later, for a probe upon it, say.
            let step = Step {
                train: step.train && block.is_learning(step),
                ..*step
            };
            input = block.pass_on(&block.forward(&input, &step)?, input.views())?;
            if self.readout.contains(&index) {
                features.push(input.clone());
            }
        }
        Input::beside(&features)
    }

    /// The goodness of an input, summed over the levels that are read out: `(V·B,)`, or `(V·B, C)`.
    ///
    /// # Errors
    /// Whatever a layer or goodness refuses.
    pub fn goodness(&self, input: Input, step: &Step) -> Result<Tensor> {
        self.sum(input, step, Block::goodness)
    }

    /// The log-odds of an input being positive, summed over the levels that are read out: `(V·B,)`, or `(V·B, C)`.
    ///
    /// # Errors
    /// Whatever a layer or goodness refuses.
    pub fn log_odds(&self, input: Input, step: &Step) -> Result<Tensor> {
        self.sum(input, step, Block::log_odds)
    }

    /// The sum of something of every level that is read out; one activity at a time is kept.
    fn sum(
        &self,
        input: Input,
        step: &Step,
        of: impl Fn(&Block, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut input = input.normalised(self.normalise)?;
        let mut sum: Option<Tensor> = None;
        for (index, block) in self.blocks.iter().enumerate().take(self.readout.end) {
            let activity = block.forward(&input, step)?;
            if index + 1 < self.readout.end {
                input = block.pass_on(&activity, input.views())?;
            }
            if self.readout.contains(&index) {
                let value = of(block, &activity)?;
                sum = Some(match sum {
                    None => value,
                    Some(sum) => (sum + value)?,
                });
            }
        }
        sum.ok_or_else(|| Error::Mismatch {
            place: "stack".into(),
            problem: "no level is read out".into(),
        })
    }

    /// Log-probabilities by the head, `(B, C)`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there is no head; whatever a layer refuses.
    pub fn head(&self, neutral: Input, step: &Step) -> Result<Tensor> {
        let head = self.heads.first().ok_or_else(no_head)?;
        head.log_probabilities(&self.features(neutral, step)?)
    }

    /// One step of all levels that learn in this epoch, and of the head, as [`Architecture::learn`] asks for it. The
    /// sampler gets the head's prediction of the neutral view where it wants the network's own.
    ///
    /// # Errors
    /// As [`Architecture::learn`].
    pub fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        let mut neutral: Option<(Input, Tensor)> = None;
        // Before it learns, a head has nothing to say.
        if let Some(head) = self
            .heads
            .first()
            .filter(|head| step.epoch >= head.optimiser().span().start)
        {
            let features = self.features(sampler.neutral(batch)?, step)?;
            let log = head.log_probabilities(&features)?;
            neutral = Some((features, log));
        }
        let is_probe = !self.heads.is_empty();
        let none = || {
            if is_probe {
                no_prediction_yet()
            } else {
                no_head()
            }
        };
        let mut predict = || {
            neutral
                .as_ref()
                .map(|(_, log)| log.clone())
                .ok_or_else(none)
        };
        let mut learned = Vec::new();
        // Epochs in which only the head learns need no views.
        if let Some(last) = self
            .blocks
            .iter()
            .rposition(|block| block.is_learning(step))
        {
            let mut views = sampler.views(&batch.shown_to(sampler), &mut predict, step)?;
            views.input = views.input.normalised(self.normalise)?;
            let mut input = views.input.clone();
            let step = &step.pass(1);
            // Nobody's lesson depends on what another one learns, so several learn side by side; not all, so that memory
            // does not grow with the depth.
            for levels in self.blocks[..=last].chunks_mut(rayon::current_num_threads()) {
                let mut lessons = Vec::with_capacity(levels.len());
                for block in levels.iter() {
                    let is_learning = block.is_learning(step);
                    let activity = block.forward(
                        &input,
                        &Step {
                            train: is_learning,
                            ..*step
                        },
                    )?;
                    let is_last = learned.len() + lessons.len() == last;
                    let above = if is_last {
                        input.clone()
                    } else {
                        block.pass_on(&activity, input.views())?
                    };
                    lessons.push(is_learning.then_some((input, activity)));
                    input = above;
                }
                let learn = |(block, lesson): (&mut Block, Option<(Input, Tensor)>)| -> Option<Result<Report>> {
                    lesson.map(|(input, activity)| block.learn(&input, &activity, &views, step))
                };
                let reports: Vec<_> = levels.par_iter_mut().zip(lessons).map(learn).collect();
                for report in reports {
                    learned.push(report.transpose()?);
                }
            }
        }
        let head = self
            .heads
            .first_mut()
            .filter(|head| head.optimiser().span().contains(&step.epoch));
        if let (Some(head), Some((features, log))) = (head, &neutral) {
            head.learn(features, log, batch.labels()?, step)?;
        }
        Ok(learned
            .into_iter()
            .enumerate()
            .filter_map(|(index, report)| Some((index, report?)))
            .collect())
    }
}

fn no_prediction_yet() -> Error {
    Error::Mismatch {
        place: "stack of layers".into(),
        problem:
            "the network's own prediction is asked for, but its head is a probe that learns after the layers; set \
                  `probe_epochs = 0`, or choose a sampler that asks for none"
                .into(),
    }
}

fn no_head() -> Error {
    Error::Mismatch {
        place: "stack of layers".into(),
        problem: "the network's own prediction is asked for; set `head = true`".into(),
    }
}
