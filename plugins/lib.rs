//! The built-in methods and data sets of [`onward`]: one file each.
//!
//! Nothing here is used by name. A program links this crate with `use onward_plugins as _;` and finds what is in it
//! through the registry.

mod backprop;
mod cifar;
mod conv;
mod dense;
mod digits;
mod embedding;
mod folder;
mod hybrid_images;
mod idx;
mod label;
mod local;
mod mean_squares;
mod mnist;
mod next_token;
mod nlp;
mod plain;
mod progressive;
mod projection;
mod recurrent;
mod sum_squares;
mod text;
