//! Ranges of settings.

use std::fmt::Display;
use std::ops::{Range, RangeFrom, RangeInclusive};

/// A range of values: a Rust range, [`Positive`] or [`Finite`].
pub trait Allowed<T> {
    /// Whether a value is in the range.
    fn contains(&self, value: &T) -> bool;

    /// The range in words: `at least 1 and at most 10`.
    fn describe(&self) -> String;
}

impl<T: PartialOrd + Display> Allowed<T> for RangeFrom<T> {
    fn contains(&self, value: &T) -> bool {
        *value >= self.start
    }

    fn describe(&self) -> String {
        format!("at least {}", self.start)
    }
}

impl<T: PartialOrd + Display> Allowed<T> for Range<T> {
    fn contains(&self, value: &T) -> bool {
        *value >= self.start && *value < self.end
    }

    fn describe(&self) -> String {
        format!("at least {} and less than {}", self.start, self.end)
    }
}

impl<T: PartialOrd + Display> Allowed<T> for RangeInclusive<T> {
    fn contains(&self, value: &T) -> bool {
        value >= self.start() && value <= self.end()
    }

    fn describe(&self) -> String {
        format!("at least {} and at most {}", self.start(), self.end())
    }
}

/// Numbers greater than 0, up to a limit if one is given: `Positive`,
/// `Positive.up_to(1000.)`.
#[derive(Clone, Copy, Debug)]
pub struct Positive;

impl Positive {
    /// Numbers greater than 0 and at most `limit`.
    pub fn up_to(self, limit: f64) -> PositiveUpTo {
        PositiveUpTo(limit)
    }
}

impl Allowed<f64> for Positive {
    fn contains(&self, value: &f64) -> bool {
        *value > 0.
    }

    fn describe(&self) -> String {
        "greater than 0".into()
    }
}

/// Numbers greater than 0 and at most a limit; made by [`Positive::up_to`].
#[derive(Clone, Copy, Debug)]
pub struct PositiveUpTo(f64);

impl Allowed<f64> for PositiveUpTo {
    fn contains(&self, value: &f64) -> bool {
        *value > 0. && *value <= self.0
    }

    fn describe(&self) -> String {
        format!("greater than 0 and at most {}", self.0)
    }
}

/// All numbers except infinities and NaN.
#[derive(Clone, Copy, Debug)]
pub struct Finite;

impl Allowed<f64> for Finite {
    fn contains(&self, value: &f64) -> bool {
        value.is_finite()
    }

    fn describe(&self) -> String {
        "finite".into()
    }
}

/// A type whose values can be checked against a range of `S`: a number, or a list or
/// option of numbers.
///
/// A list must not be empty, and each element must be within the range. A number must be
/// finite.
pub trait Bounded<S> {
    /// Whether the value is within the range.
    fn is_within(&self, range: &impl Allowed<S>) -> bool;
}

impl Bounded<f64> for f64 {
    fn is_within(&self, range: &impl Allowed<f64>) -> bool {
        self.is_finite() && range.contains(self)
    }
}

impl Bounded<usize> for usize {
    fn is_within(&self, range: &impl Allowed<usize>) -> bool {
        range.contains(self)
    }
}

impl Bounded<u64> for u64 {
    fn is_within(&self, range: &impl Allowed<u64>) -> bool {
        range.contains(self)
    }
}

impl<S, T: Bounded<S>> Bounded<S> for Vec<T> {
    fn is_within(&self, range: &impl Allowed<S>) -> bool {
        !self.is_empty() && self.iter().all(|value| value.is_within(range))
    }
}

impl<S, T: Bounded<S>> Bounded<S> for Option<T> {
    fn is_within(&self, range: &impl Allowed<S>) -> bool {
        self.as_ref().is_none_or(|value| value.is_within(range))
    }
}
