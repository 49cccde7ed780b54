//! Trains a built-in architecture by its name, evaluates it, saves it, and finds it
//! again.
//!
//! ```text
//! $ cargo run --release --example 01_train_by_name
//! epoch 1: 17.0% of the validation part wrong
//! epoch 2: 8.2% of the validation part wrong
//! epoch 3: 8.8% of the validation part wrong
//! epoch 4: 4.5% of the validation part wrong
//! epoch 5: 3.2% of the validation part wrong
//! epoch 6: 3.0% of the validation part wrong
//! test: 2.4% wrong by head
//! ```

use onward::flow::examples::Split;
use onward::run::observe::Event;
use onward::{Result, Run};

fn main() -> Result<()> {
    let builder = Run::builder("progressive")
        .data("digits")
        .set("hidden", vec![500, 500]);
    let mut run = builder.set("epochs", 6).seed(1).build()?;

    // Any closure can watch a run.
    let mut watch = |event: &Event<'_>| {
        if let Event::Evaluated {
            epoch,
            split: Split::Validation,
            evaluation,
        } = event
        {
            println!(
                "epoch {epoch}: {:.1}% of the validation part wrong",
                100. * evaluation.error
            );
        }
    };
    let summary = run.fit(&mut watch)?;
    println!(
        "test: {:.1}% wrong by {}",
        100. * summary.test.error,
        summary.test.readout
    );

    let folder = tempfile::tempdir().expect("a folder for temporary files");
    run.save(folder.path())?;
    let found = Run::load(folder.path())?;
    assert_eq!(
        found.evaluate(Split::Test, Some(&summary.test.readout))?,
        summary.test
    );
    Ok(())
}
