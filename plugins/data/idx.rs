//! Data set `idx`: files in the format of MNIST.

use onward_core::data::{folder, idx, pictures, Content, DataSet, Framing};

onward_core::settings! {
    /// Grey images of any height and width in the four files of MNIST:
    /// `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`,
    /// `t10k-labels-idx1-ubyte`, plain or `.gz`, also in the spellings of other programs
    /// (`train-images.idx3-ubyte`, `emnist-digits-train-images-idx3-ubyte`).
    ///
    /// The last sixth of the training images is the validation part; a random sixth if
    /// the file is sorted by class. The largest label of the training part determines the
    /// number of classes.
    ///
    /// A picture that `predict` classifies is cut out, centred and made light on black if
    /// the training images are such, as MNIST's are; otherwise it is only resized.
    pub struct Idx {
        /// The folder of the four files; short form: `idx:DIR`.
        dir: String = String::new();
    }
}

onward_core::register! {
    DataSet, "idx",
    "your own grey images in the file format of MNIST, as idx:DIR \
     (LeCun 1998, yann.lecun.com/exdb/mnist)",
    |settings: Idx, context| {
        let dir = folder(&settings.dir, "--data idx:DIR")?;
        let mut data = idx::data_set(&[dir], "idx", &[], Framing::Whole, &context.room())?;
        let framing = pictures::framing_of(&*data.train, &data.spec)?;
        data.spec.content = Content::Picture(framing);
        Ok(Box::new(data))
    },
    .argument("dir").presets(super::STANDARDISED)
}
