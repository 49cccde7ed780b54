//! Complete runs through the library: training, saving, loading and resuming.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use onward::candle_core::{DType, Tensor};
use onward::data::idx;
use onward::data::images::Images;
use onward::flow::examples::Split;
use onward::run::observe::Event;
use onward::{Result, Run, RunBuilder};

fn small() -> RunBuilder {
    let builder = Run::builder("progressive")
        .data("digits")
        .set("data.size", 1000);
    builder.set("hidden", vec![200, 200]).set("epochs", 12)
}

fn model(run: &Run) -> Vec<(String, Vec<u32>)> {
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

/// A model is often copied with its configuration alone.
#[test]
fn a_model_names_the_readout_that_validation_chose() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    for (rate_of_the_other, chosen) in [("head_lr", "search"), ("lr", "head")] {
        let path = folder.path().join(chosen);
        let run = small().set(rate_of_the_other, 1e-30);
        let mut run = run.out(&path).build()?;
        assert_eq!(run.fit(&mut ())?.test.readout, chosen);
        for file in ["state.safetensors", "summary.json", "metrics.jsonl"] {
            std::fs::remove_file(path.join(file)).unwrap();
        }
        assert_eq!(Run::load(&path)?.preferred_readout(), chosen);
        // In a program, a run is often saved after `fit`.
        let saved = folder.path().join(format!("{chosen}-saved"));
        run.save(&saved)?;
        let opened = Run::open(&saved)?.without_data().build()?;
        assert_eq!(opened.preferred_readout(), chosen);
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
fn a_run_overwrites_itself_but_never_another_run() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = small().set("epochs", 2).build()?;
    run.save(&path)?;
    run.train_until(1, &mut ())?;
    run.save(&path)?;
    assert_eq!(Run::load(&path)?.epoch(), 1);
    let error = small()
        .set("layer.dropout", 0.1)
        .build()?
        .save(&path)
        .unwrap_err();
    assert!(
        matches!(error, onward::Error::Run { .. }) && error.to_string().contains("another run"),
        "{error}"
    );
    let error = small()
        .set("epochs", 2)
        .build()?
        .save(&path)
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds this run at a later time"), "{error}");
    // A comment in the configuration changes nothing. A run that was opened from this
    // folder may be saved to it, also with other settings.
    let config = path.join("config.toml");
    std::fs::write(
        &config,
        format!("# mine\n{}", std::fs::read_to_string(&config).unwrap()),
    )
    .unwrap();
    run.save(&path)?;
    Run::open(&path)?
        .set("evaluate_every", 2)
        .build()?
        .save(&path)?;
    assert_eq!(model(&Run::load(&path)?), model(&run));
    Ok(())
}

/// A process may be killed after it has written the state and before the model.
#[test]
fn a_model_older_than_the_state_is_not_used() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [path, old] = ["run", "old"].map(|name| folder.path().join(name));
    let mut run = small().set("epochs", 2).build()?;
    run.save(&old)?;
    run.train_until(1, &mut ())?;
    run.save(&path)?;
    assert_eq!(
        model(&Run::open(&path)?.without_data().build()?),
        model(&run)
    );
    let copy = |file: &str| std::fs::copy(old.join(file), path.join(file)).unwrap();
    copy("model.safetensors");
    assert_eq!(
        model(&Run::open(&path)?.without_data().build()?),
        model(&run)
    );
    // The model was written again. If both are of one moment, only the header of the
    // state is read.
    let read = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_ne!(read(&path), read(&old));
    copy("model.safetensors");
    copy("state.safetensors");
    let mut state = std::fs::read(path.join("state.safetensors")).unwrap();
    *state.last_mut().unwrap() ^= 1;
    std::fs::write(path.join("state.safetensors"), state).unwrap();
    let predicts = Run::open(&path)?.without_data().build()?;
    assert_eq!(model(&predicts), model(&Run::load(&old)?));
    assert_eq!(model(&Run::load(&path)?), model(&predicts));
    let error = Run::open(&path)?
        .resume()
        .err()
        .expect("a checksum mismatch")
        .to_string();
    assert!(error.contains("checksum"), "{error}");
    // A run without data has no optimisers to save.
    let error = predicts
        .save(folder.path().join("new"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("without its data"), "{error}");
    Ok(())
}

/// Its first steps saw other examples, even where an epoch has as many steps.
#[test]
fn the_batch_of_a_run_does_not_change_within_an_epoch() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let stop = Arc::new(AtomicBool::new(false));
    let run = small().set("epochs", 2).set("batch", 100);
    let mut run = run.out(&path).stop_when(stop.clone()).build()?;
    let stopped = run.fit(&mut |event: &Event<'_>| {
        let is_third = matches!(event, Event::Stepped { step, .. } if step.index == 2);
        stop.fetch_or(is_third, Ordering::Relaxed);
    });
    assert!(stopped.unwrap_err().is_stopped());
    let steps = run.steps_per_epoch();
    drop(run);
    // One more example in a batch, and as many batches.
    let error = Run::open(&path)?.set("batch", 101).resume();
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.contains("`batch` = 101"), "{error}");
    assert!(error.contains("stopped within epoch 1"), "{error}");
    let mut run = Run::open(&path)?.resume()?;
    run.train_until(1, &mut ())?;
    drop(run);
    let run = Run::open(&path)?.set("batch", 101).resume()?;
    assert_eq!(run.steps_per_epoch(), steps);
    Ok(())
}

/// A summary that another number of epochs ended with.
#[test]
fn a_mended_model_has_no_readout_of_an_earlier_end() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let is_chosen = || {
        let model = std::fs::read(path.join("model.safetensors")).unwrap();
        let header = String::from_utf8_lossy(&model[..model.len().min(5000)]).into_owned();
        header.contains(r#"\"readout\":\""#)
    };
    let mut run = small().set("epochs", 1).out(&path).build()?;
    run.fit(&mut ())?;
    drop(run);
    assert!(is_chosen());
    let mut run = Run::open(&path)?.set("epochs", 3).resume()?;
    run.train_until(2, &mut ())?;
    drop(run);
    assert!(path.join("summary.json").is_file() && !is_chosen());
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    drop(Run::load(&path)?); // which writes the model again
    assert!(!is_chosen());
    Ok(())
}

#[test]
fn a_run_does_not_resume_with_more_or_fewer_examples() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    small()
        .set("epochs", 2)
        .out(&path)
        .build()?
        .train_until(1, &mut ())?;
    for size in [990, 1010] {
        let error = Run::open(&path)?
            .set("data.size", size)
            .resume()
            .err()
            .expect("other data")
            .to_string();
        assert!(error.contains("examples when the run began"), "{error}");
    }
    Run::open(&path)?.resume()?.fit(&mut ())?;
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
