//! Architecture `progressive`: stacked layers.

use std::ops::Range;

use onward_core::contract::head::{self, HeadSpec};
use onward_core::export::{Table, Value};
use onward_core::optim::{OptimiserSpec, Span};
use onward_core::plugin::preset::Preset;
use onward_core::plugin::registry::DataKind;
use onward_core::settings::{Each, Idle, Pick, Positive, Settings};
use onward_core::wiring::stack::{Level, Order, Stack};
use onward_core::{
    Architecture, BuildContext, Error, GoodnessFn, LocalLayer, Normalise, Objective, Result,
};

onward_core::settings! {
    /// Stacked layers, each learning from the normalised activity of the layer below.
    ///
    /// Layer `l` sees `xₗ = norm(aₗ₋₁)`, `x₁ = norm(input)`, for every view; its activity
    /// is `aₗ`, its goodness `gₗ`. Nothing else passes between layers. With the labels in
    /// the input a class is predicted in two ways:
    ///
    /// - *search*: `argmax_c Σₗ gₗ(input under class c)`;
    /// - *head*: a softmax over the normalised activities of the neutral input,
    ///   `log softmax(Σₗ norm(aₗ)·Wₗ)`. It learns beside the layers, from the same pass
    ///   that gives the network's own prediction to a sampler.
    ///
    /// Both sums are over the layers from `readout_from` to `readout_to`. A goodness with
    /// a column per class is read out as *goodness*: `argmax_c Σₗ gₗ[c]` of the neutral
    /// input.
    ///
    /// All views of a step see the weights from before the step.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3
    /// (<https://arxiv.org/abs/2212.13345>).
    pub struct Progressive {
        /// The width of each layer, starting at the first; `n_layers` and `hidden_size`
        /// are a shorthand.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The layer: one for all, or a list with one per layer.
        layer: Each<Pick<dyn LocalLayer>> = "dense".into();
        /// The goodness function: one for all layers, or a list with one per layer.
        goodness: Each<Pick<dyn GoodnessFn>> = "sum_squares".into();
        /// The normalisation of the input, and of every activity before the next layer
        /// sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// The probability that a number is dropped on its way to the next layer, in
        /// training; the layer's own loss sees it. `layer.dropout` drops it before the
        /// loss.
        dropout: f64 = 0., in 0. ..=0.95;
        /// The order in which layers learn; with greedy, `epochs` is the number per
        /// layer.
        order: Order = Order::Interleaved;
        /// The learning rate of each layer, starting at the first. Default: `lr` for all.
        layer_lr: Option<Vec<f64>> = None, in Positive.up_to(1000.);
        /// Whether the layers stay random and only the head learns: a baseline. Batch
        /// normalisation then keeps the statistics of the start, mean 0 and variance 1.
        frozen: bool = false;
        /// The first layer that is read out, counted from 1; the last layer if there are
        /// fewer.
        readout_from: usize = 2, in 1..;
        /// The last layer that is read out. Default: the last layer of the network.
        readout_to: Option<usize> = None, in 1..;
        /// Whether there is a head.
        head: bool = true;
        /// Epochs after those of the layers in which only the head learns, as a probe; 0
        /// for a head that learns with the layers.
        probe_epochs: usize = 0, in 0..=1_000_000_000;
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head_spec: HeadSpec = HeadSpec::default();
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "hinton",
        about: "Hinton's Matlab program of 2022: hard negatives, peer normalisation, all \
                layers in every step",
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
        about: "as in Hinton 2022, section 3.2, without labels: hybrid images, then a \
                softmax on all layers except the first",
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
        about: "as `unsupervised`, with the local receptive fields of Hinton 2022: grids \
                of 4×4, 3×3 and 2×2 locations, 60 epochs",
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
        about: "four convolutions, each with a local classifier (Mono-Forward 2025; \
                local errors, Nøkland 2019)",
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
        about: "as nebuly-ai's forward_forward app: label after the pixels, mean \
                squares, Adam, one layer after the other",
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

fn stack(settings: &Progressive, context: &BuildContext) -> Result<Stack> {
    let example = context.probe_input()?;
    let (levels, readout) = (levels(settings, context)?, readout(settings)?);
    let mut stack = Stack::new(context, example, settings.normalise, &levels, readout)?;
    if settings.head {
        let spec = settings.head_spec.beside(&settings.optimiser);
        stack = stack.with_head(context, spec, settings.probe_epochs)?;
    }
    stack.net.readouts = stack.readouts(context.hypotheses);
    if stack.net.readouts.is_empty() {
        let problem = match stack.is_learned() {
            true => "no readout: the sampler puts no label into the input; set `head = true`",
            false => {
                "nothing learns: no layer that is read out does, and there is no head; set \
                 `head = true`, or let the layers learn (`frozen = false`, another `loss`)"
            }
        };
        return Err(Error::unfit("progressive", problem));
    }
    Ok(stack)
}

fn levels(settings: &Progressive, context: &BuildContext) -> Result<Vec<Level>> {
    let count = settings.hidden.len();
    let level = |(index, &units): (usize, &usize)| -> Result<Level> {
        Ok(Level {
            units,
            layer: settings.layer.of("layer", index, count)?.clone(),
            goodness: settings.goodness.of("goodness", index, count)?.clone(),
            objective: settings.objective.clone(),
            dropout: settings.dropout,
            optimiser: optimiser(settings, index)?,
            span: match settings.frozen {
                true => Span::Epochs(0..0),
                false => settings.order.span(index, context.epochs),
            },
            shortcuts: Vec::new(),
        })
    };
    settings.hidden.iter().enumerate().map(level).collect()
}

/// The optimiser of a layer, counted from 0.
fn optimiser(settings: &Progressive, index: usize) -> Result<OptimiserSpec> {
    let spec = settings.optimiser.clone();
    let count = settings.hidden.len();
    match &settings.layer_lr {
        None => Ok(spec),
        Some(rates) if rates.len() == count => Ok(OptimiserSpec {
            lr: rates[index],
            ..spec
        }),
        Some(rates) => {
            let expected = format!("a list of {count}, one for each layer");
            let value = Value::from(rates.clone());
            Err(Error::refused("layer_lr", value, expected))
        }
    }
}

/// The layers that are read out, counted from 0.
fn readout(settings: &Progressive) -> Result<Range<usize>> {
    let layers = settings.hidden.len();
    let from = settings.readout_from.min(layers);
    match settings.readout_to {
        None => Ok(from - 1..layers),
        Some(to) if (from..=layers).contains(&to) => Ok(from - 1..to),
        Some(to) => {
            let expected = format!("a layer from readout_from = {from} to {layers}, the last");
            Err(Error::refused("readout_to", to, expected))
        }
    }
}

/// Replaces `n_layers` and `hidden_size`, the settings of nebuly-ai's app, by `hidden`.
/// If one of the two is missing, it is taken from the previous `hidden`.
fn shorthand(given: &mut Table, before: &mut Table) -> Result<()> {
    let (layers, size) = (given.remove("n_layers"), given.remove("hidden_size"));
    if layers.is_none() && size.is_none() {
        return Ok(());
    }
    if let Some(hidden) = given.get("hidden") {
        let expected = "either hidden, or n_layers and hidden_size";
        return Err(Error::setting("hidden", hidden, "", expected));
    }
    let hidden = before
        .get("hidden")
        .and_then(|hidden| hidden.clone().try_into().ok());
    let hidden: Vec<i64> = hidden
        .filter(|hidden: &Vec<_>| !hidden.is_empty())
        .unwrap_or(vec![1000; 3]);
    let number = |key: &str, value: Option<Value>, most: i64, default: i64| {
        let Some(value) = value else {
            return Ok(default);
        };
        let is_whole = |number: &f64| number.fract() == 0. && number.abs() <= most as f64;
        let as_float = value.as_float().filter(is_whole);
        let number = value.as_integer().or(as_float.map(|number| number as i64));
        let number = number.filter(|number| (1..=most).contains(number));
        let expected = format!("a whole number, at least 1 and at most {most}");
        number.ok_or_else(|| Error::setting(key, &value, "", expected))
    };
    let layers = number("n_layers", layers, 1000, hidden.len() as i64)?;
    let size = number("hidden_size", size, 1_000_000, hidden[0])?;
    given.insert("hidden".into(), vec![size; layers as usize].into());
    Ok(())
}

/// The settings of layers that learn.
const OF_LEARNING: [&str; 19] = [
    "loss",
    "theta",
    "temperature",
    "goodness.positive",
    "goodness.negative",
    "goodness.lambda",
    "order",
    "layer.dropout",
    "layer.peer",
    "layer.peer_momentum",
    "layer.rate",
    "layer.ridge",
    "layer.sharpness",
    "sampler.blurs",
    "sampler.length",
    "sampler.negatives",
    "sampler.pool",
    "sampler.refresh",
    "sampler.shift",
];

/// The settings of what a layer passes on.
const OF_PASSING_ON: [&str; 3] = ["dropout", "layer.passes", "layer.passed_pool"];

/// The settings without an effect beside others.
fn idle(own: &Table, _: &Table) -> Result<Vec<Idle>> {
    let settings = Progressive::read(own)?;
    let of_head = settings.head.then_some(&settings.head_spec);
    let mut idle = head::idle(&settings.optimiser, !settings.frozen, of_head);
    if settings.layer_lr.is_some() && !settings.frozen {
        let because = "each layer has a rate of its own (`layer_lr`)";
        idle.extend(Idle::all(&["lr"], because));
    }
    if settings.frozen {
        let because = "the layers are frozen (`frozen = true`)";
        idle.extend(Idle::all(&OF_LEARNING, because));
    }
    if settings.hidden.len() == 1 {
        idle.extend(Idle::all(&["order"], "there is one layer"));
    }
    if !settings.head {
        idle.extend(Idle::all(&["probe_epochs"], "there is no head"));
        if settings.hidden.len() == 1 {
            let because = "no layer and no head is above the only layer";
            idle.extend(Idle::all(&OF_PASSING_ON, because));
        }
    }
    idle.extend(settings.objective.idle());
    Ok(idle)
}

onward_core::register! {
    dyn Architecture, "progressive",
    "stacked layers, all at once or one by one (Hinton 2022, arXiv 2212.13345)",
    |settings: Progressive, context| Ok(Box::new(stack(&settings, context)?)),
    .presets(PRESETS).rewrite(shorthand).idle(idle)
    .suits(&[(DataKind::Photographs, "convolutional")])
}
