//! A stack as an architecture.

use candle_core::Tensor;

use super::heads::Read;
use super::remembered::Above;
use super::stages::{no_prediction_below, Passing};
use super::Stack;
use crate::contract::architecture::Architecture;
use crate::contract::block::StepReport;
use crate::contract::negatives::every_class;
use crate::contract::net::{Net, Readout};
use crate::contract::prediction::Prediction;
use crate::contract::sampler::NegativeSampler;
use crate::contract::staged::Staged;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::graph::{Graph, Inputs, Node};
use crate::flow::step::Step;

impl Architecture for Stack {
    /// One step of the levels of this rank that learn at this step, and of the head.
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let levels = self.own_levels();
        let known = match self.head_learns(step) {
            true => self.recalled(batch, Above::Head, step)?,
            false => None,
        };
        let mut passing = match (self.below(), known) {
            (Some(team), _) => self.received(team)?,
            (None, Some(features)) => Passing {
                labels: Some(batch.labels()?.to_vec()),
                features: vec![features],
                ..Passing::default()
            },
            (None, None) => self.neutral(batch, sampler, step)?,
        };
        self.pass_neutral(&mut passing, levels.clone(), step)?;
        let read = match self.above() {
            Some(_) => None,
            None => self.read_head(&passing)?,
        };
        if let (Some(_), Some(read)) = (&passing.neutral, &read) {
            self.remember(batch, Above::Head, &read.features, step)?;
        }
        if self.below().is_none() {
            let prediction = match (&read, self.above()) {
                (_, None) if self.predicts_by_goodness() => {
                    Prediction::new(|| self.prediction(batch, sampler, step))
                }
                (Some(Read { log: Some(log), .. }), _) => Prediction::of(log.clone()),
                (_, Some(_)) => Prediction::new(|| Err(no_prediction_below())),
                (Some(Read { features, .. }), None) => Prediction::new(|| self.head_on(features)),
                (None, None) => Prediction::new(|| self.prediction(batch, sampler, step)),
            };
            passing.views = self.views(batch, sampler, &prediction, step)?;
        }
        self.sample(&mut passing, step)?;
        let rows = self.count_rows(&passing);
        let before = self.buffers_before(step)?;
        let first = self.pass_stopped(&mut passing, batch, &step.pass(1))?;
        let learning = first.max(levels.start)..levels.end;
        let reports = self.learn_levels(&mut passing, learning, &step.pass(1))?;
        match self.above() {
            Some(team) => team.send_up(self.message(&passing, levels.end, step)?)?,
            None => self.learn_head(&passing, read.as_ref(), step)?,
        }
        // With replicas: while the new weights of one level were on their way, the next
        // one learned.
        for optimiser in self.own_optimisers() {
            optimiser.finish()?;
        }
        self.average_buffers(&before, rows, step)?;
        Ok(reports)
    }

    /// The scores by one of [`Stack::readouts`].
    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        match readout.name {
            "head" => self.head(sampler.neutral(batch)?, step),
            "goodness" => self.goodness(sampler.neutral(batch)?, step),
            _ => {
                let candidates = every_class(self.labels, batch)?;
                self.search(batch, sampler, &candidates, step)
            }
        }
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        let passed = self.forward(sampler.neutral(batch)?, step)?;
        Ok(passed.into_iter().map(|(_, activity)| activity).collect())
    }

    fn graph(&self, views: Inputs, readout: &Readout, graph: &mut Graph) -> Result<Node> {
        self.add_to(views, readout, graph)
    }

    fn staged(&mut self) -> Option<&mut dyn Staged> {
        Some(self)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}
