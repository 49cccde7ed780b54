//! Runs on rows of numbers.

use std::sync::Arc;

use onward::candle_core::{Device, Tensor};
use onward::data::numbers::Numbers;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::{Result, Run};

/// Two classes that differ in the first column, by far less than its mean; the second is
/// larger and says nothing.
fn rows() -> Result<DataSet> {
    let part = |first: usize, count: usize| -> Result<Arc<Numbers>> {
        let row = |index: usize| {
            let noise = (index as f32 * 1.7).sin();
            let of_class = if index.is_multiple_of(2) {
                0.001
            } else {
                -0.001
            };
            [
                1. + of_class + 0.0002 * noise,
                1000. * (index as f32 * 2.3).sin(),
            ]
        };
        let values = (first..first + count).flat_map(row).collect();
        let labels = (first..first + count).map(|index| (index % 2) as u32);
        Ok(Arc::new(Numbers::new(values, labels.collect(), &[2])?))
    };
    let classes = ["a", "b"].map(String::from).to_vec();
    let spec = ExampleSpec::new(&[2], classes, Content::Picture(Framing::Whole));
    Ok(DataSet {
        train: part(0, 200)?,
        validation: part(1000, 40)?,
        test: part(2000, 40)?,
        ..DataSet::empty(spec, None)
    })
}

#[test]
fn columns_of_any_unit_are_learned_once_they_are_standardised() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let train = |standardise: bool| -> Result<(Run, f64)> {
        let builder = Run::builder("progressive").data_set(rows()?);
        let builder = builder.set("hidden", vec![20]).set("epochs", 30);
        let builder = builder.set("sampler", "plain").set("batch", 20);
        let builder = builder.set("goodness", "projection").set("lr", 0.01);
        let out = folder.path().join(standardise.to_string());
        let mut run = builder.set("standardise", standardise).out(out).build()?;
        let error = run.fit(&mut ())?.test.error;
        Ok((run, error))
    };
    let (_, plain) = train(false)?;
    let (run, standardised) = train(true)?;
    assert!(standardised < 0.1 && plain > 0.3, "{standardised} {plain}");
    // Mean and deviation are part of the model.
    let opened = Run::open(folder.path().join("true"))?
        .without_data()
        .build()?;
    let rows = Tensor::new(&[[1.001f32, 500.], [0.999, -500.]], &Device::Cpu)?;
    let scores =
        |run: &Run| -> Result<_> { Ok(run.scores(rows.clone(), "goodness")?.to_vec2::<f32>()?) };
    assert_eq!(scores(&opened)?, scores(&run)?);
    Ok(())
}
