//! Adds an architecture with a wiring of its own: blocks side by side instead of one upon the other.
//!
//! ```text
//! $ cargo run --release --example 05_an_architecture_of_ones_own
//! 3 blocks side by side: 2.1% of the test part wrong
//! on hybrid images, no label in a block: 5.5% of the test part wrong
//! ```

use onward::candle_core::Tensor;
use onward::optim::{Algorithm, OptimiserSpec, Schedule};
use onward::plugin::registry::{self, Preset};
use onward::settings::Pick;
use onward::{
    Architecture, Batch, Block, BuildContext, GoodnessFn, Head, Input, LocalLayer, Loss,
    NegativeSampler, Normalise, Objective, Optimiser, Readout, Report, Result, Run, Step,
};

onward::settings! {
    /// Blocks that all see the same input, `aᵢ = layerᵢ(norm(x))`, and a softmax over all of them,
    /// `log softmax(Σᵢ norm(aᵢ)·Wᵢ)`, of which no block hears.
    pub struct Parallel {
        /// The width of each block.
        hidden: Vec<usize> = vec![200, 200, 200], in 1..;
        /// The layer of all blocks.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness of all blocks.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// Learning rate.
        lr: f64 = 0.02, in f64::MIN_POSITIVE..=1000.;
    }
}

// What is trained on if nothing else is set.
const PRESETS: &[Preset] = &[Preset {
    name: "digits",
    about: "the data that need no files",
    settings: r#"
        data = "digits"
        sampler = "label_overlay"
    "#,
}];

const NORMALISE: Normalise = Normalise::MeanSquare;

struct Net {
    blocks: Vec<Block>,
    heads: Vec<Head>,
}

impl Net {
    fn new(settings: &Parallel, context: &BuildContext) -> Result<Self> {
        let (method, schedule) = (Algorithm::Sgd, Schedule::HalfLinear);
        let descent = OptimiserSpec {
            method,
            rate: settings.lr,
            decay: 0.001,
            momentum: 0.9,
            schedule,
        };
        let objective = Objective {
            loss: Loss::Logistic,
            theta: None,
            temperature: 1.,
        };
        // An input of one row, to find out what shapes the layers give.
        let ones = Tensor::ones(
            [&[1], &context.input[..]].concat(),
            context.vars.dtype(),
            &context.vars.device(),
        )?;
        let (mut blocks, mut features) = (Vec::new(), 0);
        for (index, &units) in settings.hidden.iter().enumerate() {
            // The variables of a block have a place of their own.
            let place = context.scope("blocks").scope(index).with_units(units);
            let layer = registry::build(&settings.layer, &place.scope("layer"))?;
            let activity =
                layer.forward(&Input::of(ones.clone())?, &Step::evaluation(context.seed))?;
            let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
            let goodness = registry::build(&settings.goodness, &of_goodness)?;
            let optimiser = Optimiser::new(place.vars, descent, 0..context.epochs);
            features += activity.elem_count();
            blocks.push(Block::new(
                (index + 1).to_string(),
                layer,
                goodness,
                objective,
                NORMALISE,
                optimiser,
            ));
        }
        let heads = vec![Head::new(
            &context.scope("head").vars,
            features,
            context.classes,
            descent,
            0..context.epochs,
        )?];
        Ok(Self { blocks, heads })
    }

    /// The normalised activities of the neutral view, side by side.
    fn features(&self, batch: &Batch, sampler: &dyn NegativeSampler, step: &Step) -> Result<Input> {
        let input = sampler.neutral(batch)?.normalised(NORMALISE)?;
        let seen = |block: &Block| block.pass_on(&block.forward(&input, step)?, 1);
        Input::beside(&self.blocks.iter().map(seen).collect::<Result<Vec<_>>>()?)
    }
}

impl Architecture for Net {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        let features = self.features(batch, sampler, step)?;
        let log = self.heads[0].log_probabilities(&features)?;
        let mut views = sampler.views(&batch.shown_to(sampler), &mut || Ok(log.clone()), step)?;
        views.input = views.input.normalised(NORMALISE)?;
        let mut reports = Vec::new();
        for (index, block) in self
            .blocks
            .iter_mut()
            .enumerate()
            .filter(|(_, block)| block.is_learning(step))
        {
            let activity = block.forward(&views.input, &step.pass(1))?;
            reports.push((index, block.learn(&views.input, &activity, &views, step)?));
        }
        self.heads[0].learn(&features, &log, batch.labels()?, step)?;
        Ok(reports)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        self.heads[0].log_probabilities(&self.features(batch, sampler, step)?)
    }

    fn readouts(&self) -> Vec<Readout> {
        vec![Readout {
            name: "head",
            cheap: true,
            log_probabilities: true,
        }]
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
    dyn Architecture, "parallel", "blocks side by side on one input, and a softmax over them (an example, 2026)",
    |settings: Parallel, context| Ok(Box::new(Net::new(&settings, context)?)),
    .presets(PRESETS)
}

fn main() -> Result<()> {
    let mut run = Run::builder("parallel").build()?;
    let summary = run.fit(&mut ())?;
    let blocks = run.architecture().blocks().len();
    println!(
        "{blocks} blocks side by side: {:.1}% of the test part wrong",
        100. * summary.test.error
    );
    // All that is registered works in it, whoever wrote it.
    let summary = Run::builder("parallel")
        .set("sampler", "hybrid_images")
        .build()?
        .fit(&mut ())?;
    println!(
        "on hybrid images, no label in a block: {:.1}% of the test part wrong",
        100. * summary.test.error
    );
    Ok(())
}
