//! Adds a named data set and trains on it.
//!
//! ```text
//! $ cargo run --release --example 07_new_data
//! ["disc", "ring", "cross"]: test error 3.7%
//! ```

use std::sync::Arc;

use onward::data::images::Images;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::flow::examples::Examples;
use onward::flow::random::{below, stream, unit};
use onward::{Result, Run};

onward::settings! {
    /// Discs, rings and crosses at random positions in noisy 16×16 grey images.
    ///
    /// Data in files need no code: see `idx:DIR` and `folder:DIR`. Data in memory need no
    /// name: see [`RunBuilder::data_set`](onward::RunBuilder::data_set).
    pub struct Shapes {
        /// The number of training images. Validation and test part have a fifth each.
        size: usize = 3000, in 5..=1_000_000;
    }
}

const CLASSES: [&str; 3] = ["disc", "ring", "cross"];

/// One part of the data. The images are the same in every run.
fn images(part: &str, size: usize) -> Result<Arc<dyn Examples>> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..size {
        let mut rng = stream(0, part, index as u64);
        let class = below(&mut rng, CLASSES.len());
        let radius = 3. + 2. * unit(&mut rng);
        let [x, y] = [0; 2].map(|_| 5. + 5. * unit(&mut rng));
        labels.push(class as u8);
        for pixel in 0..16 * 16 {
            let (across, down) = ((pixel % 16) as f64 - x, (pixel / 16) as f64 - y);
            let distance = across.hypot(down);
            let is_inside = match class {
                0 => distance < radius,
                1 => (distance - radius).abs() < 1.,
                _ => across.abs().min(down.abs()) < 1. && distance < radius,
            };
            pixels.push((if is_inside { 150. } else { 0. } + 100. * unit(&mut rng)) as u8);
        }
    }
    Ok(Arc::new(Images::new(pixels, labels, [1, 16, 16])?))
}

fn data_set(settings: &Shapes) -> Result<DataSet> {
    let classes = CLASSES.map(String::from).to_vec();
    let spec = ExampleSpec::new(&[1, 16, 16], classes, Content::Picture(Framing::Whole));
    let (validation, test) = (
        images("validation", settings.size / 5)?,
        images("test", settings.size / 5)?,
    );
    Ok(DataSet {
        spec,
        train: images("train", settings.size)?,
        validation,
        test,
        text: None,
    })
}

onward::register! {
    DataSet, "shapes", "discs, rings and crosses, 16×16 grey (an example, 2026)",
    |settings: Shapes, _context| Ok(Box::new(data_set(&settings)?))
}

fn main() -> Result<()> {
    let builder = Run::builder("progressive")
        .data("shapes")
        .set("hidden", vec![300, 300]);
    let mut run = builder.set("epochs", 10).build()?;
    let summary = run.fit(&mut ())?;
    println!(
        "{:?}: test error {:.1}%",
        run.data().spec.classes,
        100. * summary.test.error
    );
    Ok(())
}
