//! Trains a built-in architecture by name, evaluates it, saves it and loads it again.
//!
//! ```text
//! $ cargo run --release --example 01_train_by_name
//! epoch 1: validation error 16.2%
//! epoch 2: validation error 8.5%
//! epoch 3: validation error 6.2%
//! epoch 4: validation error 4.0%
//! epoch 5: validation error 3.4%
//! epoch 6: validation error 3.5%
//! test error 2.4% (head)
//! ```

use onward::flow::examples::Split;
use onward::run::observe::Event;
use onward::{Result, Run};

fn main() -> Result<()> {
    let builder = Run::builder("progressive")
        .data("digits")
        .set("hidden", vec![500, 500]);
    let mut run = builder.set("epochs", 6).seed(1).build()?;

    // A closure is an observer.
    let mut watch = |event: &Event<'_>| {
        if let Event::Evaluated {
            epoch,
            split: Split::Validation,
            evaluation,
        } = event
        {
            println!(
                "epoch {epoch}: validation error {:.1}%",
                100. * evaluation.error
            );
        }
    };
    let summary = run.fit(&mut watch)?;
    println!(
        "test error {:.1}% ({})",
        100. * summary.test.error,
        summary.test.readout
    );

    let folder = tempfile::tempdir().expect("create a temporary folder");
    run.save(folder.path())?;
    let loaded = Run::load(folder.path())?;
    assert_eq!(
        loaded.evaluate(Split::Test, Some(&summary.test.readout))?,
        summary.test
    );
    Ok(())
}
