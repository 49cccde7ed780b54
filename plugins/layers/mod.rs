//! Layers.

mod conv;
mod dense;
mod embedding;
mod local;
