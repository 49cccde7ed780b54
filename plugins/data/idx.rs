//! Data set `idx`: files in the format of MNIST.

use onward_core::data::{folder, idx, DataSet, Framing};

onward_core::settings! {
    /// Grey images of any height and width in the four files of MNIST:
    /// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`,
    /// `t10k-labels-idx1-ubyte`, plain or `.gz`.
    ///
    /// The last sixth of the training images is the validation part. The largest label of
    /// the training part determines the number of classes.
    pub struct Idx {
        /// The folder of the four files; short form: `idx:DIR`.
        dir: String = String::new();
    }
}

onward_core::register! {
    DataSet, "idx",
    "your own grey images in the file format of MNIST, as idx:DIR \
     (LeCun 1998, yann.lecun.com/exdb/mnist)",
    |settings: Idx, _context| {
        let dir = folder(&settings.dir, "--data idx:DIR")?;
        Ok(Box::new(idx::data_set(&[dir.into()], "idx", &[], Framing::Object(4))?))
    },
    .argument("dir")
}
