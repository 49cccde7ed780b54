//! Architecture `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train my_plugin --epochs 5
//! ```

use onward::candle_core::Tensor;
use onward::contract::head::HeadSpec;
use onward::optim::{OptimiserSpec, Span};
use onward::plugin::preset::Preset;
use onward::settings::Pick;
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, Batch, BuildContext, GoodnessFn, LocalLayer, NegativeSampler, Net, Normalise,
    Objective, Readout, Result, Step, StepReport,
};

onward::settings! {
    /// Stacked layers that all learn in every step, with a softmax readout.
    ///
    /// `aₗ = layerₗ(norm(aₗ₋₁))`. The readout is `log softmax(Σₗ norm(aₗ)·Wₗ)`. It
    /// changes no layer.
    pub struct Settings {
        /// The width of each layer, the first layer first.
        hidden: Vec<usize> = vec![300, 300], in 1..=1_000_000;
        /// The layer plugin of every level.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness plugin of every level.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        // Settings shared by all architectures: loss, theta, temperature; optimiser,
        // lr, …; head_lr, …
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head: HeadSpec = HeadSpec::default();
    }
}

// The default data and sampler of `train my_plugin`.
const PRESETS: &[Preset] = &[Preset {
    name: "digits",
    about: "embedded data, no files needed",
    settings: r#"
        data = "digits"
        sampler = "label_overlay"
    "#,
}];

struct Stacked {
    stack: Stack,
}

impl Stacked {
    fn new(settings: &Settings, context: &BuildContext) -> Result<Self> {
        let level = |&units: &usize| Level {
            units,
            layer: settings.layer.clone(),
            goodness: settings.goodness.clone(),
            objective: settings.objective.clone(),
            optimiser: settings.optimiser.clone(),
            span: Span::Epochs(0..context.epochs),
            dropout: 0.,
            shortcuts: Vec::new(),
        };
        let levels: Vec<Level> = settings.hidden.iter().map(level).collect();
        let (example, all) = (context.probe_input()?, 0..levels.len());
        let stack = Stack::new(context, example, Normalise::MeanSquare, &levels, all)?;
        let head = settings.head.beside(&settings.optimiser);
        let mut stack = stack.with_head(context, head, 0)?;
        stack.net.readouts = vec![Readout::new("head").cheap().with_log_probabilities()];
        Ok(Self { stack })
    }
}

impl Architecture for Stacked {
    // A `Stack` connects layers in sequence, and is an architecture itself: change what is
    // to be another way. For another wiring, build a `Net` of blocks.
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        self.stack.learn(batch, sampler, step)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        self.stack.head(sampler.neutral(batch)?, step)
    }

    fn net(&self) -> &Net {
        &self.stack.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.stack.net
    }
}

onward::register! {
    dyn Architecture, "my_plugin", "stacked layers (describe it here and cite the paper)",
    |settings: Settings, context| Ok(Box::new(Stacked::new(&settings, context)?)),
    .presets(PRESETS)
}
