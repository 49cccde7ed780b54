//! CaFo: a predictor for each layer, solved in closed form at the end of an epoch.

use onward::Result;

use super::{batch, error_on_digits, numbers, step, Subject};

// batches = [(numbers(1, 4, 3), [0, 1, 1, 2]), (numbers(5, 4, 3), [0, 1, 1, 2])]
// W, b = numbers(2, 3, 5), np.zeros(5)                     # random, and they stay so
// H = [np.hstack([layer(x, W, b), np.ones((4, 1))]) for x, _ in batches]
// Y = [np.eye(3)[labels] for _, labels in batches]
// XX, XY = sum(h.T @ h for h in H), sum(h.T @ y for h, y in zip(H, Y))
// M = np.linalg.solve(XX + .01 * np.trace(XX) / 6 * np.eye(6), XY)
// print(M)
const MAP: [f64; 18] = [
    -1.000754269,
    0.597132684,
    0.445256620,
    0.448369556,
    -1.078985786,
    0.700973124,
    0.477524150,
    0.755938967,
    -1.107622646,
    1.258608194,
    -1.913552412,
    0.747201709,
    -0.456147510,
    0.755305477,
    -0.222155978,
    0.119626351,
    0.701511603,
    0.134460989,
];

const SETTINGS: &str = r#"
    goodness = { name = "cafo", ridge = 0.01 }
    loss = "cross_entropy"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn the_map_at_the_end_of_an_epoch_matches_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "plain", SETTINGS)?;
    let weight = numbers(2., (3, 5))?;
    subject.set("blocks.0.layer.weight", &weight);
    subject.learn(2, |index| batch([1., 5.][index as usize]))?;
    subject.assert_close("blocks.0.goodness.map", &[0.; 18]);
    subject.net.epoch_ended(&step(1))?;
    subject.assert_close("blocks.0.goodness.map", &MAP);
    let weight = weight.flatten_all()?.to_vec1::<f64>()?;
    subject.assert_close("blocks.0.layer.weight", &weight);
    Ok(())
}

#[test]
fn a_readout_of_random_layers_works() -> Result<()> {
    let settings = [
        ("sampler", r#""plain""#),
        ("goodness", r#""cafo""#),
        ("loss", r#""cross_entropy""#),
        ("hidden", "[300]"),
        ("head", "false"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}

/// A layer that does not learn still keeps what an evaluation needs.
#[test]
fn running_statistics_are_those_of_the_random_layer() -> Result<()> {
    let settings = [
        ("goodness", r#""cafo""#),
        ("layer", r#"{ name = "conv", norm = "batch", pool = 4 }"#),
        ("hidden", "[16]"),
        ("normalise", r#""none""#),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}
