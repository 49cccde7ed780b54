//! PEPITA: a second forward pass, on the input plus the projected error. The output layer
//! learns from this pass too.

use onward::Result;

use super::{batch, error_on_digits, numbers, Subject};

// x, labels = numbers(1, 4, 3), [0, 1, 1, 2]
// W, M, F = numbers(2, 3, 5), numbers(3, 5, 3), numbers(4, 3, 3)
// Y = np.eye(3)[labels]
// def softmax(z): e = np.exp(z); return e / e.sum(1, keepdims=True)
// for step in range(3):
//     h = layer(x, W, 0); e = softmax(h @ M) - Y
//     x2 = x + e @ F; h2 = layer(x2, W, 0); e2 = softmax(h2 @ M) - Y
//     W, M = W - .5 * x2.T @ (h - h2) / 4, M - .5 * h2.T @ e2 / 4
// print(W, M)
const WEIGHT: [f64; 15] = [
    0.541931169,
    -0.379265631,
    -0.434109932,
    0.511882668,
    0.259542366,
    -0.414425282,
    -0.259250704,
    0.533167908,
    0.082209169,
    -0.526520419,
    -0.018894974,
    0.615574104,
    -0.163203837,
    -0.584052582,
    0.349196824,
];
const OUTPUT: [f64; 15] = [
    0.155319620,
    -0.544144885,
    0.017698243,
    0.312393841,
    -0.172715784,
    -0.275698803,
    0.190004646,
    0.538980775,
    -0.460684028,
    -0.032536466,
    0.337280351,
    0.034100772,
    -0.546639113,
    -0.056215592,
    0.590704788,
];

const SETTINGS: &str = r#"
    layer = "two_passes"
    goodness = "second_pass"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "modulated", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.0.goodness.weight", &numbers(3., (5, 3))?);
    subject.set("sampler.projection", &numbers(4., (3, 3))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.goodness.weight", &OUTPUT);
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let settings = [
        ("sampler", r#""modulated""#),
        ("layer", r#""two_passes""#),
        ("goodness", r#""second_pass""#),
        ("normalise", r#""none""#),
        ("hidden", "[200]"),
        ("head", "false"),
        ("lr", "1.0"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}

/// With dropout the pass that gives the error and the two that are learned from have one
/// mask: where the error is 0, both passes are the same and nothing is learned.
#[test]
fn all_passes_of_a_step_drop_the_same_units() -> Result<()> {
    let settings = SETTINGS.replace(
        "layer = \"two_passes\"",
        "layer = { name = \"two_passes\", dropout = 0.5 }",
    );
    let mut subject = Subject::new("progressive", "modulated", &settings)?;
    let weight = numbers(2., (3, 5))?;
    subject.set("blocks.0.layer.weight", &weight);
    subject.set("sampler.projection", &(numbers(4., (3, 3))? * 0.)?);
    subject.learn(3, |_| batch(1.))?;
    let weight = weight.flatten_all()?.to_vec1::<f64>()?;
    subject.assert_close("blocks.0.layer.weight", &weight);
    Ok(())
}

/// The second pass has the error of the output layer, also beside a head.
#[test]
fn a_head_changes_nothing() -> Result<()> {
    let settings = SETTINGS.replace("head = false", "head = true");
    let mut subject = Subject::new("progressive", "modulated", &settings)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.0.goodness.weight", &numbers(3., (5, 3))?);
    subject.set("sampler.projection", &numbers(4., (3, 3))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.goodness.weight", &OUTPUT);
    Ok(())
}

/// The two passes would differ by it.
#[test]
fn dropout_between_layers_is_refused() -> Result<()> {
    let two = SETTINGS.replace("[5]", "[5, 4]");
    let error = Subject::new("progressive", "modulated", &format!("{two}\ndropout = 0.1"));
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("layer 2") && error.contains("`layer.dropout`"),
        "{error}"
    );
    // Nothing sees what the only layer drops.
    Subject::new(
        "progressive",
        "modulated",
        &format!("{SETTINGS}\ndropout = 0.1"),
    )?;
    Ok(())
}

#[test]
fn classifiers_do_not_read_the_label_off_the_error() -> Result<()> {
    for goodness in ["projection", "prototypes"] {
        let settings = format!(
            "goodness = \"{goodness}\"\nloss = \"cross_entropy\"\nhidden = [5]\nhead = false"
        );
        let mut subject = Subject::new("progressive", "modulated", &settings)?;
        let error = subject.learn(1, |_| batch(1.)).unwrap_err().to_string();
        assert!(error.contains("--set sampler=plain"), "{goodness}: {error}");
    }
    Ok(())
}
