//! Forward Projection: layers solved for projections of their input and the label.

use onward::Result;

use super::{batch, error_on_digits, numbers, step, Subject};

// batches = [(numbers(1, 4, 3), [0, 1, 1, 2]), (numbers(5, 4, 3), [0, 1, 1, 2])]
// Q, U = numbers(2, 3, 5), numbers(3, 3, 5)
// X = np.vstack([np.hstack([x, np.ones((4, 1))]) for x, _ in batches])
// T = np.vstack([np.sign(x @ Q) + np.sign(np.eye(3)[labels] @ U) for x, labels in batches])
// XX = X.T @ X
// M = np.linalg.solve(XX + .01 * np.trace(XX) / 4 * np.eye(4), X.T @ T)
const MAP: [f64; 20] = [
    1.363068818,
    -1.078410731,
    -1.027328163,
    1.078410731,
    0.521313938,
    -1.988246820,
    -1.476909999,
    3.413969607,
    1.476909999,
    -3.361239031,
    -0.850719506,
    1.458994175,
    0.147585788,
    -1.458994175,
    0.344840349,
    0.359928237,
    0.317074780,
    0.473498492,
    -0.317074780,
    -0.784779462,
];

const SETTINGS: &str = r#"
    layer = "forward_projection"
    loss = "none"
    hidden = [5]
    normalise = "none"
"#;

#[test]
fn the_map_at_the_end_of_an_epoch_matches_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "plain", SETTINGS)?;
    subject.set("blocks.0.layer.of_input", &numbers(2., (3, 5))?);
    subject.set("blocks.0.layer.of_label", &numbers(3., (3, 5))?);
    subject.learn(2, |index| batch([1., 5.][index as usize]))?;
    subject.net.epoch_ended(&step(1))?;
    subject.assert_close("blocks.0.layer.map", &MAP);
    Ok(())
}

#[test]
fn one_pass_for_each_layer_and_one_for_the_head_are_enough() -> Result<()> {
    let settings = [
        ("preset", r#""forward_projection""#),
        ("hidden", "[200, 200]"),
        ("epochs", "1"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.25, "{error}");
    Ok(())
}

#[test]
fn layers_are_not_solved_for_in_the_same_epochs() -> Result<()> {
    let settings = SETTINGS.replace("[5]", "[5, 4]");
    let error = Subject::new("progressive", "plain", &settings).map(|_| ());
    let error = error.unwrap_err().to_string();
    let is_said = error.contains("layers 1 and 2") && error.contains("order = \"greedy\"");
    assert!(is_said, "{error}");
    let in_turn = format!("{settings}\norder = \"greedy\"");
    Subject::new("progressive", "plain", &in_turn)?;
    Ok(())
}
