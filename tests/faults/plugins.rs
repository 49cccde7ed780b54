//! The plugins: one kind of each, with a fault of choice.

use std::sync::Arc;

use onward::candle_core::{DType, Device, Tensor};
use onward::conformance;
use onward::data::DataSet;
use onward::flow::examples::{Augment, Examples};
use onward::optim::{Optimiser, OptimiserSpec, Span};
use onward::{
    Architecture, Batch, GoodnessFn, Grade, Head, Input, Lesson, LocalLayer, NegativeSampler, Net,
    Objective, Prediction, Readout, Result, Role, Step, StepReport, Targets, Vars, Views,
};

/// A layer that returns its input, with one fault.
#[derive(PartialEq)]
pub enum Layer {
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
pub enum Squares {
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
pub enum Sampler {
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
pub enum Fault {
    LearnPanics,
    NetPanics,
    EpochPanics,
    FewScores,
    NanScores,
    NoSuchBlock,
}

pub fn net(fault: Fault) -> Result<Box<dyn Architecture>> {
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
pub enum Part {
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

pub fn data(part: Part) -> Result<Box<DataSet>> {
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
