//! Goodness functions.

mod cafo;
mod class_groups;
mod mean_squares;
mod predsim;
mod projection;
mod prototypes;
mod sum_squares;
