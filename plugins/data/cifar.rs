//! Data set `cifar-10`.

use std::sync::Arc;

use onward_core::data::hub::Hub;
use onward_core::data::{cifar, Content, DataSet, ExampleSpec, Framing};
use onward_core::export::Table;
use onward_core::plugin::registry::DataKind;
use onward_core::{BuildContext, Result};

onward_core::settings! {
    /// Colour photographs of 32×32 pixels in ten classes: 41,667 to train, 8,333 to
    /// validate (the last sixth of the 50,000 training images), 10,000 to test. Read from
    /// the six files of the binary version, plain or `.gz`; missing files are downloaded
    /// once.
    ///
    /// # Reference
    /// Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    pub struct Cifar {}
}

const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

const HUB: Hub = Hub {
    repository: "uoft-cs/cifar10",
    columns: ["img", "label"],
    shape: cifar::SHAPE,
    train: &[5000; 10],
    test: &[1000; 10],
    content: Some([
        "966386789778a34ee614e4c97b87ba34",
        "941d7b759e2e469ce0edf000ed77e725",
    ]),
};

fn data_set(context: &BuildContext) -> Result<DataSet> {
    let (name, folders) = ("cifar-10", context.folders("cifar-10"));
    HUB.provide(
        folders.clone(),
        context.cache.as_deref(),
        name,
        &cifar::FILES,
        cifar::write,
    )?;
    let [train, test] = cifar::read(&folders, name, &context.room())?;
    let (train, validation) = train.split_last(train.labels().len() / 6);
    let data = DataSet {
        spec: ExampleSpec::new(
            &cifar::SHAPE,
            CLASSES.map(String::from).to_vec(),
            Content::Picture(Framing::Whole),
        ),
        train: Arc::new(train),
        validation: Arc::new(validation),
        test: Arc::new(test),
        text: None,
    };
    HUB.recognise(name, &data)?;
    Ok(data)
}

onward_core::register! {
    DataSet, "cifar-10", "colour photographs, 32×32, 10 classes (Krizhevsky 2009)",
    |_settings: Cifar, context| Ok(Box::new(data_set(context)?)),
    .look(&[], |_given| Some((DataKind::Photographs, Table::new()))).presets(super::STANDARDISED)
}

#[cfg(test)]
mod tests {
    use onward_core::plugin::config::Config;
    use onward_core::plugin::source::Source;

    fn standardises(architecture: &str, preset: Option<&str>, settings: &str) -> bool {
        let source = Source {
            origin: "the test".into(),
            table: settings.parse().unwrap(),
        };
        let config = Config::resolve(architecture, preset, vec![source]).unwrap();
        config.run.standardise
    }

    #[test]
    fn rules_that_compare_views_get_standardised_photographs() {
        for (architecture, preset) in [
            ("progressive", Some("hinton")),
            ("layer_collaboration", None),
            ("backprop", None),
        ] {
            let of = |settings: &str| standardises(architecture, preset, settings);
            assert!(of("data = \"cifar-10\""), "{architecture}");
            let named = "data = \"cifar-10\"\nstandardise = false";
            assert!(!of(named), "{architecture}");
            for data in ["mnist", "fashion-mnist", "digits"] {
                assert!(!of(&format!("data = {data:?}")), "{architecture}, {data}");
            }
        }
    }
}
