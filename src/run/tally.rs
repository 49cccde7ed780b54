//! What the steps of an epoch have reported, summed up.

use std::collections::BTreeMap;

use super::checkpoint::Sums;
use crate::contract::block::StepReport;
use crate::error::Result;
use crate::flow::reading::Reading;

/// Means of the reports of an epoch.
#[derive(Clone, Default)]
pub(super) struct Tally {
    /// The sum and the number of the reports of each block.
    sums: BTreeMap<usize, (StepReport, f64)>,
    /// The sums of each of several replicas, if `sums` were merged from them. When a
    /// stopped epoch goes on, each replica adds to its own: in another order, sums
    /// round differently.
    pub shares: Vec<Vec<Sums>>,
}

impl Tally {
    /// Adds the reports of a step.
    pub fn add(&mut self, reports: &[(usize, StepReport)]) -> Result<()> {
        self.shares.clear(); // they are no longer all
        for (block, report) in reports {
            let (sum, count) = self.sums.entry(*block).or_default();
            sum.add(report, 1.)?;
            *count += 1.;
        }
        Ok(())
    }

    /// The means so far.
    pub fn means(&self) -> Result<Vec<(usize, StepReport<f64>)>> {
        let mean = |sums: Sums| {
            let divided = |value: Option<f64>| value.map(|value| value / sums.count);
            let report = StepReport {
                loss: divided(sums.loss),
                positive: divided(sums.positive),
                negative: divided(sums.negative),
            };
            (sums.block, report)
        };
        Ok(self.sums()?.into_iter().map(mean).collect())
    }

    /// The sums so far, for a checkpoint.
    pub fn sums(&self) -> Result<Vec<Sums>> {
        let sums = |(block, (sum, count)): (&usize, &(StepReport, f64))| {
            let sum = sum.read()?;
            Ok(Sums {
                block: *block,
                loss: sum.loss,
                positive: sum.positive,
                negative: sum.negative,
                count: *count,
            })
        };
        self.sums.iter().map(sums).collect()
    }

    /// The sums of replicas, in their order.
    pub fn merged(replicas: &[Self]) -> Result<Self> {
        let mut merged = replicas[0].clone();
        if replicas.len() > 1 {
            merged.shares = replicas.iter().map(Self::sums).collect::<Result<_>>()?;
        }
        for other in replicas.iter().skip(1) {
            merged.merge(other.sums()?)?;
        }
        Ok(merged)
    }

    /// Adds the sums of some blocks.
    fn merge(&mut self, sums: Vec<Sums>) -> Result<()> {
        for (block, (report, count)) in Self::from(sums).sums {
            let (sum, counted) = self.sums.entry(block).or_default();
            sum.add(&report, 1.)?;
            *counted += count;
        }
        Ok(())
    }

    /// Replaces the sums of some blocks.
    pub fn replace(&mut self, sums: Vec<Sums>) {
        self.sums.extend(Self::from(sums).sums);
    }
}

impl From<Vec<Sums>> for Tally {
    fn from(sums: Vec<Sums>) -> Self {
        let of_block = |sums: Sums| {
            let report = StepReport {
                loss: sums.loss.map(Reading::from),
                positive: sums.positive.map(Reading::from),
                negative: sums.negative.map(Reading::from),
            };
            (sums.block, (report, sums.count))
        };
        Self {
            sums: sums.into_iter().map(of_block).collect(),
            shares: Vec::new(),
        }
    }
}
