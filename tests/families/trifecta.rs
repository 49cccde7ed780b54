//! Trifecta: pairs of neighbouring layers learn together; the pairs alternate by step.

use onward::Result;

use super::{error_on_digits, numbers, Subject};

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
    let mut subject = Subject::new("trifecta", "two_views", "hidden = [5, 4, 4]")?;
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
    let error = error_on_digits(&settings, "trifecta")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}

#[test]
fn a_certificate_shows_that_a_gradient_crosses_a_block() -> Result<()> {
    let subject = |architecture: &str| {
        let run = onward::Run::builder(architecture).set("sampler", "label_overlay");
        run.data_set(onward::conformance::images().unwrap())
    };
    let certificate = subject("trifecta")
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
    let run = subject("trifecta").build()?;
    assert_eq!(run.architecture().rule(), onward::Rule::ContrastOfPairs);
    Ok(())
}
