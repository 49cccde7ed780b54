//! The presets are built for images of any size.

use std::sync::Arc;

use onward::data::images::Images;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::plugin::registry;
use onward::{Result, Run};

fn images(shape: [usize; 3]) -> Result<DataSet> {
    let part = || -> Result<Arc<Images>> {
        let labels: Vec<u8> = (0..20).map(|index| index % 10).collect();
        let count = labels.len() * shape.iter().product::<usize>();
        let pixels = (0..count).map(|index| (index * 7919 % 251) as u8);
        Ok(Arc::new(Images::new(pixels.collect(), labels, shape)?))
    };
    let classes = (0..10).map(|class| class.to_string()).collect();
    let spec = ExampleSpec::new(&shape, classes, Content::Picture(Framing::Whole));
    Ok(DataSet {
        train: part()?,
        validation: part()?,
        test: part()?,
        ..DataSet::empty(spec, None)
    })
}

#[test]
fn presets_are_built_for_images_of_other_data_sets() -> Result<()> {
    for shape in [[1, 28, 28], [3, 45, 45]] {
        let data = images(shape)?;
        for info in registry::infos("architecture")? {
            for preset in info.presets() {
                if info.name == "nlp" {
                    continue; // of text
                }
                let run = Run::builder(info.name).preset(preset.name);
                let built = run.data_set(data.clone()).build();
                let what = format!("{} {} on {shape:?}", info.name, preset.name);
                assert!(built.is_ok(), "{what}: {}", built.err().unwrap());
            }
        }
    }
    Ok(())
}
