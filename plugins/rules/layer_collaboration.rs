//! Layer collaboration: the loss of each layer includes the goodness of the others.

use onward_core::candle_core::Tensor;
use onward_core::contract::head::{self, HeadSpec};
use onward_core::export::Table;
use onward_core::flow::graph::{Graph, Inputs, Node};
use onward_core::optim::{OptimiserSpec, Span};
use onward_core::plugin::preset::Preset;
use onward_core::plugin::registry;
use onward_core::settings::{Idle, Pick, PluginKind, Settings};
use onward_core::wiring::stack::{Level, Stack};
use onward_core::{
    Architecture, Batch, BuildContext, Error, GoodnessFn, LocalLayer, Loss, NegativeSampler, Net,
    Normalise, Objective, Prediction, Readout, Result, Rule, Step, StepReport,
};

onward_core::settings! {
    /// Stacked layers; each loss includes the goodness of the other layers as a constant.
    ///
    /// Layer `t` has the loss of `gₜ + γ·Σ_{s≠t} (gₛ − θₛ) − θₜ`, where the goodness `gₛ`
    /// of the other layers is detached: no gradient crosses a layer. The readouts are
    /// those of `progressive`.
    ///
    /// # Reference
    /// Lorberbom et al., "Layer Collaboration in the Forward-Forward Algorithm", 2023
    /// (<https://arxiv.org/abs/2305.12393>). There the thresholds of the other layers
    /// are part of `θₜ`, and `γ` is 1. On the validation part of MNIST, with one seed,
    /// 0.1 is the best of 0, 0.1, 0.3 and 0.7; three seeds do not confirm it against 0.
    pub struct LayerCollaboration {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The layer.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness function, with one value for an example.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// The weight `γ` of the goodness of the other layers; 0 for independent layers.
        gamma: f64 = 0.1, in 0. ..=1.;
        /// The normalisation of the input, and of every activity before the next layer
        /// sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// The first layer that is read out, counted from 1; the last layer if there are
        /// fewer.
        readout_from: usize = 2, in 1..;
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head_spec: HeadSpec = HeadSpec::default();
    }
}

struct Collaborating {
    stack: Stack,
    gamma: f64,
    temperature: f64,
}

impl Collaborating {
    fn new(settings: &LayerCollaboration, context: &BuildContext) -> Result<Self> {
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
        let readout = settings.readout_from.min(levels.len()).saturating_sub(1)..levels.len();
        let example = context.probe_input()?;
        let stack = Stack::new(context, example, settings.normalise, &levels, readout)?;
        if stack.classes().is_some() {
            let problem = format!(
                "found goodness {}, which has a value for each class; expected one value for an \
                 example, as of sum_squares",
                settings.goodness.name
            );
            return Err(Error::unfit("layer_collaboration", problem));
        }
        let rule = stack.net.rule();
        if rule != Rule::Contrast {
            let problem = format!(
                "expected layers that learn from positive against negative views, found the \
                 rule \"{}\", which does not see the goodness of other layers; choose another \
                 layer, goodness or loss",
                rule.word()
            );
            return Err(Error::unfit("layer_collaboration", problem));
        }
        let plan = settings.head_spec.beside(&settings.optimiser);
        let mut stack = stack.with_head(context, plan, 0)?;
        stack.net.readouts = stack.readouts(context.hypotheses);
        Ok(Self {
            stack,
            gamma: settings.gamma,
            temperature: settings.objective.temperature,
        })
    }
}

impl Architecture for Collaborating {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let features = self.stack.features(sampler.neutral(batch)?, step)?;
        let log = self.stack.net.heads[0].log_probabilities(&features)?;
        let views = sampler.views(batch, &Prediction::of(log.clone()), step)?;
        let passed = self.stack.forward(views.input, &step.pass(1))?;
        // γ·(gₛ − θₛ) of every layer.
        let mut above = Vec::new();
        for (block, (_, activity)) in self.stack.net.blocks.iter().zip(&passed) {
            above.push((block.log_odds(activity)? * (self.gamma * self.temperature))?);
        }
        let mut reports = Vec::new();
        for (index, block) in self.stack.net.blocks.iter_mut().enumerate() {
            let (input, activity) = &passed[index];
            let mut others = above[index].zeros_like()?;
            for (_, other) in above
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
            {
                others = (others + other)?;
            }
            let targets = views.targets.clone().with_offset(&others);
            if block.is_learning(step) {
                reports.push((
                    index,
                    block.learn(input, activity, &targets, &step.pass(1))?,
                ));
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
}

const PRESETS: &[Preset] = &[Preset {
    name: "hinton",
    about: "the settings of `progressive hinton`, with the goodness of the other layers",
    settings: r#"
        data = "digits"
        epochs = 100
        batch = 100
        sampler = { name = "label_overlay", negatives = "hard" }
        layer = { name = "dense", peer = 0.03 }
    "#,
}];

onward_core::register! {
    dyn Architecture, "layer_collaboration",
    "stacked layers whose losses include the goodness of the others \
     (Lorberbom 2023, arXiv 2305.12393)",
    |settings: LayerCollaboration, context| {
        Ok(Box::new(Collaborating::new(&settings, context)?))
    },
    .presets(PRESETS).reads(&["theta"]).idle(idle)
}

/// The settings without an effect beside others.
fn idle(own: &Table, all: &Table) -> Result<Vec<Idle>> {
    let settings = LayerCollaboration::read(own)?;
    let mut idle = head::idle(&settings.optimiser, true, Some(&settings.head_spec));
    let (loss, has_own) = (
        settings.objective.loss,
        has_own_loss(&settings.goodness, all)?,
    );
    if !has_own {
        idle.extend(settings.objective.idle());
    }
    if loss == Loss::Unbounded && !has_own {
        let because = format!(
            "the gradient of the loss {} does not depend on the goodness of other layers",
            loss.word()
        );
        idle.extend(Idle::all(&["gamma"], because));
    } else if settings.hidden.len() == 1 {
        idle.extend(Idle::all(&["gamma"], "there is one layer"));
    }
    Ok(idle)
}

/// Whether the setting `loss` has no effect beside this goodness.
fn has_own_loss(goodness: &Pick<dyn GoodnessFn>, all: &Table) -> Result<bool> {
    let info = registry::info(<dyn GoodnessFn>::KIND, &goodness.name)?;
    let idle = (info.idle)(&goodness.settings, all)?;
    Ok(idle.iter().any(|idle| idle.key == "loss"))
}
