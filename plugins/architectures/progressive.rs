//! Architecture `progressive`: layers one upon the other.

use std::ops::Range;

use onward_core::candle_core::Tensor;
use onward_core::contract::architecture::Readout;
use onward_core::contract::sampler::every_class;
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule};
use onward_core::plugin::registry::Preset;
use onward_core::settings::{Each, Pick};
use onward_core::wiring::stack::{Level, Stack};
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Head, Input, LocalLayer, Loss,
    NegativeSampler, Normalise, Objective, Report, Result, Step,
};

onward_core::choices! {
    /// When the layers learn.
    pub enum Order {
        /// All of them in every step.
        Interleaved = "interleaved",
        /// One after the other, each for all epochs.
        Greedy = "greedy",
    }
}

onward_core::settings! {
    /// Layers one upon the other, each learning from the normalised activity of the one below.
    ///
    /// Layer `l` sees `xₗ = norm(aₗ₋₁)`, `x₁ = norm(input)`, for every view; its activity is `aₗ`, its goodness `gₗ`.
    /// Nothing else passes between layers. With the labels in the input a class is predicted in two ways:
    ///
    /// - *search*: `argmax_c Σₗ gₗ(input under class c)`;
    /// - *head*: a softmax over the normalised activities of the neutral input, `log softmax(Σₗ norm(aₗ)·Wₗ)`. It
    ///   learns beside the layers, from the same pass in which a sampler asks for the network's own prediction.
    ///
    /// Both sums are over the layers from `readout_from` to `readout_to`. A goodness with a column per class is read out as
    /// *goodness*: `argmax_c Σₗ gₗ[c]` of the neutral input.
    ///
    /// All views of a step see the weights from before the step.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3 (<https://arxiv.org/abs/2212.13345>).
    pub struct Progressive {
        /// The width of each layer, from the first on; `n_layers` and `hidden_size` are a shorthand.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The kind of all layers, or a list of as many as there are.
        layer: Each<Pick<dyn LocalLayer>> = "dense".into();
        /// The goodness of all layers, or a list of as many as there are.
        goodness: Each<Pick<dyn GoodnessFn>> = "sum_squares".into();
        /// What a layer minimises.
        loss: Loss = Loss::Logistic;
        /// The goodness above which a view counts as positive; the goodness's own threshold if it is not set.
        theta: Option<f64> = None, in f64::MIN..;
        /// How soft that decision is: (goodness − theta) is divided by it.
        temperature: f64 = 1., in f64::MIN_POSITIVE..;
        /// What is done to the input, and to every activity before the next layer sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// When the layers learn; with greedy, `epochs` is the number for each layer.
        order: Order = Order::Interleaved;
        /// How gradients become updates.
        optimiser: Algorithm = Algorithm::Sgd;
        /// Learning rate of the layers.
        lr: f64 = 0.01, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the layers; biases have none.
        weight_decay: f64 = 0.001, in 0. ..=1.;
        /// How much of the running mean of the gradients a step keeps; Adam has its own.
        momentum: f64 = 0.9, in 0. ..1.;
        /// How the rates change over the epochs in which a layer learns.
        schedule: Schedule = Schedule::HalfLinear;
        /// The first layer, counted from 1, that readouts see; the last one if there are fewer.
        readout_from: usize = 2, in 1..;
        /// The last layer that readouts see; the last one that there is if it is not set.
        readout_to: Option<usize> = None, in 1..;
        /// Whether the head is trained.
        head: bool = true;
        /// Epochs, after those of the layers, in which a head alone learns, as a probe; 0 for a head that learns beside them.
        probe_epochs: usize = 0;
        /// Learning rate of the head.
        head_lr: f64 = 0.1, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the head.
        head_weight_decay: f64 = 0.003, in 0. ..=1.;
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "hinton",
        about: "Hinton's Matlab program of 2022: hard negatives, peer normalisation, all layers in every step",
        settings: r#"
            data = "digits"
            epochs = 100
            batch = 100
            sampler = { name = "label_overlay", negatives = "hard" }
            layer = { name = "dense", peer = 0.03 }
        "#,
    },
    Preset {
        name: "unsupervised",
        about: "Hinton's unsupervised net of 2022, section 3.2: hybrid images, then a softmax on the layers from the second on",
        settings: r#"
            data = "digits"
            epochs = 100
            batch = 100
            hidden = [2000, 2000, 2000, 2000]
            sampler = "hybrid_images"
            layer = { name = "dense", peer = 0.03 }
            weight_decay = 0.003
            probe_epochs = 20
        "#,
    },
    Preset {
        name: "unsupervised_local",
        about: "the same with local receptive fields, as Hinton's of 2022: grids of 4×4, 3×3 and 2×2 places, 60 epochs",
        settings: r#"
            data = "digits"
            epochs = 60
            batch = 100
            hidden = [128, 220, 512]
            sampler = "hybrid_images"
            layer = [
                { name = "local", field = 10, stride = 6, peer = 0.03 },
                { name = "local", field = 2, peer = 0.03 },
                { name = "local", field = 2, peer = 0.03 },
            ]
            probe_epochs = 20
        "#,
    },
    Preset {
        name: "convolutional",
        about: "four local convolutions, each with a classifier of its own (Mono-Forward 2025; local errors, Nøkland 2019)",
        settings: r#"
            data = "cifar-10"
            epochs = 20
            batch = 100
            shift = 4
            flip = true
            standardise = true
            hidden = [64, 128, 256, 512]
            sampler = "plain"
            layer = { name = "conv", norm = "batch" }
            goodness = [
                { name = "projection", grid = 8 },
                { name = "projection", grid = 4 },
                { name = "projection", grid = 4 },
                { name = "projection", grid = 2 },
            ]
            loss = "cross_entropy"
            normalise = "none"
            optimiser = "adam"
            lr = 0.001
            weight_decay = 0.0
            schedule = "cosine"
            head = false
        "#,
    },
    Preset {
        name: "nebuly",
        about: "nebuly-ai's forward_forward app: label behind the pixels, mean squares, Adam, layer after layer",
        settings: r#"
            data = "mnist"
            epochs = 100
            batch = 5000
            n_layers = 3
            hidden_size = 2000
            sampler = { name = "label_concat", negatives = "uniform" }
            layer = "dense"
            goodness = "mean_squares"
            theta = 2.0
            normalise = "unit_length"
            order = "greedy"
            optimiser = "adam"
            lr = 0.03
            weight_decay = 0.0
            schedule = "constant"
            head = false
        "#,
    },
];

struct Net {
    stack: Stack,
    classes: usize,
    readouts: Vec<Readout>,
}

impl Net {
    fn new(settings: &Progressive, context: &BuildContext) -> Result<Self> {
        let descent = OptimiserSpec {
            method: settings.optimiser,
            rate: settings.lr,
            decay: settings.weight_decay,
            momentum: settings.momentum,
            schedule: settings.schedule,
        };
        let level = |(index, &units): (usize, &usize)| -> Result<Level> {
            Ok(Level {
                units,
                layer: settings
                    .layer
                    .of("layer", index, settings.hidden.len())?
                    .clone(),
                goodness: settings
                    .goodness
                    .of("goodness", index, settings.hidden.len())?
                    .clone(),
                objective: Objective {
                    loss: settings.loss,
                    theta: settings.theta,
                    temperature: settings.temperature,
                },
                descent,
                span: span(settings.order, index, context.epochs),
            })
        };
        let levels = settings
            .hidden
            .iter()
            .enumerate()
            .map(level)
            .collect::<Result<Vec<_>>>()?;
        let ones = Tensor::ones(
            [&[1], &context.input[..]].concat(),
            context.vars.dtype(),
            &context.vars.device(),
        )?;
        let readout = readout(settings)?;
        let mut stack = Stack::new(
            context,
            Input::of(ones)?,
            settings.normalise,
            &levels,
            readout,
        )?;
        let mut readouts = Vec::new();
        match stack.classes() {
            Some(_) => readouts.push(Readout {
                name: "goodness",
                cheap: true,
                log_probabilities: false,
            }),
            None if context.hypotheses => readouts.push(Readout {
                name: "search",
                cheap: false,
                log_probabilities: false,
            }),
            None => (),
        }
        if settings.head {
            let (rate, decay) = (settings.head_lr, settings.head_weight_decay);
            stack = stack.with_head(
                context,
                OptimiserSpec {
                    method: Algorithm::Sgd,
                    rate,
                    decay,
                    ..descent
                },
                settings.probe_epochs,
            )?;
            readouts.push(Readout {
                name: "head",
                cheap: true,
                log_probabilities: true,
            });
        }
        if readouts.is_empty() {
            return Err(mismatch(
                "nothing can be read out: the sampler puts no label into the input; set `head = true`",
            ));
        }
        Ok(Self {
            stack,
            classes: context.classes,
            readouts,
        })
    }
}

/// The layers that are read out, counted from 0.
fn readout(settings: &Progressive) -> Result<Range<usize>> {
    let layers = settings.hidden.len();
    let from = settings.readout_from.min(layers);
    match settings.readout_to {
        None => Ok(from - 1..layers),
        Some(to) if (from..=layers).contains(&to) => Ok(from - 1..to),
        Some(to) => Err(Error::Setting {
            key: "readout_to".into(),
            value: to.to_string(),
            origin: "the settings".into(),
            expected: format!(
                "a layer from readout_from = {from} on, of the {layers} that there are"
            ),
        }),
    }
}

fn mismatch(problem: &str) -> Error {
    Error::Mismatch {
        place: "progressive".into(),
        problem: problem.into(),
    }
}

/// The epochs in which a layer learns.
fn span(order: Order, layer: usize, epochs: usize) -> Range<usize> {
    match order {
        Order::Interleaved => 0..epochs,
        Order::Greedy => layer * epochs..(layer + 1) * epochs,
    }
}

impl Architecture for Net {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        self.stack.learn(batch, sampler, step)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        match readout {
            "head" => self.stack.head(sampler.neutral(batch)?, step),
            "goodness" => self.stack.goodness(sampler.neutral(batch)?, step),
            _ => {
                let input = sampler.hypotheses(batch, &every_class(self.classes, batch)?)?;
                let input = input.ok_or_else(|| {
                    mismatch("the sampler makes no hypotheses, so labels cannot be searched")
                })?;
                let classes = input.views();
                let goodness = self.stack.goodness(input, step)?; // (C·B,)
                Ok(goodness
                    .reshape((classes, batch.size()))?
                    .t()?
                    .contiguous()?)
            }
        }
    }

    fn readouts(&self) -> Vec<Readout> {
        self.readouts.clone()
    }

    fn is_ready(&self, readout: &Readout, epochs: usize) -> bool {
        readout.name != "head"
            || self
                .stack
                .heads
                .iter()
                .all(|head| epochs > head.optimiser().span().start)
    }

    fn blocks(&self) -> &[Block] {
        &self.stack.blocks
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.stack.blocks
    }

    fn heads(&self) -> &[Head] {
        &self.stack.heads
    }

    fn heads_mut(&mut self) -> &mut [Head] {
        &mut self.stack.heads
    }

    fn epochs(&self) -> usize {
        self.stack.epochs()
    }
}

/// `n_layers` and `hidden_size` stand for `hidden`: what is missing of them is taken from the `hidden` of before.
fn shorthand(
    given: &mut onward_core::export::Table,
    before: &onward_core::export::Table,
) -> Result<()> {
    let (layers, size) = (given.remove("n_layers"), given.remove("hidden_size"));
    if layers.is_none() && size.is_none() {
        return Ok(());
    }
    let fault = |key: &str, value: String, expected: &str| Error::Setting {
        key: key.into(),
        value,
        origin: String::new(),
        expected: expected.into(),
    };
    if let Some(hidden) = given.get("hidden") {
        return Err(fault(
            "hidden",
            hidden.to_string(),
            "either hidden, or n_layers and hidden_size",
        ));
    }
    let hidden = before
        .get("hidden")
        .and_then(|hidden| hidden.clone().try_into::<Vec<usize>>().ok());
    let hidden = hidden
        .filter(|hidden| !hidden.is_empty())
        .unwrap_or_else(|| Progressive::default().hidden);
    let number = |key: &str, value: Option<onward_core::export::Value>, default: usize| match value
    {
        None => Ok(default),
        Some(value) => value
            .as_integer()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (1..=1_000_000).contains(number))
            .ok_or_else(|| fault(key, value.to_string(), "a whole number, at least 1")),
    };
    let layers = number("n_layers", layers, hidden.len())?;
    if layers > 1000 {
        return Err(fault(
            "n_layers",
            layers.to_string(),
            "a whole number, at least 1 and at most 1000",
        ));
    }
    let size = number("hidden_size", size, hidden[0])?;
    let hidden = vec![onward_core::export::Value::Integer(size as i64); layers];
    given.insert("hidden".into(), onward_core::export::Value::Array(hidden));
    Ok(())
}

onward_core::register! {
    dyn Architecture, "progressive", "layers one upon the other, all at once or one by one (Hinton 2022, arXiv 2212.13345)",
    |settings: Progressive, context| Ok(Box::new(Net::new(&settings, context)?)),
    .presets(PRESETS).shorthand(shorthand)
}
