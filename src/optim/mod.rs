//! Optimisers of one block's variables: SGD with momentum, Adam, Muon.
//!
//! Unlike candle's optimisers these can be boxed, and their state can be saved and
//! restored. A gradient can be given as matrix products that are not computed yet.

mod accumulate;
mod gradient;
mod in_place;
mod muon;
mod optimiser;
mod output_gradient;
mod picked_rows;
mod product;
mod schedule;
mod spec;
mod update;

pub(crate) use self::gradient::formed;
pub use self::gradient::{Form, Gradient};
pub use self::optimiser::Optimiser;
pub use self::output_gradient::OutputGradient;
pub use self::product::Product;
pub use self::schedule::{Schedule, Span};
pub use self::spec::{Algorithm, OptimiserSpec};

/// The number of elements that one thread processes at a time.
const GRAIN: usize = 1 << 16;
