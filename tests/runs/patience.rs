//! Early stopping by `patience`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use onward::run::observe::Event;
use onward::{Result, Run, RunBuilder};

/// A network that does not get better: its rates are too small to change anything.
fn builder() -> RunBuilder {
    Run::builder("progressive")
        .data("digits")
        .set("data.size", 200)
        .set("hidden", vec![12])
        .set("epochs", 30)
        .set("readout_from", 1)
        .set("lr", 1e-30)
        .set("head_lr", 1e-30)
        .set("patience", 3)
}

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap()
}

#[test]
fn a_run_ends_when_the_validation_part_gets_no_better() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut run = builder().out(folder.path().join("run")).build()?;
    let mut seen = Vec::new();
    let summary = run.fit(&mut |event: &Event<'_>| {
        if let Event::EndsEarly {
            epoch,
            epochs,
            best,
        } = event
        {
            seen.push((*epoch, *epochs, *best));
        }
    })?;
    // The first evaluation is the best one, and three more are no better.
    assert_eq!(seen, [(4, 30, 1)]);
    assert_eq!(summary.epochs, 4);
    assert!(run.is_finished());
    drop(run);
    let resumed = Run::open(folder.path().join("run"))?.resume()?;
    assert!(resumed.is_finished());
    drop(resumed);
    // More epochs alone would train nothing.
    for (key, value) in [("epochs", 40), ("head_lr", 1)] {
        let more = Run::open(folder.path().join("run"))?.set(key, value);
        let error = more.resume().err().expect("it has stalled").to_string();
        assert!(
            error.contains("`patience` = 3") && error.contains("a larger one"),
            "{error}"
        );
    }
    let other = Run::open(folder.path().join("run"))?.set("readout", "head");
    other.resume()?;
    // One that has not ended yet ends with less patience.
    let part = folder.path().join("part");
    let run = builder().set("patience", 20).out(&part);
    run.build()?.train_until(6, &mut ())?;
    let summary = Run::open(&part)?
        .set("patience", 3)
        .resume()?
        .fit(&mut ())?;
    assert_eq!(summary.epochs, 6);
    // With more patience the run continues.
    let more = Run::open(folder.path().join("run"))?.set("patience", 5);
    let mut run = more.resume()?;
    assert!(!run.is_finished());
    assert_eq!(run.fit(&mut ())?.epochs, 6);
    Ok(())
}

#[test]
fn a_run_that_was_stopped_ends_at_the_same_epoch_with_the_same_bytes() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    builder().out(&whole).build()?.fit(&mut ())?;
    for epochs in [1, 3, 4] {
        let mut run = match epochs {
            1 => builder().out(&parts).build()?,
            _ => Run::open(&parts)?.resume()?,
        };
        run.train_until(epochs, &mut ())?;
        run.save(&parts)?;
    }
    let mut run = Run::open(&parts)?.resume()?;
    assert_eq!(run.fit(&mut ())?.epochs, 4);
    for file in ["model.safetensors", "state.safetensors", "config.toml"] {
        assert!(bytes(&whole, file) == bytes(&parts, file), "{file} differs");
    }
    Ok(())
}

/// Between the checkpoint of an epoch and its evaluation, which is then repeated.
#[test]
fn a_run_that_was_stopped_before_its_last_evaluation_ends_with_the_same_bytes() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    builder().out(&whole).build()?.fit(&mut ())?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut run = builder().out(&parts).stop_when(stop.clone()).build()?;
    let stopped = run.fit(&mut |event: &Event<'_>| {
        let is_last = matches!(event, Event::EpochEnded { epoch: 4, .. });
        stop.fetch_or(is_last, Ordering::Relaxed);
    });
    assert!(stopped.unwrap_err().is_stopped());
    drop(run);
    let mut ends = Vec::new();
    let mut run = Run::open(&parts)?.resume()?;
    run.fit(&mut |event: &Event<'_>| {
        if let Event::EndsEarly { epoch, best, .. } = event {
            ends.push((*epoch, *best));
        }
    })?;
    assert_eq!(ends, [(4, 1)]);
    drop(run);
    for file in ["model.safetensors", "state.safetensors"] {
        assert!(bytes(&whole, file) == bytes(&parts, file), "{file} differs");
    }
    assert!(Run::open(&parts)?.resume()?.is_finished());
    // Neither the evaluation of the end nor that of the test part stands there twice.
    let lines = |folder: &Path| {
        let text = String::from_utf8(bytes(folder, "metrics.jsonl")).unwrap();
        text.matches("\"evaluation\"").count()
    };
    assert_eq!(lines(&parts), lines(&whole));
    Ok(())
}

/// A process may be killed after the evaluation of the test part.
#[test]
fn the_test_part_is_in_the_metrics_once() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    builder().out(&path).build()?.fit(&mut ())?;
    let lines = || {
        let text = String::from_utf8(bytes(&path, "metrics.jsonl")).unwrap();
        text.matches("\"split\":\"test\"").count()
    };
    assert_eq!(lines(), 1);
    std::fs::remove_file(path.join("summary.json")).unwrap();
    Run::open(&path)?.resume()?.fit(&mut ())?;
    assert_eq!(lines(), 1);
    Run::open(&path)?
        .set("patience", 5)
        .resume()?
        .fit(&mut ())?;
    assert_eq!(lines(), 1);
    Ok(())
}

#[test]
fn layers_that_learn_later_are_waited_for() -> Result<()> {
    let mut run = builder()
        .set("hidden", vec![12, 12])
        .set("order", "greedy")
        .set("epochs", 10)
        .build()?;
    assert_eq!(run.epochs(), 20);
    // The second layer begins after epoch 10, and the head learns beside it.
    let epochs = run.fit(&mut ())?.epochs;
    // The first evaluation after that is the best one, and three more are no better.
    assert_eq!(epochs, 14);
    Ok(())
}

#[test]
fn patience_needs_something_to_evaluate() -> Result<()> {
    let refused = |builder: RunBuilder| builder.build().map(|_| ()).unwrap_err().to_string();
    let error = refused(builder().set("validate", false));
    assert!(
        error.contains("`patience`") && error.contains("validate"),
        "{error}"
    );
    let error = refused(builder().set("head", false));
    assert!(
        error.contains("`patience`") && error.contains("head"),
        "{error}"
    );
    builder()
        .set("patience", 0)
        .set("validate", false)
        .build()?;
    Ok(())
}
