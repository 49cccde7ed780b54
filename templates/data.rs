//! Data set `my_plugin`.
//!
//! ```sh
//! cargo run --release -- train progressive --data my_plugin --epochs 5
//! ```

use std::sync::Arc;

use onward::data::images::Images;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::flow::examples::Examples;
use onward::flow::random::{below, stream, unit};
use onward::Result;

onward::settings! {
    /// Noisy 8×8 grey images with one brighter quarter; its position is the class.
    pub struct Settings {
        /// The number of training images. Validation and test part have a fifth each.
        size: usize = 1000, in 5..=1_000_000;
    }
}

/// One part of the data.
///
/// To read files, see `onward::data::idx` and `onward::data::pictures`.
fn images(part: &str, size: usize) -> Result<Arc<dyn Examples>> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for index in 0..size {
        // The images are the same in every run.
        let mut rng = stream(0, part, index as u64);
        let class = below(&mut rng, 4);
        for pixel in 0..64 {
            let quarter = pixel / 32 * 2 + pixel % 8 / 4;
            let bright = if quarter == class { 100. } else { 0. };
            pixels.push((bright + 150. * unit(&mut rng)) as u8);
        }
        labels.push(class as u8);
    }
    Ok(Arc::new(Images::new(pixels, labels, [1, 8, 8])?))
}

fn data_set(settings: &Settings) -> Result<DataSet> {
    let classes = ["top left", "top right", "bottom left", "bottom right"];
    let classes = classes.map(String::from).to_vec();
    let spec = ExampleSpec::new(&[1, 8, 8], classes, Content::Picture(Framing::Whole));
    let train = images("train", settings.size)?;
    let validation = images("validation", settings.size / 5)?;
    let test = images("test", settings.size / 5)?;
    Ok(DataSet {
        spec,
        train,
        validation,
        test,
        text: None,
    })
}

onward::register! {
    DataSet, "my_plugin", "one bright quarter in noise, 8×8 grey (describe it here and cite the source)",
    |settings: Settings, _context| Ok(Box::new(data_set(&settings)?))
}
