//! Forward Projection: layers solved for projections of their input and the label.

use onward::export::Table;
use onward::{conformance, Result, Run};

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
    probe_epochs = 1
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

/// What learns from a layer before it is solved for, and not after that, knows its random
/// activity alone.
#[test]
fn what_reads_a_solved_layer_learns_after_it() -> Result<()> {
    let refusal = |settings: &str, epochs: i64| -> Option<String> {
        let run = Run::builder("progressive").data_set(conformance::images().unwrap());
        let run = run
            .preset("none")
            .set("sampler", "plain")
            .set("epochs", epochs);
        let settings: Table = settings.parse().expect("settings in TOML");
        let run = settings
            .into_iter()
            .fold(run, |run, (key, value)| run.set(&key, value));
        run.build().err().map(|error| error.to_string())
    };
    let solved = "layer = \"forward_projection\"\nhidden = [6]";
    let own = format!("{solved}\nhead = false\nloss = \"cross_entropy\"");
    for (settings, expected) in [
        (format!("{solved}\nloss = \"none\""), "`probe_epochs = 1`"),
        (format!("{own}\ngoodness = \"cafo\""), "`epochs = 2`"),
        (format!("{own}\ngoodness = \"projection\""), "`epochs = 2`"),
    ] {
        let found = refusal(&settings, 1).unwrap_or_default();
        assert!(found.contains(expected), "{settings}: {found}");
        assert_eq!(refusal(&settings, 2), None, "{settings}");
    }
    let probe = format!("{solved}\nloss = \"none\"\nprobe_epochs = 1");
    assert_eq!(refusal(&probe, 1), None);
    // It has no variables.
    let groups = format!("{own}\ngoodness = \"class_groups\"\nhidden = [8]");
    assert_eq!(refusal(&groups.replace("hidden = [6]\n", ""), 1), None);
    let mixed = "layer = [\"forward_projection\", \"dense\"]\nhidden = [6, 6]\nhead = false\n\
                 loss = \"cross_entropy\"\ngoodness = [\"class_groups\", \"class_groups\"]";
    let mixed = mixed.replace("[6, 6]", "[8, 8]");
    let found = refusal(&mixed, 1).unwrap_or_default();
    assert!(
        found.contains("layer 2") && found.contains("greedy"),
        "{found}"
    );
    assert_eq!(refusal(&format!("{mixed}\norder = \"greedy\""), 1), None);
    Ok(())
}

/// `recurrent` has no order of learning.
#[test]
fn recurrent_layers_are_not_solved_for_together() {
    let settings = "layer = \"forward_projection\"\nloss = \"none\"\nhidden = [5, 4]";
    let error = Subject::new("recurrent", "plain", settings).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("layers 1 and 2"), "{error}");
}

/// One-hot tokens have a type of their own.
#[test]
fn windows_of_tokens_in_double_precision_train() -> Result<()> {
    for (architecture, layer) in [("progressive", "forward_projection"), ("sigprop", "dense")] {
        let run = Run::builder(architecture).data_set(conformance::text()?);
        let run = run
            .preset("none")
            .set("sampler", "plain")
            .set("layer", layer);
        let run = run.set("precision", "f64").set("hidden", vec![6]);
        let run = match architecture {
            "progressive" => run.set("loss", "none").set("probe_epochs", 1),
            _ => run,
        };
        run.set("epochs", 1)
            .set("batch", 20)
            .build()?
            .fit(&mut ())?;
    }
    Ok(())
}
