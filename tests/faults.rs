//! Plugins that break, one for every way of breaking: each ends a run with an error that names it and its package, and
//! none brings down the program. All of them are made for these tests.

use std::sync::Arc;

use onward::candle_core::{Device, Tensor};
use onward::conformance;
use onward::data::{Augment, DataSet, Examples};
use onward::{
    registry, Architecture, Batch, Block, Error, GoodnessFn, Input, NegativeSampler, Readout,
    Report, Result, Role, Run, Step, Views,
};

onward::settings! {
    /// A plugin that breaks.
    struct Broken {}
}

macro_rules! broken {
    ($($kind:ty, $name:literal, $build:expr;)*) => {
        $(onward::register! {
            $kind, $name, "breaks (made for these tests, 2026)",
            |_settings: Broken, _context| $build
        })*
    };
}

broken! {
    dyn GoodnessFn, "g_nan_gradient", Ok(Box::new(Squares::NanGradient));
    dyn GoodnessFn, "g_flat_gradient", Ok(Box::new(Squares::FlatGradient));
    dyn GoodnessFn, "g_threshold_panics", Ok(Box::new(Squares::ThresholdPanics));
    dyn GoodnessFn, "g_threshold_nan", Ok(Box::new(Squares::ThresholdNan));
    dyn GoodnessFn, "g_classes_panics", Ok(Box::new(Squares::ClassesPanics));
    dyn NegativeSampler, "s_panics", Ok(Box::new(Sampler::Panics));
    dyn NegativeSampler, "s_nan", Ok(Box::new(Sampler::Nan));
    dyn NegativeSampler, "s_half_the_batch", Ok(Box::new(Sampler::HalfTheBatch));
    dyn NegativeSampler, "s_few_labels", Ok(Box::new(Sampler::FewLabels));
    dyn NegativeSampler, "s_refresh_panics", Ok(Box::new(Sampler::RefreshPanics));
    dyn NegativeSampler, "s_supervised_panics", Ok(Box::new(Sampler::SupervisedPanics));
    dyn Architecture, "a_learn_panics", Ok(Box::new(Net::LearnPanics));
    dyn Architecture, "a_blocks_panics", Ok(Box::new(Net::BlocksPanics));
    dyn Architecture, "a_readouts_panics", Ok(Box::new(Net::ReadoutsPanics));
    dyn Architecture, "a_epochs_panics", Ok(Box::new(Net::EpochsPanics));
    dyn Architecture, "a_few_scores", Ok(Box::new(Net::FewScores));
    dyn Architecture, "a_nan_scores", Ok(Box::new(Net::NanScores));
    dyn Architecture, "a_no_such_block", Ok(Box::new(Net::NoSuchBlock));
    DataSet, "d_panics", panic!("no disk");
    DataSet, "d_batch_panics", data(Part::Panics);
    DataSet, "d_nan", data(Part::Nan);
    DataSet, "d_wide", data(Part::Wide);
    DataSet, "d_fifth_class", data(Part::FifthClass);
    DataSet, "d_len_panics", data(Part::LenPanics);
}

/// Sums of squares, and one fault.
#[derive(PartialEq)]
enum Squares {
    NanGradient,
    FlatGradient,
    ThresholdPanics,
    ThresholdNan,
    ClassesPanics,
}

impl GoodnessFn for Squares {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.flatten_from(1)?.sqr()?.sum(1)?)
    }

    fn classes(&self) -> Option<usize> {
        assert!(*self != Self::ClassesPanics, "who counts classes?");
        None
    }

    fn threshold(&self, units: usize) -> f64 {
        assert!(*self != Self::ThresholdPanics, "{units} units are too many");
        if *self == Self::ThresholdNan {
            return f64::NAN;
        }
        units as f64
    }

    fn gradient(&self, activity: &Tensor, _upstream: &Tensor) -> Result<Tensor> {
        match self {
            Self::NanGradient => Ok((activity.zeros_like()? / 0.)?),
            Self::FlatGradient => Ok(activity.flatten_all()?),
            _ => Ok(activity.clone()),
        }
    }
}

/// The examples and their halves, and one fault.
#[derive(PartialEq)]
enum Sampler {
    Panics,
    Nan,
    HalfTheBatch,
    FewLabels,
    RefreshPanics,
    SupervisedPanics,
}

impl NegativeSampler for Sampler {
    fn views(
        &mut self,
        batch: &Batch,
        _: &mut dyn FnMut() -> Result<Tensor>,
        _: &Step,
    ) -> Result<Views> {
        assert!(*self != Self::Panics, "a bad draw");
        let mut negative = (batch.examples() * 0.5)?;
        let mut positive = batch.examples().clone();
        if *self == Self::Nan {
            negative = (negative.zeros_like()? / 0.)?;
        }
        if *self == Self::HalfTheBatch {
            positive = positive.narrow(0, 0, batch.size() / 2)?;
            negative = negative.narrow(0, 0, batch.size() / 2)?;
        }
        let labels = (*self == Self::FewLabels).then(|| vec![0]);
        let both = Tensor::cat(&[positive, negative], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
            labels,
        )
    }

    fn is_supervised(&self) -> bool {
        assert!(*self != Self::SupervisedPanics, "nobody decided");
        false
    }

    fn refresh(
        &self,
        _: &dyn Examples,
        _: &dyn Fn(&Batch) -> Result<Tensor>,
        _: &Step,
    ) -> Result<Option<std::collections::HashMap<String, Tensor>>> {
        assert!(*self != Self::RefreshPanics, "nothing fresh");
        Ok(None)
    }
}

/// No block at all, scores of zero, and one fault.
#[derive(PartialEq)]
enum Net {
    LearnPanics,
    BlocksPanics,
    ReadoutsPanics,
    EpochsPanics,
    FewScores,
    NanScores,
    NoSuchBlock,
}

impl Architecture for Net {
    fn learn(
        &mut self,
        _: &Batch,
        _: &mut dyn NegativeSampler,
        _: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        assert!(*self != Self::LearnPanics, "no wires");
        Ok(if *self == Self::NoSuchBlock {
            vec![(3, Report::default())]
        } else {
            Vec::new()
        })
    }

    fn scores(&self, batch: &Batch, _: &dyn NegativeSampler, _: &str, _: &Step) -> Result<Tensor> {
        let score = if *self == Self::NanScores {
            f32::NAN
        } else {
            0.
        };
        let classes = if *self == Self::FewScores { 3 } else { 4 };
        Ok(Tensor::full(
            score,
            (batch.size(), classes),
            batch.device(),
        )?)
    }

    fn readouts(&self) -> Vec<Readout> {
        assert!(*self != Self::ReadoutsPanics, "nothing to read");
        vec![Readout {
            name: "zero",
            cheap: true,
            log_probabilities: false,
        }]
    }

    fn blocks(&self) -> &[Block] {
        assert!(*self != Self::BlocksPanics, "not yet written");
        &[]
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut []
    }

    fn epochs(&self) -> usize {
        assert!(*self != Self::EpochsPanics, "time is up");
        1
    }
}

/// Twenty examples of a data set, and one fault.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Panics,
    Nan,
    Wide,
    FifthClass,
    LenPanics,
}

impl Examples for Part {
    fn len(&self) -> usize {
        assert!(*self != Self::LenPanics, "lost count");
        20
    }

    fn batch(&self, indices: &[usize], _: Option<&Augment<'_>>) -> Result<Batch> {
        assert!(*self != Self::Panics, "a bad sector");
        let value = if *self == Self::Nan { f32::NAN } else { 0.5 };
        let width = if *self == Self::Wide { 5 } else { 4 };
        let label = if *self == Self::FifthClass { 4 } else { 1 };
        Batch::new(
            Tensor::full(value, (indices.len(), 1, 4, width), &Device::Cpu)?,
            vec![label; indices.len()],
        )
    }
}

fn data(part: Part) -> Result<Box<DataSet>> {
    let part: Arc<dyn Examples> = Arc::new(part);
    let kind = conformance::images()?.kind;
    Ok(Box::new(DataSet {
        kind,
        train: part.clone(),
        validation: part.clone(),
        test: part,
        text: None,
    }))
}

#[test]
fn whatever_a_plugin_does_wrong_the_error_has_its_name_and_its_package() {
    let faults = [
        (
            "goodness",
            "g_nan_gradient",
            "gave a gradient that is not finite for a finite activity",
        ),
        (
            "goodness",
            "g_flat_gradient",
            "gave a gradient of shape [800], expected [40, 20]",
        ),
        (
            "goodness",
            "g_threshold_panics",
            "panicked: 20 units are too many",
        ),
        (
            "goodness",
            "g_threshold_nan",
            "gave a threshold of NaN for 20 units",
        ),
        (
            "goodness",
            "g_classes_panics",
            "panicked: who counts classes?",
        ),
        ("sampler", "s_panics", "panicked: a bad draw"),
        (
            "sampler",
            "s_nan",
            "made of finite examples views that are not finite",
        ),
        (
            "sampler",
            "s_half_the_batch",
            "gave 2 views of 10 examples, expected 2 views of 20",
        ),
        ("sampler", "s_few_labels", "gave 1 labels for 20 examples"),
        ("sampler", "s_refresh_panics", "panicked: nothing fresh"),
        ("sampler", "s_supervised_panics", "panicked: nobody decided"),
        ("architecture", "a_learn_panics", "panicked: no wires"),
        (
            "architecture",
            "a_blocks_panics",
            "panicked: not yet written",
        ),
        (
            "architecture",
            "a_readouts_panics",
            "panicked: nothing to read",
        ),
        ("architecture", "a_epochs_panics", "panicked: time is up"),
        (
            "architecture",
            "a_few_scores",
            "gave scores of shape [20, 3], expected [20, 4]",
        ),
        (
            "architecture",
            "a_nan_scores",
            "gave scores by zero that are not finite",
        ),
        (
            "architecture",
            "a_no_such_block",
            "reported of block 3, counted from 0, of 0",
        ),
        ("data", "d_panics", "panicked: no disk"),
        ("data", "d_batch_panics", "panicked: a bad sector"),
        ("data", "d_nan", "gave examples that are not finite"),
        (
            "data",
            "d_wide",
            "gave examples of shape [1, 1, 4, 5], expected [1, 1, 4, 4]",
        ),
        (
            "data",
            "d_fifth_class",
            "gave a label of 4, counted from 0; there are 4 classes",
        ),
        ("data", "d_len_panics", "panicked: lost count"),
    ];
    for (kind, name, expected) in faults {
        let run = Run::builder(if kind == "architecture" {
            name
        } else {
            "progressive"
        });
        let run = if kind == "data" {
            run.data(name)
        } else {
            run.data_set(conformance::images().unwrap())
        };
        let run = match kind {
            "architecture" => run.set("sampler", "plain"),
            "sampler" => run.set("sampler", name).set("hidden", vec![20, 20]),
            _ => run
                .set("sampler", "label_overlay")
                .set("hidden", vec![20, 20]),
        };
        let run = if kind == "goodness" {
            run.set(kind, name)
        } else {
            run
        };
        let outcome = run
            .set("batch", 20)
            .set("epochs", 1)
            .build()
            .and_then(|mut run| run.fit(&mut ()));
        let error = outcome
            .err()
            .unwrap_or_else(|| panic!("{kind} {name} ends a run well"));
        let message = error.to_string();
        let plugin = format!("{kind} {name} (package onward-core)");
        assert!(
            message.contains(&plugin) && message.contains(expected),
            "{plugin} or {expected} missing: {message}"
        );
        assert_eq!(
            message.matches("(package").count(),
            1,
            "another plugin is named as well: {message}"
        );
        assert!(!error.is_usage(), "it is not the user's fault: {message}");
    }
    let tried = |kind: &str| faults.iter().filter(|fault| fault.0 == kind).count();
    let registered = |kind: &str| {
        let infos = registry::infos(kind).unwrap();
        infos.iter().filter(|info| info.package == "onward-core").count()
    };
    for kind in registry::KINDS {
        assert_eq!(
            tried(kind),
            registered(kind),
            "a broken {kind} is not tried"
        );
    }
}

#[test]
fn data_of_the_program_itself_are_called_so() {
    let run = Run::builder("progressive").data_set(*data(Part::Wide).unwrap());
    let error = run.build().err().unwrap();
    assert!(
        matches!(error, Error::Plugin { .. })
            && error.to_string().contains("the program's own data"),
        "{error}"
    );
}
