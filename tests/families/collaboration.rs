//! Layer collaboration: each loss includes the goodness of the other layers.

use onward::candle_core::Tensor;
use onward::contract::head::HeadSpec;
use onward::optim::{OptimiserSpec, Span};
use onward::settings::Pick;
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, Batch, BuildContext, GoodnessFn, LocalLayer, NegativeSampler, Net, Normalise,
    Objective, Prediction, Readout, Result, Step, StepReport,
};

use super::{error_on_digits, numbers, Subject};

onward::settings! {
    /// Stacked layers; each loss includes the goodness of the other layers as a constant.
    ///
    /// Layer `t` has the logistic loss of `gₜ + γ·Σ_{s≠t} gₛ − θ`. The goodness `gₛ` of
    /// the other layers is detached.
    ///
    /// # Reference
    /// Lorberbom et al., "Layer Collaboration in the Forward-Forward Algorithm", 2023
    /// (<https://arxiv.org/abs/2305.12393>).
    pub struct Collaboration {
        /// The width of each layer, the first layer first.
        hidden: Vec<usize> = vec![100, 100], in 1..=1_000_000;
        /// The layer plugin of every level.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness plugin of every level.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// The weight `γ` of the goodness of the other layers.
        gamma: f64 = 0.7, in 0. ..=1.;
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head: HeadSpec = HeadSpec::default();
    }
}

struct Collaborating {
    stack: Stack,
    gamma: f64,
}

impl Collaborating {
    fn new(settings: &Collaboration, context: &BuildContext) -> Result<Self> {
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
        let head = settings.head.optimiser(&settings.optimiser);
        let mut stack = stack.with_head(context, head, 0)?;
        stack.net.readouts = vec![Readout::new("head").cheap().with_log_probabilities()];
        Ok(Self {
            stack,
            gamma: settings.gamma,
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
        let passed = self.stack.activities(views.input, step)?;
        let mut goodness = Vec::new();
        for (block, (_, activity)) in self.stack.net.blocks.iter().zip(&passed) {
            goodness.push(block.goodness(activity)?);
        }
        let mut reports = Vec::new();
        for (index, block) in self.stack.net.blocks.iter_mut().enumerate() {
            let (input, activity) = &passed[index];
            let mut others = goodness[index].zeros_like()?;
            for (_, other) in goodness
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
            {
                others = (others + other)?;
            }
            let targets = views.targets.clone().with_offset(&(others * self.gamma)?);
            if block.is_learning(step) {
                reports.push((index, block.learn(input, activity, &targets, step)?));
            }
        }
        self.stack.net.heads[0].learn(&features, &log, batch.labels()?, step)?;
        Ok(reports)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _: &Readout,
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
    dyn Architecture, "collaboration", "losses with the goodness of all layers (Lorberbom 2023, arXiv 2305.12393)",
    |settings: Collaboration, context| Ok(Box::new(Collaborating::new(&settings, context)?))
}

// x, gamma = [numbers(1, 4, 3), numbers(5, 4, 3)], .7   # positive and negative views
// W1, b1, W2, b2 = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 4), np.zeros(4)
// g = lambda a: (a ** 2).sum(1)
// def loss(views, W, b, others, theta):
//     p, n = [g(layer(v, W, b)) + gamma * o - theta for v, o in zip(views, others)]
//     return .5 * (softplus(-p).mean() + softplus(n).mean())
// for step in range(3):
//     one = [norm(v) for v in x]
//     two = [norm(layer(v, W1, b1)) for v in one]
//     g1, g2 = [g(layer(v, W1, b1)) for v in one], [g(layer(v, W2, b2)) for v in two]
//     f1, f2 = lambda: loss(one, W1, b1, g2, 5), lambda: loss(two, W2, b2, g1, 4)
//     changes = [gradient(f, p) for f, p in ((f1, W1), (f1, b1), (f2, W2), (f2, b2))]
//     for p, d in zip((W1, b1, W2, b2), changes): p -= .5 * d
// print(W1, b1, W2, b2)
const WEIGHT_1: [f64; 15] = [
    0.376238271,
    -0.181443115,
    -0.380226785,
    0.528758829,
    0.222574397,
    -0.356070227,
    -0.223809821,
    1.020555240,
    0.340525529,
    -0.469139064,
    0.131760469,
    0.408618862,
    -0.342681333,
    -0.667494025,
    0.371378250,
];
const BIAS_1: [f64; 5] = [
    -0.049991458,
    -0.061754015,
    0.366170262,
    0.212058656,
    -0.017003553,
];
const WEIGHT_2: [f64; 20] = [
    0.070560004,
    -0.499961629,
    -0.373383573,
    0.395054081,
    -0.183239565,
    -0.437726087,
    -0.494412239,
    -0.038356645,
    -0.389176039,
    -0.261154295,
    0.568579401,
    0.053926752,
    -0.493457779,
    -0.016367690,
    0.242252157,
    -0.198121202,
    -0.468845870,
    0.232694238,
    -0.016886994,
    -0.474140193,
];
const BIAS_2: [f64; 4] = [0.000000000, 0.000000000, -0.504431510, -0.242586262];

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("collaboration", "two_views", "hidden = [5, 4]")?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.1.layer.weight", &numbers(3., (5, 4))?);
    subject.learn(3, |_| super::batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT_1);
    subject.assert_close("blocks.0.layer.bias", &BIAS_1);
    subject.assert_close("blocks.1.layer.weight", &WEIGHT_2);
    subject.assert_close("blocks.1.layer.bias", &BIAS_2);
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let error = error_on_digits(&[("sampler", r#""label_overlay""#)], "collaboration")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}
