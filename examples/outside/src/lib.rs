//! One plugin of each kind, in a separate crate.

mod architecture;
mod data;
mod goodness;
mod layer;
mod sampler;
