//! Data set `folder`: pictures in folders.

use onward_core::data::pictures::{data_set, Broken};
use onward_core::data::{folder, DataSet};

onward_core::settings! {
    /// PNG and JPEG files of any size, grey or colour, in one folder for each class: `<dir>/<class>/<picture>`.
    ///
    /// With `<dir>/train/` and `<dir>/test/` these are the parts; otherwise a sixth of the pictures, always the same,
    /// is the test part. A sixth of what is left validates. Every picture is resized whole.
    pub struct Folder {
        /// The folder of the classes' folders; `folder:DIR` for short.
        dir: String = String::new();
        /// The height that pictures are resized to, in pixels.
        height: usize = 28, in 1..=1024;
        /// The width that pictures are resized to, in pixels.
        width: usize = 28, in 1..=1024;
        /// Whether the colours are kept; otherwise pictures are made grey.
        colour: bool = false;
        /// What to do with a picture that cannot be read.
        broken: Broken = Broken::Refuse;
    }
}

onward_core::register! {
    DataSet, "folder", "your own pictures, PNG or JPEG, in a folder for each class, as folder:DIR (made for onward)",
    |settings: Folder, _context| {
        let channels = if settings.colour { 3 } else { 1 };
        let shape = [channels, settings.height, settings.width];
        Ok(Box::new(data_set(folder(&settings.dir, "--data folder:DIR")?, shape, settings.broken)?))
    },
    .argument("dir")
}
