//! Architecture `backprop`: the same networks trained by backpropagation, as a baseline.

use onward_core::candle_core::{Tensor, Var, D};
use onward_core::candle_nn::Init;
use onward_core::contract::head;
use onward_core::kernels::{log_softmax, matmul};
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule, Span};
use onward_core::plugin::preset::Preset;
use onward_core::settings::Settings;
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Grade, Input, LocalLayer, Loss,
    NegativeSampler, Net, Normalise, Objective, Optimiser, Readout, Result, Role, Rule, Step,
    StepReport, Targets, Values,
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

/// The most layers: the backward pass of candle calls itself once for each operation.
const DEEPEST: usize = 1000;

/// The whole network as one layer. Its activity is the logits of its classifiers, one
/// after the other: `(B, C)` or, with one for each layer, `(B, L·C)`.
struct Whole {
    layers: Vec<[Var; 2]>,
    heads: Vec<Var>,
    normalise: Normalise,
    classifiers: Classifiers,
}

impl Whole {
    fn new(settings: &Backprop, context: &BuildContext) -> Result<Self> {
        let count = settings.hidden.len();
        if count > DEEPEST {
            let expected = format!("at most {DEEPEST} layers");
            return Err(Error::setting(
                "hidden",
                format!("{count} layers"),
                "the settings",
                expected,
            ));
        }
        let mut inputs = context.inputs();
        let (mut layers, mut heads) = (Vec::new(), Vec::new());
        for (index, &units) in settings.hidden.iter().enumerate() {
            let vars = context.vars.scope(index);
            let init = Init::Randn {
                mean: 0.,
                stdev: 1. / (inputs.max(1) as f64).sqrt(),
            };
            let weight = vars.get("weight", (inputs, units), init)?;
            layers.push([weight, vars.get("bias", units, Init::Const(0.))?]);
            heads.push(vars.get("head", (units, context.classes), Init::Const(0.))?);
            inputs = units;
        }
        Ok(Self {
            layers,
            heads,
            normalise: settings.normalise,
            classifiers: settings.classifiers,
        })
    }

    fn normalised(&self, x: &Tensor) -> Result<Tensor> {
        let Some(length) = self.normalise.length(x.dim(D::Minus1)?) else {
            return Ok(x.clone());
        };
        // Added instead of clamped, so that the derivative at zero is finite.
        let scale = ((x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?.recip()? * length)?;
        Ok(x.broadcast_mul(&scale)?)
    }
}

impl LocalLayer for Whole {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        let input = input.clone().normalised(self.normalise)?;
        let mut activity: Option<Tensor> = None;
        let mut votes = Vec::new();
        for ([weight, bias], head) in self.layers.iter().zip(&self.heads) {
            let sum = match &activity {
                Some(below) => matmul(below, weight)?,
                None => first(&input, weight)?,
            };
            let above = self.normalised(&sum.broadcast_add(bias)?.relu()?)?;
            votes.push(matmul(&above, head)?);
            activity = Some(above);
        }
        let mut rest = votes.iter();
        let Some(first) = rest.next() else {
            let problem = "found no layer in `hidden`, expected at least one";
            return Err(Error::unfit("backprop", problem));
        };
        match self.classifiers {
            Classifiers::Joint => rest.try_fold(first.clone(), |sum, votes| Ok((sum + votes)?)),
            Classifiers::Each => Ok(Tensor::cat(&votes, 1)?),
        }
    }
}

/// The input times the first weight, part by part; tokens pick its rows.
fn first(input: &Input, weight: &Var) -> Result<Tensor> {
    let mut row = 0;
    let mut sum: Option<Tensor> = None;
    for part in input.parts() {
        let width = part.values.width()?;
        let rows = weight.narrow(0, row, width)?;
        row += width;
        let product = match &part.values {
            Values::Zeros { .. } => continue,
            Values::OneHot {
                index,
                classes,
                strength,
            } => (picked(&rows, index, *classes)? * *strength)?,
            dense => {
                let matrix = dense.to_matrix(weight.dtype(), weight.device())?;
                matmul(&matrix, &rows)?
            }
        };
        let product = match &part.scale {
            Some(scale) => {
                product.broadcast_mul(&scale.to_dtype(product.dtype())?.unsqueeze(1)?)?
            }
            None => product,
        };
        sum = Some(match sum {
            None => product,
            Some(sum) => (sum + product)?,
        });
    }
    sum.ok_or_else(|| Error::unfit("backprop", "the input is empty"))
}

/// The sum of the rows that one-hot slots pick, `(B, N)`.
fn picked(rows: &Tensor, index: &Tensor, classes: usize) -> Result<Tensor> {
    let (batch, slots) = index.dims2()?;
    let starts: Vec<u32> = (0..slots).map(|slot| (slot * classes) as u32).collect();
    let starts = Tensor::new(starts.as_slice(), index.device())?;
    let index = index.broadcast_add(&starts)?.flatten_all()?;
    Ok(rows
        .index_select(&index, 0)?
        .reshape((batch, slots, ()))?
        .sum(1)?)
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
        Ok(idle)
    })
}
