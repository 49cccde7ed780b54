//! Data set `folder`: images in one folder per class.

use onward_core::data::pictures::{are_colourful, data_set, Broken};
use onward_core::data::{at_home, folder, DataSet};
use onward_core::export::{Table, Value};
use onward_core::plugin::registry::DataKind;

onward_core::settings! {
    /// Pictures of any size, grey or colour (PNG, JPEG, WebP, BMP, TIFF, GIF), in one
    /// folder per class: `<dir>/<class>/<picture>`.
    ///
    /// If there are `<dir>/train/` and `<dir>/test/`, they are the parts, and
    /// `<dir>/val/`, if it is there, is the validation part; otherwise a sixth of the
    /// pictures of each class, always the same, is the test part. Without a folder for
    /// it, a sixth of the rest is the validation part. Classes are matched by the names
    /// of their folders. Pictures are resized without cropping.
    pub struct Folder {
        /// The folder that contains one folder per class; short form: `folder:DIR`.
        dir: String = String::new();
        /// The height of the resized images, in pixels.
        height: usize = 28, in 1..=1024;
        /// The width of the resized images, in pixels.
        width: usize = 28, in 1..=1024;
        /// Whether colours are kept; otherwise images are converted to grey.
        colour: bool = false;
        /// The handling of images that cannot be read.
        broken: Broken = Broken::Refuse;
    }
}

/// Colours and a size for convolutions, unless others are given.
fn photographs(given: &Table) -> Option<(DataKind, Table)> {
    let dir = given.get("dir").and_then(Value::as_str)?;
    let is_grey = given.get("colour") == Some(&Value::Boolean(false));
    if is_grey || !are_colourful(&at_home(dir)) {
        return None;
    }
    let side = given.get("height").or_else(|| given.get("width"));
    let side = side.cloned().unwrap_or(32.into());
    let suited: [(&str, Value); 3] = [
        ("colour", true.into()),
        ("height", side.clone()),
        ("width", side),
    ];
    let suited = suited
        .into_iter()
        .filter(|(key, _)| !given.contains_key(*key));
    let suited = suited.map(|(key, value)| (key.to_string(), value));
    Some((DataKind::Photographs, suited.collect()))
}

onward_core::register! {
    DataSet, "folder",
    "your own pictures in one folder per class, as folder:DIR (onward, 2026)",
    |settings: Folder, context| {
        let channels = if settings.colour { 3 } else { 1 };
        let shape = [channels, settings.height, settings.width];
        let dir = folder(&settings.dir, "--data folder:DIR")?;
        Ok(Box::new(data_set(&dir, shape, settings.broken, &context.room())?))
    },
    .argument("dir").presets(super::STANDARDISED)
    .look(&["colour", "height", "width"], photographs)
}
