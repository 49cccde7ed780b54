//! Conformance trials of the plugins, and the properties that the README states.

use onward::data::Split;
use onward::optim::Span;
use onward::{Result, Run};
use onward_outside as _;

#[test]
fn all_plugins_conform() {
    onward::conformance::of_package(env!("CARGO_PKG_NAME")).assert_passed();
}

#[test]
fn staggered_learns_stripes_without_a_label_in_a_block() -> Result<()> {
    let mut run = Run::builder("staggered")
        .set("epochs", 20)
        .seed(1)
        .build()?;
    let summary = run.fit(&mut ())?;
    assert!(summary.test.error < 0.1, "error {}", summary.test.error);
    assert!(!summary.labels.blocks && summary.labels.heads);
    assert_eq!(run.evaluate(Split::Test, None)?, summary.test);
    Ok(())
}

#[test]
fn the_second_layer_starts_an_epoch_after_the_first() -> Result<()> {
    let run = Run::builder("staggered").build()?;
    let blocks = &run.architecture().net().blocks;
    let spans: Vec<_> = blocks.iter().map(|block| block.span().clone()).collect();
    assert_eq!(spans, [Span::Epochs(0..100), Span::Epochs(1..100)]);
    Ok(())
}

/// Compares the code lines of each plugin with the limits in the README.
#[test]
fn a_plugin_is_short() {
    let files = [
        ("goodness", include_str!("../src/goodness.rs"), 15),
        ("sampler", include_str!("../src/sampler.rs"), 30),
        ("layer", include_str!("../src/layer.rs"), 40),
        ("architecture", include_str!("../src/architecture.rs"), 85),
    ];
    for (kind, text, limit) in files {
        let mut imports = false;
        let is_code = |line: &&str| {
            let line = line.trim();
            let is_import = imports || line.starts_with("use ");
            imports = is_import && !line.ends_with(';');
            !is_import && !line.is_empty() && !line.starts_with("//")
        };
        let lines = text.lines().filter(is_code).count();
        assert!(
            (5..=limit).contains(&lines),
            "the {kind} has {lines} lines, expected {limit} at most"
        );
    }
}
