//! Plugins by name: registration, configuration, and the wrapper that checks them.

pub(crate) mod checked;
pub mod config;
pub mod registry;
