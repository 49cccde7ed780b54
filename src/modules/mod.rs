//! Building blocks of layers: weights that multiply an input and learn in closed form.

pub mod cache;
pub mod cells;
pub mod class_rows;
pub mod conv;
pub mod least_squares;
pub mod linear;
pub mod locally_connected;
pub mod passing;
pub mod peer_norm;
pub mod pooled_linear;
pub mod rectifier;
pub mod running_moments;
mod terms;
