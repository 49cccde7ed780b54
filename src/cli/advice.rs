//! Advice while a training does not learn, and after it.

use std::collections::BTreeMap;

use crate::contract::block::StepReport;
use crate::data::score::Score;
use crate::flow::examples::Split;
use crate::run::observe::{Event, Observer};
use crate::run::summary::{Evaluation, Summary};

/// A run with fewer steps is young: it may still learn.
const YOUNG: usize = 500;

/// During the run, a problem is reported when it was seen in this many epochs in a row.
const OFTEN: usize = 2;

/// Watches the goodness of the layers and the error.
pub struct Watch {
    blocks: Vec<String>,
    epochs: usize,
    steps: usize,
    last: BTreeMap<usize, StepReport<f64>>,
    /// The error of always answering the largest class of the validation and the test
    /// part.
    guess: [Option<f64>; 2],
    /// How often in a row each problem was seen. One that was said is not said again.
    seen: BTreeMap<&'static str, usize>,
    said: Vec<String>,
}

impl Observer for Watch {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { blocks, epochs, .. } => {
                (self.blocks, self.epochs) = (blocks.to_vec(), *epochs);
            }
            Event::Stepped { .. } => self.steps += 1,
            Event::EpochEnded { epoch, reports, .. } => {
                self.last.extend(reports.iter().copied());
                let (dead, alike) = (self.dead(), self.alike());
                self.look("dead", dead, *epoch);
                self.look("alike", alike, *epoch);
            }
            Event::Evaluated {
                epoch,
                split: Split::Validation,
                evaluation,
            } => {
                let guessing = self.guessing(evaluation.error, self.guess[0]);
                self.look("guessing", guessing, *epoch);
            }
            _ => (),
        }
    }
}

impl Watch {
    /// `largest` is the share of the largest class of the validation and the test part.
    pub fn new(largest: [Option<f64>; 2]) -> Self {
        Self {
            blocks: Vec::new(),
            epochs: usize::MAX,
            steps: 0,
            last: BTreeMap::new(),
            guess: largest.map(|share| share.map(|share| 1. - share)),
            seen: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// What there is to say now.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    /// What shows that the run did not learn, and what to try.
    pub fn advice(&self, summary: &Summary) -> Vec<String> {
        let errors = summary.test.of_network().map(|score| score.error);
        let error = errors.fold(f64::INFINITY, f64::min);
        let guessing = self.guessing(error, self.guess[1]);
        let reported = self.guessing(summary.test.error, self.guess[1]);
        let of_reported = reported.filter(|_| guessing.is_none()).map(|_| {
            let readout = &summary.test.readout;
            format!(
                "by `{readout}`, the readout that is reported, the error is no better than that \
                 of always answering the largest class; report another one: --set readout=…"
            )
        });
        let mut problems = vec![
            guessing.map(|problem| format!("the run learned nothing: {problem}")),
            of_reported,
            worse_than_unigrams(&summary.test),
        ];
        if self.steps >= YOUNG {
            problems.splice(0..0, [self.dead(), self.alike()]);
        }
        let problems = problems.into_iter().flatten();
        problems
            .map(|problem| format!("warning: {problem}"))
            .collect()
    }

    /// Says a problem once, if it was seen often enough.
    fn look(&mut self, kind: &'static str, problem: Option<String>, epoch: usize) {
        if epoch >= self.epochs {
            return; // the end has its own words
        }
        let seen = self.seen.entry(kind).or_default();
        let Some(problem) = problem.filter(|_| self.steps >= YOUNG) else {
            if *seen < OFTEN {
                *seen = 0;
            }
            return;
        };
        *seen += 1;
        if *seen == OFTEN {
            self.said
                .push(format!("warning: after {epoch} epochs {problem}"));
        }
    }

    fn dead(&self) -> Option<String> {
        let layers = self.named(is_dead)?;
        Some(format!(
            "no unit of layer {layers} is active; try a lower --set lr=…, or --set \
             standardise=true for pictures"
        ))
    }

    fn alike(&self) -> Option<String> {
        let layers = self.named(|report| is_alike(report) && !is_dead(report))?;
        Some(format!(
            "layer {layers} has the same goodness for positive and negative views; try another \
             --set lr=…, or --set standardise=true for pictures"
        ))
    }

    fn guessing(&self, error: f64, guess: Option<f64>) -> Option<String> {
        let guess = guess.filter(|guess| *guess > 0. && error >= 0.995 * guess)?;
        Some(format!(
            "the error is no better than that of always answering the largest class, {:.2}%; \
             try another --set lr=…, or more --epochs",
            100. * guess
        ))
    }

    /// The names of the layers for whose report `is_one` holds.
    fn named(&self, is_one: impl Fn(&StepReport<f64>) -> bool) -> Option<String> {
        let found = self.last.iter().filter(|(_, report)| is_one(report));
        let name = |(block, _): (&usize, _)| self.blocks.get(*block).cloned();
        let names: Vec<String> = found.filter_map(name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Says that the network alone predicts a text worse than the frequencies of its tokens.
fn worse_than_unigrams(test: &Evaluation) -> Option<String> {
    let bits = |score: &Score| score.bits.map(|bits| bits.bits_per_char);
    let unigram = bits(test.baselines.get("unigram")?)?;
    let best = test.of_network().filter_map(bits).reduce(f64::min)?;
    (best > unigram).then(|| {
        format!(
            "the network alone needs {best:.3} bits/char, and the frequencies of the tokens \
             (`unigram`) {unigram:.3}: it learned less than those; try another --set lr=…, or \
             more --epochs"
        )
    })
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

    #[test]
    fn a_problem_is_said_once_and_never_of_a_young_run() {
        let mut watch = Watch::new([Some(0.1); 2]);
        watch.blocks = vec!["1".into()];
        let epoch = |watch: &mut Watch, epoch: usize| {
            let reports = &[(0, report(0., 0.))];
            let (epochs, seconds) = (9, 1.);
            watch.on(&Event::EpochEnded {
                epoch,
                epochs,
                seconds,
                reports,
                rates: &[],
            });
            watch.take().len()
        };
        assert_eq!([1, 2, 3].map(|of| epoch(&mut watch, of)), [0, 0, 0]);
        watch.steps = YOUNG;
        assert_eq!([4, 5, 6, 7].map(|of| epoch(&mut watch, of)), [0, 1, 0, 0]);
        let guess = |error, guess| watch.guessing(error, guess).is_some();
        assert!(guess(0.897, Some(0.9)) && !guess(0.85, Some(0.9)));
        assert!(!guess(0., Some(0.003)) && !guess(0.5, None));
    }
}
