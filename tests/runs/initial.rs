//! Runs that start from the weights of another run, or of a file.

use std::collections::HashMap;
use std::path::Path;

use onward::candle_core::{safetensors, Device, Tensor};
use onward::data::Split;
use onward::{Result, Run, RunBuilder};

fn builder(hidden: &[i64]) -> RunBuilder {
    Run::builder("progressive")
        .data_set(onward::conformance::images().unwrap())
        .set("hidden", hidden.to_vec())
        .set("batch", 20)
        .set("epochs", 2)
        .set("readout_from", 1)
}

fn trained(folder: &Path) -> Result<Run> {
    let mut run = builder(&[12, 8]).seed(3).build()?;
    run.fit(&mut ())?;
    run.save(folder)?;
    Ok(run)
}

fn error_of(init: &Path, hidden: &[i64]) -> String {
    let init = init.to_str().unwrap();
    let built = builder(hidden).set("init", init).build();
    built.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_run_starts_from_the_weights_of_another() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let first = trained(folder.path())?;
    let init = folder.path().to_str().unwrap();
    let second = builder(&[12, 8]).seed(4).set("init", init).build()?;
    let readouts = |run: &Run| -> Result<_> { Ok(run.evaluate(Split::Test, None)?.readouts) };
    assert_eq!(readouts(&second)?, readouts(&first)?);
    let without = builder(&[12, 8]).seed(4).build()?;
    assert_ne!(readouts(&without)?, readouts(&first)?);
    Ok(())
}

#[test]
fn weights_that_were_edited_elsewhere_come_back() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    trained(folder.path())?;
    let model = folder.path().join("model.safetensors");
    let mut tensors = safetensors::load(&model, &Device::Cpu)?;
    let name = "blocks.0.layer.bias";
    let bias = Tensor::new(&[0.5f32; 12], &Device::Cpu)?;
    tensors.insert(name.into(), bias);
    tensors.remove("head.weight");
    let edited = folder.path().join("edited.safetensors");
    safetensors::save(&tensors, &edited)?;
    let run = builder(&[12, 8])
        .set("init", edited.to_str().unwrap())
        .build()?;
    let written = folder.path().join("again");
    run.save(&written)?;
    let again = safetensors::load(written.join("model.safetensors"), &Device::Cpu)?;
    assert_eq!(again[name].to_vec1::<f32>()?, [0.5; 12]);
    // The head, which the file does not have, starts at zero.
    assert_eq!(
        again["head.weight"].abs()?.sum_all()?.to_scalar::<f32>()?,
        0.
    );
    Ok(())
}

#[test]
fn weights_that_do_not_fit_are_refused() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    trained(folder.path())?;
    let error = error_of(folder.path(), &[13, 8]);
    assert!(
        error.contains("expected shape [13], that of the network, found [12]; change"),
        "{error}"
    );
    // What is truncated was not edited on purpose.
    let model = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let cut = folder.path().join("cut.safetensors");
    std::fs::write(&cut, &model[..model.len() - 40]).unwrap();
    let error = error_of(&cut, &[12, 8]);
    let paths = error.matches("cut.safetensors").count();
    assert!(paths == 1 && !error.contains("on purpose"), "{error}");
    let mut edited = model.clone();
    edited[model.len() - 2] ^= 1;
    std::fs::write(&cut, edited).unwrap();
    let error = error_of(&cut, &[12, 8]);
    assert!(error.contains("without metadata"), "{error}");
    let error = error_of(&folder.path().join("none"), &[12, 8]);
    assert!(error.contains("none"), "{error}");
    let file = folder.path().join("file");
    std::fs::write(&file, "weights").unwrap();
    let error = error_of(&file, &[12, 8]);
    assert!(error.contains("safetensors"), "{error}");
    let other = HashMap::from([("a", Tensor::new(&[1f32], &Device::Cpu)?)]);
    safetensors::save(&other, &file)?;
    let error = error_of(&file, &[12, 8]);
    assert!(error.contains("it has a, expected blocks"), "{error}");
    let nan = HashMap::from([("head.weight", Tensor::new(&[f32::NAN], &Device::Cpu)?)]);
    safetensors::save(&nan, &file)?;
    let error = error_of(&file, &[12, 8]);
    assert!(error.contains("not finite"), "{error}");
    Ok(())
}

#[test]
fn a_run_that_goes_on_keeps_what_it_started_from() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    trained(&first)?;
    trained(&second)?;
    let resumed = Run::open(&second)?.set("init", first.to_str().unwrap());
    let error = resumed.set("epochs", 3).resume().err();
    let error = error.expect("the weights are those of before").to_string();
    assert!(
        error.contains("`init`") && error.contains("not set"),
        "{error}"
    );
    Ok(())
}
