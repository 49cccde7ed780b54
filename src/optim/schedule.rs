//! The span in which a block learns, and the schedule of its learning rate.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::flow::step::Step;
use crate::settings::SettingValue;

crate::choices! {
    /// The factor of the learning rate in epoch `e` of the `E` epochs in which a block
    /// learns, counted from 1.
    pub enum Schedule {
        /// 1 in all epochs.
        Constant = "constant",
        /// 1 in the first half, then `(1 + 2·(E − e)) / E`, as in Hinton's program.
        HalfLinear = "half_linear",
        /// From 1 down to `1 / E`.
        Linear = "linear",
        /// `½·(1 + cos(π·(e − 1) / E))`.
        Cosine = "cosine",
        /// `¼ˢ` after `s` of the steps at 50, 75, 89 and 94% of the epochs, as in Nøkland
        /// and Eidnes 2019.
        Steps = "steps",
    }
}

impl Schedule {
    /// The factor of the rate in epoch `epoch` (from 0) of `epochs`.
    pub fn factor(self, epoch: usize, epochs: usize) -> f64 {
        let (e, last) = (epoch as f64 + 1., epochs as f64);
        match self {
            Self::Constant => 1.,
            Self::HalfLinear if 2. * e < last => 1.,
            Self::HalfLinear => ((1. + 2. * (last - e)) / last).min(1.),
            Self::Linear => (last - e + 1.) / last,
            Self::Steps => {
                let steps = [0.5, 0.75, 0.89, 0.94];
                let passed = steps.iter().filter(|step| e - 1. >= *step * last);
                0.25f64.powi(passed.count() as i32)
            }
            Self::Cosine => 0.5 * (1. + (std::f64::consts::PI * (e - 1.) / last).cos()),
        }
    }
}

/// The epochs or steps in which a block learns, counted from 0 from the start of the run.
///
/// In the configuration it is a string: `"0..5ep"` for epochs, `"0..2000it"` for steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Whole epochs.
    Epochs(Range<usize>),
    /// Single steps.
    Steps(Range<u64>),
}

impl Span {
    /// Whether a step is within the span.
    pub fn contains(&self, step: &Step) -> bool {
        match self {
            Self::Epochs(epochs) => epochs.contains(&step.epoch),
            Self::Steps(steps) => steps.contains(&step.index),
        }
    }

    /// Whether no step is within the span.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Epochs(epochs) => epochs.is_empty(),
            Self::Steps(steps) => steps.is_empty(),
        }
    }

    /// Whether a step is within both spans, as far as their units tell.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Epochs(a), Self::Epochs(b)) => a.start.max(b.start) < a.end.min(b.end),
            (Self::Steps(a), Self::Steps(b)) => a.start.max(b.start) < a.end.min(b.end),
            _ => !self.is_empty() && !other.is_empty(),
        }
    }

    /// Whether it ends with the first epoch of another span or before, as far as their
    /// units tell.
    pub(crate) fn ends_with_first_epoch_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Epochs(own), Self::Epochs(other)) => own.end <= other.start + 1,
            _ => false,
        }
    }

    /// Whether the span begins at this step or before.
    pub fn has_begun(&self, step: &Step) -> bool {
        match self {
            Self::Epochs(epochs) => step.epoch >= epochs.start,
            Self::Steps(steps) => step.index >= steps.start,
        }
    }

    /// Whether a step of the epoch that ends with this step is within the span.
    pub fn meets_epoch_of(&self, last: &Step) -> bool {
        match self {
            Self::Epochs(epochs) => epochs.contains(&last.epoch),
            Self::Steps(steps) => {
                // All epochs have as many steps.
                let in_epoch = (last.index + 1) / (last.epoch as u64 + 1);
                let first = last.index + 1 - in_epoch.max(1);
                !self.is_empty() && steps.start <= last.index && first < steps.end
            }
        }
    }

    /// The epoch in which the span begins.
    pub fn first_epoch(&self, steps_per_epoch: usize) -> usize {
        match self {
            Self::Epochs(epochs) => epochs.start,
            Self::Steps(steps) => steps.start as usize / steps_per_epoch.max(1),
        }
    }

    /// The number of epochs until the span has ended.
    pub fn last_epoch(&self, steps_per_epoch: usize) -> usize {
        match self {
            Self::Epochs(epochs) => epochs.end,
            Self::Steps(steps) => (steps.end as usize).div_ceil(steps_per_epoch.max(1)),
        }
    }

    /// The position of a step in the span, and the length of the span, in its unit. A
    /// step after the end counts as the last one.
    pub(super) fn progress(&self, step: &Step) -> (usize, usize) {
        let (done, length) = match self {
            Self::Epochs(epochs) => (step.epoch.saturating_sub(epochs.start), epochs.len()),
            Self::Steps(steps) => {
                let length = steps.end.saturating_sub(steps.start) as usize;
                (step.index.saturating_sub(steps.start) as usize, length)
            }
        };
        let length = length.max(1);
        (done.min(length - 1), length)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epochs(epochs) => write!(f, "{}..{}ep", epochs.start, epochs.end),
            Self::Steps(steps) => write!(f, "{}..{}it", steps.start, steps.end),
        }
    }
}

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (start, end) = text.split_once("..").ok_or(())?;
        let (end, in_epochs) = match end.strip_suffix("ep") {
            Some(end) => (end, true),
            None => (end.strip_suffix("it").ok_or(())?, false),
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| ());
        let (start, end) = (number(start)?, number(end)?);
        Ok(match in_epochs {
            true => Self::Epochs(start as usize..end as usize),
            false => Self::Steps(start.into()..end.into()),
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|()| serde::de::Error::custom(Self::describe()))
    }
}

impl SettingValue for Span {
    fn describe() -> String {
        "epochs, as in \"0..5ep\", or steps, as in \"0..2000it\"".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hintons_schedule_falls_in_the_second_half() {
        let factors = [0, 1, 2, 3].map(|epoch| Schedule::HalfLinear.factor(epoch, 4));
        assert_eq!(factors, [1., 1., 0.75, 0.25]);
        assert_eq!(Schedule::HalfLinear.factor(0, 1), 1.);
        assert_eq!(Schedule::Linear.factor(3, 4), 0.25);
        assert_eq!(Schedule::Cosine.factor(0, 4), 1.);
        let factors = [49, 50, 75, 89, 94, 99].map(|epoch| Schedule::Steps.factor(epoch, 100));
        assert_eq!(factors, [0, 1, 2, 3, 4, 4].map(|steps| 0.25f64.powi(steps)));
    }

    #[test]
    fn a_span_counts_in_epochs_or_in_steps() {
        let at = |epoch, index| Step {
            epoch,
            index,
            ..Step::evaluation(1)
        };
        let epochs: Span = "2..5ep".parse().unwrap();
        assert!(epochs.contains(&at(2, 7)) && !epochs.contains(&at(5, 7)));
        assert_eq!(
            (epochs.progress(&at(3, 0)), epochs.last_epoch(10)),
            ((1, 3), 5)
        );
        assert_eq!(epochs.progress(&at(9, 0)), (2, 3));

        let steps: Span = "100..250it".parse().unwrap();
        assert!(steps.contains(&at(0, 100)) && !steps.contains(&at(0, 250)));
        assert!(!steps.has_begun(&at(3, 99)) && steps.has_begun(&at(0, 300)));
        assert_eq!(
            (steps.progress(&at(0, 130)), steps.last_epoch(100)),
            ((30, 150), 3)
        );

        // Epochs of 60 steps: the first ends before the span, which ends within the fifth.
        let met = [0, 1, 3, 4, 5].map(|epoch| {
            let last = at(epoch, 60 * (epoch as u64 + 1) - 1);
            (epochs.meets_epoch_of(&last), steps.meets_epoch_of(&last))
        });
        let expected = [
            (false, false),
            (false, true),
            (true, true),
            (true, true),
            (false, false),
        ];
        assert_eq!(met, expected);

        let first = [&epochs, &steps].map(|span| span.first_epoch(40));
        assert_eq!(first, [2, 2]);
        assert!(Span::Epochs(0..0).is_empty());
        assert_eq!(
            [epochs.to_string(), steps.to_string()],
            ["2..5ep", "100..250it"]
        );
        for wrong in ["2..5", "5ep", "a..5ep", "-1..5it"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
