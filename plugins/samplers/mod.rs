//! Samplers: the views that layers learn from.

mod hybrid_images;
mod label;
mod next_token;
mod plain;
