//! Forward-only learning: every layer of a network learns from its own input and output.
//! No error signal is sent back through the network.
//!
//! Hinton's Forward-Forward algorithm (<https://arxiv.org/abs/2212.13345>) is the first
//! such rule here. This crate, `onward-core`, is what plugins are written against. It
//! knows no method by name. The package `onward` is this crate, the built-in methods and
//! data sets, and the program; most users want that one.
//!
//! # Training
//!
//! Name an architecture, change settings, fit, evaluate, save, load:
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
//! let summary = run.fit(&mut ())?; // (): no observer; see `run::observe`
//! println!("test error {:.1}% ({})", 100. * summary.test.error, summary.test.readout);
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
//! `onward list` prints all plugins, `onward show progressive` the settings with their
//! defaults and ranges. More in [the guide to training](guide::training).
//!
//! # Extending
//!
//! There are four traits. Three of them have one required method. A plugin is one file
//! that implements one of them and registers it under a name with [`register!`]. The
//! trainer does not change.
//!
//! | trait | decides | required methods |
//! |---|---|---|
//! | [`GoodnessFn`] | how good an activity is | `goodness` |
//! | [`LocalLayer`] | what the activity of an input is | `forward` |
//! | [`NegativeSampler`] | which views a network learns from | `views` |
//! | [`Architecture`] | which block feeds which | `learn`, `scores`, `net`, `net_mut` |
//!
//! ```
//! use onward::candle_core::Tensor;
//! use onward::{GoodnessFn, Result, Run};
//!
//! onward::settings! {
//!     /// Sum of the absolute activities of an example, `(B, …)` to `(B,)`.
//!     pub struct SumAbsolute {}
//! }
//!
//! impl GoodnessFn for SumAbsolute {
//!     fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
//!         Ok(activity.flatten_from(1)?.abs()?.sum(1)?)
//!     }
//!
//!     fn threshold(&self, units: usize) -> f64 {
//!         0.5 * units as f64
//!     }
//! }
//!
//! onward::register! {
//!     dyn GoodnessFn, "sum_absolute", "sum of absolute activities (my idea, 2026)",
//!     |settings: SumAbsolute, _context| Ok(Box::new(settings))
//! }
//!
//! let run = Run::builder("progressive").set("goodness", "sum_absolute").set("hidden", vec![50]);
//! assert_eq!(run.build()?.architecture().net().blocks.len(), 1);
//! # Ok::<(), onward::Error>(())
//! ```
//!
//! `onward new my-rule` writes a crate to start from. More in
//! [the guide to extending](guide::extending). [`conformance`] has the trials that every
//! plugin has to pass.
//!
//! # How it works
//!
//! ```text
//! data set → Batch → NegativeSampler → Views → block 1 → block 2 → … → readout → scores
//!                                              │
//!                                              a block: LocalLayer + GoodnessFn + Loss + Optimiser
//! ```
//!
//! A [`Block`] receives views of the examples, learns from them, and passes its
//! activity on, detached and normalised. The trainer owns the loop over epochs and
//! batches, and knows no rule, layer or data set. An architecture owns the wiring. More
//! in [the guide to understanding](guide::understanding).
//!
//! A run is a function of its configuration: everything random is drawn from `(seed,
//! purpose, index)` (see [`flow::random`]), and the arithmetic gives the same bits at any
//! number of threads. Another version of this crate, another kind of processor or another
//! device may give other bits.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `cli` | the command line, for programs that link plugins; on in `onward` |
//! | `allocator` | `kernels::Allocator`, with which training is faster; on with `cli` |
//! | `hub` | downloads of data sets whose files are missing |
//! | `cuda`, `cudnn` | `--device cuda`; needs the CUDA toolkit to build |
//! | `metal` | `--device metal` |
//! | `accelerate`, `mkl` | candle's matrix products by these libraries, where no own kernel is used |

// The command line alone uses some of it.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]
// A message on a closed stderr would panic; see `error::notify`.
#![deny(clippy::print_stderr)]

// The macros name this crate.
extern crate self as onward_core;

#[cfg(feature = "cli")]
pub mod cli;
pub mod comm;
pub mod conformance;
pub mod contract;
pub mod data;
pub(crate) mod disk;
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
pub use image;

pub use contract::architecture::Architecture;
pub use contract::block::{Block, StepReport};
pub use contract::build_context::BuildContext;
pub use contract::goodness::{GoodnessFn, Grade};
pub use contract::head::Head;
pub use contract::layer::{Lesson, LocalLayer};
pub use contract::loss::{Loss, Objective};
pub use contract::net::{Net, Readout};
pub use contract::prediction::Prediction;
pub use contract::rule::Rule;
pub use contract::sampler::NegativeSampler;
pub use data::text::tokenizer::Tokenizer;
pub use error::{Error, Located, Result};
pub use flow::batch::Batch;
pub use flow::input::{Input, Normalise, Values};
pub use flow::reading::Reading;
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
