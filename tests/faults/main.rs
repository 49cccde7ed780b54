//! Plugins that fail, one for every kind of fault.
//!
//! Each ends a run with an error that names the plugin and its package. No fault crashes
//! the program.

mod plugins;
mod shapes;

use onward::conformance;
use onward::data::DataSet;
use onward::plugin::registry;
use onward::{Architecture, Error, GoodnessFn, LocalLayer, NegativeSampler, Run};

use plugins::*;

onward::settings! {
    /// A plugin that fails.
    struct Broken {}
}

macro_rules! broken {
    ($($kind:ty, $name:literal, $build:expr;)*) => {
        $(onward::register! {
            $kind, $name, "fails (for these tests, 2026)",
            |_settings: Broken, _context| $build
        })*
    };
}

broken! {
    dyn LocalLayer, "l_panics", Ok(Box::new(Layer::Panics));
    dyn LocalLayer, "l_few_rows", Ok(Box::new(Layer::FewRows));
    dyn LocalLayer, "l_nan", Ok(Box::new(Layer::Nan));
    dyn LocalLayer, "l_learn_panics", Ok(Box::new(Layer::LearnPanics));
    dyn LocalLayer, "l_epoch_panics", Ok(Box::new(Layer::EpochPanics));
    dyn GoodnessFn, "g_nan_gradient", Ok(Box::new(Squares::NanGradient));
    dyn GoodnessFn, "g_flat_gradient", Ok(Box::new(Squares::FlatGradient));
    dyn GoodnessFn, "g_threshold_panics", Ok(Box::new(Squares::ThresholdPanics));
    dyn GoodnessFn, "g_threshold_nan", Ok(Box::new(Squares::ThresholdNan));
    dyn GoodnessFn, "g_classes_panics", Ok(Box::new(Squares::ClassesPanics));
    dyn GoodnessFn, "g_grade_panics", Ok(Box::new(Squares::GradePanics));
    dyn GoodnessFn, "g_narrow_grade", Ok(Box::new(Squares::NarrowGrade));
    dyn GoodnessFn, "g_learn_panics", Ok(Box::new(Squares::LearnPanics));
    dyn GoodnessFn, "g_epoch_panics", Ok(Box::new(Squares::EpochPanics));
    dyn NegativeSampler, "s_panics", Ok(Box::new(Sampler::Panics));
    dyn NegativeSampler, "s_nan", Ok(Box::new(Sampler::Nan));
    dyn NegativeSampler, "s_half_the_batch", Ok(Box::new(Sampler::HalfTheBatch));
    dyn NegativeSampler, "s_few_labels", Ok(Box::new(Sampler::FewLabels));
    dyn NegativeSampler, "s_refresh_panics", Ok(Box::new(Sampler::RefreshPanics));
    dyn NegativeSampler, "s_labels_panics", Ok(Box::new(Sampler::LabelsPanics));
    dyn Architecture, "a_learn_panics", net(Fault::LearnPanics);
    dyn Architecture, "a_net_panics", net(Fault::NetPanics);
    dyn Architecture, "a_epoch_panics", net(Fault::EpochPanics);
    dyn Architecture, "a_few_scores", net(Fault::FewScores);
    dyn Architecture, "a_nan_scores", net(Fault::NanScores);
    dyn Architecture, "a_no_such_block", net(Fault::NoSuchBlock);
    DataSet, "d_panics", panic!("panic in build");
    DataSet, "d_batch_panics", data(Part::Panics);
    DataSet, "d_nan", data(Part::Nan);
    DataSet, "d_wide", data(Part::Wide);
    DataSet, "d_fifth_class", data(Part::FifthClass);
    DataSet, "d_len_panics", data(Part::LenPanics);
}

#[test]
fn every_fault_is_an_error_that_names_the_plugin_and_its_package() {
    let faults = [
        ("layer", "l_panics", "panicked: panic in forward"),
        (
            "layer",
            "l_few_rows",
            "returned an activity of shape [1, 16], expected (20, …)",
        ),
        ("layer", "l_nan", "returned an activity that is not finite"),
        (
            "layer",
            "l_learn_panics",
            "panicked: panic in learn of the layer",
        ),
        (
            "layer",
            "l_epoch_panics",
            "panicked: panic in epoch_ended of the layer",
        ),
        (
            "goodness",
            "g_nan_gradient",
            "returned a gradient that is not finite",
        ),
        (
            "goodness",
            "g_flat_gradient",
            "returned a gradient of shape [800], expected [40, 20]",
        ),
        (
            "goodness",
            "g_threshold_panics",
            "panicked: panic in threshold of 20 units",
        ),
        (
            "goodness",
            "g_threshold_nan",
            "has a threshold of NaN for 20 units",
        ),
        ("goodness", "g_classes_panics", "panicked: panic in classes"),
        ("goodness", "g_grade_panics", "panicked: panic in grade"),
        (
            "goodness",
            "g_narrow_grade",
            "returned a gradient of shape [40, 1], expected [40, 20]",
        ),
        (
            "goodness",
            "g_learn_panics",
            "panicked: panic in learn of the goodness",
        ),
        (
            "goodness",
            "g_epoch_panics",
            "panicked: panic in epoch_ended of the goodness",
        ),
        ("sampler", "s_panics", "panicked: panic in views"),
        (
            "sampler",
            "s_nan",
            "returned views that are not finite, for finite examples",
        ),
        (
            "sampler",
            "s_half_the_batch",
            "returned 2 views of 10 examples, expected 2 of 20",
        ),
        ("sampler", "s_few_labels", "returned 1 labels, expected 20"),
        ("sampler", "s_refresh_panics", "panicked: panic in refresh"),
        (
            "sampler",
            "s_labels_panics",
            "panicked: panic in uses_labels",
        ),
        (
            "architecture",
            "a_learn_panics",
            "panicked: panic in learn of the architecture",
        ),
        ("architecture", "a_net_panics", "panicked: panic in net"),
        (
            "architecture",
            "a_epoch_panics",
            "panicked: panic in epoch_ended of the net",
        ),
        (
            "architecture",
            "a_few_scores",
            "returned scores of shape [20, 3], expected [20, 4]",
        ),
        (
            "architecture",
            "a_nan_scores",
            "returned scores by zero that are not finite",
        ),
        (
            "architecture",
            "a_no_such_block",
            "reported on block 3, counted from 0; it has 0",
        ),
        ("data", "d_panics", "panicked: panic in build"),
        ("data", "d_batch_panics", "panicked: panic in batch"),
        ("data", "d_nan", "returned examples that are not finite"),
        (
            "data",
            "d_wide",
            "returned examples of shape [1, 1, 4, 5], expected [1, 1, 4, 4]",
        ),
        (
            "data",
            "d_fifth_class",
            "returned a label of 4, counted from 0; there are 4 classes",
        ),
        ("data", "d_len_panics", "panicked: panic in len"),
    ];
    for (kind, name, expected) in faults {
        let is_architecture = kind == "architecture";
        let run = Run::builder(if is_architecture { name } else { "progressive" });
        let run = match kind {
            "data" => run.data(name),
            _ => run.data_set(conformance::images().unwrap()),
        };
        let run = match kind {
            "architecture" => run.set("sampler", "plain"),
            _ => run
                .set("sampler", "label_overlay")
                .set("hidden", vec![20, 20]),
        };
        let run = match kind {
            "layer" | "goodness" | "sampler" => run.set(kind, name),
            _ => run,
        };
        let run = run.set("batch", 20).set("epochs", 1);
        let outcome = run.build().and_then(|mut run| run.fit(&mut ()));
        let error = outcome
            .err()
            .unwrap_or_else(|| panic!("{kind} {name} ends a run without an error"));
        let message = error.to_string();
        let plugin = format!("{kind} {name} (package onward-core)");
        assert!(
            message.contains(&plugin) && message.contains(expected),
            "{plugin} or {expected} is missing from: {message}"
        );
        assert_eq!(
            message.matches("(package").count(),
            1,
            "names another plugin too: {message}"
        );
        assert!(!error.is_usage(), "reported as a usage error: {message}");
    }
    let tried = |kind: &str| faults.iter().filter(|fault| fault.0 == kind).count();
    let registered = |kind: &str| {
        let infos = registry::infos(kind).unwrap();
        infos
            .iter()
            .filter(|info| info.package == "onward-core")
            .count()
    };
    for kind in registry::KINDS {
        assert_eq!(
            tried(kind),
            registered(kind),
            "a {kind} of this file is not in the list"
        );
    }
}

#[test]
fn an_error_in_the_programs_own_data_says_so() {
    let run = Run::builder("progressive").data_set(*data(Part::Wide).unwrap());
    let error = run.build().err().unwrap();
    assert!(
        matches!(error, Error::Plugin { .. })
            && error.to_string().contains("the program's own data"),
        "{error}"
    );
}
