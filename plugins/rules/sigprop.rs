//! SigProp: the labels go forward through the same layers as a second stream.

use std::sync::{Arc, Mutex, PoisonError};

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::contract::head;
use onward_core::export::Table;
use onward_core::flow::graph::{Graph, Inputs, Node};
use onward_core::optim::{OptimiserSpec, Span};
use onward_core::plugin::preset::Preset;
use onward_core::settings::{Each, Idle, Pick, Positive, Settings};
use onward_core::{
    kernels, plugin, Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Grade, Input,
    LocalLayer, Located, Loss, NegativeSampler, Net, Normalise, Objective, Optimiser, Readout,
    Result, Role, Rule, Step, StepReport, Targets,
};

onward_core::settings! {
    /// Stacked layers that see two streams: the examples, and one pattern for each class.
    ///
    /// The pattern of a class is random and fixed, of the shape of an example:
    /// `x_c ~ N(0, 1)`. Both streams go through the same layers. The goodness of a
    /// layer is the similarity of the activity `a`, `(B, …)`, of an example to the
    /// activity `t`, `(C, …)`, of each pattern:
    ///
    /// `g[b, c] = scale·cos(a[b], t[c])`, `(B, C)`
    ///
    /// The loss is the cross-entropy of `softmax(g)`, and its gradient reaches both
    /// streams. The class with the highest goodness, summed over the layers from
    /// `readout_from` on, is predicted: one pass for all classes. The patterns then pass
    /// through the layers as the examples do: with the weights of now, without dropout.
    ///
    /// # Reference
    /// Kohan, Rietman, Siegelmann, "Signal Propagation: The Framework for Learning and
    /// Inference in a Forward Pass", 2022 (<https://arxiv.org/abs/2204.01723>). There
    /// the projection of the labels may learn with the first layer, and inner products
    /// take the place of the cosines.
    pub struct SigProp {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The layer: one for all, or a list with one per layer.
        layer: Each<Pick<dyn LocalLayer>> = "dense".into();
        /// The factor of the cosine.
        scale: f64 = 40., in Positive;
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
    net: Net,
    normalise: Normalise,
    /// The first layer that is read out, counted from 0.
    readout_from: usize,
    /// The inputs of the second stream, `(C, …)`.
    patterns: Var,
    /// Its activities in each layer.
    signals: Vec<Signals>,
}

impl TwoStreams {
    fn new(settings: &SigProp, context: &BuildContext) -> Result<Self> {
        let count = settings.hidden.len();
        let (normalise, classes) = (settings.normalise, context.classes);
        let example = context.probe_input()?;
        let shape = [&[classes], example.shape()].concat();
        let normal = Init::Randn {
            mean: 0.,
            stdev: 1.,
        };
        let streams = context.scope("streams").vars;
        let patterns = streams.buffer("patterns", shape, normal)?;
        let (mut net, mut all_signals) = (Net::default(), Vec::new());
        let mut input = example.normalised(normalise)?;
        for (index, &units) in settings.hidden.iter().enumerate() {
            let place = context.scope("blocks").scope(index);
            let of_layer = place.scope("layer").with_input(input.shape());
            let layer = settings.layer.of("layer", index, count)?;
            let name = (index + 1).to_string();
            let here = || format!("block {name}");
            let layer = plugin::build(layer, &of_layer.with_units(units)).at(here)?;
            let step = Step::evaluation(context.seed);
            let activity = layer.forward(&input, &step).at(here)?;
            let of_layer = activity.flatten_from(1)?;
            let zeros = (classes, of_layer.dim(1)?);
            let signals = Signals::new(Tensor::zeros(zeros, of_layer.dtype(), of_layer.device())?);
            let goodness = Box::new(Similarity {
                scale: settings.scale,
                classes,
                signals: signals.clone(),
            });
            all_signals.push(signals);
            let objective = Objective {
                loss: Loss::CrossEntropy,
                ..Objective::default()
            };
            let span = Span::Epochs(0..context.epochs);
            let optimiser = Optimiser::new(place.vars, settings.optimiser.clone(), span);
            let block = Block::new(name, layer, goodness, objective, normalise, optimiser);
            input = block.pass_on(&activity, 1, &step)?;
            net.blocks.push(block);
        }
        net.readouts = vec![Readout::new("goodness").cheap()];
        check_rules(&net)?;
        Ok(Self {
            net,
            normalise,
            readout_from: settings.readout_from.min(count).saturating_sub(1),
            patterns,
            signals: all_signals,
        })
    }

    /// Computes the signals: a row for each class, beside many examples. They are no
    /// variables, so that a run that is saved within an epoch has those of its weights.
    fn update_signals(&self) -> Result<()> {
        let patterns = Input::of(self.patterns.as_detached_tensor())?;
        let activities = self.pass(patterns, &Step::evaluation(0))?;
        for (signals, activity) in self.signals.iter().zip(activities) {
            signals.set(directions(&activity)?);
        }
        Ok(())
    }

    /// The rows of both streams as one view: those of the examples, then one for each
    /// class.
    fn both(&self, examples: &Input, labels: &[u32]) -> Result<(Input, Targets)> {
        let shape = [&[examples.rows()], examples.shape()].concat();
        let patterns = self.patterns.as_detached_tensor();
        // One-hot tokens have a type of their own.
        let rows = examples
            .join()?
            .reshape(shape)?
            .to_dtype(patterns.dtype())?;
        let classes = 0..patterns.dim(0)? as u32;
        let both = |patterns| -> Result<Input> { Input::of(Tensor::cat(&[rows, patterns], 0)?) };
        let rows = match examples.is_final() {
            true => both(Input::of(patterns)?.normalised(self.normalise)?.join()?)?.as_is(),
            false => both(patterns)?.normalised(self.normalise)?,
        };
        let labels = labels.iter().copied().chain(classes).collect();
        let targets = Targets::new(vec![Role::Positive])?.with_labels(Some(labels));
        Ok((rows, targets))
    }

    /// The activity of every layer.
    fn pass(&self, input: Input, step: &Step) -> Result<Vec<Tensor>> {
        let mut input = input.normalised(self.normalise)?;
        let count = self.net.blocks.len();
        let mut activities = Vec::with_capacity(count);
        for (index, block) in self.net.blocks.iter().enumerate() {
            let activity = block.forward(&input, step)?.detach();
            if index + 1 < count {
                input = block.pass_on(&activity, 1, step)?;
            }
            activities.push(activity);
        }
        Ok(activities)
    }
}

impl Architecture for TwoStreams {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let (mut input, targets) = self.both(&sampler.neutral(batch)?, batch.labels()?)?;
        let (mut reports, count) = (Vec::new(), self.net.blocks.len());
        for (index, block) in self.net.blocks.iter_mut().enumerate() {
            let is_learning = block.is_learning(step);
            let step = Step {
                train: step.train && is_learning,
                ..*step
            };
            let activity = block.forward(&input, &step)?;
            let above = match index + 1 < count {
                true => Some(block.pass_on(&activity, 1, &step)?),
                false => None,
            };
            if is_learning {
                reports.push((index, block.learn(&input, &activity, &targets, &step)?));
            }
            input = above.unwrap_or(input);
        }
        Ok(reports)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        self.update_signals()?;
        let activities = self.pass(sampler.neutral(batch)?, step)?;
        let levels = self.net.blocks.iter().zip(&activities);
        let mut levels = levels.skip(self.readout_from);
        let (block, activity) = levels.next().ok_or_else(no_layer)?;
        levels.try_fold(block.goodness(activity)?, |sum, (block, activity)| {
            Ok((sum + block.goodness(activity)?)?)
        })
    }

    fn graph(&self, views: Inputs, _: &Readout, graph: &mut Graph) -> Result<Node> {
        self.update_signals()?;
        let mut input = graph.normalised(views.neutral, self.normalise)?;
        let mut sum = None;
        for (index, block) in self.net.blocks.iter().enumerate() {
            let activity = block.graph(input, graph)?;
            input = block.pass_on_graph(activity, graph)?;
            if index < self.readout_from {
                continue;
            }
            let goodness = block.goodness_graph(activity, graph)?;
            sum = Some(match sum {
                None => goodness,
                Some(sum) => graph.add(sum, goodness),
            });
        }
        sum.ok_or_else(no_layer)
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        // For a goodness that is asked for next.
        self.update_signals()?;
        self.pass(sampler.neutral(batch)?, step)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

/// Refuses layers with a rule of their own: neither stream would teach them anything.
fn check_rules(net: &Net) -> Result<()> {
    let follows = |block: &&Block| matches!(block.rule(), Rule::LocalClassifier | Rule::Frozen);
    let Some(block) = net.blocks.iter().find(|block| !follows(block)) else {
        return Ok(());
    };
    let problem = format!(
        "expected layers that follow the gradient of the goodness, found the rule \"{}\" in \
         layer {}; choose another layer: --set layer=dense",
        block.rule().word(),
        block.name()
    );
    Err(Error::unfit("sigprop", problem))
}

fn no_layer() -> Error {
    Error::unfit("sigprop", "found no layer, expected at least one")
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
    let mut idle = head::idle(&SigProp::read(own)?.optimiser, true, None);
    let because = "sigprop learns from the neutral view alone";
    idle.extend(Idle::all(&["sampler.negatives", "sampler.shift"], because));
    Ok(idle)
}

/// The activities of the patterns in a layer, `(C, N)`, as rows of length 1; 0 before they
/// are computed. The network computes them with its scores, its activities and its graph,
/// and the goodness of the layer reads them.
#[derive(Clone)]
struct Signals(Arc<Mutex<Tensor>>);

impl Signals {
    fn new(signals: Tensor) -> Self {
        Self(Arc::new(Mutex::new(signals)))
    }

    fn get(&self) -> Tensor {
        let signals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        signals.clone()
    }

    fn set(&self, now: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// The goodness, with the loss of both streams.
struct Similarity {
    scale: f64,
    classes: usize,
    signals: Signals,
}

impl Similarity {
    /// `scale·cos` of all pairs of rows, given as rows of length 1.
    fn of(&self, rows: &Tensor, signals: &Tensor) -> Result<Tensor> {
        Ok((kernels::matmul_transposed(rows, signals)? * self.scale)?)
    }
}

/// The rows of an activity, scaled to length 1.
fn directions(activity: &Tensor) -> Result<Tensor> {
    let rows = activity.flatten_from(1)?.detach();
    Input::of(rows)?.normalised(Normalise::UnitLength)?.join()
}

impl GoodnessFn for Similarity {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.of(&directions(activity)?, &self.signals.get())
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let rows = graph.flat(activity);
        let rows = graph.normalised(rows, Normalise::UnitLength)?;
        let signals = self.signals.get().t()?.contiguous()?;
        let signals = graph.constant(&signals)?;
        let cosines = graph.matmul(rows, signals)?;
        graph.times(cosines, self.scale)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn rule(&self, _: &Objective) -> Rule {
        Rule::LocalClassifier
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        let (labels, classes) = (targets.labels()?, self.classes);
        let size = activity.dim(0)? - classes;
        let directions = directions(activity)?;
        let examples = directions.narrow(0, 0, size)?;
        let signals = directions.narrow(0, size, classes)?;
        let goodness = self.of(&examples, &signals)?;
        let of_examples = Targets::new(vec![Role::Positive])?;
        let of_examples = of_examples.with_labels(Some(labels[..size].to_vec()));
        let (loss, upstream) = objective.grade(&goodness, 0., &of_examples)?;
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
}
