//! Forward-only learning: the core, the built-in methods and data sets, and the program
//! `onward`.

pub use onward_core::*;

/// The built-in methods and data sets, one file each. Nothing here is used by name: the
/// registry finds it.
#[path = "."]
mod methods {
    mod architectures;
    mod data;
    mod goodness;
    mod layers;
    mod rules;
    mod samplers;
}

/// The programs of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
