//! Goodness functions.

mod class_groups;
mod mean_squares;
mod predsim;
mod projection;
mod prototypes;
mod ridge;
mod sum_squares;
