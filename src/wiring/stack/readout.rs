//! What is read out of a stack: the goodness of its levels, a search, the head.

use std::ops::Range;

use candle_core::Tensor;

use super::stages::Way;
use super::{Kept, Stack};
use crate::contract::block::Block;
use crate::contract::net::Readout;
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::kernels;
use crate::optim::Span;

impl Stack {
    /// The readouts of the stack, the preferred one first: *goodness* if it has a column
    /// per class, else *search* if the sampler makes `hypotheses`; then *head*. The goodness
    /// of levels that never learn means nothing.
    pub fn readouts(&self, hypotheses: bool) -> Vec<Readout> {
        let mut readouts = Vec::new();
        if !self.is_learned() {
            // Only the head.
        } else if self.classes().is_some() {
            readouts.push(Readout::new("goodness").cheap());
        } else if hypotheses {
            readouts.push(Readout::new("search"));
        }
        if let Some(head) = self.net.heads.first() {
            // A probe starts after the levels.
            let from_epoch = match head.optimiser().span() {
                Span::Epochs(epochs) => epochs.start,
                Span::Steps(_) => 0,
            };
            let head = Readout::new("head").cheap().with_log_probabilities();
            readouts.push(Readout { from_epoch, ..head });
        }
        readouts
    }

    /// Whether a level that is read out learns, its goodness included if it has variables.
    pub fn is_learned(&self) -> bool {
        let mut blocks = self.net.blocks[self.readout.clone()].iter();
        blocks.any(|block| block.rule() != Rule::Frozen && block.goodness_learns() != Some(false))
    }

    /// The number of columns of the goodness of the levels that are read out, if there is
    /// one per class.
    pub fn classes(&self) -> Option<usize> {
        self.net.blocks[self.readout.clone()]
            .last()
            .and_then(Block::classes)
    }

    /// The input of the head: the normalised activities of the levels that are read out,
    /// side by side. No layer learns from this pass.
    ///
    /// # Errors
    /// Errors of a layer.
    pub fn features(&self, neutral: Input, step: &Step) -> Result<Input> {
        let step = &Step {
            neutral: true,
            ..*step
        };
        let mut features = Vec::with_capacity(self.readout.len());
        let mut way = Way::from(neutral.normalised(self.normalise)?);
        self.collect(&mut way, 0..self.readout.end, &mut features, step)?;
        Input::beside(&features)
    }

    /// Passes the neutral view through some levels, and adds the normalised activities of
    /// those that are read out.
    pub(super) fn collect(
        &self,
        way: &mut Way,
        levels: Range<usize>,
        features: &mut Vec<Input>,
        step: &Step,
    ) -> Result<()> {
        for index in levels.start..levels.end.min(self.readout.end) {
            let views = way.input.views();
            let activity = self.forward_level(index, &way.input, step)?;
            let passed = self.net.blocks[index].pass_on(&activity, views, step)?;
            if self.readout.contains(&index) {
                features.push(passed.clone());
            }
            way.kept.add(self, index, &activity);
            way.input = match self.has_shortcut(index + 1) {
                true => self.input_above(index, &activity, &way.kept, views, step)?,
                false => passed,
            };
        }
        Ok(())
    }

    /// A forward pass: the input and the activity of every level, for architectures
    /// that call [`Block::grade`] and [`Block::follow`] themselves.
    ///
    /// # Errors
    /// Errors of a layer.
    pub fn forward(&self, input: Input, step: &Step) -> Result<Vec<(Input, Tensor)>> {
        self.forward_below(self.net.blocks.len(), input, step)
    }

    /// As [`Stack::forward`], through the levels below `end` alone.
    ///
    /// # Errors
    /// Errors of a layer.
    pub fn forward_below(
        &self,
        end: usize,
        input: Input,
        step: &Step,
    ) -> Result<Vec<(Input, Tensor)>> {
        let end = end.min(self.net.blocks.len());
        let mut passed = Vec::with_capacity(end);
        self.walk(input, end, step, |_, input, activity| {
            passed.push((input, activity));
            Ok(())
        })?;
        Ok(passed)
    }

    /// A forward pass through the levels below `end`: `f` gets the index, the input and
    /// the activity of each.
    fn walk(
        &self,
        input: Input,
        end: usize,
        step: &Step,
        mut f: impl FnMut(usize, Input, Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut kept = Kept::default();
        let mut input = input.normalised(self.normalise)?;
        for index in 0..end {
            let activity = self.forward_level(index, &input, step)?;
            if index + 1 == end {
                return f(index, input, activity);
            }
            kept.add(self, index, &activity);
            let above = self.input_above(index, &activity, &kept, input.views(), step)?;
            f(index, std::mem::replace(&mut input, above), activity)?;
        }
        Ok(())
    }

    /// The goodness of an input, summed over the levels that are read out: `(V·B,)`,
    /// `(V·B, C)` or `(V·B, P, C)`.
    ///
    /// # Errors
    /// Errors of a layer or goodness.
    pub fn goodness(&self, input: Input, step: &Step) -> Result<Tensor> {
        self.sum(input, step, Block::goodness)
    }

    /// The log-odds of an input being positive, summed over the levels that are read out;
    /// as [`Stack::goodness`].
    ///
    /// # Errors
    /// Errors of a layer or goodness.
    pub fn log_odds(&self, input: Input, step: &Step) -> Result<Tensor> {
        self.sum(input, step, Block::log_odds)
    }

    /// The goodness of each example under each of `candidates`, `(K, B)`, summed over the
    /// levels that are read out: `(B, K)`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the sampler makes no hypotheses; errors of a layer or
    /// goodness.
    pub fn search(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        candidates: &Tensor,
        step: &Step,
    ) -> Result<Tensor> {
        let (count, size) = candidates.dims2()?;
        let input = sampler
            .hypotheses(batch, candidates)?
            .ok_or_else(no_hypotheses)?;
        let goodness = self.goodness(input, step)?; // (K·B,)
        Ok(goodness.reshape((count, size))?.t()?.contiguous()?)
    }

    fn sum(
        &self,
        input: Input,
        step: &Step,
        of: impl Fn(&Block, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        self.walk(input, self.readout.end, step, |index, _, activity| {
            if self.readout.contains(&index) {
                let value = of(&self.net.blocks[index], &activity)?;
                sum = Some(match sum.take() {
                    None => value,
                    Some(sum) => (sum + value)?,
                });
            }
            Ok(())
        })?;
        sum.ok_or_else(|| Error::usage("stack", "no level is read out"))
    }

    /// Log-probabilities of the head, `(B, C)`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is no head; errors of a layer.
    pub fn head(&self, neutral: Input, step: &Step) -> Result<Tensor> {
        self.head_on(&self.features(neutral, step)?)
    }

    /// The log-probabilities of the head for its features.
    pub(super) fn head_on(&self, features: &Input) -> Result<Tensor> {
        let head = self.net.heads.first().ok_or_else(no_prediction)?;
        head.log_probabilities(features)
    }

    /// Whether the network's own prediction is that of a goodness: of the output layers of
    /// its rule, which a head beside them does not change.
    pub(super) fn predicts_by_goodness(&self) -> bool {
        self.classes().is_some() && (self.is_learned() || self.net.heads.is_empty())
    }

    /// The network's own log-probabilities of the classes on the neutral view, `(B, C)`:
    /// of a goodness with a column per class or, without one, of the head.
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is neither, or the head is a probe that has not started
    /// to learn.
    pub fn prediction(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Tensor> {
        if self.predicts_by_goodness() {
            let goodness = self.goodness(sampler.neutral(batch)?, step)?;
            return kernels::log_softmax(&goodness);
        }
        match self.net.heads.first() {
            Some(head) if head.optimiser().span().has_begun(step) => {
                self.head(sampler.neutral(batch)?, step)
            }
            Some(_) => Err(not_yet()),
            None => Err(no_prediction()),
        }
    }
}

/// The error of a search if the sampler puts no label into the input.
pub fn no_hypotheses() -> Error {
    let problem = "the sampler makes no hypotheses, so classes cannot be searched; \
                   choose a sampler that puts the label into the input";
    Error::unfit("search", problem)
}

fn not_yet() -> Error {
    let problem = "the sampler needs the network's prediction, but the \
                   head is a probe that learns after the layers; choose \
                   a sampler that needs no prediction, or a head that \
                   learns with the layers (`probe_epochs = 0`)";
    Error::unfit("stacked layers", problem)
}

fn no_prediction() -> Error {
    let problem = "the sampler needs the network's prediction, but the network has no head \
                   and no goodness with a column per class; add a head (`head = true`), or \
                   draw negatives without a prediction (`sampler.negatives = \"uniform\"`)";
    Error::unfit("stacked layers", problem)
}
