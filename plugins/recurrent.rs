//! Architecture `recurrent`: layers that hear from above as well as from below.

mod clamps;

use std::ops::RangeInclusive;

use onward::architecture::Readout;
use onward::candle_core::{DType, Device, Tensor};
use onward::data::images::moved;
use onward::ops::damp;
use onward::optim::{Descent, Method, Schedule};
use onward::registry::{self, Preset};
use onward::sampler::every_class;
use onward::settings::Pick;
use onward::{
    Architecture, Batch, Block, Error, GoodnessFn, Head, Input, LocalLayer, Loss, NegativeSampler, Normalise,
    Objective, Optimiser, Report, Result, Role, Site, Step, Values,
};

use self::clamps::{Clamped, Clamps};

onward::settings! {
    /// Layers that hear, at every time step, from the layer below and from the layer above at the step before: a still
    /// image is treated as a video that does not change, so that a layer learns from what follows it as well, with no
    /// derivative crossing a layer.
    ///
    /// With the state `sₗ[t]` of layer `l` of `L`, `norm(s₀)` being the normalised pixels and the label `y` standing
    /// above the last layer, all layers step at once:
    ///
    /// - `aₗ[t] = layer(norm(sₗ₋₁[t−1]) | norm(sₗ₊₁[t−1]))`, above the last layer `layer(norm(s_{L−1}[t−1]) | y)`;
    /// - `sₗ[t] = damping·sₗ[t−1] + (1 − damping)·aₗ[t]`;
    /// - start: one pass from the bottom up in which nothing is heard from above, `sₗ[0] = layer(norm(sₗ₋₁[0]) | 0)`.
    ///
    /// | tensor  | shape        |                                                          |
    /// |---------|--------------|----------------------------------------------------------|
    /// | `aₗ`    | `(V·B, Nₗ)`  | activity; its goodness is what layer `l` learns from      |
    /// | `sₗ`    | `(V·B, Nₗ)`  | state; what the neighbours hear, `(B, Nₗ)` at the start   |
    /// | `y`     | `(V·B, C)`   | one-hot, or `(V·B, label_units)` projected                |
    ///
    /// Every layer learns at every step `t = 1 … steps` from its own input and activity; the gradients of all steps are
    /// averaged into one update at the end, so all steps see the weights from before. Memory does not grow with `steps`:
    /// what the pixels and the label are multiplied by is summed over the steps first.
    ///
    /// The sampler says what is clamped. If its views are wider than an example by one number for each class, as those
    /// of `label_concat` are, these are the label, and stand above. Otherwise the whole view is clamped below, and
    /// nothing stands above. A class is predicted in two ways:
    ///
    /// - *search*: `argmax_c Σₜ Σₗ gₗ(aₗ[t] under class c)`, `t` within `window`;
    /// - *head*: a softmax over the normalised states of all layers at the start, `log softmax(Σₗ norm(sₗ[0])·Wₗ)`: one
    ///   pass. It learns beside the layers and is what samplers hear as the network's own prediction.
    ///
    /// Examples `(T, C, H, W)` are videos of `T = steps` frames: frame `t` is below at step `t`, the first one at the
    /// start too.
    ///
    /// With `maps` the pixels and all states are maps of one height and width, `sₗ` being `(V·B, hiddenₗ, H, W)`: a layer
    /// hears below and above as the channels of one image, which is what layers of local fields need. The label is one
    /// channel more, whose pixels are dealt to the classes, pixel `p` to class `p mod C`, so that every field of more
    /// pixels than classes sees all of it.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.4 (<https://arxiv.org/abs/2212.13345>); Hinton, "How to
    /// represent part-whole hierarchies in a neural network", 2021 (<https://arxiv.org/abs/2102.12627>). The paper does
    /// not say whether goodness is that of the activity or of the damped state: here it is the activity's.
    pub struct Recurrent {
        /// The width of each layer, from the first on; with `maps`, its channels.
        hidden: Vec<usize> = vec![1000; 2], in 1..=1_000_000;
        /// Whether every layer keeps the height and the width of the images, and hears its neighbours pixel by pixel.
        maps: bool = false;
        /// The kind of all layers.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness of all layers.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// What a layer minimises.
        loss: Loss = Loss::Logistic;
        /// The goodness above which a view counts as positive; the goodness's own threshold if it is not set.
        theta: Option<f64> = None, in f64::MIN..;
        /// How soft that decision is: (goodness − theta) is divided by it.
        temperature: f64 = 10., in f64::MIN_POSITIVE..;
        /// What is done to the pixels, and to every state before a neighbour hears it.
        normalise: Normalise = Normalise::MeanSquare;
        /// Time steps of training, T.
        steps: usize = 8, in 1..=1000;
        /// The first and the last time step whose goodness the search sums up.
        window: Vec<usize> = vec![3, 5], in 1..;
        /// How much of its old state a layer keeps.
        damping: f64 = 0.3, in 0. ..1.;
        /// Whether a wrong label is drawn anew at every time step, from what the head makes of the negative view by then;
        /// otherwise once for all of them, from the prediction at the start.
        redraw: bool = false;
        /// How loud the label is: the length of what stands above the last layer, relative to what that hears from below.
        label_weight: f64 = 1., in f64::MIN_POSITIVE..=1e6;
        /// The units of a layer that the label goes through on its way down, with a rule of its own; 0 for the label itself.
        label_units: usize = 0;
        /// Training images are moved by up to this many pixels at every time step, each step another way.
        jitter: usize = 0, in 0..=64;
        /// How gradients become updates.
        optimiser: Method = Method::Sgd;
        /// Learning rate of the layers.
        lr: f64 = 0.02, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the layers; biases have none.
        weight_decay: f64 = 0.001, in 0. ..=1.;
        /// How much of the running mean of the gradients a step keeps.
        momentum: f64 = 0.9, in 0. ..1.;
        /// How the rates change over the epochs.
        schedule: Schedule = Schedule::HalfLinear;
        /// Learning rate of the head.
        head_lr: f64 = 0.1, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the head.
        head_weight_decay: f64 = 0.003, in 0. ..=1.;
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "glom",
        about: "two layers of 1000 units, hard negatives, peer normalisation: Hinton's of 2022, half as wide",
        settings: r#"
            data = "digits"
            epochs = 20
            batch = 100
            sampler = { name = "label_concat", negatives = "hard" }
            layer = { name = "dense", peer = 0.03 }
        "#,
    },
    Preset {
        name: "hinton",
        about: "Hinton's of 2022, section 3.4: two layers of 2000 units, 60 epochs",
        settings: r#"
            data = "mnist"
            epochs = 60
            batch = 100
            hidden = [2000, 2000]
            sampler = { name = "label_concat", negatives = "hard" }
            layer = { name = "dense", peer = 0.03 }
        "#,
    },
    Preset {
        name: "nebuly",
        about:
            "as nebuly-ai's forward_forward app: label projected, wrong labels drawn at every step, mean squares, Adam",
        settings: r#"
            data = "mnist"
            epochs = 100
            batch = 5000
            hidden = [2000, 2000, 2000]
            sampler = { name = "label_concat", negatives = "hard" }
            layer = "dense"
            goodness = "mean_squares"
            theta = 2.0
            normalise = "unit_length"
            window = [2, 8]
            redraw = true
            label_units = 2000
            optimiser = "adam"
            lr = 0.03
            weight_decay = 0.0
            schedule = "constant"
        "#,
    },
    Preset {
        name: "cifar",
        about:
            "Hinton's of 2022 for CIFAR-10: two layers of 3072 units with local fields of 11×11, low activity is good",
        settings: r#"
            data = "cifar-10"
            epochs = 30
            batch = 100
            hidden = [3, 3]
            maps = true
            layer = { name = "local", field = 11, padding = 5, peer = 0.03 }
            sampler = { name = "label_concat", negatives = "hard" }
            goodness = { name = "sum_squares", positive = "low" }
            steps = 10
            window = [4, 6]
        "#,
    },
];

struct Net {
    /// The hidden layers, from the pixels up; behind them the projection of the label, if there is one.
    blocks: Vec<Block>,
    heads: [Head; 1],
    readouts: Vec<Readout>,
    classes: usize,
    /// The widths of the hidden layers.
    hidden: Vec<usize>,
    /// How wide that is what stands above the last one; 0 if nothing does.
    top: usize,
    /// Height and width of the maps, if layers hear each other pixel by pixel.
    map: Option<[usize; 2]>,
    clamps: Clamps,
    normalise: Normalise,
    steps: usize,
    window: RangeInclusive<usize>,
    damping: f64,
    label_weight: f64,
    redraw: bool,
    jitter: usize,
}

impl Net {
    fn new(settings: Recurrent, site: &Site) -> Result<Self> {
        let mut clamps = Clamps::new(site, settings.steps, settings.jitter)?;
        let map = settings.maps.then(|| clamps.deal_label(site)).transpose()?;
        if map.is_some() && settings.label_units > 0 {
            return Err(mismatch("with `maps` the label is a map, and not projected; set `label_units = 0`"));
        }
        let top = match (clamps.above, settings.label_units) {
            (label, 0) | (label @ 0, _) => label,
            (_, units) => units,
        };
        let pixels = map.map_or(1, |[height, width]| height * width);
        let hidden: Vec<usize> = settings.hidden.iter().map(|units| units.saturating_mul(pixels)).collect();
        let mut blocks = Vec::with_capacity(hidden.len() + 1);
        for (index, &units) in settings.hidden.iter().enumerate() {
            let below = if index == 0 { clamps.below } else { hidden[index - 1] };
            let above = hidden.get(index + 1).copied().unwrap_or(top);
            let place = site.scope("blocks").scope(index).with_units(units);
            let place = place.with_input(&shape(map, below.saturating_add(above)));
            blocks.push(block(&settings, (index + 1).to_string(), &place, map)?);
        }
        if top != clamps.above {
            let place = site.scope("label").with_input(&[clamps.above]).with_units(top);
            blocks.push(block(&settings, "label".into(), &place, None)?);
        }
        let by_class = blocks.iter().any(|block| block.classes().is_some());
        let of_head = Descent {
            method: Method::Sgd,
            rate: settings.head_lr,
            decay: settings.head_weight_decay,
            ..descent(&settings)
        };
        let head = Head::new(&site.scope("head").vars, hidden.iter().sum(), site.classes, of_head, 0..site.epochs)?;
        let mut readouts = vec![Readout { name: "head", cheap: true, log_probabilities: true }];
        match (by_class, site.hypotheses) {
            (true, _) => readouts.push(Readout { name: "goodness", cheap: false, log_probabilities: false }),
            (false, true) => readouts.push(Readout { name: "search", cheap: false, log_probabilities: false }),
            (false, false) => (),
        }
        Ok(Self {
            blocks,
            heads: [head],
            readouts,
            classes: site.classes,
            hidden,
            top,
            map,
            clamps,
            normalise: settings.normalise,
            steps: settings.steps,
            window: window(&settings)?,
            damping: settings.damping,
            label_weight: settings.label_weight,
            redraw: settings.redraw,
            jitter: settings.jitter,
        })
    }

    /// What is below at time step `t`; `t = 0` is the start.
    fn below(&self, clamped: &Clamped, t: usize, batch: &Batch, step: &Step) -> Result<Input> {
        let mut values = clamped.below.clone();
        if let (2.., [Values::Dense { matrix, columns }]) = (self.clamps.frames, &values[..]) {
            let first = columns.start + t.saturating_sub(1) * self.clamps.below;
            values = vec![Values::Dense { matrix: matrix.clone(), columns: first..first + self.clamps.below }];
        } else if step.train && self.jitter > 0 && t > 0 {
            values = vec![Values::dense(moved(batch.examples(), self.jitter, &mut step.stream("jitter"))?)?];
        }
        Input::new(values, clamped.batch, clamped.views, &[self.clamps.below])?.normalised(self.normalise)
    }

    /// What the neighbours hear of a state, `(V·B, …)`, or `(B, …)` if it is the same in all views.
    fn listen(&self, state: &Tensor, batch: usize, views: usize) -> Result<Input> {
        let rows = state.dim(0)?;
        let heard = match rows == batch {
            true => Input::shared(state.detach(), views)?,
            false => Input::stacked(state.detach(), views)?,
        };
        heard.normalised(self.normalise)
    }

    /// The states at the start: one pass from the bottom up, nothing being heard from above.
    fn start(&self, below: Input, step: &Step) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.hidden.len());
        let mut lower = below;
        for (index, block) in self.blocks[..self.hidden.len()].iter().enumerate() {
            let (batch, views) = (lower.batch(), lower.views());
            let above = self.hidden.get(index + 1).copied().unwrap_or(self.top);
            let heard = self.beside(lower, silence(above, batch, views)?.as_ref())?;
            let state = block.forward(&heard, step)?.detach();
            lower = self.listen(&state, batch, views)?;
            states.push(state);
        }
        Ok(states)
    }

    /// What every hidden layer hears at the next time step, `(below | above)`.
    fn heard(&self, below: Input, states: &[Tensor], above: Option<Input>) -> Result<Vec<Input>> {
        let (batch, views) = (below.batch(), below.views());
        let states = states.iter().map(|state| self.listen(state, batch, views));
        let mut around = vec![below];
        around.extend(states.collect::<Result<Vec<_>>>()?);
        (0..self.hidden.len())
            .map(|index| {
                let upper = if index + 1 < self.hidden.len() { around.get(index + 2) } else { above.as_ref() };
                self.beside(around[index].clone(), upper)
            })
            .collect()
    }

    /// What a layer hears from below and above, side by side: columns, or the channels of maps.
    fn beside(&self, lower: Input, upper: Option<&Input>) -> Result<Input> {
        let heard = match upper {
            Some(upper) => Input::beside(&[lower, upper.clone()])?,
            None => lower,
        };
        let columns = heard.width();
        heard.shaped(&shape(self.map, columns))
    }

    /// What stands above the last layer, as loud as what that hears from below, times `label_weight`.
    fn above(&self, label: Option<&Input>, step: &Step) -> Result<Option<Input>> {
        let Some(label) = label else { return Ok(None) };
        let above = match self.blocks.get(self.hidden.len()) {
            Some(projection) => self.listen(&projection.forward(label, step)?, label.batch(), label.views())?,
            None => label.clone().normalised(self.normalise)?,
        };
        let below = self.hidden.len().checked_sub(2).map_or(self.clamps.below, |below| self.hidden[below]);
        let length = match self.normalise {
            Normalise::MeanSquare => (below as f64 / self.top as f64).sqrt(),
            _ => 1.,
        };
        Ok(Some(above.scaled(self.label_weight * length)?))
    }

    /// The neutral view, the states at its start, and what the head sees of them.
    fn neutral(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<(Clamped, Vec<Tensor>, Input)> {
        let clamped = self.clamps.take(&sampler.neutral(batch)?)?;
        let states = self.start(self.below(&clamped, 0, batch, step)?, step)?;
        let features = self.features(&states, batch.size())?;
        Ok((clamped, states, features))
    }

    /// What the head sees of the states of one view, `(B, …)` each.
    fn features(&self, states: &[Tensor], batch: usize) -> Result<Input> {
        let features = states.iter().map(|state| self.listen(state, batch, 1));
        Input::beside(&features.collect::<Result<Vec<_>>>()?)
    }

    /// What the head makes of the first negative view's states by now, `(B, C)`.
    fn prediction(&self, states: &[Tensor], roles: &[Role], batch: usize) -> Result<Tensor> {
        let view = roles.iter().position(|role| *role == Role::Negative).unwrap_or(0);
        let of_view = |state: &Tensor| -> Result<Tensor> {
            Ok(if state.dim(0)? == batch { state.clone() } else { state.narrow(0, view * batch, batch)? })
        };
        let states = states.iter().map(of_view).collect::<Result<Vec<_>>>()?;
        self.heads[0].log_probabilities(&self.features(&states, batch)?)
    }

    /// The states that views start from: those of the neutral view, unless they differ below.
    fn start_of(&self, clamped: &Clamped, neutral: &[Tensor], batch: &Batch, step: &Step) -> Result<Vec<Tensor>> {
        match self.clamps.above {
            0 => self.start(self.below(clamped, 0, batch, step)?, step),
            _ => Ok(neutral.to_vec()),
        }
    }

    /// The goodness of views, summed over the hidden layers and the time steps of the window, `(V·B,)` or `(V·B, C)`.
    fn goodness(&self, input: &Input, neutral: &[Tensor], batch: &Batch, step: &Step) -> Result<Tensor> {
        let clamped = self.clamps.take(input)?;
        let mut states = self.start_of(&clamped, neutral, batch, step)?;
        let above = self.above(clamped.label.as_ref(), step)?;
        let mut sum: Option<Tensor> = None;
        for t in 1..=*self.window.end() {
            let heard = self.heard(self.below(&clamped, t, batch, step)?, &states, above.clone())?;
            for ((block, heard), state) in self.blocks.iter().zip(&heard).zip(&mut states) {
                let activity = block.forward(heard, step)?;
                if self.window.contains(&t) {
                    let goodness = block.goodness(&activity)?;
                    sum = Some(match sum {
                        None => goodness,
                        Some(sum) => (sum + goodness)?,
                    });
                }
                *state = damp(state, &activity, self.damping)?;
            }
        }
        sum.ok_or_else(|| mismatch("the window holds no time step"))
    }
}

/// A block at a place that says how much enters it and how many units it has.
fn block(settings: &Recurrent, name: String, place: &Site, map: Option<[usize; 2]>) -> Result<Block> {
    let layer = registry::build(&settings.layer, &place.scope("layer"))?;
    // One row is enough to see what comes out.
    let row = Tensor::ones([&[1], &place.input[..]].concat(), place.vars.dtype(), &place.vars.device())?;
    let activity = layer.forward(&Input::of(row)?, &Step::evaluation(place.seed))?;
    let (found, units) = (activity.dims()[1..].to_vec(), place.units.unwrap_or_default());
    let expected = match map {
        None if found.iter().product::<usize>() == units => None,
        None => Some(format!("{units} units in all")),
        Some([height, width]) if found == [units, height, width] => None,
        Some([height, width]) => Some(format!("[{units}, {height}, {width}], since `maps` keep their size")),
    };
    if let Some(expected) = expected {
        return Err(Error::Shape { place: format!("recurrent layer {name}"), found, expected });
    }
    let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
    let goodness = registry::build(&settings.goodness, &of_goodness)?;
    let objective = Objective { loss: settings.loss, theta: settings.theta, temperature: settings.temperature };
    let optimiser = Optimiser::new(place.vars.clone(), descent(settings), 0..place.epochs);
    Ok(Block::new(name, layer, goodness, objective, settings.normalise, optimiser))
}

fn descent(settings: &Recurrent) -> Descent {
    Descent {
        method: settings.optimiser,
        rate: settings.lr,
        decay: settings.weight_decay,
        momentum: settings.momentum,
        schedule: settings.schedule,
    }
}

fn window(settings: &Recurrent) -> Result<RangeInclusive<usize>> {
    match settings.window[..] {
        [first, last] if first <= last && last <= settings.steps => Ok(first..=last),
        _ => Err(Error::Setting {
            key: "window".into(),
            value: format!("{:?}", settings.window),
            origin: "the settings".into(),
            expected: format!("[first, last], two time steps with 1 <= first <= last <= steps = {}", settings.steps),
        }),
    }
}

/// The shape of what has this many columns, as columns or as channels of maps.
fn shape(map: Option<[usize; 2]>, columns: usize) -> Vec<usize> {
    match map {
        Some([height, width]) => vec![columns / (height * width), height, width],
        None => vec![columns],
    }
}

/// Nothing to be heard from `width` units: a part that costs nothing to multiply.
fn silence(width: usize, batch: usize, views: usize) -> Result<Option<Input>> {
    if width == 0 {
        return Ok(None);
    }
    let index = Tensor::zeros((batch, 1), DType::U32, &Device::Cpu)?;
    let nothing = Values::OneHot { index, classes: width, strength: 0. };
    Ok(Some(Input::new(vec![nothing], batch, views, &[width])?))
}

fn mismatch(problem: &str) -> Error {
    Error::Mismatch { place: "recurrent".into(), problem: problem.into() }
}

impl Architecture for Net {
    fn learn(&mut self, batch: &Batch, sampler: &mut dyn NegativeSampler, step: &Step) -> Result<Vec<(usize, Report)>> {
        let (_, neutral, features) = self.neutral(batch, sampler, step)?;
        let log = self.heads[0].log_probabilities(&features)?;
        let mut views = sampler.views(&batch.shown_to(sampler), &mut || Ok(log.clone()), step)?;
        let mut clamped = self.clamps.take(&views.input)?;
        let mut states = self.start_of(&clamped, &neutral, batch, step)?;
        let mut reports = vec![Report::default(); self.blocks.len()];
        for block in &mut self.blocks {
            block.optimiser_mut().gather(self.steps);
        }
        for t in 1..=self.steps {
            let step = &step.pass(t as u32);
            if self.redraw && t > 1 {
                let mut predict = || self.prediction(&states, &views.roles, batch.size());
                views = sampler.views(&batch.shown_to(sampler), &mut predict, step)?;
                clamped = self.clamps.take(&views.input)?;
            }
            let above = self.above(clamped.label.as_ref(), step)?;
            let mut heard = self.heard(self.below(&clamped, t, batch, step)?, &states, above)?;
            // The projection of the label is a block like the others, only that it hears nothing but the label.
            heard.extend(clamped.label.iter().cloned());
            for (index, (block, heard)) in self.blocks.iter_mut().zip(&heard).enumerate() {
                let is_learning = block.is_learning(step);
                let activity = block.forward(heard, &Step { train: is_learning, ..*step })?;
                if is_learning {
                    reports[index].add(&block.learn(heard, &activity, &views, step)?, 1. / self.steps as f64);
                }
                if let Some(state) = states.get_mut(index) {
                    *state = damp(state, &activity.detach(), self.damping)?;
                }
            }
        }
        for block in &mut self.blocks {
            block.optimiser_mut().settle(step)?;
        }
        self.heads[0].learn(&features, &log, batch.labels()?, step)?;
        let learning = self.blocks.iter().zip(reports).enumerate();
        Ok(learning
            .filter(|(_, (block, _))| block.is_learning(step))
            .map(|(index, (_, report))| (index, report))
            .collect())
    }

    fn scores(&self, batch: &Batch, sampler: &dyn NegativeSampler, readout: &str, step: &Step) -> Result<Tensor> {
        let (_, states, features) = self.neutral(batch, sampler, step)?;
        match readout {
            "head" => self.heads[0].log_probabilities(&features),
            "goodness" => self.goodness(&sampler.neutral(batch)?, &states, batch, step),
            _ => {
                let input = sampler.hypotheses(batch, &every_class(self.classes, batch)?)?;
                let input =
                    input.ok_or_else(|| mismatch("the sampler makes no hypotheses, so labels cannot be searched"))?;
                let goodness = self.goodness(&input, &states, batch, step)?; // (C·B,)
                Ok(goodness.reshape((input.views(), batch.size()))?.t()?.contiguous()?)
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

onward::register! {
    dyn Architecture, "recurrent", "layers that hear from above and below, a still image as a video (Hinton 2022, arXiv 2212.13345)",
    |settings: Recurrent, site| Ok(Box::new(Net::new(settings, site)?)),
    .presets(PRESETS)
}
