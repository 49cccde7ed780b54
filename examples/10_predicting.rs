//! Loads a trained model without its data and classifies examples.
//!
//! ```text
//! $ cargo run --release --example 10_predicting
//! predicted 0 with probability 0.991, label 0
//! predicted 1 with probability 0.508, label 1
//! predicted 2 with probability 0.998, label 2
//! predicted 3 with probability 0.993, label 3
//! predicted 4 with probability 0.941, label 4
//! ```
//!
//! Pass the folder of a run and image files as arguments to classify these files.

use std::path::{Path, PathBuf};

use onward::candle_core::Tensor;
use onward::{Result, Run};

/// Trains a small model, saves it, and returns five test examples with their labels.
fn trained(folder: &Path) -> Result<(Tensor, Vec<u32>)> {
    let mut run = Run::builder("progressive")
        .data("digits")
        .set("hidden", vec![300, 300])
        .set("epochs", 3)
        .build()?;
    run.fit(&mut ())?;
    run.save(folder)?;
    let batch = run.data().test.batch(&[0, 1, 2, 3, 4], None)?;
    Ok((batch.examples().clone(), batch.labels()?.to_vec()))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    if let Some(folder) = arguments.next() {
        let run = Run::open(folder)?.without_data().build()?;
        let files: Vec<PathBuf> = arguments.collect();
        for (file, answer) in files.iter().zip(run.predict(&files, None)?) {
            let class = answer.class.unwrap_or("nothing found".into());
            println!("{}: {class}", file.display());
        }
        return Ok(());
    }

    let folder = tempfile::tempdir().expect("create a temporary folder");
    let (examples, labels) = trained(folder.path())?; // (5, 1, 28, 28), values from 0 to 1
    let run = Run::open(folder.path())?.without_data().build()?;
    let classes = &run.data().spec.classes;
    let scores = run.scores(examples, "head")?.to_vec2::<f32>()?; // (5, 10), log-probabilities
    for (scores, label) in scores.into_iter().zip(labels) {
        let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
        let class = best(&scores);
        println!(
            "predicted {} with probability {:.3}, label {}",
            classes[class],
            scores[class].exp(),
            classes[label as usize]
        );
    }
    Ok(())
}

fn best(scores: &[f64]) -> usize {
    (0..scores.len())
        .max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
        .unwrap_or(0)
}
