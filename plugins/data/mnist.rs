//! Data sets `mnist` and `fashion-mnist`.

use onward_core::data::hub::Hub;
use onward_core::data::{idx, DataSet, Framing};
use onward_core::{BuildContext, Result};

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const CLOTHES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

onward_core::settings! {
    /// Grey images of 28×28 pixels in ten classes: 50,000 to train, 10,000 to validate
    /// (the last of the 60,000 training images), 10,000 to test. Read from the original
    /// four files, plain or `.gz`; missing files are downloaded once.
    ///
    /// # Reference
    /// LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; Xiao, Rasul,
    /// Vollgraf, "Fashion-MNIST", 2017 (<https://arxiv.org/abs/1708.07747>).
    pub struct Mnist {}
}

const MNIST: Hub = Hub {
    repository: "ylecun/mnist",
    columns: ["image", "label"],
    shape: [1, 28, 28],
    train: &[5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    test: &[980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    content: Some([
        "39253c582b869a1885598204e9f8578d",
        "6404de068760aceadd289000bfda3831",
    ]),
};

const FASHION: Hub = Hub {
    repository: "zalando-datasets/fashion_mnist",
    train: &[6000; 10],
    test: &[1000; 10],
    content: Some([
        "3c6aae86c05e891fe6fe44cb2c19f1fc",
        "78c4e6255bc1e24741815325a5314dfc",
    ]),
    ..MNIST
};

fn data_set(
    context: &BuildContext,
    name: &str,
    hub: &Hub,
    classes: &[&str],
    framing: Framing,
) -> Result<Box<DataSet>> {
    hub.provide(
        context.folders(name),
        context.cache.as_deref(),
        name,
        &idx::FILES,
        idx::write,
    )?;
    let (folders, room) = (context.folders(name), context.room());
    let data = idx::data_set(&folders, name, classes, framing, &room)?;
    hub.recognise(name, &data)?;
    Ok(Box::new(data))
}

onward_core::register! {
    DataSet, "mnist",
    "handwritten digits, 28×28 grey, 10 classes (LeCun, Cortes, Burges 1998)",
    |_settings: Mnist, context| data_set(
        context, "mnist", &MNIST, &DIGITS, Framing::Object(4),
    )
}

onward_core::register! {
    DataSet, "fashion-mnist",
    "clothing, 28×28 grey, 10 classes (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747)",
    |_settings: Mnist, context| data_set(
        context, "fashion-mnist", &FASHION, &CLOTHES, Framing::Object(0),
    )
}
