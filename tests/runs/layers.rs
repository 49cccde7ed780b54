//! Activities of layers, and probes on them.

use onward::candle_core::{DType, Device, Tensor};
use onward::data::Split;
use onward::export::Table;
use onward::{conformance, Result, Run, RunBuilder};

fn builder(architecture: &str) -> RunBuilder {
    Run::builder(architecture)
        .data_set(onward::conformance::images().unwrap())
        .set("sampler", "label_overlay")
        .set("hidden", vec![30, 20])
        .set("batch", 20)
        .set("epochs", 5)
}

/// Three pictures, of another look each.
fn examples() -> Result<Tensor> {
    let pixels = (0..48).map(|at| (at as f32).sin().abs());
    Ok(Tensor::from_iter(pixels, &Device::Cpu)?.reshape((3, 1, 4, 4))?)
}

#[test]
fn every_layer_has_an_activity_and_a_probe() -> Result<()> {
    for architecture in ["progressive", "recurrent", "layer_collaboration"] {
        let mut run = builder(architecture).build()?;
        run.fit(&mut ())?;
        let examples = examples()?;
        let activities = run.activities(examples)?;
        let shapes: Vec<_> = activities
            .iter()
            .map(|(_, activity)| activity.dims())
            .collect();
        assert_eq!(shapes, [[3, 30], [3, 20]], "{architecture}");
        let probes = run.probe_layers(Split::Test)?;
        let names: Vec<_> = probes.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["1", "2"], "{architecture}");
        // Four classes: without anything to see the error is about 0.75.
        assert!(
            probes[0].1.error < 0.4,
            "{architecture}: {}",
            probes[0].1.error
        );
    }
    Ok(())
}

#[test]
fn the_goodness_of_the_layers_under_each_label_is_what_the_search_sums() -> Result<()> {
    let mut run = builder("progressive").set("readout_from", 1).build()?;
    run.fit(&mut ())?;
    let examples = examples()?;
    let scores = run.scores(examples.clone(), "search")?.to_vec2::<f32>()?;
    for class in 0..4u32 {
        let layers = run.goodness(examples.clone(), Some(&[class; 3]))?;
        let names: Vec<_> = layers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["1", "2"]);
        let sum = (&layers[0].1 + &layers[1].1)?.to_vec1::<f32>()?;
        for (example, sum) in sum.into_iter().enumerate() {
            let score = scores[example][class as usize];
            assert!((sum - score).abs() < 1e-4 * score.abs(), "{sum} {score}");
        }
    }
    // More than are evaluated at once.
    let many = run.scores(Tensor::cat(&vec![&examples; 200], 0)?, "search")?;
    let many = many.to_vec2::<f32>()?;
    assert_eq!(many.len(), 600);
    for (found, expected) in many.iter().flatten().zip(scores.iter().cycle().flatten()) {
        assert!((found - expected).abs() < 1e-4 * expected.abs());
    }
    for wrong in [&[0u32, 1][..], &[0, 1, 4]] {
        let error = run.goodness(examples.clone(), Some(wrong)).unwrap_err();
        let expected = "expected 3 labels, one for each example, below 4";
        assert!(error.to_string().contains(expected), "{error}");
    }
    let plain = builder("progressive").set("sampler", "plain").build()?;
    assert!(plain.goodness(examples.clone(), None).is_ok());
    // A recurrent network shows the activities of its pass without a label.
    let recurrent = builder("recurrent")
        .set("sampler", "label_concat")
        .build()?;
    let error = recurrent
        .goodness(examples.clone(), Some(&[1; 3]))
        .unwrap_err();
    assert!(
        error.to_string().contains("do not depend on the label"),
        "{error}"
    );
    let error = plain.goodness(examples, Some(&[0; 3])).unwrap_err();
    assert!(
        error.to_string().contains("no label in the input"),
        "{error}"
    );
    Ok(())
}

#[test]
fn layers_of_a_text_are_probed_too() -> Result<()> {
    let text = Run::builder("nlp").data_set(onward::conformance::text()?);
    let run = text.set("hidden", vec![12, 8]).build()?;
    // Each letter determines the next one, which random layers pass on.
    let probes = run.probe_layers(Split::Test)?;
    assert_eq!(probes.len(), 2);
    assert!(probes[0].1.error < 0.1, "{}", probes[0].1.error);
    Ok(())
}

#[test]
fn examples_of_another_shape_are_refused_with_the_one_expected() -> Result<()> {
    let run = builder("progressive").build()?;
    for shape in [
        &[3, 4, 4][..],
        &[1, 4, 4],
        &[3, 1, 4, 5],
        &[4],
        &[0, 1, 4, 4],
    ] {
        let examples = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
        let errors = [
            run.scores(examples.clone(), "search").unwrap_err(),
            run.activities(examples.clone()).unwrap_err(),
            run.goodness(examples, None).unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            let expected = format!(
                "examples: expected (B, 1, 4, 4), with at least one example, found shape {shape:?}"
            );
            assert!(error.contains(&expected), "{error}");
        }
    }
    Ok(())
}

#[test]
fn a_network_that_does_not_show_its_layers_says_so() -> Result<()> {
    let run = builder("backprop").set("sampler", "plain").build()?;
    let examples = Tensor::zeros((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
    let error = run.activities(examples).unwrap_err();
    assert!(error.is_usage(), "{error}");
    assert!(error.to_string().contains("backprop"), "{error}");
    assert!(run.probe_layers(Split::Test).is_err());
    Ok(())
}

/// There may be as many hashed slots as tokens.
#[test]
fn other_inputs_of_a_context_are_no_tokens() -> Result<()> {
    let run = |inputs: &str| {
        let run = Run::builder("nlp").data_set(conformance::text().unwrap());
        let run = run
            .preset("none")
            .set("hidden", vec![6])
            .set("embedding", 3);
        let sampler = format!("name = \"plain\"\nbuckets = 5\n{inputs}");
        let sampler: Table = sampler.parse().expect("settings in TOML");
        run.set("sampler", sampler).build().map(|_| ())
    };
    for inputs in ["ngrams = 2", "words = 1", "recent = 0.5"] {
        let error = run(inputs).unwrap_err().to_string();
        assert!(error.contains("sampler.ngrams=0"), "{error}");
    }
    run("")
}
