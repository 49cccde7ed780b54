//! Architecture `staggered`.

use onward::candle_core::Tensor;
use onward::optim::{OptimiserSpec, Algorithm, Schedule};
use onward::plugin::registry::Preset;
use onward::settings::Pick;
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, Batch, Block, GoodnessFn, Head, Input, LocalLayer, Loss, NegativeSampler, Normalise, Objective,
    Readout, StepReport, Result, BuildContext, Step,
};

onward::settings! {
    /// Layers one upon the other, each of which begins to learn an epoch after the one below; then all learn in every
    /// step, `aₗ = layerₗ(norm(aₗ₋₁))`. What they are is read out by a softmax over all of them,
    /// `log softmax(Σₗ norm(aₗ)·Wₗ)`, of which no layer hears.
    pub struct Staggered {
        /// The width of each layer.
        hidden: Vec<usize> = vec![100, 200], in 1..;
        /// The layer of all levels.
        layer: Pick<dyn LocalLayer> = "softplus".into();
        /// The goodness of all levels.
        goodness: Pick<dyn GoodnessFn> = "excess".into();
        /// Learning rate.
        lr: f64 = 0.02, in f64::MIN_POSITIVE..=1000.;
    }
}

const PRESETS: &[Preset] = &[Preset {
    name: "stripes",
    about: "what these plugins were made for",
    settings: r#"
        data = "stripes"
        sampler = "halves"
        batch = 20
    "#,
}];

struct Net(Stack);

impl Net {
    fn new(settings: &Staggered, context: &BuildContext) -> Result<Self> {
        let (method, schedule) = (Algorithm::Sgd, Schedule::HalfLinear);
        let descent = OptimiserSpec { optimiser: method, lr: settings.lr, weight_decay: 0., momentum: 0.9, schedule };
        let objective = Objective { loss: Loss::Logistic, theta: None, temperature: 1. };
        let level = |(index, &units): (usize, &usize)| {
            let (layer, goodness) = (settings.layer.clone(), settings.goodness.clone());
            Level { units, layer, goodness, objective, descent, span: index.min(context.epochs - 1)..context.epochs }
        };
        let levels: Vec<Level> = settings.hidden.iter().enumerate().map(level).collect();
        let ones = Input::of(Tensor::ones([&[1], &context.input[..]].concat(), context.vars.dtype(), &context.vars.device())?)?;
        Ok(Self(Stack::new(context, ones, Normalise::MeanSquare, &levels, 0..levels.len())?.with_head(context, descent, 0)?))
    }
}

impl Architecture for Net {
    fn learn(&mut self, batch: &Batch, sampler: &mut dyn NegativeSampler, step: &Step) -> Result<Vec<(usize, StepReport)>> {
        self.0.learn(batch, sampler, step)
    }

    fn scores(&self, batch: &Batch, sampler: &dyn NegativeSampler, _readout: &str, step: &Step) -> Result<Tensor> {
        self.0.head(sampler.neutral(batch)?, step)
    }

    fn readouts(&self) -> Vec<Readout> {
        vec![Readout { name: "head", cheap: true, log_probabilities: true }]
    }

    fn blocks(&self) -> &[Block] {
        &self.0.blocks
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.0.blocks
    }

    fn heads(&self) -> &[Head] {
        &self.0.heads
    }

    fn heads_mut(&mut self) -> &mut [Head] {
        &mut self.0.heads
    }
}

onward::register! {
    dyn Architecture, "staggered", "layers that begin to learn one after the other (an example, 2026)",
    |settings: Staggered, context| Ok(Box::new(Net::new(&settings, context)?)),
    .presets(PRESETS)
}
