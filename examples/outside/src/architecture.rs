//! Architecture `staggered`.

use onward::contract::head::HeadSpec;
use onward::optim::{OptimiserSpec, Span};
use onward::plugin::preset::Preset;
use onward::settings::Pick;
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, BuildContext, GoodnessFn, LocalLayer, Normalise, Objective, Readout, Result,
};

onward::settings! {
    /// Stacked layers; each one starts to learn an epoch after the layer below.
    ///
    /// `aₗ = layerₗ(norm(aₗ₋₁))`. The readout is a softmax over all layers,
    /// `log softmax(Σₗ norm(aₗ)·Wₗ)`. It changes no layer.
    pub struct Staggered {
        /// The width of each layer.
        hidden: Vec<usize> = vec![100, 200], in 1..=1_000_000;
        /// The layer plugin of every level.
        layer: Pick<dyn LocalLayer> = "softplus".into();
        /// The goodness plugin of every level.
        goodness: Pick<dyn GoodnessFn> = "excess".into();
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec {
            lr: 0.02,
            weight_decay: 0.,
            ..OptimiserSpec::default()
        };
        .. head: HeadSpec = HeadSpec {
            head_lr: 0.02,
            head_weight_decay: 0.,
            ..HeadSpec::default()
        };
    }
}

const PRESETS: &[Preset] = &[Preset {
    name: "stripes",
    about: "the data and the sampler of this crate",
    settings: r#"
        data = "stripes"
        sampler = "halves"
        batch = 20
    "#,
}];

fn stack(settings: &Staggered, context: &BuildContext) -> Result<Stack> {
    let level = |(index, &units): (usize, &usize)| Level {
        units,
        layer: settings.layer.clone(),
        goodness: settings.goodness.clone(),
        objective: settings.objective.clone(),
        optimiser: settings.optimiser.clone(),
        span: Span::Epochs(index.min(context.epochs - 1)..context.epochs),
        dropout: 0.,
        shortcuts: Vec::new(),
    };
    let levels: Vec<Level> = settings.hidden.iter().enumerate().map(level).collect();
    let (example, all) = (context.probe_input()?, 0..levels.len());
    let stack = Stack::new(context, example, Normalise::MeanSquare, &levels, all)?;
    let head = settings.head.beside(&settings.optimiser);
    let mut stack = stack.with_head(context, head, 0)?;
    stack.net.readouts = vec![Readout::new("head").cheap().with_log_probabilities()];
    Ok(stack)
}

onward::register! {
    dyn Architecture, "staggered", "layers that start to learn one after the other (an example, 2026)",
    |settings: Staggered, context| Ok(Box::new(stack(&settings, context)?)),
    .presets(PRESETS)
}
