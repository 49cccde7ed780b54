//! Goodness functions.

mod cafo;
mod class_groups;
mod mean_squares;
mod predsim;
mod projection;
mod prototypes;
mod sum_squares;

use onward_core::plugin::preset::Preset;

/// What a goodness for each class brings along: the loss of a classifier, and no
/// negatives.
const CLASSIFIER: &[Preset] = &[Preset {
    name: "classifier",
    about: "the loss of a local classifier, without negatives",
    settings: r#"
        loss = "cross_entropy"
        sampler = "plain"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        head = false
    "#,
}];
