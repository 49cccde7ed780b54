//! Forward-only learning: every layer of a network learns from what reaches it on the way forward; nothing is handed
//! back.
//!
//! Hinton's Forward-Forward algorithm (<https://arxiv.org/abs/2212.13345>) is the first such rule carried here. This
//! crate is the framework and knows no method by name; the built-in methods, data sets and the program `onward` are in
//! the package `onward-plugins`.
//!
//! # I want to train
//!
//! Name an architecture, set what you want, fit, evaluate, save, load:
//!
//! ```
//! use onward::data::Split;
//! use onward::Run;
//!
//! let mut run = Run::builder("progressive")
//!     .data("digits")
//!     .set("hidden", vec![100, 100])
//!     .set("epochs", 2)
//!     .seed(1)
//!     .build()?;
//! let summary = run.fit(&mut ())?; // () does not watch; see `observe`
//! println!("test error {:.1}% by {}", 100. * summary.test.error, summary.test.readout);
//! # assert!(summary.test.error < 0.5);
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! run.save(folder)?;
//! let run = Run::load(folder)?;
//! assert_eq!(run.evaluate(Split::Test, None)?.readouts, summary.test.readouts);
//! # Ok::<(), onward::Error>(())
//! ```
//!
//! Settings, their defaults and ranges are shown by `onward show progressive`, names by `onward list`. More of it in
//! [the guide to training](guide::training).
//!
//! # I want to extend
//!
//! Four traits, one required method each but for an architecture, which also shows its parts; a plugin is one file that
//! implements one of them and registers it by name with [`register!`]. The trainer need not be touched.
//!
//! | trait               | is asked for                                             | required              |
//! |---------------------|----------------------------------------------------------|-----------------------|
//! | [`GoodnessFn`]      | how good an activity is                                  | `goodness`            |
//! | [`LocalLayer`]      | the activity of an input; how to learn from a gradient   | `forward`             |
//! | [`NegativeSampler`] | the passes to learn from                                 | `views`               |
//! | [`Architecture`]    | who feeds whom, and what is read out                     | `learn`, `scores`, …  |
//!
//! ```
//! use onward::candle_core::Tensor;
//! use onward::{GoodnessFn, Result, Run};
//!
//! onward::settings! {
//!     /// Goodness of an example as the mean of the absolute values of its activities.
//!     pub struct MeanAbsolute {}
//! }
//!
//! impl GoodnessFn for MeanAbsolute {
//!     fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
//!         Ok(activity.flatten_from(1)?.abs()?.mean(1)?)
//!     }
//!
//!     fn threshold(&self, _units: usize) -> f64 {
//!         0.5
//!     }
//! }
//!
//! onward::register! {
//!     dyn GoodnessFn, "mean_absolute", "mean absolute activity (an example)",
//!     |settings: MeanAbsolute, _context| Ok(Box::new(settings))
//! }
//!
//! let run = Run::builder("progressive").set("goodness", "mean_absolute").set("hidden", vec![50]).build()?;
//! # Ok::<(), onward::Error>(())
//! ```
//!
//! `onward new my-rule` writes a crate to start from. More of it in [the guide to extending](guide::extending); the
//! trials that every plugin has to pass are in [`conformance`].
//!
//! # I want to understand
//!
//! ```text
//! data set ─▶ Batch ─▶ NegativeSampler ─▶ Views ─▶ block 1 ─▶ block 2 ─▶ … ─▶ readout ─▶ scores
//!                                                  │
//!                                                  a block: LocalLayer + GoodnessFn + Loss + Optimiser
//! ```
//!
//! One direction. A [`Block`] receives [`Views`] of the examples, learns from them, and passes its activity on,
//! detached and normalised. The trainer owns the loop and knows no rule, no layer and no data set; an architecture owns
//! the wiring. What all views share ([`Input`]) is multiplied once. More of it in
//! [the guide to understanding](guide::understanding).
//!
//! A run is a function of its configuration: everything random is drawn from `(seed, purpose, step)` (see [`seed`]),
//! and the arithmetic gives the same bits at any number of threads. It need not give the same bits on another kind of
//! processor or device, or in another version of this crate.
//!
//! # Features
//!
//! | feature                | what it adds                                                                  |
//! |------------------------|-------------------------------------------------------------------------------|
//! | `cuda`, `cudnn`        | `--device cuda`; needs the CUDA toolkit at build time                         |
//! | `metal`                | `--device metal`                                                              |
//! | `accelerate`, `mkl`    | candle's products through these libraries, where no fast path of ours is used |
//! | `hub`                  | downloads data sets whose files are missing; on in `onward-plugins`           |

// The macros name this crate.
extern crate self as onward_core;

#[cfg(feature = "cli")]
pub mod cli;
pub mod conformance;
pub mod contract;
pub mod data;
pub mod error;
pub mod flow;
pub mod guide;
pub mod kernels;
pub mod modules;
pub mod optim;
pub mod plugin;
pub mod run;
pub mod settings;
pub mod wiring;

pub use candle_core;
pub use candle_nn;

pub use contract::architecture::Architecture;
pub use contract::block::{Block, StepReport};
pub use contract::build_context::BuildContext;
pub use contract::goodness::{GoodnessFn, Grade};
pub use contract::head::Head;
pub use contract::layer::{Lesson, LocalLayer};
pub use contract::loss::{Loss, Objective};
pub use contract::net::{Net, Readout};
pub use contract::prediction::Prediction;
pub use contract::sampler::NegativeSampler;
pub use data::text::tokenizer::Tokenizer;
pub use error::{Error, Located, Result};
pub use flow::batch::Batch;
pub use flow::input::{Input, Normalise, Values};
pub use flow::step::Step;
pub use flow::vars::Vars;
pub use flow::views::{Role, Targets, Views};
pub use modules::cache::LastResult;
pub use modules::conv::Conv;
pub use modules::linear::Linear;
pub use optim::Optimiser;
pub use run::summary::Summary;
pub use run::{Run, RunBuilder};

/// What the macros need, and what a plugin may.
pub mod export {
    pub use inventory;
    pub use serde;
    pub use toml::{Table, Value};
}
