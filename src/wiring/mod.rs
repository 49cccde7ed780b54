//! Wiring that several architectures share.

pub mod stack;
