//! Runs from the bytes of a model, without a folder.

use std::path::Path;

use onward::data::Split;
use onward::image::{DynamicImage, GrayImage, ImageFormat, Luma};
use onward::run::generate::{Generator, Sampling};
use onward::{Result, Run};

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap()
}

fn refused(model: &[u8], tokenizer: Option<&[u8]>) -> String {
    let run = Run::from_bytes(model, tokenizer);
    run.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_classifier_is_its_model_alone() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::builder("progressive")
        .data("digits")
        .set("data.size", 500)
        .set("hidden", vec![60])
        .set("standardise", true)
        .set("epochs", 3)
        .build()?;
    run.fit(&mut ())?;
    run.save(folder.path())?;
    let model = bytes(folder.path(), "model.safetensors");
    let embedded = Run::from_bytes(&model, None)?;
    assert_eq!(embedded.preferred_readout(), run.preferred_readout());
    assert_eq!(embedded.data().spec, run.data().spec);
    let batch = run.data().split(Split::Test).batch(&[0, 3, 4], None)?;
    let scores = |run: &Run| -> Result<Vec<Vec<f32>>> {
        Ok(run.scores(batch.examples().clone(), "search")?.to_vec2()?)
    };
    assert_eq!(scores(&embedded)?, scores(&run)?);
    // A picture may be decoded or not.
    let stroke = |x: u32, y: u32| {
        Luma([if x == 14 && (4..24).contains(&y) {
            255
        } else {
            0
        }])
    };
    let picture = DynamicImage::ImageLuma8(GrayImage::from_fn(28, 28, stroke));
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).unwrap();
    let answers = embedded.predict_images(&[picture], None)?;
    assert_eq!(answers, run.predict_bytes(&[png.into_inner()], None)?);
    assert!(answers[0].class.is_some());
    Ok(())
}

#[test]
fn a_language_model_is_its_model_and_its_tokenizer() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::builder("nlp").set("hidden", vec![8]).build()?;
    run.save(folder.path())?;
    let [model, tokenizer] =
        ["model.safetensors", "tokenizer.json"].map(|file| bytes(folder.path(), file));
    let embedded = Run::from_bytes(&model, Some(&tokenizer))?;
    let text = |run: &Run| -> Result<String> {
        let mut generator = Generator::new(run, "The fox ", None, Sampling::default())?;
        (0..20).map(|_| generator.step()).collect()
    };
    assert_eq!(text(&embedded)?, text(&run)?);
    let error = refused(&model, None);
    assert!(error.contains("tokenizer.json: is missing"), "{error}");
    let other = onward::Tokenizer::characters("abc ")?;
    let error = refused(&model, Some(other.to_json().as_bytes()));
    assert!(error.contains("is not the tokenizer"), "{error}");
    Ok(())
}

#[test]
fn other_bytes_are_refused() {
    let error = refused(b"no model", None);
    assert!(error.contains("not a safetensors file"), "{error}");
    assert!(!refused(&[], None).is_empty());
}
