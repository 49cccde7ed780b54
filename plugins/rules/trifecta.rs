//! Trifecta: neighbouring layers learn in pairs; the pairs alternate by step.

use onward_core::candle_core::Tensor;
use onward_core::contract::head::{self, HeadSpec};
use onward_core::export::Table;
use onward_core::flow::graph::{Graph, Inputs, Node};
use onward_core::optim::{OptimiserSpec, Span};
use onward_core::plugin::preset::Preset;
use onward_core::plugin::registry::DataKind;
use onward_core::settings::{Each, Idle, Pick, Settings};
use onward_core::wiring::stack::{Level, Stack};
use onward_core::{
    Architecture, Batch, BuildContext, Error, GoodnessFn, Grade, LocalLayer, Loss, NegativeSampler,
    Net, Normalise, Objective, Prediction, Readout, Result, Role, Rule, Step, StepReport, Targets,
};

onward_core::settings! {
    /// Stacked layers that learn in overlapping pairs.
    ///
    /// Both layers of a pair learn from the loss of the upper one. The pairs are `(1, 2),
    /// (3, 4), …` in even steps and `(2, 3), (4, 5), …` in odd steps. Without a partner the
    /// first layer learns alone, and the last one not at all in this step. So a gradient
    /// crosses one layer, and no more: the rule is semi-local. The readouts are those of
    /// `progressive`.
    ///
    /// # Reference
    /// Dooms, Tsang, Oramas, "The Trifecta: Three Simple Techniques for Training Deeper
    /// Forward-Forward Networks", 2023 (<https://arxiv.org/abs/2311.18130>): overlapping
    /// local updates, the loss of SymBa, batch normalisation.
    pub struct Trifecta {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The layer: one for all, or a list with one per layer.
        layer: Each<Pick<dyn LocalLayer>> = "dense".into();
        /// The goodness function: one for all layers, or a list with one per layer.
        goodness: Each<Pick<dyn GoodnessFn>> = "mean_squares".into();
        /// The normalisation of the input, and of every activity before the next layer
        /// sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// The first layer that is read out, counted from 1; the last layer if there are
        /// fewer.
        readout_from: usize = 1, in 1..;
        .. objective: Objective = Objective {
            loss: Loss::Symmetric,
            temperature: 0.25,
            ..Objective::default()
        };
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head_spec: HeadSpec = HeadSpec::default();
    }
}

struct Pairs {
    stack: Stack,
}

impl Pairs {
    fn new(settings: &Trifecta, context: &BuildContext) -> Result<Self> {
        let count = settings.hidden.len();
        let level = |(index, &units): (usize, &usize)| -> Result<Level> {
            Ok(Level {
                units,
                layer: settings.layer.of("layer", index, count)?.clone(),
                goodness: settings.goodness.of("goodness", index, count)?.clone(),
                objective: settings.objective.clone(),
                optimiser: settings.optimiser.clone(),
                span: Span::Epochs(0..context.epochs),
                dropout: 0.,
                shortcuts: Vec::new(),
            })
        };
        let levels = settings.hidden.iter().enumerate().map(level);
        let levels = levels.collect::<Result<Vec<_>>>()?;
        let readout = settings.readout_from.min(count).saturating_sub(1)..count;
        let example = context.probe_input()?;
        let stack = Stack::new(context, example, settings.normalise, &levels, readout)?;
        let rule = stack.net.rule();
        if rule != Rule::Contrast {
            let problem = format!(
                "expected layers that learn from positive against negative views, found the \
                 rule \"{}\"; choose another layer, goodness or loss",
                rule.word()
            );
            return Err(Error::unfit("trifecta", problem));
        }
        check_crossed(&stack, context)?;
        let plan = settings.head_spec.beside(&settings.optimiser);
        let mut stack = stack.with_head(context, plan, 0)?;
        stack.net.readouts = stack.readouts(context.hypotheses);
        Ok(Self { stack })
    }
}

/// Refuses layers above the first that no gradient crosses.
fn check_crossed(stack: &Stack, context: &BuildContext) -> Result<()> {
    let step = &Step::evaluation(context.seed);
    let passed = stack.forward(context.probe_input()?, step)?;
    let targets = &Targets::new(vec![Role::Positive])?;
    for (block, (input, activity)) in stack.net.blocks.iter().zip(&passed).skip(1) {
        let gradient = activity.ones_like()?;
        let crossed = block.input_gradient(input, activity, targets, &gradient, step);
        if crossed.is_err_and(|error| error.is_usage()) {
            let problem = format!(
                "layer {} lets no gradient through to the layer below, which a pair needs; \
                 choose `dense` or `conv` above the first layer",
                block.name()
            );
            return Err(Error::unfit("trifecta", problem));
        }
    }
    Ok(())
}

/// The lower layers of the pairs of this step, counted from 0.
fn lower_of_pairs(step: &Step, layers: usize) -> impl Iterator<Item = usize> {
    (step.index as usize % 2..layers.saturating_sub(1)).step_by(2)
}

/// The number of layers that learn in this step: the last one needs a partner.
fn learning(step: &Step, layers: usize) -> usize {
    let last = lower_of_pairs(step, layers).last();
    last.map_or(1, |lower| lower + 2)
}

impl Architecture for Pairs {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let features = self.stack.features(sampler.neutral(batch)?, step)?;
        let log = self.stack.net.heads[0].log_probabilities(&features)?;
        let views = sampler.views(batch, &Prediction::of(log.clone()), step)?;
        let (targets, step) = (&views.targets, &step.pass(1));
        let blocks = &self.stack.net.blocks;
        let learning = learning(step, blocks.len());
        let passed = self.stack.forward_below(learning, views.input, step)?;
        // All gradients are computed before any weight changes.
        let mut grades: Vec<Option<Grade>> = Vec::new();
        for (block, (_, activity)) in blocks.iter().zip(&passed) {
            grades.push(block.grade(activity, targets, step)?);
        }
        for lower in lower_of_pairs(step, blocks.len()) {
            let ((input, activity), below) = (&passed[lower + 1], &passed[lower].1);
            let upper = grades[lower + 1].as_ref();
            let Some(gradient) = upper.and_then(|grade| grade.gradient.as_ref()) else {
                continue;
            };
            let crossed =
                blocks[lower + 1].input_gradient(input, activity, targets, gradient, step)?;
            let crossed = blocks[lower].pass_on_gradient(below, &crossed, step)?;
            if let Some(grade) = &mut grades[lower] {
                grade.gradient = Some(crossed);
            }
        }
        let mut reports = Vec::new();
        let blocks = self.stack.net.blocks.iter_mut().enumerate();
        for (index, block) in blocks.take(learning) {
            let (input, activity) = &passed[index];
            if block.is_learning(step) {
                let grade = grades[index].as_ref();
                reports.push((index, block.follow(input, activity, targets, grade, step)?));
            }
        }
        self.stack.net.heads[0].learn(&features, &log, batch.labels()?, step)?;
        Ok(reports)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        self.stack.scores(batch, sampler, readout, step)
    }

    fn graph(&self, views: Inputs, readout: &Readout, graph: &mut Graph) -> Result<Node> {
        self.stack.graph(views, readout, graph)
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        self.stack.activities(batch, sampler, step)
    }

    fn net(&self) -> &Net {
        &self.stack.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.stack.net
    }

    fn rule(&self) -> Rule {
        match self.stack.net.blocks.len() {
            // It has no partner.
            1 => Rule::Contrast,
            _ => Rule::ContrastOfPairs,
        }
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "dense",
        about: "three layers of 1000 units, the label in the first pixels",
        settings: r#"
            data = "digits"
            epochs = 60
            batch = 128
            sampler = { name = "label_overlay", negatives = "hard" }
            layer = "dense"
            optimiser = "adam"
            lr = 0.001
            weight_decay = 0.0
            schedule = "cosine"
        "#,
    },
    Preset {
        name: "convolutional",
        about: "six convolutions, the label in channels of the image, a search by the last \
                layer",
        settings: r#"
            data = "cifar-10"
            epochs = 60
            batch = 512
            shift = 4
            flip = true
            standardise = true
            hidden = [128, 128, 256, 256, 256, 512]
            sampler = { name = "label_planes", negatives = "uniform" }
            layer = [
                { name = "conv", input_norm = "batch", pool = 2 },
                { name = "conv", input_norm = "batch", pool = 1 },
                { name = "conv", input_norm = "batch", pool = 2 },
                { name = "conv", input_norm = "batch", pool = 1 },
                { name = "conv", input_norm = "batch", pool = 1 },
                { name = "conv", input_norm = "batch", pool = 2 },
            ]
            normalise = "none"
            readout_from = 1000 # the last layer alone
            optimiser = "adam"
            lr = 0.001
            weight_decay = 0.0
            schedule = "cosine"
        "#,
    },
];

/// The settings without an effect beside others.
fn idle(own: &Table, _: &Table) -> Result<Vec<Idle>> {
    let settings = Trifecta::read(own)?;
    let mut idle = head::idle(&settings.optimiser, true, Some(&settings.head_spec));
    idle.extend(settings.objective.idle());
    Ok(idle)
}

onward_core::register! {
    dyn Architecture, "trifecta",
    "neighbouring layers learn in pairs (Trifecta 2023, arXiv 2311.18130)",
    |settings: Trifecta, context| Ok(Box::new(Pairs::new(&settings, context)?)),
    .presets(PRESETS).idle(idle).suits(&[(DataKind::Photographs, "convolutional")])
}
