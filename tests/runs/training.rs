//! Complete runs through the library: training, saving, loading and resuming.

use std::sync::atomic::{AtomicUsize, Ordering};

use onward::candle_core::{DType, Tensor};
use onward::data::idx;
use onward::data::images::Images;
use onward::flow::examples::Split;
use onward::run::observe::Event;
use onward::{Result, Run, RunBuilder};

pub fn small() -> RunBuilder {
    let builder = Run::builder("progressive")
        .data("digits")
        .set("data.size", 1000);
    builder.set("hidden", vec![200, 200]).set("epochs", 12)
}

pub fn model(run: &Run) -> Vec<(String, Vec<u32>)> {
    let bits = |tensor: Tensor| {
        tensor
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
    };
    run.vars()
        .all()
        .into_iter()
        .map(|(name, var)| (name, bits(var.as_tensor().clone()).collect()))
        .collect()
}

#[test]
fn a_small_network_learns_digits_and_loads_from_its_folder() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut run = small().out(folder.path().join("run")).build()?;
    let epochs = AtomicUsize::new(0);
    let mut count = |event: &Event<'_>| {
        if let Event::EpochEnded { .. } = event {
            epochs.fetch_add(1, Ordering::Relaxed);
        }
    };
    let summary = run.fit(&mut count)?;
    assert_eq!(epochs.into_inner(), 12);
    assert!(summary.test.error < 0.25, "{:?}", summary.test);
    assert_eq!(summary.test.readouts.len(), 2);
    let loaded = Run::load(folder.path().join("run"))?;
    assert_eq!(model(&loaded), model(&run));
    assert_eq!(
        loaded.evaluate(Split::Test, Some(&summary.test.readout))?,
        summary.test
    );
    let unknown = loaded.evaluate(Split::Test, Some("serch")).unwrap_err();
    assert!(unknown.to_string().contains("serch"), "{unknown}");
    for file in [
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        "state.safetensors",
        "summary.json",
    ] {
        assert!(
            folder.path().join("run").join(file).is_file(),
            "{file} is missing"
        );
    }
    Ok(())
}

#[test]
fn an_unfinished_run_answers_by_what_was_evaluated() -> Result<()> {
    let mut run = small().build()?;
    run.train_until(1, &mut ())?;
    assert_eq!(run.preferred_readout(), "head");
    Ok(())
}

#[test]
fn frozen_layers_use_no_labels() -> Result<()> {
    for frozen in [true, false] {
        let run = Run::builder("nlp")
            .set("hidden", vec![8])
            .set("epochs", 1)
            .set("candidates", 2);
        let summary = run.set("frozen", frozen).build()?.fit(&mut ())?;
        assert_eq!(
            (summary.labels.blocks, summary.labels.heads),
            (!frozen, true)
        );
    }
    Ok(())
}

/// Compares the fast kernels (f32) with candle's operations (f64) after one epoch.
fn assert_fast_is_plain(what: &str, builder: &RunBuilder) -> Result<()> {
    let trained = |precision: &str| -> Result<Vec<(String, Tensor)>> {
        let mut run = builder
            .clone()
            .set("epochs", 1)
            .set("precision", precision)
            .build()?;
        run.train_until(1, &mut ())?;
        let tensors = run.vars().all().into_iter();
        tensors
            .map(|(name, var)| Ok((name, var.to_dtype(DType::F64)?)))
            .collect()
    };
    for ((name, fast), (_, plain)) in trained("f32")?.into_iter().zip(trained("f64")?) {
        let apart = (fast - plain)?
            .abs()?
            .flatten_all()?
            .max(0)?
            .to_scalar::<f64>()?;
        assert!(apart < 2e-4, "{what} {name}: {apart}");
    }
    Ok(())
}

#[test]
fn fast_and_plain_operations_agree_within_rounding() -> Result<()> {
    for sampler in ["label_overlay", "label_concat"] {
        for optimiser in ["sgd", "adam", "muon"] {
            let run = small()
                .set("batch", 250)
                .set("sampler", sampler)
                .set("optimiser", optimiser)
                .set("lr", 0.001);
            assert_fast_is_plain(&format!("{sampler} {optimiser}"), &run)?;
        }
    }
    Ok(())
}

#[test]
fn fast_and_plain_operations_agree_for_tokens() -> Result<()> {
    let of = |architecture: &str| {
        Run::builder(architecture)
            .data("fables")
            .set("hidden", vec![30, 20])
            .set("batch", 4000)
    };
    assert_fast_is_plain("backprop", &of("backprop"))?;
    for embedding in [0, 8] {
        let run = of("nlp")
            .set("embedding", embedding)
            .set("sampler.negatives", "uniform");
        assert_fast_is_plain(&format!("embedding {embedding}"), &run)?;
    }
    let some = of("nlp")
        .set("sampler", "plain")
        .set("goodness", "projection")
        .set("loss", "cross_entropy")
        .set("lr", 0.001)
        .set("samples", 10);
    assert_fast_is_plain("some tokens", &some)?;
    Ok(())
}

#[test]
fn layers_that_learn_one_after_the_other_wait_for_each_other() -> Result<()> {
    let mut run = small().set("epochs", 2).set("order", "greedy").build()?;
    assert_eq!(run.architecture().net().epochs(1), 4);
    let start = model(&run);
    run.train_until(2, &mut ())?;
    let middle = model(&run);
    run.train_until(4, &mut ())?;
    let end = model(&run);
    for ((before, middle), end) in start.iter().zip(&middle).zip(&end) {
        match before.0.split('.').nth(1) {
            Some("0") => assert!(before != middle && middle == end, "{}", before.0),
            Some("1") => assert!(before == middle && middle != end, "{}", before.0),
            _ => assert!(before != middle && middle != end, "{}", before.0),
        }
    }
    Ok(())
}

#[test]
fn each_layer_may_have_a_different_goodness() -> Result<()> {
    let goodness = |grid: i64| {
        let grid = onward::export::Value::Integer(grid);
        onward::export::Table::from_iter([
            ("name".to_string(), "projection".into()),
            ("grid".to_string(), grid),
        ])
    };
    let run = small()
        .set("hidden", vec![4, 4])
        .set("sampler", "plain")
        .set("loss", "cross_entropy")
        .set("head", false)
        .set("layer", "conv")
        .set("goodness", vec![goodness(7), goodness(1)])
        .build()?;
    let shapes = run
        .vars()
        .all()
        .into_iter()
        .filter(|(name, _)| name.contains("goodness"));
    let shapes: Vec<_> = shapes.map(|(_, var)| var.dims().to_vec()).collect();
    assert_eq!(shapes, [[4 * 7 * 7, 10], [4, 10]]);
    // The readouts depend on the goodness of the layers that they use, not of the last
    // layer.
    let goodness = ["sum_squares", "sum_squares", "projection"]
        .map(String::from)
        .to_vec();
    let run = small()
        .set("hidden", vec![9; 3])
        .set("goodness", goodness)
        .set("readout_to", 2)
        .build()?;
    let names: Vec<_> = run
        .architecture()
        .net()
        .readouts
        .iter()
        .map(|readout| readout.name)
        .collect();
    assert_eq!(names, ["search", "head"]);
    Ok(())
}

#[test]
fn the_preset_nebuly_trains_with_the_setting_names_of_nebuly() -> Result<()> {
    let builder = Run::builder("progressive").preset("nebuly").data("digits");
    let builder = builder
        .set("n_layers", 2)
        .set("hidden_size", 50)
        .set("theta", 2.)
        .set("batch_size", 2000);
    let mut run = builder.set("epochs", 3).set("lr", 0.01).build()?;
    assert_eq!(run.architecture().net().blocks.len(), 2);
    let summary = run.fit(&mut ())?;
    assert_eq!(
        (summary.epochs, summary.test.readout.as_str()),
        (6, "search")
    );
    Ok(())
}

#[test]
fn divergence_stops_the_run_and_keeps_the_last_valid_checkpoint() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = small()
        .set("epochs", 3)
        .set("layer.peer", 0.03)
        .out(&path)
        .build()?;
    run.train_until(1, &mut ())?;
    let good = model(&run);
    drop(run);
    let mut run = Run::open(&path)?.set("layer.peer", 1e300).resume()?;
    let error = run.fit(&mut ()).unwrap_err();
    assert!(matches!(error, onward::Error::Diverged { .. }), "{error}");
    drop(run);
    assert_eq!(model(&Run::load(&path)?), good);
    Ok(())
}

/// Checks `$ONWARD_DATA/mnist` and `$ONWARD_DATA/fashion-mnist` if they exist.
#[test]
fn the_real_data_match_known_statistics() -> Result<()> {
    let Some(folder) = std::env::var_os("ONWARD_DATA") else {
        eprintln!("skipped: $ONWARD_DATA is not set, so there are no real data to check");
        return Ok(());
    };
    let means = [
        (
            "mnist",
            0.1307,
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        ),
        ("fashion-mnist", 0.2860, [6000; 10]),
    ];
    for (name, mean, counts) in means {
        if !std::path::Path::new(&folder).join(name).is_dir() {
            eprintln!("skipped: no {name} in $ONWARD_DATA");
            continue;
        }
        let run = Run::builder("progressive")
            .data(name)
            .set("hidden", vec![10])
            .build()?;
        let data = run.data();
        assert_eq!(
            (data.train.len(), data.validation.len(), data.test.len()),
            (50_000, 10_000, 10_000)
        );
        let (mut sum, mut found) = (0., [0; 10]);
        for split in [Split::Train, Split::Validation] {
            let indices: Vec<usize> = (0..data.split(split).len()).collect();
            for indices in indices.chunks(5000) {
                let batch = data.split(split).batch(indices, None)?;
                sum += batch.rows().sum_all()?.to_scalar::<f32>()? as f64;
                batch
                    .labels()?
                    .iter()
                    .for_each(|&label| found[label as usize] += 1);
            }
        }
        assert_eq!(found, counts, "{name}");
        assert!((sum / (60_000. * 784.) - mean).abs() < 1e-4, "{name}");
    }
    Ok(())
}

#[test]
fn suggestions_of_data_override_the_default_preset_but_not_a_named_one() -> Result<()> {
    let run = || Run::builder("progressive").data("digits");
    assert_eq!(run().config()?.run.epochs, 12); // `digits` suggests it; the preset has 100
    assert_eq!(run().preset("hinton").config()?.run.epochs, 100);
    assert_eq!(
        run().preset("hinton").set("epochs", 3).config()?.run.epochs,
        3
    );
    let corpus = Run::builder("nlp")
        .preset("corpus")
        .data("fables")
        .config()?;
    assert_eq!(corpus.run.epochs, 2);
    Ok(())
}

/// Without standardisation the mean of white paper hides the ink, and the error is above
/// 70%.
#[test]
fn dark_digits_on_white_paper_are_learned_by_default() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let digits = small().build()?;
    let on_white = |split: Split| -> Result<Images> {
        let part = digits.data().split(split);
        let batch = part.batch(&(0..part.len()).collect::<Vec<_>>(), None)?;
        let pixels = batch.examples().flatten_all()?.to_vec1::<f32>()?;
        let pixels = pixels.iter().map(|ink| (255. * (1. - ink)) as u8);
        let labels = batch.labels()?.iter().map(|&label| label as u8).collect();
        Images::new(pixels.collect(), labels, [1, 28, 28])
    };
    idx::write(
        folder.path(),
        &on_white(Split::Train)?,
        &on_white(Split::Test)?,
    )?;
    let builder = Run::builder("progressive").data(&format!("idx:{}", folder.path().display()));
    let builder = builder.set("hidden", vec![200, 200]).set("epochs", 12);
    let summary = builder.build()?.fit(&mut ())?;
    assert!(summary.test.error < 0.3, "{}", summary.test.error);
    Ok(())
}
