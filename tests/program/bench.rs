//! `onward bench`.

use serde_json::Value;

use crate::{fails, onward, succeeds, text, train};

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
fn products_in_bfloat16_repeat_their_bits_or_are_refused() {
    let report = succeeds(&[
        "bench",
        "progressive,hidden=[40]",
        "--data=digits",
        "--seconds=0.1",
        "--json",
    ]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let base = tempfile::tempdir().unwrap();
    let out = |name: &str| base.path().join(name);
    let message = fails(2, &train(&out("tf32"), &["--set=precision=tf32"]));
    assert!(message.contains("tf32 such a GPU"), "{message}");
    if report["best_product_bf16"].is_null() {
        assert!(message.contains("expected f32 or f64"), "{message}");
        let message = fails(2, &train(&out("refused"), &["--set=precision=bf16"]));
        assert!(message.contains("bf16 needs a CPU with"), "{message}");
        return eprintln!("skipped: this processor has no product of bfloat16 numbers");
    }
    // Dense layers, and convolutions with pools.
    let methods: [&[&str]; 2] = [
        &[],
        &[
            "--preset=class_groups",
            "--data=digits",
            "--set=hidden=[20,20,20,20]",
        ],
    ];
    for (place, method) in methods.into_iter().enumerate() {
        let trained = |name: &str, more: &[&str]| {
            let out = out(&format!("{name}-{place}"));
            let mut arguments = train(&out, method);
            arguments.extend(more);
            succeeds(&arguments);
            let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
            let epoch: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
            let loss = epoch["blocks"][0]["loss"].as_f64().unwrap();
            (std::fs::read(out.join("model.safetensors")).unwrap(), loss)
        };
        let (one, loss) = trained("one", &["--set=precision=bf16", "--threads=1"]);
        let (three, _) = trained("three", &["--set=precision=bf16", "--threads=3"]);
        let (exact, expected) = trained("exact", &[]);
        assert!(one == three, "{method:?}: the threads make a difference");
        assert!(one != exact, "{method:?}: nothing was rounded");
        let off = (loss / expected - 1.).abs();
        assert!(off < 0.05, "{method:?}: {loss}, expected {expected}");
    }
}

#[test]
fn a_method_that_cannot_be_built_is_an_error_that_names_it() {
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
