//! Prototypes: the cosine to a learned direction for each class.

use onward::Result;

use super::{batch, error_on_digits, numbers, Subject};

// x, labels = numbers(1, 4, 3), [0, 1, 1, 2]
// W, b, E, P = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 4), numbers(4, 3, 4)
// unit = lambda v: v / np.sqrt((v ** 2).sum(1, keepdims=True) + 1e-12)
// def loss():
//     g = 2 * unit(layer(x, W, b) @ E) @ unit(P).T
//     return (np.log(np.exp(g).sum(1)) - g[range(4), labels]).mean()
// for step in range(3):
//     changes = [gradient(loss, p) for p in (W, b, E, P)]
//     for p, d in zip((W, b, E, P), changes): p -= .5 * d
const WEIGHT: [f64; 15] = [
    0.687264082,
    -0.192952719,
    -0.404234159,
    0.311897641,
    0.227813779,
    -0.256365256,
    -0.040595297,
    0.514160701,
    0.065186404,
    -0.643285110,
    -0.204958215,
    0.372916101,
    -0.188181662,
    -0.379680976,
    0.411014387,
];
const EMBEDDING: [f64; 20] = [
    0.087086705,
    -0.523900731,
    0.047916744,
    0.511553113,
    -0.269093483,
    -0.327996703,
    0.353614621,
    0.236874109,
    -0.401251074,
    -0.293100659,
    0.476779886,
    0.170239732,
    -0.442644616,
    -0.148811056,
    0.480991586,
    0.024864821,
    -0.445476774,
    0.382056992,
    0.347024894,
    -0.471481486,
];
const PROTOTYPES: [f64; 12] = [
    -0.333111308,
    -0.386607788,
    0.432735878,
    0.275096517,
    -0.481698244,
    -0.178366748,
    0.527661391,
    0.042394218,
    -0.424502507,
    0.350780879,
    0.334110137,
    -0.436877383,
];

const SETTINGS: &str = r#"
    goodness = { name = "prototypes", dimensions = 4, scale = 2.0 }
    loss = "cross_entropy"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "plain", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.0.goodness.embedding.weight", &numbers(3., (5, 4))?);
    subject.set("blocks.0.goodness.prototypes", &numbers(4., (3, 4))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.goodness.embedding.weight", &EMBEDDING);
    subject.assert_close("blocks.0.goodness.prototypes", &PROTOTYPES);
    Ok(())
}

#[test]
fn it_trains_with_layers_of_units_and_of_maps() -> Result<()> {
    let dense = [("goodness", r#""prototypes""#), ("hidden", "[200]")];
    let error = error_on_digits(&dense, "progressive")?;
    assert!(error < 0.3, "{error}");
    let maps = [
        ("goodness", r#""prototypes""#),
        ("hidden", "[16, 16]"),
        ("layer", r#"{ name = "conv", norm = "batch" }"#),
        ("normalise", r#""none""#),
    ];
    let error = error_on_digits(&maps, "progressive")?;
    // Averages over the whole map learn slowly; without learning the error is 0.9.
    assert!(error < 0.7, "{error}");
    Ok(())
}
