//! Trifecta: pairs of neighbouring layers learn together; the pairs alternate by step.

use onward::export::{Table, Value};
use onward::{conformance, Batch, Result, Run};

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
//     pairs = [(0, 1)] if step % 2 == 0 else [(0, 0), (1, 2)]
//     below, views = [], x
//     for l in range(3):
//         below.append(views); views = [forward(v, l) for v in views]
//     changes = [0] * 6
//     for first, last in pairs:
//         for i in range(2 * first, 2 * last + 2):
//             changes[i] = gradient(lambda: loss(below[first], first, last), P[i])
//     for p, d in zip(P, changes): p -= .5 * d
// print(*P)
const WEIGHT_1: [f64; 15] = [
    0.429339572,
    -0.276302367,
    -0.344114111,
    0.327054073,
    0.272815351,
    -0.400880106,
    -0.173356045,
    0.549981368,
    0.150840496,
    -0.456630568,
    0.090206180,
    0.490476732,
    -0.257532302,
    -0.416909524,
    0.317913995,
];
const BIAS_1: [f64; 5] = [
    -0.031161101,
    0.009250935,
    0.067548334,
    0.006435517,
    -0.030661645,
];
const WEIGHT_2: [f64; 20] = [
    0.070560004,
    -0.499961629,
    0.027976849,
    0.431305580,
    -0.183239565,
    -0.437726087,
    0.270893799,
    0.326258458,
    -0.389176039,
    -0.261154295,
    0.509005598,
    0.175862066,
    -0.493457779,
    -0.016367690,
    0.529585633,
    -0.160512065,
    -0.468845870,
    0.232694238,
    0.398438413,
    -0.368012792,
];
const BIAS_2: [f64; 4] = [0.000000000, 0.000000000, 0.015731934, -0.037094479];
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
    0.203053923,
    0.417643038,
    -0.325481153,
    -0.334454910,
    0.391455070,
    0.202656886,
    -0.470515704,
];
const BIAS_3: [f64; 4] = [0.000000000, -0.009822047, -0.003401725, 0.000000000];

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

// x = np.concatenate([numbers(1, 4, 1, 4, 4), numbers(5, 4, 1, 4, 4)])
// P = [numbers(2, 3, 1, 3, 3), np.zeros((1, 3, 1, 1)), numbers(3, 2, 3, 3, 3),
//      np.zeros((1, 2, 1, 1))]
// def convolve(v, K):
//     p = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
//     return sum(np.einsum('bchw,nc->bnhw', p[:, :, i:i + 4, j:j + 4], K[:, :, i, j])
//                for i in range(3) for j in range(3))
// mean = lambda v: v.mean((0, 2, 3), keepdims=True)
// bn = lambda v: (v - mean(v)) / np.sqrt(mean((v - mean(v)) ** 2) + 1e-5)
// forward = lambda v, l: np.maximum(convolve(bn(v), P[2 * l]) + P[2 * l + 1], 0)
// def loss(v, first, last):
//     for l in range(first, last + 1): v = forward(v, l)
//     g = (v ** 2).mean((1, 2, 3))
//     return .5 * .25 * softplus(-(g[:4] - g[4:]) / .25).mean()
// for step in range(2):
//     last = 1 - step                                  # the pair, then the first layer alone
//     changes = [gradient(lambda: loss(x, 0, last), p) for p in P[:2 * last + 2]]
//     for p, d in zip(P, changes): p -= .5 * d
// print(*P)
const KERNELS_1: [f64; 27] = [
    0.424592437,
    -0.205263324,
    -0.337834056,
    0.311677855,
    0.412666669,
    -0.387874553,
    -0.198124381,
    0.588301543,
    0.058514194,
    -0.634321540,
    0.078314262,
    0.498907722,
    -0.424245763,
    -0.344638127,
    0.351700312,
    0.185777674,
    -0.325567124,
    -0.207145862,
    0.364812326,
    0.143795403,
    -0.389023874,
    -0.098487946,
    0.595559431,
    -0.077602146,
    -0.530607801,
    0.350118294,
    0.394966429,
];
const MAP_BIAS_1: [f64; 3] = [0.066663073, -0.048559485, -0.011058802];
const KERNELS_2: [f64; 54] = [
    0.037714771,
    -0.457649768,
    0.033129907,
    0.434306479,
    -0.151712811,
    -0.461364102,
    0.275487541,
    0.356990789,
    -0.396920598,
    -0.257392714,
    0.416916313,
    0.161137953,
    -0.486947317,
    -0.039186910,
    0.580029822,
    -0.117871595,
    -0.484568146,
    0.302066143,
    0.452617415,
    -0.319095333,
    -0.341568905,
    0.412094872,
    0.235936421,
    -0.490225089,
    -0.063162586,
    0.488712844,
    -0.044515876,
    -0.494308524,
    0.184906227,
    0.392862368,
    -0.300445296,
    -0.352106551,
    0.295936880,
    0.225488816,
    -0.416747739,
    -0.190756682,
    0.471098745,
    0.019823885,
    -0.479812049,
    0.082751868,
    0.468693217,
    -0.205999677,
    -0.420507990,
    0.319615627,
    0.347041850,
    -0.405988923,
    -0.226541244,
    0.454762839,
    0.113526860,
    -0.494836643,
    -0.037444842,
    0.454829903,
    -0.118336140,
    -0.443535170,
];
const MAP_BIAS_2: [f64; 2] = [-0.015446851, -0.042981756];

/// The gradient of a pair crosses the normalisation of the upper layer's input.
#[test]
fn two_steps_of_normalised_maps_match_an_independent_program() -> Result<()> {
    let settings = r#"
        hidden = [3, 2]
        layer = { name = "conv", input_norm = "batch", pool = 1 }
        normalise = "none"
    "#;
    let mut subject = Subject::on(&[1, 4, 4], 1, "trifecta", "two_views", settings)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 1, 3, 3))?);
    subject.set("blocks.1.layer.weight", &numbers(3., (2, 3, 3, 3))?);
    let images = numbers(1., (4, 1, 4, 4))?;
    subject.learn(2, |_| Batch::new(images.clone(), vec![0, 1, 1, 2]))?;
    subject.assert_close("blocks.0.layer.weight", &KERNELS_1);
    subject.assert_close("blocks.0.layer.bias", &MAP_BIAS_1);
    subject.assert_close("blocks.1.layer.weight", &KERNELS_2);
    subject.assert_close("blocks.1.layer.bias", &MAP_BIAS_2);
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
    assert!(!certificate.local);
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

#[test]
fn layers_that_no_gradient_crosses_are_refused_above_the_first() -> Result<()> {
    let net = |above: &str| {
        let local: Table = "name = \"local\"\nfield = 2".parse().expect("TOML");
        let above = match above {
            "local" => Value::from(local.clone()),
            other => other.into(),
        };
        let run = Run::builder("trifecta").data_set(conformance::images().unwrap());
        let run = run
            .preset("none")
            .set("sampler", "label_overlay")
            .set("layer", vec![local.into(), above]);
        run.set("hidden", vec![3, 2]).build().map(|_| ())
    };
    let error = net("local").unwrap_err().to_string();
    let is_said = error.contains("layer 2") && error.contains("`dense` or `conv`");
    assert!(is_said, "{error}");
    net("dense")
}
