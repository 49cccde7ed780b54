//! Layer collaboration: each loss includes the goodness of the other layers.

use onward::Result;

use super::{error_on_digits, numbers, Subject};

// x, gamma = [numbers(1, 4, 3), numbers(5, 4, 3)], .7
// W1, b1, W2, b2 = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 4), np.zeros(4)
// g = lambda a: (a ** 2).sum(1)
// def loss(views, W, b, others, theta):
//     p, n = [g(layer(v, W, b)) + gamma * o - theta for v, o in zip(views, others)]
//     return .5 * (softplus(-p).mean() + softplus(n).mean())
// for step in range(3):
//     one = [norm(v) for v in x]
//     two = [norm(layer(v, W1, b1)) for v in one]
//     g1, g2 = [g(layer(v, W1, b1)) - 5 for v in one], [g(layer(v, W2, b2)) - 4 for v in two]
//     f1, f2 = lambda: loss(one, W1, b1, g2, 5), lambda: loss(two, W2, b2, g1, 4)
//     changes = [gradient(f, p) for f, p in ((f1, W1), (f1, b1), (f2, W2), (f2, b2))]
//     for p, d in zip((W1, b1, W2, b2), changes): p -= .5 * d
const WEIGHT_1: [f64; 15] = [
    0.462244763,
    -0.190569249,
    -0.382952283,
    0.738992117,
    0.239464566,
    -0.404648656,
    -0.234440772,
    1.128786780,
    0.414704476,
    -0.540787321,
    0.058272103,
    0.420484475,
    -0.367845911,
    -0.896842410,
    0.372951049,
];
const BIAS_1: [f64; 5] = [
    0.044256853,
    -0.050960032,
    0.450488809,
    0.431569412,
    0.035074491,
];
const WEIGHT_2: [f64; 20] = [
    0.070560004,
    -0.499961629,
    -0.157328121,
    0.418920556,
    -0.183239565,
    -0.437726087,
    -0.602726312,
    -0.085971249,
    -0.389176039,
    -0.261154295,
    0.811607644,
    0.067790748,
    -0.493457779,
    -0.016367690,
    0.828862242,
    -0.167490428,
    -0.468845870,
    0.232694238,
    0.067330009,
    -0.474511223,
];
const BIAS_2: [f64; 4] = [0.000000000, 0.000000000, -0.170502950, -0.236349680];

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new(
        "layer_collaboration",
        "two_views",
        "hidden = [5, 4]\ngamma = 0.7",
    )?;
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
    let error = error_on_digits(&[("sampler", r#""label_overlay""#)], "layer_collaboration")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}

/// Its loss, and so the goodness of other layers, would have no effect.
#[test]
fn a_layer_with_a_rule_of_its_own_is_refused() {
    let settings = "layer = \"softhebb\"\nhidden = [3]";
    let net = Subject::on(&[1, 4, 4], 1, "layer_collaboration", "two_views", settings);
    let error = net.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the rule \"no gradient\""), "{error}");
}
