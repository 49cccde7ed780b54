//! One plugin of each kind, in a crate of its own.

mod architecture;
mod data;
mod goodness;
mod layer;
mod sampler;
