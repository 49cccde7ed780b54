//! Class groups: each class has its own units.

use onward::Result;

use super::{batch, error_on_digits, numbers, Subject};

// x, labels = numbers(1, 4, 3), [0, 1, 1, 2]
// def entropy(g): return (np.log(np.exp(g).sum(1)) - g[range(4), labels]).mean()
// for name, moment in (("SQUARES", lambda a: a ** 2), ("VALUES", lambda a: a)):
//     W, b = numbers(2, 3, 6), np.zeros(6)
//     loss = lambda: entropy(2 * moment(layer(x, W, b)).reshape(4, 3, 2).mean(2))
//     for step in range(3):
//         dW, db = gradient(loss, W), gradient(loss, b)
//         W -= .5 * dW; b -= .5 * db
//     show(name, W)
const SQUARES: [f64; 18] = [
    0.517508185,
    -0.213043048,
    -0.466617516,
    0.378846346,
    0.262054975,
    -0.419447505,
    -0.147188557,
    0.471160441,
    0.140100190,
    -0.480560086,
    0.058291037,
    0.443935814,
    -0.269864313,
    -0.477403567,
    0.367433972,
    0.330277801,
    -0.364817223,
    -0.257629007,
];
const VALUES: [f64; 18] = [
    0.546555831,
    -0.147725086,
    -0.467282299,
    0.410172063,
    0.247220107,
    -0.410179520,
    -0.157002105,
    0.458061209,
    0.276078258,
    -0.438404154,
    0.027037302,
    0.399036254,
    -0.296383116,
    -0.539346000,
    0.333058704,
    0.288088965,
    -0.341928612,
    -0.255326869,
];

fn settings(of: &str) -> String {
    format!(
        r#"
        goodness = {{ name = "class_groups", of = "{of}", scale = 2.0 }}
        loss = "cross_entropy"
        hidden = [6]
        normalise = "none"
        head = false
        "#
    )
}

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    for (of, expected) in [("squares", SQUARES), ("values", VALUES)] {
        let mut subject = Subject::new("progressive", "plain", &settings(of))?;
        subject.set("blocks.0.layer.weight", &numbers(2., (3, 6))?);
        subject.learn(3, |_| batch(1.))?;
        subject.assert_close("blocks.0.layer.weight", &expected);
    }
    Ok(())
}

#[test]
fn the_units_must_be_divided_among_the_classes() {
    let settings = settings("squares").replace("[6]", "[7]");
    let error = Subject::new("progressive", "plain", &settings).err();
    let error = error.expect("7 units for 3 classes").to_string();
    assert!(
        error.contains("7 units") && error.contains("`hidden`"),
        "{error}"
    );
}

#[test]
fn it_trains() -> Result<()> {
    let settings = [("goodness", r#""class_groups""#), ("hidden", "[200]")];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}
