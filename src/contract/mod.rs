//! The contract: the four traits that a plugin can implement, and the types that hold
//! their parts.
//!
//! | trait | decides |
//! |---|---|
//! | [`LocalLayer`](layer::LocalLayer) | the activity of an input, and how to learn |
//! | [`GoodnessFn`](goodness::GoodnessFn) | the score of an activity, and the loss |
//! | [`NegativeSampler`](sampler::NegativeSampler) | the views to learn from |
//! | [`Architecture`](architecture::Architecture) | which block feeds which, and what is read out |

pub mod architecture;
pub mod block;
pub mod build_context;
pub mod goodness;
pub mod head;
pub mod layer;
pub mod loss;
pub mod negatives;
pub mod net;
pub mod prediction;
pub mod rule;
pub mod sampler;
pub mod staged;
