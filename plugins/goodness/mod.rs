//! Goodness functions.

mod mean_squares;
mod projection;
mod sum_squares;
