//! Architecture `progressive`: layers one upon the other.

use std::ops::Range;

use onward::architecture::Readout;
use onward::candle_core::Tensor;
use onward::optim::{Descent, Method, Schedule};
use onward::registry::{self, Preset};
use onward::settings::Pick;
use onward::{
    Architecture, Batch, Block, Error, GoodnessFn, Head, Input, LocalLayer, Loss, NegativeSampler, Normalise,
    Objective, Optimiser, Report, Result, Site, Step,
};

onward::choices! {
    /// When the layers learn.
    pub enum Order {
        /// All of them in every step.
        Interleaved = "interleaved",
        /// One after the other, each for all epochs.
        Greedy = "greedy",
    }
}

onward::settings! {
    /// Layers one upon the other, each learning from the normalised activity of the one below.
    ///
    /// Layer `l` sees `xₗ = norm(aₗ₋₁)`, `x₁ = norm(input)`, for every view; its activity is `aₗ`, its goodness `gₗ`.
    /// Nothing else passes between layers. With the labels in the input a class is predicted in two ways:
    ///
    /// - *search*: `argmax_c Σₗ gₗ(input under class c)`;
    /// - *head*: a softmax over the normalised activities of the neutral input, `log softmax(Σₗ norm(aₗ)·Wₗ)`. It
    ///   learns beside the layers, from the same pass in which a sampler asks for the network's own prediction.
    ///
    /// Both sums leave out the first layers, before `readout_from`. A goodness with a column per class is read out as
    /// *goodness*: `argmax_c Σₗ gₗ[c]` of the neutral input.
    ///
    /// All views of a step see the weights from before the step.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3 (<https://arxiv.org/abs/2212.13345>).
    pub struct Progressive {
        /// The width of each layer, from the first on; `n_layers` and `hidden_size` are a shorthand.
        hidden: Vec<usize> = vec![1000; 3], in 1..;
        /// The kind of all layers.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness of all layers.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
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
        optimiser: Method = Method::Sgd;
        /// Learning rate of the layers.
        lr: f64 = 0.01, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the layers; biases have none.
        weight_decay: f64 = 0.001, in 0. ..=1.;
        /// How much of the running mean of the gradients a step keeps.
        momentum: f64 = 0.9, in 0. ..1.;
        /// How the rates change over the epochs in which a layer learns.
        schedule: Schedule = Schedule::HalfLinear;
        /// The first layer, counted from 1, that readouts see; the last one if there are fewer.
        readout_from: usize = 2, in 1..;
        /// Whether the head is trained.
        head: bool = true;
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
    blocks: Vec<Block>,
    heads: Vec<Head>,
    normalise: Normalise,
    readout_from: usize,
    readouts: Vec<Readout>,
}

impl Net {
    fn new(settings: &Progressive, site: &Site) -> Result<Self> {
        let epochs = site.epochs;
        let layers = settings.hidden.len();
        let descent = Descent {
            method: settings.optimiser,
            rate: settings.lr,
            decay: settings.weight_decay,
            momentum: settings.momentum,
            schedule: settings.schedule,
        };
        let objective = Objective { loss: settings.loss, theta: settings.theta, temperature: settings.temperature };
        let mut net = Self {
            blocks: Vec::with_capacity(layers),
            heads: Vec::new(),
            normalise: settings.normalise,
            readout_from: settings.readout_from.min(layers) - 1,
            readouts: Vec::new(),
        };
        let mut input = probe(&site.input, site)?.normalised(net.normalise)?;
        let mut features = 0;
        let mut by_class = false;
        for (index, &units) in settings.hidden.iter().enumerate() {
            let place = site.scope("blocks").scope(index).with_input(input.shape()).with_units(units);
            let layer = registry::build(&settings.layer, &place.scope("layer"))?;
            // What comes out is known from what comes out: one row is enough.
            let activity = layer.forward(&input, &Step::evaluation(site.seed))?;
            let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
            let goodness = registry::build(&settings.goodness, &of_goodness)?;
            by_class = goodness.classes().is_some();
            let name = (index + 1).to_string();
            let span = span(settings.order, index, epochs);
            let optimiser = Optimiser::new(place.vars.clone(), descent, span);
            let block = Block::new(name, layer, goodness, objective, settings.normalise, optimiser);
            input = block.pass_on(&activity, 1)?;
            if index >= net.readout_from {
                features += input.width();
            }
            net.blocks.push(block);
        }
        if site.hypotheses && !by_class {
            net.readouts.push(Readout { name: "search", cheap: false });
        }
        if by_class {
            net.readouts.push(Readout { name: "goodness", cheap: true });
        }
        if settings.head {
            net.readouts.push(Readout { name: "head", cheap: true });
            let all = 0..net.epochs();
            let descent =
                Descent { method: Method::Sgd, rate: settings.head_lr, decay: settings.head_weight_decay, ..descent };
            net.heads.push(Head::new(&site.scope("head").vars, features, site.classes, descent, all)?);
        }
        if net.readouts.is_empty() {
            let problem = "nothing can be read out: the sampler puts no label into the input; set `head = true`";
            return Err(Error::Mismatch { place: "progressive".into(), problem: problem.into() });
        }
        Ok(net)
    }

    /// The activities of the blocks from `first` on, and the same normalised; no block after them is run.
    fn activities(&self, input: Input, first: usize, step: &Step) -> Result<(Vec<Tensor>, Vec<Input>)> {
        let mut input = input.normalised(self.normalise)?;
        let (mut activities, mut features) = (Vec::new(), Vec::new());
        for (index, block) in self.blocks.iter().enumerate() {
            let activity = block.forward(&input, step)?;
            input = block.pass_on(&activity, input.views())?;
            if index >= first {
                activities.push(activity);
                features.push(input.clone());
            }
        }
        Ok((activities, features))
    }

    /// What the head sees of the neutral view.
    fn features(&self, neutral: Input, step: &Step) -> Result<Input> {
        Input::beside(&self.activities(neutral, self.readout_from, step)?.1)
    }

    /// The goodness of an input, summed over the blocks that readouts see.
    fn goodness(&self, input: Input, step: &Step) -> Result<Tensor> {
        let (activities, _) = self.activities(input, self.readout_from, step)?;
        let mut blocks = self.blocks[self.readout_from..].iter().zip(&activities);
        let (block, activity) = blocks.next().expect("a net has layers");
        blocks.try_fold(block.goodness(activity)?, |sum, (block, activity)| Ok((sum + block.goodness(activity)?)?))
    }
}

/// The epochs in which a layer learns.
fn span(order: Order, layer: usize, epochs: usize) -> Range<usize> {
    match order {
        Order::Interleaved => 0..epochs,
        Order::Greedy => layer * epochs..(layer + 1) * epochs,
    }
}

/// One row of ones of the sampler's shape, to find the shapes of the layers with.
fn probe(shape: &[usize], site: &Site) -> Result<Input> {
    let shape = [&[1], shape].concat();
    Input::of(Tensor::ones(shape, site.vars.dtype(), &site.vars.device())?)
}

impl Architecture for Net {
    fn learn(&mut self, batch: &Batch, sampler: &mut dyn NegativeSampler, step: &Step) -> Result<Vec<(usize, Report)>> {
        let mut neutral: Option<(Input, Tensor)> = None;
        if let Some(head) = self.heads.first() {
            let features = self.features(sampler.neutral(batch)?, step)?;
            let log = head.log_probabilities(&features)?;
            neutral = Some((features, log));
        }
        let mut predict = || match &neutral {
            Some((_, log)) => Ok(log.clone()),
            None => Err(Error::Mismatch {
                place: "progressive".into(),
                problem: "this sampler asks for the network's own prediction; set `head = true`".into(),
            }),
        };
        let mut views = sampler.views(batch, &mut predict, step)?;
        views.input = views.input.normalised(self.normalise)?;
        let mut reports = Vec::with_capacity(self.blocks.len());
        let last = self.blocks.iter().rposition(|block| block.is_learning(step)).map_or(0, |last| last + 1);
        for (index, block) in self.blocks[..last].iter_mut().enumerate() {
            let is_learning = block.is_learning(step);
            let activity = block.forward(&views.input, &Step { train: is_learning, ..step.pass(1) })?;
            let above = block.pass_on(&activity, views.input.views())?;
            if is_learning {
                reports.push((index, block.learn(&views.input, &activity, &views, step)?));
            }
            views.input = above;
        }
        if let (Some(head), Some((features, log))) = (self.heads.first_mut(), &neutral) {
            head.learn(features, log, batch.labels()?, step)?;
        }
        Ok(reports)
    }

    fn scores(&self, batch: &Batch, sampler: &dyn NegativeSampler, readout: &str, step: &Step) -> Result<Tensor> {
        match (readout, self.heads.first()) {
            ("head", Some(head)) => head.log_probabilities(&self.features(sampler.neutral(batch)?, step)?),
            ("goodness", _) => self.goodness(sampler.neutral(batch)?, step),
            _ => {
                let input = sampler.hypotheses(batch)?.ok_or_else(|| Error::Mismatch {
                    place: "progressive".into(),
                    problem: "the sampler puts no label into the input, so labels cannot be searched".into(),
                })?;
                let classes = input.views();
                let goodness = self.goodness(input, step)?; // (C·B,)
                Ok(goodness.reshape((classes, batch.size()))?.t()?.contiguous()?)
            }
        }
    }

    fn readouts(&self) -> Vec<Readout> {
        self.readouts.clone()
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    fn heads(&self) -> &[Head] {
        &self.heads
    }

    fn heads_mut(&mut self) -> &mut [Head] {
        &mut self.heads
    }
}

/// `n_layers` and `hidden_size` stand for `hidden`: what is missing of them is taken from the `hidden` of before.
fn shorthand(given: &mut onward::export::Table, before: &onward::export::Table) -> Result<()> {
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
        return Err(fault("hidden", hidden.to_string(), "either hidden, or n_layers and hidden_size"));
    }
    let hidden = before.get("hidden").and_then(|hidden| hidden.clone().try_into::<Vec<usize>>().ok());
    let hidden = hidden.filter(|hidden| !hidden.is_empty()).unwrap_or_else(|| Progressive::default().hidden);
    let number = |key: &str, value: Option<onward::export::Value>, default: usize| match value {
        None => Ok(default),
        Some(value) => value
            .as_integer()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (1..=1_000_000).contains(number))
            .ok_or_else(|| fault(key, value.to_string(), "a whole number, at least 1")),
    };
    let layers = number("n_layers", layers, hidden.len())?;
    if layers > 1000 {
        return Err(fault("n_layers", layers.to_string(), "a whole number, at least 1 and at most 1000"));
    }
    let size = number("hidden_size", size, hidden[0])?;
    let hidden = vec![onward::export::Value::Integer(size as i64); layers];
    given.insert("hidden".into(), onward::export::Value::Array(hidden));
    Ok(())
}

onward::register! {
    dyn Architecture, "progressive", "layers one upon the other, all at once or one by one (Hinton 2022, arXiv 2212.13345)",
    |settings: Progressive, site| Ok(Box::new(Net::new(&settings, site)?)),
    .presets(PRESETS).shorthand(shorthand)
}
