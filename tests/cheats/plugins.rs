//! The plugins that break the contract, each in one way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use onward::candle_core::{Tensor, Var};
use onward::candle_nn::Init;
use onward::kernels::Gate;
use onward::optim::{Optimiser, OptimiserSpec, Span};
use onward::plugin;
use onward::settings::Pick;
use onward::{
    Architecture, Batch, Block, BuildContext, GoodnessFn, Grade, Input, Lesson, Linear, LocalLayer,
    NegativeSampler, Net, Normalise, Objective, Prediction, Readout, Result, Role, Step,
    StepReport, Targets, Views,
};

/// A correct layer, the base of the other layers.
pub struct Dense(Linear);

impl Dense {
    pub fn new(context: &BuildContext) -> Result<Self> {
        Self::with(
            context,
            Init::Randn {
                mean: 0.,
                stdev: 0.3,
            },
        )
    }

    pub fn with(context: &BuildContext, init: Init) -> Result<Self> {
        let units = context.units.unwrap_or(6);
        Ok(Self(Linear::new(
            &context.vars,
            context.inputs(),
            units,
            init,
            true,
        )?))
    }
}

impl LocalLayer for Dense {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        self.0.forward(input, true)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let delta = onward::kernels::gate(lesson.gradient()?, lesson.activity, Gate::default())?;
        self.0.update(lesson.input, &delta, optimiser, step)
    }
}

/// Implements a layer that replaces `forward` or `learn` of the correct layer.
macro_rules! layer {
    ($type:ident, forward($self:ident, $input:ident, $step:ident) $body:block) => {
        impl LocalLayer for $type {
            fn forward(&$self, $input: &Input, $step: &Step) -> Result<Tensor> $body

            fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
                self.0.learn(lesson, optimiser, step)
            }
        }
    };
    ($type:ident, learn($self:ident, $lesson:ident, $optimiser:ident, $step:ident) $body:block) => {
        impl LocalLayer for $type {
            fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
                self.0.forward(input, step)
            }

            fn learn(&mut $self, $lesson: &Lesson<'_>, $optimiser: &mut Optimiser, $step: &Step) -> Result<()> $body
        }
    };
}

/// The weight that learned last; the next layer to learn changes it.
static LAST: Mutex<Option<Var>> = Mutex::new(None);

pub struct WritesElsewhere(pub Dense);
layer!(WritesElsewhere, learn(self, lesson, optimiser, step) {
    let mut last = LAST.lock().unwrap();
    let own = optimiser.vars().all().into_iter().find(|(path, _)| path.ends_with("weight")).expect("a weight").1;
    if let Some(var) = last.as_ref().filter(|var| var.id() != own.id()) {
        var.set(&(var.as_tensor() * 0.5)?.detach())?;
    }
    *last = Some(own);
    self.0.learn(lesson, optimiser, step)
});

/// A layer whose rate depends on the number of calls, a state outside the checkpoint.
pub struct Remembers(pub Dense, pub u32);
layer!(Remembers, learn(self, lesson, optimiser, step) {
    self.1 += 1;
    let gradient = (lesson.gradient()? * f64::from(self.1))?;
    self.0.learn(&Lesson { gradient: Some(&gradient), ..*lesson }, optimiser, step)
});

pub struct ForgetsItsRows(pub Dense);
layer!(ForgetsItsRows, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok(activity.broadcast_add(&activity.mean_keepdim(0)?)?)
});

pub struct LearnsNothing(pub Dense);
layer!(LearnsNothing, learn(self, _lesson, _optimiser, _step) { Ok(()) });

pub struct PanicsLate(pub Dense);
layer!(PanicsLate, learn(self, _lesson, _optimiser, _step) { panic!("index {} is out of bounds", 7) });

pub struct HalfTheRows(pub Dense);
layer!(HalfTheRows, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok(activity.narrow(0, 0, activity.dim(0)?.div_ceil(2))?)
});

pub struct NoNumber(pub Dense);
layer!(NoNumber, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok((activity.zeros_like()? / activity.zeros_like()?)?)
});

pub struct MissesCandle(pub Dense);
layer!(MissesCandle, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok(activity.matmul(&activity.narrow(0, 0, 1)?)?)
});

pub struct WrongBelow(pub Dense);
impl LocalLayer for WrongBelow {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        self.0.forward(input, step)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        self.0.learn(lesson, optimiser, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, _: &Step) -> Result<Tensor> {
        let twice = Gate {
            gain: 2.,
            ..Gate::default()
        };
        let delta = onward::kernels::gate(lesson.gradient()?, lesson.activity, twice)?;
        let gradient = self.0 .0.joined_gradient(&delta)?;
        Ok(gradient.reshape([&[lesson.input.rows()], lesson.input.shape()].concat())?)
    }
}

fn squares(activity: &Tensor) -> Result<Tensor> {
    Ok(activity.flatten_from(1)?.sqr()?.sum(1)?)
}

pub struct LooksAtTheBatch;
impl GoodnessFn for LooksAtTheBatch {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let squares = squares(activity)?;
        Ok(squares.broadcast_sub(&squares.mean_all()?)?)
    }
}

pub struct WrongGradient;
impl GoodnessFn for WrongGradient {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        squares(activity)
    }

    fn gradient(&self, activity: &Tensor, _upstream: &Tensor) -> Result<Tensor> {
        Ok(activity.clone())
    }
}

pub struct WrongGrade;
impl GoodnessFn for WrongGrade {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        squares(activity)
    }

    fn grade(&self, activity: &Tensor, _: &Targets, _: &Objective) -> Result<Grade> {
        let grade = Grade::by_autograd(activity, |activity| Ok(squares(activity)?.mean_all()?))?;
        let gradient = grade.gradient.map(|gradient| gradient * 2.).transpose()?;
        Ok(Grade { gradient, ..grade })
    }
}

/// A goodness with a map that never learns.
pub struct KeepsItsMap(Linear);
impl KeepsItsMap {
    pub fn new(context: &BuildContext) -> Result<Self> {
        let init = Init::Randn {
            mean: 0.,
            stdev: 0.3,
        };
        Ok(Self(Linear::new(
            &context.vars,
            context.inputs(),
            1,
            init,
            false,
        )?))
    }
}
impl GoodnessFn for KeepsItsMap {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(self
            .0
            .forward(&Input::of(activity.flatten_from(1)?)?, false)?
            .flatten_all()?)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        Ok(self
            .0
            .joined_gradient(&upstream.unsqueeze(1)?)?
            .reshape(activity.shape())?)
    }
}

pub struct Infinite;
impl GoodnessFn for Infinite {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok((squares(activity)? * f64::INFINITY)?)
    }
}

pub struct OneTooMany;
impl GoodnessFn for OneTooMany {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(Tensor::cat(
            &[
                squares(activity)?,
                Tensor::zeros(1, activity.dtype(), activity.device())?,
            ],
            0,
        )?)
    }
}

/// A sampler with noise that does not depend on the seed.
pub struct CountsItself;
static COUNT: AtomicU64 = AtomicU64::new(0);
impl NegativeSampler for CountsItself {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let noise = (COUNT.fetch_add(1, Ordering::Relaxed) as f64).sin();
        let both = Tensor::cat(&[batch.examples(), &(batch.examples() + noise)?], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }
}

/// A sampler that stores labels and writes them into later inputs.
pub struct KnowsLabels(pub Mutex<Vec<u32>>);
impl NegativeSampler for KnowsLabels {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        if let Ok(labels) = batch.labels() {
            *self.0.lock().unwrap() = labels.to_vec();
        }
        let both = Tensor::cat(&[batch.examples(), &(batch.examples() * 0.5)?], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let label = self.0.lock().unwrap().first().copied().unwrap_or(9);
        Input::of((batch.examples() + f64::from(label))?)
    }
}

/// A sampler whose neutral view of an example depends on the other examples.
pub struct LooksAround;
impl NegativeSampler for LooksAround {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let both = Tensor::cat(&[batch.examples(), &(batch.examples() * 0.5)?], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let mean = batch.examples().mean_keepdim(0)?;
        Input::of(batch.examples().broadcast_sub(&mean)?)
    }
}

pub struct WiderViews;
impl NegativeSampler for WiderViews {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let rows = batch.rows();
        Views::new(
            Input::of(Tensor::cat(&[rows, rows], 1)?)?,
            vec![Role::Positive],
        )
    }
}

/// An architecture that uses labels without declaring it.
///
/// Its block sees the labels. Its scores are correct if the batch has labels.
pub struct ShowsLabels {
    net: Net,
    classes: usize,
}

impl ShowsLabels {
    pub fn new(context: &BuildContext) -> Result<Self> {
        let place = context.scope("block").with_units(6);
        let layer = Box::new(Dense::new(&place)?);
        let goodness = plugin::build(&Pick::<dyn GoodnessFn>::new("sum_squares"), &place)?;
        let span = Span::Epochs(0..context.epochs);
        let optimiser = Optimiser::new(place.vars, OptimiserSpec::sgd(0.1), span);
        let objective = Objective::default();
        let block = Block::new("1", layer, goodness, objective, Normalise::None, optimiser);
        let readouts = vec![Readout::new("peek").cheap()];
        let net = Net {
            blocks: vec![block],
            readouts,
            ..Net::default()
        };
        Ok(Self {
            net,
            classes: context.classes,
        })
    }
}

impl Architecture for ShowsLabels {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let no_head = Prediction::new(|| panic!("no head to predict"));
        let views = sampler.views(batch, &no_head, step)?;
        let labels = batch.labels()?.repeat(views.input.views());
        let labels =
            Tensor::from_iter(labels.into_iter().map(|label| label as f32), batch.device())?;
        let input = views
            .input
            .join()?
            .flatten_from(1)?
            .broadcast_add(&labels.unsqueeze(1)?)?;
        let input = Input::stacked(input, views.input.views())?;
        let block = &mut self.net.blocks[0];
        let activity = block.forward(&input, step)?;
        Ok(vec![(
            0,
            block.learn(&input, &activity, &views.targets, step)?,
        )])
    }

    fn scores(
        &self,
        batch: &Batch,
        _: &dyn NegativeSampler,
        _: &Readout,
        _: &Step,
    ) -> Result<Tensor> {
        let labels = batch
            .labels()
            .map(<[u32]>::to_vec)
            .unwrap_or(vec![0; batch.size()]);
        let score = |label: u32| {
            (0..self.classes as u32).map(move |class| f32::from(u8::from(class == label)))
        };
        let scores = labels.into_iter().flat_map(score);
        Ok(Tensor::from_iter(scores, batch.device())?.reshape((batch.size(), self.classes))?)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}
