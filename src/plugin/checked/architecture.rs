//! The wrapper around architectures.

use candle_core::Tensor;

use super::{has_shape, is_finite, is_tame, Checkable, Checked};
use crate::contract::architecture::Architecture;
use crate::contract::block::StepReport;
use crate::contract::build_context::BuildContext;
use crate::contract::net::{Net, Readout};
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::contract::staged::Staged;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::graph::{Graph, Inputs, Node};
use crate::flow::step::Step;

struct Facts {
    /// The number of blocks.
    blocks: usize,
    /// The shape of the scores of an example: `[C]`, or `[P, C]` with positions.
    scores: Vec<usize>,
}

impl Checkable for dyn Architecture {
    fn checked(built: Box<Self>, called: String, context: &BuildContext) -> Result<Box<Self>> {
        let scores = match context.positions {
            1 => vec![context.classes],
            positions => vec![positions, context.classes],
        };
        let facts = |net: &Self| {
            Ok(Facts {
                blocks: net.net().blocks.len(),
                scores,
            })
        };
        Ok(Box::new(Checked::new(built, called, context, facts)?))
    }
}

impl Architecture for Checked<dyn Architecture, Facts> {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let reports = self.attempt_mut(|net| net.learn(batch, sampler, step))?;
        let blocks = self.facts.blocks;
        match reports.iter().find(|(index, _)| *index >= blocks) {
            Some((index, _)) => {
                let problem = format!("reported on block {index}, counted from 0; it has {blocks}");
                Err(self.fault(problem))
            }
            None => Ok(reports),
        }
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        let batch = batch.hidden();
        let scores = self.attempt(|net| net.scores(&batch, sampler, readout, step))?;
        let expected = [&[batch.size()], &self.facts.scores[..]].concat();
        has_shape(&self.called, "scores", scores.dims(), &expected)?;
        if !is_finite(&scores) && is_tame(batch.examples()) && self.has_tame_variables() {
            let problem = format!(
                "returned scores by {} that are not finite; if it has learned, it has diverged: a \
                 lower `lr` usually helps",
                readout.name
            );
            return Err(self.fault(problem));
        }
        Ok(scores)
    }

    fn net(&self) -> &Net {
        self.inner.net()
    }

    fn net_mut(&mut self) -> &mut Net {
        self.inner.net_mut()
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        let activities = self.attempt(|net| net.activities(batch, sampler, step))?;
        let (blocks, size) = (self.facts.blocks, batch.size());
        let fits = |activity: &Tensor| activity.rank() >= 2 && activity.dims()[0] == size;
        if activities.len() > blocks || !activities.iter().all(fits) {
            let shapes: Vec<_> = activities.iter().map(Tensor::dims).collect();
            let problem = format!(
                "returned activities of the shapes {shapes:?}, expected ({size}, …) for each of at \
                 most {blocks} blocks"
            );
            return Err(self.fault(problem));
        }
        Ok(activities)
    }

    fn graph(&self, views: Inputs, readout: &Readout, graph: &mut Graph) -> Result<Node> {
        self.attempt(|net| net.graph(views, readout, graph))
    }

    fn rule(&self) -> Rule {
        self.inner.rule()
    }

    fn staged(&mut self) -> Option<&mut dyn Staged> {
        self.inner.staged()
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        self.attempt_mut(|net| net.epoch_ended(step))
    }
}
