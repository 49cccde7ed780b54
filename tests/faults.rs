//! Plugins that fail, one for every kind of fault.
//!
//! Each ends a run with an error that names the plugin and its package. No fault crashes
//! the program.

use std::sync::Arc;

use onward::candle_core::{DType, Device, Tensor};
use onward::conformance;
use onward::data::DataSet;
use onward::flow::examples::{Augment, Examples};
use onward::optim::{Optimiser, OptimiserSpec, Span};
use onward::plugin::registry;
use onward::{
    Architecture, Batch, Error, GoodnessFn, Grade, Head, Input, Lesson, LocalLayer,
    NegativeSampler, Net, Objective, Prediction, Readout, Result, Role, Run, Step, StepReport,
    Targets, Vars, Views,
};

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

/// A layer that returns its input, with one fault.
#[derive(PartialEq)]
enum Layer {
    Panics,
    FewRows,
    Nan,
    LearnPanics,
    EpochPanics,
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _: &Step) -> Result<Tensor> {
        assert!(*self != Self::Panics, "panic in forward");
        let activity = input.join()?.flatten_from(1)?;
        Ok(match self {
            Self::FewRows if input.rows() > 1 => activity.narrow(0, 0, 1)?,
            Self::Nan if input.rows() > 1 => (activity.zeros_like()? / 0.)?,
            _ => activity,
        })
    }

    fn learn(&mut self, _: &Lesson<'_>, _: &mut Optimiser, _: &Step) -> Result<()> {
        assert!(*self != Self::LearnPanics, "panic in learn of the layer");
        Ok(())
    }

    fn epoch_ended(&mut self, _: &Step) -> Result<()> {
        assert!(
            *self != Self::EpochPanics,
            "panic in epoch_ended of the layer"
        );
        Ok(())
    }
}

/// The sum of squares, with one fault.
#[derive(PartialEq)]
enum Squares {
    NanGradient,
    FlatGradient,
    ThresholdPanics,
    ThresholdNan,
    ClassesPanics,
    GradePanics,
    NarrowGrade,
    LearnPanics,
    EpochPanics,
}

impl GoodnessFn for Squares {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.flatten_from(1)?.sqr()?.sum(1)?)
    }

    fn classes(&self) -> Option<usize> {
        assert!(*self != Self::ClassesPanics, "panic in classes");
        None
    }

    fn threshold(&self, units: usize) -> f64 {
        assert!(
            *self != Self::ThresholdPanics,
            "panic in threshold of {units} units"
        );
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

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        assert!(*self != Self::GradePanics, "panic in grade");
        let goodness = self.goodness(activity)?;
        let (loss, upstream) = objective.grade(&goodness, 1., targets)?;
        let mut gradient = self.gradient(activity, &upstream)?;
        if *self == Self::NarrowGrade {
            gradient = gradient.narrow(1, 0, 1)?;
        }
        Ok(Grade {
            loss,
            gradient: Some(gradient),
            goodness: Some(goodness),
            upstream: Some(upstream),
            own: None,
        })
    }

    fn learn(
        &mut self,
        _: &Tensor,
        _: &Grade,
        _: &Targets,
        _: &mut Optimiser,
        _: &Step,
    ) -> Result<()> {
        assert!(*self != Self::LearnPanics, "panic in learn of the goodness");
        Ok(())
    }

    fn epoch_ended(&mut self, _: &Step) -> Result<()> {
        assert!(
            *self != Self::EpochPanics,
            "panic in epoch_ended of the goodness"
        );
        Ok(())
    }
}

/// The examples and half of their values, with one fault.
#[derive(PartialEq)]
enum Sampler {
    Panics,
    Nan,
    HalfTheBatch,
    FewLabels,
    RefreshPanics,
    LabelsPanics,
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        assert!(*self != Self::Panics, "panic in views");
        let mut negative = (batch.examples() * 0.5)?;
        let mut positive = batch.examples().clone();
        if *self == Self::Nan {
            negative = (negative.zeros_like()? / 0.)?;
        }
        if *self == Self::HalfTheBatch {
            positive = positive.narrow(0, 0, batch.size() / 2)?;
            negative = negative.narrow(0, 0, batch.size() / 2)?;
        }
        let both = Tensor::cat(&[positive, negative], 0)?;
        let roles = vec![Role::Positive, Role::Negative];
        let mut views = Views::new(Input::stacked(both, 2)?, roles)?;
        if *self == Self::FewLabels {
            views.targets = views.targets.with_labels(Some(vec![0]));
        }
        Ok(views)
    }

    fn uses_labels(&self) -> bool {
        assert!(*self != Self::LabelsPanics, "panic in uses_labels");
        *self == Self::FewLabels
    }

    fn refresh(
        &self,
        _: &dyn Examples,
        _: &dyn Fn(&Batch) -> Result<Tensor>,
        _: &Step,
    ) -> Result<()> {
        assert!(*self != Self::RefreshPanics, "panic in refresh");
        Ok(())
    }
}

/// An architecture with an untrained head and scores of zero, with one fault.
struct Broke(Fault, Net);

#[derive(PartialEq)]
enum Fault {
    LearnPanics,
    NetPanics,
    EpochPanics,
    FewScores,
    NanScores,
    NoSuchBlock,
}

fn net(fault: Fault) -> Result<Box<dyn Architecture>> {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let head = Head::new(&vars, 1, 4, OptimiserSpec::sgd(0.1), Span::Epochs(0..1))?;
    let readouts = vec![Readout::new("zero").cheap()];
    let parts = Net {
        heads: vec![head],
        readouts,
        ..Net::default()
    };
    Ok(Box::new(Broke(fault, parts)))
}

impl Architecture for Broke {
    fn learn(
        &mut self,
        _: &Batch,
        _: &dyn NegativeSampler,
        _: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        assert!(
            self.0 != Fault::LearnPanics,
            "panic in learn of the architecture"
        );
        Ok(match self.0 {
            Fault::NoSuchBlock => vec![(3, StepReport::default())],
            _ => Vec::new(),
        })
    }

    fn scores(
        &self,
        batch: &Batch,
        _: &dyn NegativeSampler,
        _: &Readout,
        _: &Step,
    ) -> Result<Tensor> {
        let score = if self.0 == Fault::NanScores {
            f32::NAN
        } else {
            0.
        };
        let classes = if self.0 == Fault::FewScores { 3 } else { 4 };
        Ok(Tensor::full(
            score,
            (batch.size(), classes),
            batch.device(),
        )?)
    }

    fn net(&self) -> &Net {
        assert!(self.0 != Fault::NetPanics, "panic in net");
        &self.1
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.1
    }

    fn epoch_ended(&mut self, _: &Step) -> Result<()> {
        assert!(
            self.0 != Fault::EpochPanics,
            "panic in epoch_ended of the net"
        );
        Ok(())
    }
}

/// Twenty examples of a data set, with one fault.
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
        assert!(*self != Self::LenPanics, "panic in len");
        20
    }

    fn batch(&self, indices: &[usize], _: Option<&Augment<'_>>) -> Result<Batch> {
        assert!(*self != Self::Panics, "panic in batch");
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
    let spec = conformance::images()?.spec;
    Ok(Box::new(DataSet {
        spec,
        train: part.clone(),
        validation: part.clone(),
        test: part,
        text: None,
    }))
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
