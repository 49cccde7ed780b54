//! Data set `stripes`.

use std::sync::Arc;

use onward::data::images::Images;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::flow::examples::Examples;
use onward::flow::random::{below, stream, unit};
use onward::Result;

onward::settings! {
    /// Noisy 8×8 grey images with stripes in one of four directions.
    pub struct Stripes {
        /// The number of training images. Validation and test part have a fifth each.
        size: usize = 1000, in 5..=100_000;
    }
}

const CLASSES: [&str; 4] = ["horizontal", "vertical", "rising", "falling"];

fn images(part: &str, size: usize) -> Result<Arc<dyn Examples>> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..size {
        let mut rng = stream(0, part, index as u64);
        let (class, phase) = (below(&mut rng, 4), below(&mut rng, 4));
        labels.push(class as u8);
        for place in 0..64 {
            let (y, x) = (place / 8, place % 8);
            let along = [y, x, x + y, 8 + x - y][class] + phase;
            pixels.push((if along % 4 < 2 { 120. } else { 0. } + 130. * unit(&mut rng)) as u8);
        }
    }
    Ok(Arc::new(Images::new(pixels, labels, [1, 8, 8])?))
}

fn data_set(size: usize) -> Result<DataSet> {
    let classes = CLASSES.map(String::from).to_vec();
    let spec = ExampleSpec::new(&[1, 8, 8], classes, Content::Picture(Framing::Whole));
    Ok(DataSet {
        spec,
        train: images("train", size)?,
        validation: images("validation", size / 5)?,
        test: images("test", size / 5)?,
        text: None,
    })
}

onward::register! {
    DataSet, "stripes", "noisy stripes in four directions, 8×8 grey (an example, 2026)",
    |settings: Stripes, _context| Ok(Box::new(data_set(settings.size)?))
}
