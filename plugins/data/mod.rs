//! Data sets.

mod cifar;
mod digits;
mod folder;
mod idx;
mod mnist;
mod text;

use onward_core::plugin::preset::Preset;

/// Photographs are bright, and so may pixels of unknown origin be, such as dark objects on
/// white paper. The mean would hide what differs between the views of an image, and rules
/// that compare views would not learn.
const STANDARDISED: &[Preset] = &[Preset {
    name: "standardised",
    about: "each channel with mean 0 and deviation 1 over the training part",
    settings: "standardise = true",
}];
