//! Data set `idx`: anybody's files in the format of MNIST.

use onward_core::data::{folder, idx, DataSet, Framing};

onward_core::settings! {
    /// Grey images of any height and width in the four files of MNIST: `train-images-idx3-ubyte`,
    /// `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, plain or `.gz`.
    ///
    /// The last sixth of the training part validates; there are as many classes as the largest label says.
    pub struct Idx {
        /// The folder of the four files; `idx:DIR` for short.
        dir: String = String::new();
    }
}

onward_core::register! {
    DataSet, "idx", "your own grey images in the file format of MNIST, as idx:DIR (format: yann.lecun.com/exdb/mnist)",
    |settings: Idx, _context| {
        let dir = folder(&settings.dir, "--data idx:DIR")?;
        Ok(Box::new(idx::data_set(&[dir.into()], "idx", &[], Framing::Object(4))?))
    },
    .argument("dir")
}
