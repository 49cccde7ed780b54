//! Goodness functions.

mod mean_squares;
mod predsim;
mod projection;
mod sum_squares;
