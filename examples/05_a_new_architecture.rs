//! Adds an architecture with a new wiring: parallel blocks instead of stacked layers.
//!
//! ```text
//! $ cargo run --release --example 05_a_new_architecture
//! 3 parallel blocks: test error 1.6%
//! hybrid images, no labels in the blocks: test error 3.5%
//! ```

use onward::candle_core::Tensor;
use onward::contract::head::HeadSpec;
use onward::optim::{Optimiser, OptimiserSpec, Span};
use onward::plugin;
use onward::plugin::preset::Preset;
use onward::settings::Pick;
use onward::{
    Architecture, Batch, Block, BuildContext, GoodnessFn, Head, Input, LocalLayer, NegativeSampler,
    Net, Normalise, Objective, Prediction, Readout, Result, Run, Step, StepReport,
};

onward::settings! {
    /// Parallel blocks on the same input, with a softmax readout.
    ///
    /// `aᵢ = layerᵢ(norm(x))`. The readout is `log softmax(Σᵢ norm(aᵢ)·Wᵢ)`. It changes
    /// no block.
    pub struct Parallel {
        /// The width of each block.
        hidden: Vec<usize> = vec![200, 200, 200], in 1..=1_000_000;
        /// The layer plugin of every block.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness plugin of every block.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        // loss, theta, temperature; optimiser, lr, …; head_lr, …
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec { lr: 0.02, ..OptimiserSpec::default() };
        .. head: HeadSpec = HeadSpec::default();
    }
}

// The default data and sampler.
const PRESETS: &[Preset] = &[Preset {
    name: "digits",
    about: "embedded data, no files needed",
    settings: r#"
        data = "digits"
        sampler = "label_overlay"
    "#,
}];

const NORMALISE: Normalise = Normalise::MeanSquare;

struct SideBySide {
    net: Net,
}

impl SideBySide {
    fn new(settings: &Parallel, context: &BuildContext) -> Result<Self> {
        let mut net = Net {
            readouts: vec![Readout::new("head").cheap().with_log_probabilities()],
            ..Net::default()
        };
        let mut features = 0;
        for (index, &units) in settings.hidden.iter().enumerate() {
            // Each block has its own scope of variables.
            let place = context.scope("blocks").scope(index).with_units(units);
            let layer = plugin::build(&settings.layer, &place.scope("layer"))?;
            let activity = layer.forward(&place.probe_input()?, &Step::evaluation(place.seed))?;
            features += activity.elem_count();
            let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
            let goodness = plugin::build(&settings.goodness, &of_goodness)?;
            let (spec, span) = (settings.optimiser.clone(), Span::Epochs(0..context.epochs));
            let optimiser = Optimiser::new(place.vars, spec, span);
            let (name, objective) = ((index + 1).to_string(), settings.objective.clone());
            let block = Block::new(name, layer, goodness, objective, NORMALISE, optimiser);
            net.blocks.push(block);
        }
        let (vars, classes) = (context.scope("head").vars, context.classes);
        let spec = settings.head.beside(&settings.optimiser);
        let head = Head::new(
            &vars,
            features,
            classes,
            spec,
            Span::Epochs(0..context.epochs),
        )?;
        net.heads.push(head);
        Ok(Self { net })
    }

    /// The normalised activities of the neutral view, concatenated.
    fn features(&self, batch: &Batch, sampler: &dyn NegativeSampler, step: &Step) -> Result<Input> {
        let input = sampler.neutral(batch)?.normalised(NORMALISE)?;
        let passed = |block: &Block| block.pass_on(&block.forward(&input, step)?, 1, step);
        Input::beside(
            &self
                .net
                .blocks
                .iter()
                .map(passed)
                .collect::<Result<Vec<_>>>()?,
        )
    }
}

impl Architecture for SideBySide {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let features = self.features(batch, sampler, step)?;
        let log = self.net.heads[0].log_probabilities(&features)?;
        let views = sampler.views(batch, &Prediction::of(log.clone()), step)?;
        let input = views.input.normalised(NORMALISE)?;
        let mut reports = Vec::new();
        for (index, block) in self.net.blocks.iter_mut().enumerate() {
            let activity = block.forward(&input, &step.pass(1))?;
            let report = block.learn(&input, &activity, &views.targets, step)?;
            reports.push((index, report));
        }
        self.net.heads[0].learn(&features, &log, batch.labels()?, step)?;
        Ok(reports)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        self.net.heads[0].log_probabilities(&self.features(batch, sampler, step)?)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

onward::register! {
    dyn Architecture, "parallel", "blocks side by side on one input, and a softmax over them (an example, 2026)",
    |settings: Parallel, context| Ok(Box::new(SideBySide::new(&settings, context)?)),
    .presets(PRESETS)
}

fn main() -> Result<()> {
    let mut run = Run::builder("parallel").build()?;
    let summary = run.fit(&mut ())?;
    let blocks = run.architecture().net().blocks.len();
    println!(
        "{blocks} parallel blocks: test error {:.1}%",
        100. * summary.test.error
    );
    // Other samplers work with the new architecture, too.
    let summary = Run::builder("parallel")
        .set("sampler", "hybrid_images")
        .build()?
        .fit(&mut ())?;
    println!(
        "hybrid images, no labels in the blocks: test error {:.1}%",
        100. * summary.test.error
    );
    Ok(())
}
