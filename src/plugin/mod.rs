//! Plugins by name: registration, configuration, building, and the wrapper that checks
//! them.

mod added;
mod build;
pub(crate) mod checked;
pub mod config;
pub(crate) mod facts;
pub mod preset;
pub mod registry;
pub mod run_settings;
pub mod source;

pub use self::added::{add, Description};
pub use self::build::build;
pub(crate) use self::build::build_complete;
pub use self::facts::{beside_own_rule, has_own_rule};
