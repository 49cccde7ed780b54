//! Plugins that break the contract.
//!
//! The conformance trials detect each one. A run with such a plugin ends with an error
//! that names the plugin and its package.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use onward::candle_core::{Tensor, Var};
use onward::candle_nn::Init;
use onward::conformance::{self, Outcome};
use onward::data::DataSet;
use onward::kernels::Gate;
use onward::optim::{Optimiser, OptimiserSpec, Span};
use onward::plugin;
use onward::plugin::preset::Preset;
use onward::settings::Pick;
use onward::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Grade, Input, Lesson, Linear,
    LocalLayer, NegativeSampler, Net, Normalise, Objective, Prediction, Readout, Result, Role, Run,
    Step, StepReport, Targets, Views,
};

onward::settings! {
    /// A plugin that breaks the contract.
    struct Cheat {}
}

macro_rules! cheats {
    ($($kind:ty, $name:literal, $build:expr;)*) => {
        $(onward::register! {
            $kind, $name, "breaks the contract (for these tests, 2026)",
            |_settings: Cheat, context| { let build: fn(&BuildContext) -> Result<Box<$kind>> = $build; build(context) }
        })*
    };
}

cheats! {
    dyn LocalLayer, "writes_elsewhere", |context| Ok(Box::new(WritesElsewhere(Dense::new(context)?)));
    dyn LocalLayer, "ignores_the_seed", |context| Ok(Box::new(Dense::with(context, Init::Const(0.1))?));
    dyn LocalLayer, "remembers", |context| Ok(Box::new(Remembers(Dense::new(context)?, 0)));
    dyn LocalLayer, "forgets_its_rows", |context| Ok(Box::new(ForgetsItsRows(Dense::new(context)?)));
    dyn LocalLayer, "learns_nothing", |context| Ok(Box::new(LearnsNothing(Dense::new(context)?)));
    dyn LocalLayer, "panics_late", |context| Ok(Box::new(PanicsLate(Dense::new(context)?)));
    dyn LocalLayer, "half_the_rows", |context| Ok(Box::new(HalfTheRows(Dense::new(context)?)));
    dyn LocalLayer, "no_number", |context| Ok(Box::new(NoNumber(Dense::new(context)?)));
    dyn LocalLayer, "misses_candle", |context| Ok(Box::new(MissesCandle(Dense::new(context)?)));
    dyn LocalLayer, "wrong_below", |context| Ok(Box::new(WrongBelow(Dense::new(context)?)));
    dyn LocalLayer, "panics_at_once", |_| panic!("panic in build");
    dyn GoodnessFn, "looks_at_the_batch", |_| Ok(Box::new(LooksAtTheBatch));
    dyn GoodnessFn, "wrong_gradient", |_| Ok(Box::new(WrongGradient));
    dyn GoodnessFn, "wrong_grade", |_| Ok(Box::new(WrongGrade));
    dyn GoodnessFn, "keeps_its_map", |context| Ok(Box::new(KeepsItsMap::new(context)?));
    dyn GoodnessFn, "infinite", |_| Ok(Box::new(Infinite));
    dyn GoodnessFn, "one_too_many", |_| Ok(Box::new(OneTooMany));
    dyn NegativeSampler, "counts_itself", |_| Ok(Box::new(CountsItself));
    dyn NegativeSampler, "knows_labels", |_| Ok(Box::new(KnowsLabels(Mutex::default())));
    dyn NegativeSampler, "never_the_same", |_| Ok(Box::new(CountsItself));
    dyn NegativeSampler, "wider_views", |_| Ok(Box::new(WiderViews));
}

onward::register! {
    dyn Architecture, "shows_labels", "breaks the contract (for these tests, 2026)",
    |_settings: Cheat, context| Ok(Box::new(ShowsLabels::new(context)?)),
    .presets(&[Preset {
        name: "digits",
        about: "views without labels",
        settings: r#"
            data = "digits"
            sampler = "hybrid_images"
        "#,
    }])
}

/// A correct layer, the base of the other layers.
struct Dense(Linear);

impl Dense {
    fn new(context: &BuildContext) -> Result<Self> {
        Self::with(
            context,
            Init::Randn {
                mean: 0.,
                stdev: 0.3,
            },
        )
    }

    fn with(context: &BuildContext, init: Init) -> Result<Self> {
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

struct WritesElsewhere(Dense);
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
struct Remembers(Dense, u32);
layer!(Remembers, learn(self, lesson, optimiser, step) {
    self.1 += 1;
    let gradient = (lesson.gradient()? * f64::from(self.1))?;
    self.0.learn(&Lesson { gradient: Some(&gradient), ..*lesson }, optimiser, step)
});

struct ForgetsItsRows(Dense);
layer!(ForgetsItsRows, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok(activity.broadcast_add(&activity.mean_keepdim(0)?)?)
});

struct LearnsNothing(Dense);
layer!(LearnsNothing, learn(self, _lesson, _optimiser, _step) { Ok(()) });

struct PanicsLate(Dense);
layer!(PanicsLate, learn(self, _lesson, _optimiser, _step) { panic!("index {} is out of bounds", 7) });

struct HalfTheRows(Dense);
layer!(HalfTheRows, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok(activity.narrow(0, 0, activity.dim(0)?.div_ceil(2))?)
});

struct NoNumber(Dense);
layer!(NoNumber, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok((activity.zeros_like()? / activity.zeros_like()?)?)
});

struct MissesCandle(Dense);
layer!(MissesCandle, forward(self, input, step) {
    let activity = self.0.forward(input, step)?;
    Ok(activity.matmul(&activity.narrow(0, 0, 1)?)?)
});

struct WrongBelow(Dense);
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

struct LooksAtTheBatch;
impl GoodnessFn for LooksAtTheBatch {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let squares = squares(activity)?;
        Ok(squares.broadcast_sub(&squares.mean_all()?)?)
    }
}

struct WrongGradient;
impl GoodnessFn for WrongGradient {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        squares(activity)
    }

    fn gradient(&self, activity: &Tensor, _upstream: &Tensor) -> Result<Tensor> {
        Ok(activity.clone())
    }
}

struct WrongGrade;
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
struct KeepsItsMap(Linear);
impl KeepsItsMap {
    fn new(context: &BuildContext) -> Result<Self> {
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

struct Infinite;
impl GoodnessFn for Infinite {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok((squares(activity)? * f64::INFINITY)?)
    }
}

struct OneTooMany;
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
struct CountsItself;
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
struct KnowsLabels(Mutex<Vec<u32>>);
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

struct WiderViews;
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
struct ShowsLabels {
    net: Net,
    classes: usize,
}

impl ShowsLabels {
    fn new(context: &BuildContext) -> Result<Self> {
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

#[test]
fn the_trials_detect_every_cheat() {
    let cheats = [
        (
            "layer",
            "writes_elsewhere",
            "local run",
            "if other blocks learn in the same step",
        ),
        ("layer", "ignores_the_seed", "seed", "the seed is ignored"),
        ("layer", "remembers", "resumes", "ends with different bits"),
        ("layer", "forgets_its_rows", "rows", "with the other rows"),
        (
            "layer",
            "learns_nothing",
            "locality",
            "changes none of its variables",
        ),
        (
            "layer",
            "panics_late",
            "locality",
            "panicked: index 7 is out of bounds",
        ),
        (
            "layer",
            "half_the_rows",
            "shapes",
            "returned an activity of shape",
        ),
        ("layer", "no_number", "shapes", "not finite"),
        (
            "layer",
            "misses_candle",
            "shapes",
            "layer misses_candle (package onward-core)",
        ),
        (
            "layer",
            "wrong_below",
            "input gradient",
            "the input gradient gives",
        ),
        (
            "goodness",
            "looks_at_the_batch",
            "rows",
            "with the other rows",
        ),
        (
            "goodness",
            "wrong_gradient",
            "gradient",
            "its gradient gives",
        ),
        ("goodness", "wrong_grade", "grade", "its gradient gives"),
        (
            "goodness",
            "keeps_its_map",
            "locality",
            "changes none of its variables",
        ),
        ("goodness", "infinite", "shapes", "not finite"),
        (
            "goodness",
            "one_too_many",
            "shapes",
            "returned a goodness of shape",
        ),
        ("sampler", "counts_itself", "seed", "Step::stream"),
        ("sampler", "never_the_same", "repeats", "different bits"),
        ("sampler", "knows_labels", "labels", "depends on the labels"),
        ("sampler", "wider_views", "shapes", "of shape"),
        (
            "architecture",
            "shows_labels",
            "labels",
            "depends on labels, but neither",
        ),
    ];
    for (kind, name, trial, expected) in cheats {
        let verdict = conformance::of_plugin(kind, name);
        let failed = verdict.failures().find(|failed| failed.trial == trial);
        let found = failed.unwrap_or_else(|| panic!("{kind} {name} passes `{trial}`:\n{verdict}"));
        assert!(
            found.to_string().contains(expected),
            "{expected} is missing from: {found}"
        );
        assert_eq!(found.package, "onward-core");
    }
    // A correct plugin passes the same trials.
    conformance::of_plugin("layer", "dense").assert_passed();
    assert!(conformance::of_plugin("layer", "no_such_layer")
        .trials
        .is_empty());
    let skipped = |trial: &conformance::Trial| matches!(trial.outcome, Outcome::Skipped(_));
    assert!(
        conformance::of_plugin("data", "mnist")
            .trials
            .iter()
            .any(skipped),
        "a trial downloads data"
    );
}

#[test]
fn a_run_error_names_the_plugin_and_its_package() {
    let faults = [
        ("layer", "panics_at_once", "panicked: panic in build"),
        ("layer", "panics_late", "panicked: index 7 is out of bounds"),
        (
            "layer",
            "half_the_rows",
            "returned an activity of shape [10, 20], expected (20, …)",
        ),
        ("layer", "no_number", "an activity that is not finite"),
        ("layer", "misses_candle", "shape mismatch"),
        (
            "goodness",
            "infinite",
            "a goodness that is not finite, for a finite activity",
        ),
        (
            "goodness",
            "one_too_many",
            "goodness: expected 40 rows, found shape [41]",
        ),
        (
            "sampler",
            "wider_views",
            "returned an input of shape [32], expected [1, 4, 4]",
        ),
    ];
    for (kind, name, expected) in faults {
        let run = Run::builder("progressive")
            .data_set(conformance::images().unwrap())
            .set("batch", 20);
        let run = run.set("hidden", vec![20, 20]).set("epochs", 1);
        let run = run.set("sampler", "label_overlay").set(kind, name);
        let error = run
            .build()
            .and_then(|mut run| run.fit(&mut ()))
            .unwrap_err();
        let message = error.to_string();
        let plugin = format!("{kind} {name} (package onward-core)");
        assert!(
            message.contains(&plugin) && message.contains(expected),
            "{plugin} or {expected} is missing from: {message}"
        );
        assert!(!error.is_usage(), "reported as a usage error: {message}");
    }
    let unknown = Run::builder("progressive")
        .set("layer", "no_such_layer")
        .build()
        .err()
        .unwrap();
    assert!(matches!(unknown, Error::UnknownPlugin { .. }), "{unknown}");
}

#[test]
fn labels_are_hidden_while_scoring() -> Result<()> {
    let run = Run::builder("shows_labels").data_set(conformance::images()?);
    let mut run = run.set("epochs", 1).set("batch", 20).build()?;
    run.fit(&mut ())?;
    let batch = run.data().test.batch(&[0, 1, 2], None)?;
    assert!(batch.labels()?.iter().any(|label| *label > 0));
    let (architecture, step) = (run.architecture(), Step::evaluation(1));
    let readout = &architecture.net().readouts[0];
    let scores = architecture.scores(&batch, run.sampler(), readout, &step)?;
    assert_eq!(scores.to_vec2::<f32>()?, [[1., 0., 0., 0.]; 3]);
    Ok(())
}

#[test]
fn training_does_not_use_the_test_part() -> Result<()> {
    let trained = |data| -> Result<Vec<f32>> {
        let run = Run::builder("progressive")
            .data_set(data)
            .set("hidden", vec![12]);
        let mut run = run.set("epochs", 2).set("batch", 20).build()?;
        run.fit(&mut ())?;
        let weight = run.vars().all().swap_remove(0).1;
        Ok(weight.flatten_all()?.to_vec1()?)
    };
    let other = conformance::images()?;
    let other = DataSet {
        test: other.validation.clone(),
        ..other
    };
    assert_eq!(trained(conformance::images()?)?, trained(other)?);
    Ok(())
}
