//! DeeperForward: detached shortcuts, and a separate training span for every block.

use onward::contract::head::HeadSpec;
use onward::optim::{OptimiserSpec, Span};
use onward::settings::{Each, Pick};
use onward::wiring::stack::{Level, Stack};
use onward::{
    Architecture, BuildContext, GoodnessFn, LocalLayer, Normalise, Objective, Readout, Result,
};

use super::{error_on_digits, numbers, Subject};

onward::settings! {
    /// Stacked layers with additive, detached shortcuts.
    ///
    /// The input of layer `l` is `norm(aₗ₋₁ + aₗ₋₂)`.
    ///
    /// # Reference
    /// Sun et al., "DeeperForward: Enhanced Forward-Forward Training for Deeper and
    /// Better Performance", ICLR 2025; CwComp (<https://arxiv.org/abs/2312.12668>), for
    /// separate spans.
    pub struct Residual {
        /// The width of all layers.
        width: usize = 100, in 1..=1_000_000;
        /// The training span of each layer, in epochs (`0..2ep`) or
        /// steps (`0..100it`).
        spans: Vec<Span> = vec![Span::Epochs(0..1); 3];
        /// The layer plugin: one for all levels, or a list with one per level.
        layer: Each<Pick<dyn LocalLayer>> = "dense".into();
        /// The goodness plugin of every level.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        .. objective: Objective = Objective::default();
        .. optimiser: OptimiserSpec = OptimiserSpec::default();
        .. head: HeadSpec = HeadSpec::default();
    }
}

fn stack(settings: &Residual, context: &BuildContext) -> Result<Stack> {
    let level = |(index, span): (usize, &Span)| -> Result<Level> {
        Ok(Level {
            units: settings.width,
            layer: settings
                .layer
                .of("layer", index, settings.spans.len())?
                .clone(),
            goodness: settings.goodness.clone(),
            objective: settings.objective.clone(),
            optimiser: settings.optimiser.clone(),
            span: span.clone(),
            dropout: 0.,
            shortcuts: index.checked_sub(2).into_iter().collect(),
        })
    };
    let levels = settings.spans.iter().enumerate().map(level);
    let levels = levels.collect::<Result<Vec<_>>>()?;
    let (example, all) = (context.probe_input()?, 0..levels.len());
    let stack = Stack::new(context, example, Normalise::MeanSquare, &levels, all)?;
    let head = settings.head.beside(&settings.optimiser);
    let mut stack = stack.with_head(context, head, 0)?;
    stack.net.readouts = vec![Readout::new("head").cheap().with_log_probabilities()];
    Ok(stack)
}

onward::register! {
    dyn Architecture, "residual", "detached shortcuts, a span for each layer (DeeperForward 2025; arXiv 2312.12668)",
    |settings: Residual, context| Ok(Box::new(stack(&settings, context)?))
}

// x = [numbers(1, 4, 3), numbers(5, 4, 3)]                # positive and negative views
// P = [numbers(2, 3, 4), np.zeros(4), numbers(3, 4, 4), np.zeros(4), numbers(4, 4, 4),
//      np.zeros(4)]
// forward = lambda v, l: layer(v, P[2 * l], P[2 * l + 1])
// def loss(views, l):
//     p, n = [(forward(v, l) ** 2).sum(1) - 4 for v in views]
//     return .5 * (softplus(-p).mean() + softplus(n).mean())
// spans = [range(0, 2), range(1, 4), range(2, 4)]
// for step in range(4):
//     one = [norm(v) for v in x]
//     two = [norm(forward(v, 0)) for v in one]
//     three = [norm(forward(v, 1) + forward(u, 0)) for v, u in zip(two, one)]
//     inputs, changes = [one, two, three], {}
//     for l in range(3):
//         if step in spans[l]:
//             for i in (2 * l, 2 * l + 1): changes[i] = gradient(lambda: loss(inputs[l], l), P[i])
//     for i, d in changes.items(): P[i] -= .5 * d
// print(*P)
const WEIGHT_1: [f64; 12] = [
    0.613206043,
    -0.281307596,
    -0.733273477,
    0.215604644,
    0.592583621,
    -0.465349407,
    -0.313989018,
    0.884155002,
    -0.182019417,
    -0.476926227,
    0.456585480,
    0.526857045,
];
const BIAS_1: [f64; 4] = [0.296215218, 0.053774910, 0.344630893, 0.330719977];
const WEIGHT_2: [f64; 16] = [
    0.061872268,
    -0.499961629,
    0.561915582,
    0.969252607,
    -0.185288804,
    -0.437726087,
    0.212725737,
    0.272821320,
    -0.389176039,
    -0.261154295,
    -0.001247401,
    -0.001738126,
    -0.493457779,
    -0.016367690,
    0.861645762,
    0.220544290,
];
const BIAS_2: [f64; 4] = [-0.004463258, 0.000000000, 0.094535930, 0.204931103];
const WEIGHT_3: [f64; 16] = [
    -0.378401248,
    -0.377270087,
    0.184522670,
    0.159549181,
    -0.490468115,
    -0.379390389,
    -0.182771773,
    -0.095429291,
    -0.474422249,
    -0.384863927,
    -0.659517357,
    -0.325481153,
    -0.334454910,
    0.004899379,
    -0.576038144,
    -0.470515704,
];
const BIAS_3: [f64; 4] = [0.000000000, -0.500086247, -0.954762093, 0.000000000];

#[test]
fn four_steps_match_an_independent_program() -> Result<()> {
    let settings = r#"
        width = 4
        spans = ["0..2it", "1..4it", "2..4it"]
    "#;
    let mut subject = Subject::new("residual", "two_views", settings)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 4))?);
    subject.set("blocks.1.layer.weight", &numbers(3., (4, 4))?);
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
    let settings = [
        ("sampler", r#""label_overlay""#),
        ("spans", r#"["0..1ep", "0..2ep", "5..40it"]"#),
    ];
    let error = error_on_digits(&settings, "residual")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}
