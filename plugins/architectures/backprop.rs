//! Architecture `backprop`: the same networks trained by backpropagation, as a baseline.

use onward_core::candle_core::{Tensor, Var, D};
use onward_core::candle_nn::Init;
use onward_core::contract::head;
use onward_core::kernels::log_softmax;
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule, Span};
use onward_core::plugin::preset::Preset;
use onward_core::settings::Settings;
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Input, LocalLayer, Loss,
    NegativeSampler, Net, Normalise, Objective, Optimiser, Readout, Result, Role, Rule, Step,
    StepReport, Targets, Values,
};

onward_core::settings! {
    /// A baseline, not a forward-only rule: stacked rectified layers, each output
    /// normalised, all of them concatenated into a softmax,
    /// `log softmax(Σₗ norm(aₗ)·Wₗ)`, trained end to end by backpropagation with the
    /// cross-entropy.
    ///
    /// It is the network that `nlp` and `progressive` train locally. The inputs are the
    /// sampler's neutral views, which contain no label with the sampler `plain`; tokens
    /// are one-hot slots that pick rows of the weight. The whole network is one block,
    /// since gradients cross all layers.
    ///
    /// # Reference
    /// Rumelhart, Hinton, Williams, "Learning representations by back-propagating
    /// errors", 1986 (Nature 323).
    pub struct Backprop {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The normalisation of the input and of every activity.
        normalise: Normalise = Normalise::MeanSquare;
        .. optimiser: OptimiserSpec = OptimiserSpec {
            optimiser: Algorithm::Adam,
            lr: 0.0001,
            weight_decay: 0.,
            schedule: Schedule::Constant,
            ..OptimiserSpec::default()
        };
    }
}

const PRESETS: &[Preset] = &[Preset {
    name: "adam",
    about: "three layers of 1000 units, Adam with a constant learning rate",
    settings: r#"
        data = "digits"
        sampler = "plain"
        epochs = 5
        batch = 100
    "#,
}];

/// The whole network as one layer; its activity is the logits, `(B, C)`.
/// The most layers: the backward pass of candle calls itself once for each operation.
const DEEPEST: usize = 1000;

struct Whole {
    layers: Vec<[Var; 2]>,
    heads: Vec<Var>,
    normalise: Normalise,
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
        let mut logits: Option<Tensor> = None;
        for ([weight, bias], head) in self.layers.iter().zip(&self.heads) {
            let sum = match &activity {
                Some(below) => below.matmul(weight)?,
                None => first(&input, weight)?,
            };
            let above = self.normalised(&sum.broadcast_add(bias)?.relu()?)?;
            let votes = above.matmul(head)?;
            logits = Some(match logits {
                None => votes,
                Some(logits) => (logits + votes)?,
            });
            activity = Some(above);
        }
        logits.ok_or_else(|| {
            Error::unfit(
                "backprop",
                "found no layer in `hidden`, expected at least one",
            )
        })
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
                matrix.contiguous()?.matmul(&rows)?
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

/// The logits as a goodness, with a column per class.
struct Logits(usize);

impl GoodnessFn for Logits {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.clone())
    }

    fn classes(&self) -> Option<usize> {
        Some(self.0)
    }
}

struct Baseline {
    net: Net,
}

impl Baseline {
    fn new(settings: &Backprop, context: &BuildContext) -> Result<Self> {
        let place = context.scope("net");
        let layer = Box::new(Whole::new(settings, &place)?);
        let goodness = Box::new(Logits(context.classes));
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
        let logits = self.net.blocks[0].forward(&sampler.neutral(batch)?, step)?;
        log_softmax(&logits.detach())
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
