//! Trifecta: pairs of neighbouring blocks learn together; the pairs alternate by step.

use onward::candle_core::Tensor;
use onward::contract::head::HeadSpec;
use onward::optim::{OptimiserSpec, Span};
use onward::settings::Pick;
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, Batch, BuildContext, GoodnessFn, Grade, LocalLayer, Loss, NegativeSampler, Net,
    Normalise, Objective, Prediction, Readout, Result, Step, StepReport,
};

use super::{error_on_digits, numbers, Subject};

onward::settings! {
    /// Stacked layers that learn in overlapping pairs.
    ///
    /// Both layers of a pair learn from the loss of the upper one. The pairs are
    /// `(1, 2), (3, 4), …` in even steps and `(2, 3), (4, 5), …` in odd steps. A layer
    /// without a partner learns alone. No gradient leaves a pair.
    ///
    /// # Reference
    /// Dooms et al., "The Trifecta: Three Simple Techniques for Training Deeper
    /// Forward-Forward Networks", 2023 (<https://arxiv.org/abs/2311.18130>):
    /// overlapping local updates.
    pub struct Pairwise {
        /// The width of each layer, the first layer first.
        hidden: Vec<usize> = vec![100, 100, 100], in 1..=1_000_000;
        /// The layer plugin of every level.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness plugin of every level.
        goodness: Pick<dyn GoodnessFn> = "mean_squares".into();
        .. objective: Objective = Objective {
            loss: Loss::Symmetric,
            temperature: 0.25,
            ..Objective::default()
        };
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head: HeadSpec = HeadSpec::default();
    }
}

struct Pairs {
    stack: Stack,
}

impl Pairs {
    fn new(settings: &Pairwise, context: &BuildContext) -> Result<Self> {
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
        let targets = &views.targets;
        let passed = self.stack.activities(views.input, step)?;
        // All gradients are computed before any weight changes.
        let blocks = &self.stack.net.blocks;
        let mut grades: Vec<Option<Grade>> = Vec::new();
        for (block, (_, activity)) in blocks.iter().zip(&passed) {
            grades.push(block.grade(activity, targets, step)?);
        }
        for lower in (step.index as usize % 2..blocks.len() - 1).step_by(2) {
            let ((input, activity), below) = (&passed[lower + 1], &passed[lower].1);
            let upper = grades[lower + 1]
                .as_ref()
                .and_then(|grade| grade.gradient.as_ref());
            let Some(gradient) = upper else { continue };
            let crossed =
                blocks[lower + 1].input_gradient(input, activity, targets, gradient, step)?;
            let crossed = blocks[lower].pass_on_gradient(below, &crossed, step)?;
            if let Some(grade) = &mut grades[lower] {
                grade.gradient = Some(crossed);
            }
        }
        let mut reports = Vec::new();
        for (index, block) in self.stack.net.blocks.iter_mut().enumerate() {
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
    dyn Architecture, "pairwise", "pairs of neighbouring layers share a step (Trifecta 2023, arXiv 2311.18130)",
    |settings: Pairwise, context| Ok(Box::new(Pairs::new(&settings, context)?))
}

// x = [numbers(1, 4, 3), numbers(5, 4, 3)]                # positive and negative views
// P = [numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 4), np.zeros(4), numbers(4, 4, 4),
//      np.zeros(4)]
// forward = lambda v, l: layer(norm(v), P[2 * l], P[2 * l + 1])
// def loss(views, first, last):     # of the last layer, from the input of the first
//     for l in range(first, last + 1): views = [forward(v, l) for v in views]
//     p, n = [(a ** 2).mean(1) for a in views]
//     return .5 * .25 * softplus(-(p - n) / .25).mean()
// for step in range(4):
//     pairs = [(0, 1), (2, 2)] if step % 2 == 0 else [(0, 0), (1, 2)]
//     below, views = [], x
//     for l in range(3):
//         below.append(views); views = [forward(v, l) for v in views]
//     changes = [None] * 6
//     for first, last in pairs:
//         for i in range(2 * first, 2 * last + 2):
//             changes[i] = gradient(lambda: loss(below[first], first, last), P[i])
//     for p, d in zip(P, changes): p -= .5 * d
// print(*P)
const WEIGHT_1: [f64; 15] = [
    0.429189767,
    -0.276301288,
    -0.344101953,
    0.327110190,
    0.272858080,
    -0.400862357,
    -0.173373002,
    0.549992400,
    0.150824900,
    -0.456660428,
    0.090351412,
    0.490480023,
    -0.257547302,
    -0.416961622,
    0.317878960,
];
const BIAS_1: [f64; 5] = [
    -0.031274206,
    0.009254534,
    0.067565778,
    0.006505577,
    -0.030643813,
];
const WEIGHT_2: [f64; 20] = [
    0.070560004,
    -0.499961629,
    0.027370181,
    0.434938987,
    -0.183239565,
    -0.437726087,
    0.269630261,
    0.328678962,
    -0.389176039,
    -0.261154295,
    0.509304966,
    0.172752393,
    -0.493457779,
    -0.016367690,
    0.529253326,
    -0.157659219,
    -0.468845870,
    0.232694238,
    0.397840796,
    -0.365454147,
];
const BIAS_2: [f64; 4] = [0.000000000, 0.000000000, 0.015024446, -0.034833609];
const WEIGHT_3: [f64; 16] = [
    -0.378401248,
    -0.275342771,
    0.449354048,
    0.159549181,
    -0.490468115,
    -0.033160949,
    0.499013326,
    -0.095429291,
    -0.474422249,
    0.191813547,
    0.417884324,
    -0.325481153,
    -0.334454910,
    0.376642410,
    0.182870732,
    -0.470515704,
];
const BIAS_3: [f64; 4] = [0.000000000, -0.017321137, -0.005613141, 0.000000000];

#[test]
fn four_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("pairwise", "two_views", "hidden = [5, 4, 4]")?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.1.layer.weight", &numbers(3., (5, 4))?);
    subject.set("blocks.2.layer.weight", &numbers(4., (4, 4))?);
    subject.learn(4, |_| super::batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT_1);
    subject.assert_close("blocks.0.layer.bias", &BIAS_1);
    subject.assert_close("blocks.1.layer.weight", &WEIGHT_2);
    subject.assert_close("blocks.1.layer.bias", &BIAS_2);
    subject.assert_close("blocks.2.layer.weight", &WEIGHT_3);
    subject.assert_close("blocks.2.layer.bias", &BIAS_3);
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let settings = [("sampler", r#""label_overlay""#), ("lr", "1.0")];
    let error = error_on_digits(&settings, "pairwise")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}

/// The plugin says that its gradients stay within a block, which is not so.
#[test]
fn a_certificate_shows_that_a_gradient_crosses_a_block() -> Result<()> {
    let subject = |architecture: &str| {
        let run = onward::Run::builder(architecture).set("sampler", "label_overlay");
        run.data_set(onward::conformance::images().unwrap())
    };
    let certificate = subject("pairwise")
        .set("hidden", vec![12, 8, 8])
        .certify()?;
    assert_eq!(certificate.crossed, 1);
    assert!(!certificate.is_local());
    // The pairs alternate: (1, 2) in even steps, (2, 3) in odd ones.
    let signals: Vec<_> = certificate
        .blocks
        .iter()
        .map(|block| block.signal.join(" "))
        .collect();
    assert_eq!(signals, ["2", "3", ""]);
    let run = subject("pairwise").build()?;
    assert_eq!(run.architecture().rule(), onward::Rule::Contrast);
    Ok(())
}
