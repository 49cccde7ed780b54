//! Advice after a training that did not learn.

use std::collections::BTreeMap;

use crate::contract::block::StepReport;
use crate::run::observe::{Event, Observer};
use crate::run::summary::Summary;

/// A run with fewer steps is young: it may still learn.
const YOUNG: usize = 500;

/// Watches the goodness of the layers.
#[derive(Default)]
pub struct Watch {
    blocks: Vec<String>,
    steps: usize,
    last: BTreeMap<usize, StepReport<f64>>,
}

impl Observer for Watch {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { blocks, .. } => self.blocks = blocks.to_vec(),
            Event::Stepped { .. } => self.steps += 1,
            Event::EpochEnded { reports, .. } => self.last.extend(reports.iter().copied()),
            _ => (),
        }
    }
}

impl Watch {
    /// What shows that the run did not learn, and what to try. `largest` is the share of the
    /// largest class of the test part.
    pub fn advice(&self, summary: &Summary, largest: Option<f64>) -> Vec<String> {
        if self.steps < YOUNG {
            return Vec::new();
        }
        let mut advice = Vec::new();
        let named = |is_one: &dyn Fn(&StepReport<f64>) -> bool| -> String {
            let found = self.last.iter().filter(|(_, report)| is_one(report));
            let name = |(block, _): (&usize, _)| self.blocks.get(*block).cloned();
            found.filter_map(name).collect::<Vec<_>>().join(", ")
        };
        let dead = named(&is_dead);
        if !dead.is_empty() {
            advice.push(format!(
                "warning: no unit of layer {dead} is active; try a lower --set lr=…, or \
                 --set standardise=true for pictures"
            ));
        }
        let alike = named(&|report| is_alike(report) && !is_dead(report));
        if !alike.is_empty() {
            advice.push(format!(
                "warning: layer {alike} has the same goodness for positive and negative views; \
                 try another --set lr=…, or --set standardise=true for pictures"
            ));
        }
        let guess = largest.map(|share| 1. - share);
        if let Some(guess) = guess.filter(|guess| summary.test.error >= guess - 0.005) {
            advice.push(format!(
                "warning: the run learned nothing: its error is no better than that of always \
                 answering the largest class, {:.2}%",
                100. * guess
            ));
        }
        advice
    }
}

fn is_dead(report: &StepReport<f64>) -> bool {
    report.positive == Some(0.) && report.negative.is_none_or(|negative| negative == 0.)
}

fn is_alike(report: &StepReport<f64>) -> bool {
    let (Some(positive), Some(negative)) = (report.positive, report.negative) else {
        return false;
    };
    (positive - negative).abs() <= 1e-3 * positive.abs().max(negative.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(positive: f64, negative: f64) -> StepReport<f64> {
        StepReport {
            loss: Some(1.),
            positive: Some(positive),
            negative: Some(negative),
        }
    }

    #[test]
    fn layers_that_are_dead_or_blind_are_found() {
        assert!(is_dead(&report(0., 0.)) && !is_dead(&report(0.1, 0.)));
        assert!(is_alike(&report(1000., 999.9)) && !is_alike(&report(1000., 990.)));
    }
}
