//! Data sets `mnist` and `fashion-mnist`.

use onward::data::{idx, DataSet, Framing};

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const CLOTHES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

onward::settings! {
    /// Grey images of 28×28 pixels in ten classes: 50,000 to train, 10,000 to validate (the last of the 60,000 that
    /// come to train), 10,000 to test. Read from the original four files, plain or `.gz`.
    ///
    /// # Reference
    /// LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017
    /// (<https://arxiv.org/abs/1708.07747>).
    pub struct Mnist {}
}

onward::register! {
    DataSet, "mnist", "handwritten digits, 28×28 grey, 10 classes (LeCun, Cortes, Burges 1998)",
    |_settings: Mnist, site| Ok(Box::new(idx::data_set(&site.folders("mnist"), "mnist", &DIGITS, Framing::Object(4))?))
}

onward::register! {
    DataSet, "fashion-mnist", "clothing, 28×28 grey, 10 classes (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747)",
    |_settings: Mnist, site| Ok(Box::new(idx::data_set(&site.folders("fashion-mnist"), "fashion-mnist", &CLOTHES, Framing::Object(0))?))
}
