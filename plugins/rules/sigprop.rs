//! SigProp: the labels go forward through the same layers as a second stream.

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::contract::goodness::beside_own_loss;
use onward_core::contract::head;
use onward_core::export::Table;
use onward_core::optim::{OptimiserSpec, Span};
use onward_core::plugin::preset::Preset;
use onward_core::settings::{Each, Idle, Pick, Positive, Settings};
use onward_core::wiring::stack::{Level, Stack};
use onward_core::{
    kernels, Architecture, Batch, BuildContext, Error, GoodnessFn, Grade, Input, LocalLayer, Loss,
    NegativeSampler, Net, Normalise, Objective, Optimiser, Prediction, Readout, Result, Role, Rule,
    Step, StepReport, Targets, Views,
};

onward_core::settings! {
    /// Stacked layers that see two streams: the examples, and one pattern for each class.
    ///
    /// The pattern of a class is random and fixed, of the shape of an example:
    /// `x_c ~ N(0, 1)`. Both streams go through the same layers, and each layer learns to
    /// make the activity of an example similar to that of its class's pattern, by the loss
    /// of the goodness `sigprop`. The class with the highest goodness, summed over the
    /// layers from `readout_from` on, is predicted, with the patterns' activities of the
    /// last step: one pass for all classes.
    ///
    /// # Reference
    /// Kohan, Rietman, Siegelmann, "Signal Propagation: The Framework for Learning and
    /// Inference in a Forward Pass", 2022 (<https://arxiv.org/abs/2204.01723>). There the
    /// projection of the labels may learn with the first layer.
    pub struct SigProp {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The layer: one for all, or a list with one per layer.
        layer: Each<Pick<dyn LocalLayer>> = "dense".into();
        /// The goodness function, with the loss of both streams: one for all layers, or a
        /// list with one per layer.
        goodness: Each<Pick<dyn GoodnessFn>> = "sigprop".into();
        /// The normalisation of the input, and of every activity before the next layer
        /// sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// The first layer that is read out, counted from 1; the last layer if there are
        /// fewer.
        readout_from: usize = 1, in 1..;
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
    }
}

struct TwoStreams {
    stack: Stack,
    /// The inputs of the second stream, `(C, …)`.
    patterns: Var,
}

impl TwoStreams {
    fn new(settings: &SigProp, context: &BuildContext) -> Result<Self> {
        let count = settings.hidden.len();
        let level = |(index, &units): (usize, &usize)| -> Result<Level> {
            Ok(Level {
                units,
                layer: settings.layer.of("layer", index, count)?.clone(),
                goodness: settings.goodness.of("goodness", index, count)?.clone(),
                objective: Objective {
                    loss: Loss::CrossEntropy,
                    ..Objective::default()
                },
                optimiser: settings.optimiser.clone(),
                span: Span::Epochs(0..context.epochs),
                dropout: 0.,
                shortcuts: Vec::new(),
            })
        };
        let levels = settings.hidden.iter().enumerate().map(level);
        let levels = levels.collect::<Result<Vec<_>>>()?;
        let readout = settings.readout_from.min(count).saturating_sub(1)..count;
        let example = context.probe_input()?;
        let shape = [&[context.classes], example.shape()].concat();
        let normal = Init::Randn {
            mean: 0.,
            stdev: 1.,
        };
        let patterns = context.scope("streams").vars;
        let patterns = patterns.buffer("patterns", shape, normal)?;
        let mut stack = Stack::new(context, example, settings.normalise, &levels, readout)?;
        stack.net.readouts = stack.readouts(context.hypotheses);
        Ok(Self { stack, patterns })
    }
}

/// The rows of both streams as one view: those of the examples, then one for each class.
struct BothStreams<'a> {
    examples: &'a dyn NegativeSampler,
    patterns: &'a Tensor,
}

impl NegativeSampler for BothStreams<'_> {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let examples = self.examples.neutral(batch)?;
        let shape = [&[batch.size()], examples.shape()].concat();
        let rows = examples.join()?.reshape(shape)?;
        let rows = Tensor::cat(&[&rows, self.patterns], 0)?;
        let classes = 0..self.patterns.dim(0)? as u32;
        let labels = batch.labels()?.iter().copied().chain(classes);
        let mut views = Views::new(Input::of(rows)?, vec![Role::Positive])?;
        views.targets = views.targets.with_labels(Some(labels.collect()));
        Ok(views)
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.examples.neutral(batch)
    }
}

impl Architecture for TwoStreams {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let both = BothStreams {
            examples: sampler,
            patterns: &self.patterns.as_detached_tensor(),
        };
        self.stack.learn(batch, &both, step)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        self.stack.scores(batch, sampler, readout, step)
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        self.stack.of_neutral(batch, sampler, step)
    }

    fn net(&self) -> &Net {
        &self.stack.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.stack.net
    }
}

const PRESETS: &[Preset] = &[Preset {
    name: "dense",
    about: "three layers of 1000 units, Adam",
    settings: r#"
        data = "digits"
        epochs = 40
        batch = 128
        standardise = true
        sampler = "plain"
        layer = "dense"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        schedule = "cosine"
    "#,
}];

onward_core::register! {
    dyn Architecture, "sigprop",
    "labels go forward through the same layers as a second stream (SigProp 2022, \
     arXiv 2204.01723)",
    |settings: SigProp, context| Ok(Box::new(TwoStreams::new(&settings, context)?)),
    .presets(PRESETS).idle(idle)
}

/// The settings without an effect beside others.
fn idle(own: &Table, _: &Table) -> Result<Vec<Idle>> {
    Ok(head::idle(&SigProp::read(own)?.optimiser, true, None))
}

onward_core::settings! {
    /// A goodness for each class: the similarity to the activity of the class's pattern.
    ///
    /// `g[b, c] = scale·cos(a[b], t[c])`, `(B, …)` to `(B, C)`, where `t`, `(C, …)`, are
    /// the activities of the patterns in the last step. The loss is the cross-entropy of
    /// `softmax(g)`; its gradient reaches the activities of both streams.
    ///
    /// # Reference
    /// Kohan, Rietman, Siegelmann, 2022 (<https://arxiv.org/abs/2204.01723>), with cosines
    /// instead of inner products.
    pub struct Similarity {
        /// The factor of the cosine.
        scale: f64 = 40., in Positive;
    }
}

struct Goodness {
    scale: f64,
    /// The activities of the patterns, `(C, N)`.
    signals: Var,
}

impl Goodness {
    fn new(settings: &Similarity, context: &BuildContext) -> Result<Self> {
        let shape = (context.classes, context.inputs());
        Ok(Self {
            scale: settings.scale,
            signals: context.vars.buffer("signals", shape, Init::Const(0.))?,
        })
    }

    fn classes_of(&self) -> usize {
        self.signals.dims()[0]
    }

    /// `scale·cos` of all pairs of rows, given as rows of length 1.
    fn similarity(&self, rows: &Tensor, signals: &Tensor) -> Result<Tensor> {
        Ok((kernels::matmul_transposed(rows, signals)? * self.scale)?)
    }
}

/// The rows of an activity, scaled to length 1.
fn directions(activity: &Tensor) -> Result<Tensor> {
    let rows = activity.flatten_from(1)?.detach();
    Input::of(rows)?.normalised(Normalise::UnitLength)?.join()
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.similarity(&directions(activity)?, &directions(&self.signals)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes_of())
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let signals = directions(&self.signals)?;
        let of_directions = kernels::matmul(&(upstream * self.scale)?, &signals)?;
        Normalise::UnitLength.gradient(activity, &of_directions)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn rule(&self, _: &Objective) -> Rule {
        Rule::LocalClassifier
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        let (labels, classes) = (targets.labels()?, self.classes_of());
        let rows = activity.dim(0)?;
        let size = rows.saturating_sub(classes);
        let has_patterns = labels.get(size..).is_some_and(|labels| {
            labels.len() == classes && labels.iter().zip(0..).all(|(found, class)| *found == class)
        });
        if size == 0 || !has_patterns {
            let problem = "expected the patterns of the classes as a second stream, found \
                           none; use the architecture `sigprop`";
            return Err(Error::unfit("sigprop", problem));
        }
        let directions = directions(activity)?;
        let examples = directions.narrow(0, 0, size)?;
        let signals = directions.narrow(0, size, classes)?;
        let goodness = self.similarity(&directions, &signals)?;
        let objective = Objective {
            loss: Loss::CrossEntropy,
            ..Objective::default()
        };
        let of_examples = Targets::new(vec![Role::Positive])?;
        let of_examples = of_examples.with_labels(Some(labels[..size].to_vec()));
        let (loss, upstream) = objective.grade(&goodness.narrow(0, 0, size)?, 0., &of_examples)?;
        let upstream = (upstream * self.scale)?;
        let of_examples = kernels::matmul(&upstream, &signals)?;
        let of_signals = kernels::matmul(&upstream.t()?.contiguous()?, &examples)?;
        let of_directions = Tensor::cat(&[of_examples, of_signals], 0)?;
        let gradient = Normalise::UnitLength.gradient(activity, &of_directions)?;
        Ok(Grade {
            loss,
            gradient: Some(gradient),
            goodness: Some(goodness),
            upstream: None,
            own: None,
        })
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        _: &Grade,
        _: &Targets,
        _: &mut Optimiser,
        _: &Step,
    ) -> Result<()> {
        let classes = self.classes_of();
        let signals = activity.narrow(0, activity.dim(0)? - classes, classes)?;
        let signals = signals.flatten_from(1)?.detach().copy()?;
        Ok(self.signals.set(&signals)?)
    }
}

onward_core::register! {
    dyn GoodnessFn, "sigprop",
    "cosine to the activity of each class's pattern (SigProp 2022, arXiv 2204.01723)",
    |settings: Similarity, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .idle(|_, all| Ok(beside_own_loss(all, "sigprop")))
}
