//! Data set `idx`: anybody's files in the format of MNIST.

use std::path::PathBuf;

use onward::data::{idx, DataSet, Framing};
use onward::Error;

onward::settings! {
    /// Grey images of any height and width in the four files of MNIST: `train-images-idx3-ubyte`,
    /// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, plain or `.gz`.
    ///
    /// The last sixth of the training part validates; there are as many classes as the largest label says.
    pub struct Idx {
        /// The folder of the four files; `idx:DIR` for short.
        dir: String = String::new();
    }
}

onward::register! {
    DataSet, "idx", "your own grey images in the file format of MNIST, as idx:DIR (format: yann.lecun.com/exdb/mnist)",
    |settings: Idx, _site| {
        if settings.dir.is_empty() {
            return Err(Error::Setting {
                key: "data.dir".into(),
                value: "\"\"".into(),
                origin: "the settings".into(),
                expected: "the folder of the four files, as in --data idx:DIR".into(),
            });
        }
        Ok(Box::new(idx::data_set(&[PathBuf::from(&settings.dir)], "idx", &[], Framing::Object(4))?))
    },
    .argument("dir")
}
