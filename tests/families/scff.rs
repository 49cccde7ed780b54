//! SCFF: pairs of images, and separate thresholds for positive and negative views.

use onward::{Batch, Result};

use super::{batch, error_on_digits, numbers, Subject};

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

// x = numbers(1, 4, 1, 4, 4)
// pairs = [2 * x, x + np.roll(x, -1, 0)]
// W, b = numbers(2, 3, 1, 3, 3), np.zeros((1, 3, 1, 1))
// def convolve(v, K):
//     p = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
//     return sum(np.einsum('bchw,nc->bnhw', p[:, :, i:i + 4, j:j + 4], K[:, :, i, j])
//                for i in range(3) for j in range(3))
// pool = lambda z: z.reshape(4, 3, 2, 2, 2, 2).max((3, 5))
// centred = lambda z: z - z.mean(1, keepdims=True)
// g = lambda v: (np.maximum(centred(pool(convolve(v, W))) + b, 0) ** 2).mean((1, 2, 3))
// and the same loss and steps
const MAP_WEIGHT: [f64; 27] = [
    0.491644867,
    -0.258861678,
    -0.407106195,
    0.405311883,
    0.275044050,
    -0.459821317,
    -0.158840862,
    0.467418036,
    0.044250689,
    -0.517185885,
    0.055990267,
    0.508219528,
    -0.226248871,
    -0.446978615,
    0.348840184,
    0.339684968,
    -0.409296673,
    -0.231235585,
    0.467747945,
    0.131413286,
    -0.492598272,
    -0.001581447,
    0.498280305,
    -0.122224510,
    -0.461611312,
    0.246098057,
    0.400049495,
];
const MAP_BIAS: [f64; 3] = [0.038581858, 0.049099389, 0.022365864];

const SETTINGS: &str = r#"
    goodness = { name = "two_thresholds", positive = 0.1, negative = 0.3, lambda = 0.01 }
    hidden = [5]
    normalise = "none"
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "pairs", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &BIAS);
    Ok(())
}

/// Less the mean over the channels, before the non-linearity.
#[test]
fn three_steps_of_maps_match_an_independent_program() -> Result<()> {
    let settings = SETTINGS.replace("hidden = [5]", "hidden = [3]");
    let settings = format!("{settings}\nlayer = {{ name = \"conv\", norm = \"units\" }}");
    let mut subject = Subject::on(&[1, 4, 4], 1, "progressive", "pairs", &settings)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 1, 3, 3))?);
    let images = numbers(1., (4, 1, 4, 4))?;
    subject.learn(3, |_| Batch::new(images.clone(), vec![0, 1, 1, 2]))?;
    subject.assert_close("blocks.0.layer.weight", &MAP_WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &MAP_BIAS);
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
