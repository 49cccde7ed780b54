//! The contract: the four traits that a plugin can implement, and what holds their parts.

pub mod architecture;
pub mod block;
pub mod build_context;
pub mod goodness;
pub mod head;
pub mod layer;
pub mod loss;
pub mod sampler;
