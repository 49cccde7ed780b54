//! The precision of products.

use serde_json::Value;

use crate::{fails, succeeds, train};

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
