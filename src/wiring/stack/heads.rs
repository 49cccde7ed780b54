//! The head of a stack, and the classes that a step compares.

use std::cmp::Reverse;
use std::sync::Arc;

use candle_core::Tensor;

use super::stages::Passing;
use super::Stack;
use crate::contract::build_context::BuildContext;
use crate::error::Result;
use crate::flow::input::Input;
use crate::flow::sampled_classes::SampledClasses;
use crate::flow::step::Step;

/// How the classes are chosen that a step compares, besides those of its labels.
pub(super) struct Sampling {
    /// The most frequent classes, which are always compared.
    frequent: Vec<u32>,
    /// The number of classes that are drawn from the others.
    drawn: usize,
}

impl Sampling {
    /// Half of the [`BuildContext::samples`] are the most frequent classes, where they
    /// are known, and half are drawn.
    pub fn new(context: &BuildContext) -> Option<Self> {
        if context.samples == 0 {
            return None;
        }
        let counts = context.class_counts.as_deref();
        let counts = counts.map_or(&[][..], Vec::as_slice);
        let mut classes: Vec<u32> = (0..counts.len() as u32).collect();
        classes.sort_by_key(|&class| Reverse(counts[class as usize]));
        classes.truncate(context.samples / 2);
        Some(Self {
            drawn: context.samples - classes.len(),
            frequent: classes,
        })
    }
}

/// What the head reads in a step in which it learns.
pub(super) struct Read {
    pub features: Input,
    /// The log-probabilities of the classes, if all are compared.
    pub log: Option<Tensor>,
}

impl Stack {
    pub(super) fn head_learns(&self, step: &Step) -> bool {
        let head = self.net.heads.first();
        head.is_some_and(|head| head.is_learning(step))
    }

    /// Draws the classes that this step compares, if it does not compare all.
    pub(super) fn sample(&self, passing: &mut Passing, step: &Step) -> Result<()> {
        let Some(sampling) = &self.sampling else {
            return Ok(());
        };
        let targets = passing.views.as_ref().map(|(_, targets)| targets);
        let of_views = targets.and_then(|targets| targets.labels().ok());
        let of_head = passing.labels.as_deref();
        let labels = [of_head, of_views].into_iter().flatten().flatten();
        let labels: Vec<u32> = labels.copied().collect();
        let (frequent, drawn) = (&sampling.frequent, sampling.drawn);
        let rng = &mut step.stream("samples");
        let sampled = SampledClasses::draw(&labels, frequent, drawn, self.labels, rng)?;
        let sampled = Arc::new(sampled);
        passing.sampled = Some(sampled.clone());
        if let Some((_, targets)) = &mut passing.views {
            if targets.has_labels() {
                *targets = targets.clone().with_sampled(Some(sampled));
            }
        }
        Ok(())
    }

    /// What the head reads, if it learns at this step.
    pub(super) fn read_head(&self, passing: &Passing) -> Result<Option<Read>> {
        let (Some(head), Some(_)) = (self.net.heads.first(), &passing.labels) else {
            return Ok(None);
        };
        let features = Input::beside(&passing.features)?;
        let log = match head.samples_classes() {
            true => None,
            false => Some(head.log_probabilities(&features)?),
        };
        Ok(Some(Read { features, log }))
    }

    pub(super) fn learn_head(
        &mut self,
        passing: &Passing,
        read: Option<&Read>,
        step: &Step,
    ) -> Result<()> {
        let (Some(head), Some(Read { features, log }), Some(labels)) =
            (self.net.heads.first_mut(), read, &passing.labels)
        else {
            return Ok(());
        };
        match (log, &passing.sampled) {
            (Some(log), _) => head.learn(features, log, labels, step)?,
            (None, Some(sampled)) => head.learn_sampled(features, sampled, labels, step)?,
            (None, None) => {
                let log = head.log_probabilities(features)?;
                head.learn(features, &log, labels, step)?
            }
        };
        Ok(())
    }
}
