//! Samplers: the sources of positive and negative views.

mod hybrid_images;
mod label;
mod next_token;
mod plain;
