//! Data types that pass through a network: batches, inputs, views, steps, variables.

pub mod batch;
pub mod examples;
pub mod graph;
pub mod input;
pub mod random;
pub mod reading;
pub mod sampled_classes;
pub mod step;
pub mod vars;
pub mod views;
