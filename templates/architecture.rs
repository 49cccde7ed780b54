//! Architecture `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train my_plugin --epochs 5
//! ```

use onward::candle_core::Tensor;
use onward::optim::{Algorithm, OptimiserSpec, Schedule};
use onward::plugin::registry::Preset;
use onward::settings::Pick;
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, Batch, Block, BuildContext, GoodnessFn, Head, Input, LocalLayer, Loss,
    NegativeSampler, Normalise, Objective, Readout, Report, Result, Step,
};

onward::settings! {
    /// Layers one upon the other that all learn in every step, `aₗ = layerₗ(norm(aₗ₋₁))`, and a softmax over all of
    /// them, `log softmax(Σₗ norm(aₗ)·Wₗ)`, of which no layer hears.
    pub struct Settings {
        /// The width of each layer, from the first on.
        hidden: Vec<usize> = vec![300, 300], in 1..;
        /// The layer of all levels.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness of all levels.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// What a level minimises.
        loss: Loss = Loss::Logistic;
        /// Learning rate.
        lr: f64 = 0.01, in f64::MIN_POSITIVE..=1000.;
    }
}

// What `train my_plugin` trains on, unless something else is set.
const PRESETS: &[Preset] = &[Preset {
    name: "digits",
    about: "the data that need no files",
    settings: r#"
        data = "digits"
        sampler = "label_overlay"
    "#,
}];

struct Net {
    stack: Stack,
}

impl Net {
    fn new(settings: &Settings, context: &BuildContext) -> Result<Self> {
        let (method, schedule) = (Algorithm::Sgd, Schedule::HalfLinear);
        let descent = OptimiserSpec {
            method,
            rate: settings.lr,
            decay: 0.,
            momentum: 0.9,
            schedule,
        };
        let objective = Objective {
            loss: settings.loss,
            theta: None,
            temperature: 1.,
        };
        let level = |&units: &usize| Level {
            units,
            layer: settings.layer.clone(),
            goodness: settings.goodness.clone(),
            objective,
            descent,
            span: 0..context.epochs,
        };
        let levels: Vec<Level> = settings.hidden.iter().map(level).collect();
        let ones = Tensor::ones(
            [&[1], &context.input[..]].concat(),
            context.vars.dtype(),
            &context.vars.device(),
        )?;
        let stack = Stack::new(
            context,
            Input::of(ones)?,
            Normalise::MeanSquare,
            &levels,
            0..levels.len(),
        )?;
        Ok(Self {
            stack: stack.with_head(context, descent, 0)?,
        })
    }
}

impl Architecture for Net {
    // Who feeds whom: a stack does what most nets do. To wire blocks otherwise, keep a `Vec<Block>` instead of it.
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
        _readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        self.stack.head(sampler.neutral(batch)?, step)
    }

    fn readouts(&self) -> Vec<Readout> {
        vec![Readout {
            name: "head",
            cheap: true,
            log_probabilities: true,
        }]
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
}

onward::register! {
    dyn Architecture, "my_plugin", "layers one upon the other (say here what it is, and the paper)",
    |settings: Settings, context| Ok(Box::new(Net::new(&settings, context)?)),
    .presets(PRESETS)
}
