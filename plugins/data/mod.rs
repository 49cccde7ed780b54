//! Data sets.

mod cifar;
mod digits;
mod folder;
mod idx;
mod mnist;
mod text;
