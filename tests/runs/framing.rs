//! Pictures that are classified are framed as the training images are.

use std::path::Path;

use onward::data::images::Images;
use onward::data::pictures::{example, framing_of, Seen};
use onward::data::{idx, Content, Framing, Split};
use onward::image::{DynamicImage, GrayImage};
use onward::{Result, Run};

/// The pixels of some digits, framed light on black as in MNIST, or dark on white.
fn digits(count: usize, is_dark: bool) -> Result<(Vec<u8>, Vec<u8>)> {
    let run = Run::builder("progressive")
        .data("digits")
        .set("data.size", 600);
    let run = run.set("hidden", vec![4]).build()?;
    let (spec, train) = (&run.data().spec, run.data().split(Split::Train));
    let batch = train.batch(&(0..count).collect::<Vec<_>>(), None)?;
    let mut pixels = Vec::new();
    for digit in batch.examples().flatten_from(1)?.to_vec2::<f32>()? {
        let bytes = digit
            .iter()
            .map(|value| (value * 255.).round() as u8)
            .collect();
        let image = DynamicImage::ImageLuma8(GrayImage::from_vec(28, 28, bytes).unwrap());
        let Seen::Example { bytes: framed, .. } = example(&image, spec)? else {
            panic!("it is a digit");
        };
        pixels.extend(
            framed
                .iter()
                .map(|byte| if is_dark { 255 - byte } else { *byte }),
        );
    }
    let labels = batch.labels()?.iter().map(|&label| label as u8).collect();
    Ok((pixels, labels))
}

fn write(folder: &Path, is_dark: bool) -> Result<()> {
    let (pixels, labels) = digits(360, is_dark)?;
    let images = |from: usize, to: usize| {
        let pixels = pixels[from * 784..to * 784].to_vec();
        Images::new(pixels, labels[from..to].to_vec(), [1, 28, 28])
    };
    idx::write(folder, &images(0, 300)?, &images(300, 360)?)
}

#[test]
fn a_picture_of_the_test_part_gets_the_scores_of_the_evaluation() -> Result<()> {
    for (is_dark, framing) in [(false, Framing::Object(4)), (true, Framing::Whole)] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), is_dark)?;
        let mut run = Run::builder("progressive")
            .data(&format!("idx:{}", folder.path().display()))
            .set("hidden", vec![30])
            .set("epochs", 3)
            .build()?;
        assert_eq!(run.data().spec.content, Content::Picture(framing));
        run.fit(&mut ())?;
        let (pixels, _) = digits(360, is_dark)?;
        let pictures = pixels[300 * 784..].chunks(784).map(|pixels| {
            let image = GrayImage::from_vec(28, 28, pixels.to_vec()).unwrap();
            DynamicImage::ImageLuma8(image)
        });
        let answers = run.predict_images(&pictures.collect::<Vec<_>>(), Some("head"))?;
        let test = run.data().split(Split::Test);
        let batch = test.batch(&(0..60).collect::<Vec<_>>(), None)?;
        let scores = run
            .scores(batch.examples().clone(), "head")?
            .to_vec2::<f32>()?;
        let same = answers.iter().zip(scores).filter(|(answer, scores)| {
            let found = answer.scores.iter().map(|score| *score as f32);
            found.collect::<Vec<f32>>() == **scores
        });
        // A few digits do not count as framed, and are framed once more.
        let same = same.count();
        assert!(
            same >= if is_dark { 60 } else { 50 },
            "{is_dark}: {same} of 60"
        );
    }
    Ok(())
}

#[test]
fn images_without_an_object_are_not_framed() -> Result<()> {
    let pixels = (0..40 * 784).map(|at| (at * 37 % 251) as u8).collect();
    let images = Images::new(pixels, vec![0; 40], [1, 28, 28])?;
    let spec = Run::builder("progressive")
        .data("digits")
        .set("hidden", vec![4]);
    let spec = spec.build()?.data().spec.clone();
    assert_eq!(framing_of(&images, &spec)?, Framing::Whole);
    Ok(())
}
