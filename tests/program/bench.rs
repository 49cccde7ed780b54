//! `onward bench`.

use serde_json::Value;

use crate::{onward, text};

#[test]
fn the_steps_and_the_operations_of_their_products_are_measured() {
    let method = "progressive,hidden=[60,50],batch=100";
    let arguments = [
        "bench",
        method,
        "--data",
        "digits",
        "--seconds",
        "0.2",
        "--json",
    ];
    let output = onward(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["best_product"].as_f64().unwrap() > 0.1);
    let measured = &report["methods"][0];
    assert_eq!(measured["method"], method);
    assert!(measured["steps"].as_u64().unwrap() > 3);
    // All views share the pixels, and there are 774 beside the label of 10. Layer 2 sees two
    // views and the neutral one; the head reads layer 2 alone.
    let forward = 100 * 774 * 60 + 300 * 60 * 50 + 100 * 50 * 10;
    let gradients = 774 * 100 * 60 + 60 * 200 * 50 + 50 * 100 * 10;
    let expected = 2e-9 * f64::from(forward + gradients);
    let found = measured["operations"].as_f64().unwrap();
    assert!(
        (found / expected - 1.).abs() < 0.2,
        "{found}, expected about {expected}"
    );
    let share = measured["time_in_products"].as_f64().unwrap();
    assert!(0. < share && share <= 1., "{share}");
    // At least the weights and their velocities are held.
    let weights = 774 * 60 + 60 * 50;
    let memory = 1e6 * measured["memory_mb"].as_f64().unwrap();
    assert!(memory > 2. * 4. * f64::from(weights), "{memory}");
    assert!(measured["allocations"].as_f64().unwrap() >= 1.);
}

#[test]
fn what_was_measured_before_a_failure_is_shown() {
    let method = "progressive,hidden=[5]";
    let bench = |wrong: &str| {
        let small = "--set=data.size=600";
        let output = onward(&[
            "bench",
            method,
            wrong,
            "--data=digits",
            small,
            "--seconds=0.01",
        ]);
        assert_eq!(output.status.code(), Some(2));
        (text(&output.stdout), text(&output.stderr))
    };
    let (table, error) = bench("progressive,hidden=[6],batch=600");
    assert!(table.contains(&format!("\n{method} ")), "{table}");
    let problem = "progressive,hidden=[6],batch=600: bench: no step could be measured";
    assert!(error.contains(problem), "{error}");
    // What is known to be wrong is refused before anything is measured.
    let (table, error) = bench("progresive");
    assert_eq!(table, "");
    assert!(
        error.contains("unknown architecture `progresive`"),
        "{error}"
    );
}

#[test]
fn a_method_that_cannot_be_built_is_an_error_that_names_it() {
    // What no method can be measured with.
    let wrong = onward(&["bench", "--set", "nonsense=1", "--seconds", "0.01"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("unknown setting `nonsense`"));
    let output = onward(&["bench", "progresive"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("unknown architecture `progresive`"));
    for wrong in ["nan", "-1", "0", "soon"] {
        let output = onward(&["bench", &format!("--seconds={wrong}")]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains("from 0.01 to 3600"),
            "{wrong}"
        );
    }
    let output = onward(&[
        "bench",
        "--set=data.size=600",
        "progressive,hidden=[5],batch=600",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no step could be measured"));
    let output = onward(&["bench", "progressive,lr=-1", "--data", "digits"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("setting `lr`"));
}
