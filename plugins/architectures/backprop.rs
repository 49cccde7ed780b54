//! Architecture `backprop`: the same networks trained by backpropagation, as a baseline.

use onward_core::candle_core::{Device, Tensor};
use onward_core::candle_nn::Init;
use onward_core::contract::head;
use onward_core::flow::graph::{Graph, Inputs, Node};
use onward_core::kernels::{self, log_softmax, Gate};
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule, Span};
use onward_core::plugin::preset::Preset;
use onward_core::settings::{Idle, Settings};
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Grade, Input, LastResult, Lesson,
    Linear, LocalLayer, Loss, NegativeSampler, Net, Normalise, Objective, Optimiser, Readout,
    Result, Role, Rule, Step, StepReport, Targets,
};

onward_core::choices! {
    /// What predicts the class.
    pub enum Classifiers {
        /// One softmax on all layers: `log softmax(Σₗ norm(aₗ)·Wₗ)`.
        Joint = "joint",
        /// A softmax on each layer, `log softmax(norm(aₗ)·Wₗ)`: the loss is the mean of
        /// their cross-entropies, and the last one predicts (deep supervision).
        Each = "each",
    }
}

onward_core::settings! {
    /// A baseline, not a forward-only rule: stacked rectified layers, each output
    /// normalised, with a softmax on all of them or on each, trained end to end by
    /// backpropagation with the cross-entropy.
    ///
    /// It is the network that `nlp` and `progressive` train locally. The inputs are the
    /// sampler's neutral views, which contain no label with the sampler `plain`; tokens
    /// are one-hot slots that pick rows of the weight. The whole network is one block,
    /// since gradients cross all layers.
    ///
    /// # Reference
    /// Rumelhart, Hinton, Williams, "Learning representations by back-propagating
    /// errors", 1986 (Nature 323). A classifier for each layer: Lee et al.,
    /// "Deeply-Supervised Nets", 2015 (<https://arxiv.org/abs/1409.5185>).
    pub struct Backprop {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The normalisation of the input and of every activity.
        normalise: Normalise = Normalise::MeanSquare;
        /// What predicts the class.
        classifiers: Classifiers = Classifiers::Joint;
        .. optimiser: OptimiserSpec = OptimiserSpec {
            optimiser: Algorithm::Adam,
            lr: 0.0001,
            weight_decay: 0.,
            schedule: Schedule::Constant,
            ..OptimiserSpec::default()
        };
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "adam",
        about: "three layers of 1000 units, Adam with a constant learning rate",
        settings: r#"
            data = "digits"
            sampler = "plain"
            epochs = 5
            batch = 100
        "#,
    },
    Preset {
        name: "deep_supervision",
        about: "the same with a classifier for each layer (Lee et al. 2015)",
        settings: r#"
            data = "digits"
            sampler = "plain"
            epochs = 5
            batch = 100
            classifiers = "each"
        "#,
    },
];

/// The whole network as one layer. Its activity is the logits of its classifiers, one
/// after the other: `(B, C)` or, with one for each layer, `(B, L·C)`.
struct Whole {
    layers: Vec<Linear>,
    heads: Vec<Linear>,
    normalise: Normalise,
    classifiers: Classifiers,
    /// What the forward pass of a training step leaves for its backward pass.
    kept: LastResult<Vec<Kept>>,
}

/// What a layer computed.
#[derive(Clone)]
struct Kept {
    input: Input,
    activity: Tensor,
    /// The normalised activity.
    output: Input,
}

impl Whole {
    fn new(settings: &Backprop, context: &BuildContext) -> Result<Self> {
        let mut inputs = context.inputs();
        let (mut layers, mut heads) = (Vec::new(), Vec::new());
        for (index, &units) in settings.hidden.iter().enumerate() {
            let vars = context.vars.scope(index);
            let init = Init::Randn {
                mean: 0.,
                stdev: 1. / (inputs.max(1) as f64).sqrt(),
            };
            layers.push(Linear::new(&vars, inputs, units, init, true)?);
            let (vars, zero) = (vars.scope("head"), Init::Const(0.));
            heads.push(Linear::new(&vars, units, context.classes, zero, false)?);
            inputs = units;
        }
        if layers.is_empty() {
            let problem = "found no layer in `hidden`, expected at least one";
            return Err(Error::unfit("backprop", problem));
        }
        Ok(Self {
            layers,
            heads,
            normalise: settings.normalise,
            classifiers: settings.classifiers,
            kept: LastResult::default(),
        })
    }

    fn pass(&self, input: &Input) -> Result<Vec<Kept>> {
        let mut input = input.clone().normalised(self.normalise)?;
        let mut all = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let activity = layer.forward(&input, true)?;
            let output = Input::of(activity.clone())?.normalised(self.normalise)?;
            let below = std::mem::replace(&mut input, output.clone());
            all.push(Kept {
                input: below,
                activity,
                output,
            });
        }
        Ok(all)
    }
}

impl LocalLayer for Whole {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let all = self.pass(input)?;
        let votes = self.heads.iter().zip(&all);
        let votes = votes.map(|(head, kept)| head.forward(&kept.output, false));
        let votes = votes.collect::<Result<Vec<_>>>()?;
        let logits = match self.classifiers {
            Classifiers::Joint => {
                let mut rest = votes[1..].iter();
                rest.try_fold(votes[0].clone(), |sum, votes| sum + votes)?
            }
            Classifiers::Each => Tensor::cat(&votes, 1)?,
        };
        if step.train {
            self.kept.put(&logits, all);
        }
        Ok(logits)
    }

    /// The chain rule, from the last layer to the first. A layer is updated after its
    /// weights have given the gradient of the layer below.
    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let all = self.kept.take(lesson.activity);
        let all = all.map_or_else(|| self.pass(lesson.input), Ok)?;
        let logits = lesson.gradient()?;
        let mut from_above = None;
        for (index, kept) in all.iter().enumerate().rev() {
            let (layer, head) = (&mut self.layers[index], &mut self.heads[index]);
            let votes = match self.classifiers {
                Classifiers::Joint => logits.clone(),
                Classifiers::Each => {
                    let classes = head.units();
                    logits.narrow(1, index * classes, classes)?.contiguous()?
                }
            };
            let mut output = head.joined_gradient(&votes)?;
            if let Some(from_above) = &from_above {
                output = kernels::weighted(&output, 1., from_above, 1.)?;
            }
            let activity = self.normalise.gradient(&kept.activity, &output)?;
            let sums = kernels::gate(&activity, &kept.activity, Gate::default())?;
            if index > 0 {
                from_above = Some(layer.joined_gradient(&sums)?);
            }
            head.update(&kept.output, &votes, optimiser, step)?;
            layer.update(&kept.input, &sums, optimiser, step)?;
        }
        Ok(())
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let mut input = graph.normalised(x, self.normalise)?;
        let mut all = Vec::with_capacity(self.layers.len());
        for (layer, head) in self.layers.iter().zip(&self.heads) {
            let sums = layer.graph(input, graph)?;
            let activity = graph.relu(sums);
            input = graph.normalised(activity, self.normalise)?;
            all.push(head.graph(input, graph)?);
        }
        Ok(match self.classifiers {
            Classifiers::Joint => {
                let sum = all.into_iter().reduce(|sum, votes| graph.add(sum, votes));
                sum.unwrap_or(input)
            }
            Classifiers::Each => graph.beside(&all),
        })
    }
}

/// The logits of the last classifier as a goodness, with a column per class.
struct Logits {
    classes: usize,
}

impl GoodnessFn for Logits {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let first = activity.dim(1)? - self.classes;
        Ok(activity.narrow(1, first, self.classes)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let columns: usize = graph.shape(activity).iter().product();
        let chosen = |(row, column)| f32::from(row + self.classes == column + columns);
        let all = (0..columns).flat_map(|row| (0..self.classes).map(move |column| (row, column)));
        let last = Tensor::from_iter(all.map(chosen), &Device::Cpu)?;
        let last = graph.constant(&last.reshape((columns, self.classes))?)?;
        graph.matmul(activity, last)
    }

    /// The mean loss of all classifiers.
    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        let (rows, columns) = activity.dims2()?;
        let classifiers = columns / self.classes;
        let labels = targets.labels()?.iter();
        let labels = labels.flat_map(|&label| std::iter::repeat_n(label, classifiers));
        let targets = targets.clone().with_labels(Some(labels.collect()));
        let logits = activity.reshape((rows * classifiers, self.classes))?;
        let (loss, upstream) = objective.grade(&logits, 0., &targets)?;
        Ok(Grade {
            loss,
            gradient: Some(upstream.reshape((rows, columns))?),
            goodness: Some(self.goodness(activity)?),
            upstream: None,
            own: None,
        })
    }
}

struct Baseline {
    net: Net,
}

impl Baseline {
    fn new(settings: &Backprop, context: &BuildContext) -> Result<Self> {
        let place = context.scope("net");
        let layer = Box::new(Whole::new(settings, &place)?);
        let classes = context.classes;
        let goodness = Box::new(Logits { classes });
        let objective = Objective {
            loss: Loss::CrossEntropy,
            ..Objective::default()
        };
        let span = Span::Epochs(0..context.epochs);
        let optimiser = Optimiser::new(place.vars, settings.optimiser.clone(), span);
        let block = Block::new(
            "net",
            layer,
            goodness,
            objective,
            Normalise::None,
            optimiser,
        );
        let readouts = vec![Readout::new("softmax").cheap().with_log_probabilities()];
        Ok(Self {
            net: Net {
                blocks: vec![block],
                heads: Vec::new(),
                readouts,
            },
        })
    }
}

impl Architecture for Baseline {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let block = &mut self.net.blocks[0];
        if !block.is_learning(step) {
            return Ok(Vec::new());
        }
        let input = sampler.neutral(batch)?;
        let targets = Targets::new(vec![Role::Positive])?;
        let targets = targets.with_labels(Some(batch.labels()?.to_vec()));
        let logits = block.forward(&input, step)?;
        Ok(vec![(0, block.learn(&input, &logits, &targets, step)?)])
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        let block = &self.net.blocks[0];
        let activity = block.forward(&sampler.neutral(batch)?, step)?;
        log_softmax(&block.goodness(&activity.detach())?.contiguous()?)
    }

    fn graph(&self, views: Inputs, _: &Readout, graph: &mut Graph) -> Result<Node> {
        let block = &self.net.blocks[0];
        let activity = block.graph(views.neutral, graph)?;
        let logits = block.goodness_graph(activity, graph)?;
        Ok(graph.log_softmax(logits))
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }

    fn rule(&self) -> Rule {
        Rule::Backpropagation
    }
}

onward_core::register! {
    dyn Architecture, "backprop",
    "baseline: the same network trained by backpropagation \
     (Rumelhart, Hinton, Williams 1986, Nature 323)",
    |settings: Backprop, context| Ok(Box::new(Baseline::new(&settings, context)?)),
    .presets(PRESETS).idle(|own, _| {
        let optimiser = OptimiserSpec::read(own)?;
        let mut idle = head::idle(&optimiser, true, None);
        idle.retain(|idle| idle.key == "momentum");
        let because = "backprop learns from the neutral view alone";
        idle.extend(Idle::all(&["sampler.negatives", "sampler.shift"], because));
        Ok(idle)
    })
}
