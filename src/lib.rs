//! Forward-only learning (stub).
extern crate self as onward;

pub mod architecture;
pub mod block;
mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
mod folder;
pub mod goodness;
pub mod head;
pub mod input;
pub mod layer;
pub mod linear;
pub mod loss;
pub mod observe;
pub mod ops;
pub mod optim;
pub mod registry;
pub mod run;
pub mod sampler;
pub mod seed;
pub mod settings;
pub mod site;
mod trainer;
pub mod vars;
pub mod views;

pub use candle_core;
pub use candle_nn;

pub use architecture::{Architecture, Readout};
pub use block::{Block, Objective, Report};
pub use error::{Context, Error, Result};
pub use goodness::GoodnessFn;
pub use head::Head;
pub use input::{Input, Normalise, Values};
pub use layer::{Lesson, LocalLayer};
pub use linear::Linear;
pub use loss::Loss;
pub use optim::Optimiser;
pub use run::{Run, RunBuilder, Summary};
pub use sampler::NegativeSampler;
pub use seed::Step;
pub use site::Site;
pub use vars::Vars;
pub use views::{Batch, Role, Views};

/// What the macros need.
#[doc(hidden)]
pub mod export {
    pub use inventory;
    pub use serde;
    pub use toml::{Table, Value};
}
