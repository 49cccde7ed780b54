//! How the levels of a network are divided among ranks.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{not_staged, of_replicas};
use crate::contract::staged::{Cost, Measured};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::step::Step;
use crate::optim::Span;
use crate::run::{Run, RunBuilder};
use crate::wiring::stack::no_prediction_below;

/// The steps that are measured in each phase. The first ones are slower.
const STEPS: u64 = 4;

/// A network that can be divided among ranks: what each level costs, and how far it can
/// be divided.
pub struct Divisible {
    phases: Vec<Phase>,
    needs_prediction: bool,
    most_replicas: usize,
}

/// Epochs in which the same levels learn. In greedy order there is one for each level.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The number of its epochs.
    pub epochs: usize,
    /// What a step costs, from the lowest level on.
    pub levels: Vec<Cost>,
}

impl Divisible {
    /// Builds a run, measures some of its steps, and drops it.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the architecture cannot be divided; [`Error::Setting`] if its
    /// batches cannot be divided among its `replicas`; as [`RunBuilder::build`].
    pub fn measure(builder: &RunBuilder) -> Result<Self> {
        let mut run = builder.to_measure().build()?;
        let replicas = run.config.run.replicas;
        let checked = run.check_replicas(replicas);
        checked.map_err(|error| builder.attributed(error))?;
        let averages = run.staged()?.check_replicas();
        // An error says what is not averaged.
        let averages = match replicas {
            0 | 1 => averages.is_ok(),
            _ => averages.map(|()| true)?,
        };
        let (phases, needs_prediction) = rayon::scope(|_| run.measured())?;
        Ok(Self {
            phases,
            needs_prediction,
            most_replicas: if averages { run.most_replicas() } else { 1 },
        })
    }

    /// The phases of its training, in their order.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The first level of each stage, and the number of levels: what
    /// [`Team::new`](crate::comm::Team::new) takes.
    ///
    /// # Errors
    /// As [`cut`]; [`Error::Unfit`] if there can be one stage only; [`Error::Setting`]
    /// for more replicas than there can be.
    pub fn divide(&self, stages: usize, replicas: usize) -> Result<Vec<usize>> {
        if stages > 1 && self.needs_prediction {
            return Err(no_prediction_below());
        }
        if replicas > self.most_replicas {
            return Err(of_replicas(
                replicas,
                format!("at most {}", self.most_replicas),
            ));
        }
        cut(&self.phases, stages)
    }
}

/// Divides levels among stages so that the training is as short as it can be: in each
/// phase a step takes as long as its slowest stage. Returns the first level of each
/// stage, and the number of levels.
///
/// With one phase these are the best stages; with several, none are better that differ
/// from them in one place.
///
/// # Errors
/// [`Error::Usage`] if there are more stages than levels.
///
/// ```
/// use std::time::Duration;
///
/// use onward_core::contract::staged::Cost;
/// use onward_core::run::ranks::{cut, Phase};
///
/// let levels = [2, 3, 5].map(|time| Cost {
///     time: Duration::from_millis(time),
///     ..Cost::default()
/// });
/// let phase = Phase { epochs: 1, levels: levels.to_vec() };
/// assert_eq!(cut(&[phase], 2)?, [0, 2, 3]);
/// # Ok::<(), onward_core::Error>(())
/// ```
pub fn cut(phases: &[Phase], stages: usize) -> Result<Vec<usize>> {
    let levels = phases.first().map_or(0, |phase| phase.levels.len());
    if stages == 0 || stages > levels {
        let problem =
            format!("expected 1 to {levels}, with one or more layers each; found {stages}");
        return Err(Error::usage("stages", problem));
    }
    let of_level = |level: usize| {
        phases
            .iter()
            .map(|phase| phase.time(level..level + 1))
            .sum()
    };
    let mut cuts = balanced(&(0..levels).map(of_level).collect::<Vec<_>>(), stages);
    let time =
        |cuts: &[usize]| -> Duration { phases.iter().map(|phase| phase.longest(cuts)).sum() };
    loop {
        let places = 1..stages;
        let moved = places.flat_map(|place| {
            let (before, after) = (cuts[place - 1] + 1, cuts[place + 1]);
            let cuts = &cuts;
            (before..after).map(move |first| {
                let mut moved = cuts.clone();
                moved[place] = first;
                moved
            })
        });
        // The first of equals, so that all ranks would find the same.
        match moved.min_by_key(|cuts| time(cuts)) {
            Some(better) if time(&better) < time(&cuts) => cuts = better,
            _ => return Ok(cuts),
        }
    }
}

impl Phase {
    /// The time of some levels in all epochs.
    fn time(&self, levels: std::ops::Range<usize>) -> Duration {
        let step: Duration = self.levels[levels].iter().map(|cost| cost.time).sum();
        step * u32::try_from(self.epochs).unwrap_or(u32::MAX)
    }

    /// The time of the slowest stage.
    fn longest(&self, cuts: &[usize]) -> Duration {
        let stages = cuts.windows(2);
        let times = stages.map(|ends| self.time(ends[0]..ends[1]));
        times.max().unwrap_or_default()
    }
}

/// The stages of which the slowest is as fast as it can be.
fn balanced(times: &[Duration], stages: usize) -> Vec<usize> {
    let levels = times.len();
    let time = |from: usize, to: usize| times[from..to].iter().sum();
    // The best cuts of the levels from each one on, for one stage more in every round.
    let mut best: Vec<Option<(Duration, Vec<usize>)>> = (0..=levels)
        .map(|from| (from < levels).then(|| (time(from, levels), vec![from, levels])))
        .collect();
    for _ in 1..stages {
        let more = |from: usize| {
            let ends = from + 1..levels;
            let cuts = ends.filter_map(|end| {
                let (slowest, cuts) = best[end].as_ref()?;
                let slowest = (*slowest).max(time(from, end));
                Some((slowest, [&[from], &cuts[..]].concat()))
            });
            cuts.min_by_key(|(slowest, _)| *slowest)
        };
        best = (0..=levels).map(more).collect();
    }
    let found = best.swap_remove(0);
    found.map(|(_, cuts)| cuts).unwrap_or_default()
}

impl Run {
    /// The phases of the training, and whether the sampler asks for the network's
    /// prediction in one of them.
    fn measured(&mut self) -> Result<(Vec<Phase>, bool)> {
        let _pass = self.pass()?;
        let size = self.config.run.batch.min(self.data.train.len());
        let indices: Vec<usize> = (0..size).collect();
        let batch = self.prepare(&self.data.train.batch(&indices, None)?)?;
        let (mut phases, mut needs_prediction) = (Vec::new(), false);
        for (first, epochs) in self.spans() {
            let measured = self.measured_in(first, &batch)?;
            needs_prediction |= measured.needs_prediction;
            phases.push(Phase {
                epochs,
                levels: measured.levels,
            });
        }
        Ok((phases, needs_prediction))
    }

    /// The first epoch and the number of epochs of each phase.
    fn spans(&self) -> Vec<(usize, usize)> {
        let learning = |epoch: usize| -> Vec<bool> {
            let (net, step) = (self.architecture.net(), self.step_of(epoch));
            let blocks = net.blocks.iter().map(|block| block.is_learning(&step));
            let heads = net.heads.iter().map(|head| head.is_learning(&step));
            blocks.chain(heads).collect()
        };
        // There may be a billion epochs.
        let net = self.architecture.net();
        let of_blocks = net.blocks.iter().map(|block| block.span());
        let of_heads = net.heads.iter().map(|head| head.optimiser().span());
        let bounds = of_blocks.chain(of_heads).flat_map(|span| match span {
            Span::Epochs(epochs) => [epochs.start, epochs.end],
            Span::Steps(_) => [0; 2],
        });
        let bounds: BTreeSet<usize> = bounds.chain([0, self.epochs()]).collect();
        let bounds: Vec<usize> = bounds.range(..=self.epochs()).copied().collect();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for &[epoch, end] in bounds.array_windows() {
            match spans.last_mut() {
                Some((first, count)) if learning(*first) == learning(epoch) => {
                    *count += end - epoch;
                }
                _ => spans.push((epoch, end - epoch)),
            }
        }
        spans
    }

    /// The shortest times of some steps.
    fn measured_in(&mut self, epoch: usize, batch: &Batch) -> Result<Measured> {
        let mut best = Measured::default();
        for index in 0..STEPS {
            let first = self.step_of(epoch);
            let step = Step { index, ..first };
            let staged = self.architecture.staged();
            let staged = staged.ok_or_else(|| not_staged(&self.config.architecture))?;
            let measured = staged.measure(batch, &*self.sampler, &step)?;
            if index == 0 {
                best = measured;
                continue;
            }
            for (best, cost) in best.levels.iter_mut().zip(measured.levels) {
                best.time = best.time.min(cost.time);
            }
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(milliseconds: &[u64]) -> Phase {
        let level = |time: &u64| Cost {
            time: Duration::from_millis(*time),
            ..Cost::default()
        };
        Phase {
            epochs: 1,
            levels: milliseconds.iter().map(level).collect(),
        }
    }

    #[test]
    fn levels_that_learn_one_after_the_other_are_divided_by_their_phases() -> Result<()> {
        assert_eq!(cut(&[phase(&[1, 1, 1, 9])], 2)?, [0, 3, 4]);
        // All levels have the same sum, but the upper ones pass on nothing: what is below
        // works while they learn.
        let phases = [[9, 0, 0, 0], [3, 6, 0, 0], [3, 3, 3, 0], [3, 2, 2, 8]];
        let phases = phases.map(|times| phase(&times));
        let time =
            |cuts: &[usize]| -> Duration { phases.iter().map(|phase| phase.longest(cuts)).sum() };
        let found = cut(&phases, 2)?;
        for first in 1..4 {
            assert!(time(&found) <= time(&[0, first, 4]), "{found:?}, {first}");
        }
        assert_eq!(cut(&phases, 4)?, [0, 1, 2, 3, 4]);
        assert!(cut(&phases, 5).is_err() && cut(&[], 1).is_err());
        Ok(())
    }
}
