//! SCFF: pairs of images, and separate thresholds for positive and negative views.

use onward::Result;

use super::{batch, error_on_digits, Subject};

// x = numbers(1, 4, 3)
// pairs = [2 * x, x + np.roll(x, -1, 0)]          # (x, x) and (x, the next example)
// W, b = numbers(2, 3, 5), np.zeros(5)
// g = lambda v: (layer(v, W, b) ** 2).mean(1)
// def loss():
//     p, n = g(pairs[0]), g(pairs[1])
//     return softplus(.1 - p).mean() + softplus(n - .3).mean() + .01 * np.sqrt((p ** 2).sum())
// for step in range(3):
//     dW, db = gradient(loss, W), gradient(loss, b)
//     W -= .5 * dW; b -= .5 * db
// print(W, b)
const WEIGHT: [f64; 15] = [
    0.455689978,
    -0.293272766,
    -0.402789532,
    0.400449107,
    0.281316305,
    -0.441811131,
    -0.200480634,
    0.504575187,
    0.061606388,
    -0.521005204,
    0.074403248,
    0.514436839,
    -0.187156208,
    -0.467309911,
    0.326001675,
];
const BIAS: [f64; 5] = [
    0.010102358,
    0.032911314,
    0.019278997,
    0.024246183,
    0.015995586,
];

const SETTINGS: &str = r#"
    goodness = { name = "two_thresholds", positive = 0.1, negative = 0.3, lambda = 0.01 }
    hidden = [5]
    normalise = "none"
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "pairs", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &super::numbers(2., (3, 5))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &BIAS);
    Ok(())
}

#[test]
fn it_trains_without_labels() -> Result<()> {
    let settings = [
        ("sampler", r#""pairs""#),
        (
            "goodness",
            r#"{ name = "two_thresholds", positive = 0.1, negative = 0.3 }"#,
        ),
        ("hidden", "[100]"),
        ("lr", "0.1"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.5, "{error}");
    Ok(())
}
