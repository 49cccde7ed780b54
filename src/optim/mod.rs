//! The update of one block's variables: stochastic gradient descent with momentum, and Adam.
//!
//! Unlike candle's optimisers these can be boxed, their state can be saved and restored, and a gradient can be given as
//! the matrix products it is made of.

mod accumulate;
mod gradient;
mod optimiser;
mod output_gradient;
mod picked_rows;
mod product;
mod schedule;
mod update;

pub(crate) use self::gradient::formed;
pub use self::gradient::{Form, Gradient};
pub use self::optimiser::{Algorithm, Optimiser, OptimiserSpec};
pub use self::output_gradient::OutputGradient;
pub use self::product::Product;
pub use self::schedule::{Schedule, Span};

/// Elements that one thread takes at a time.
const GRAIN: usize = 1 << 16;
