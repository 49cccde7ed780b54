//! What is in the folder of a run: saved, mended, resumed, never overwritten.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use onward::run::observe::Event;
use onward::{Result, Run};

use super::training::{model, small};

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

/// Layers that learn one after the other, or before a probe, have had their epochs.
#[test]
fn epochs_do_not_change_once_a_phase_has_ended() -> Result<()> {
    let base = tempfile::tempdir().unwrap();
    let greedy = small().set("hidden", vec![20, 20]).set("order", "greedy");
    let probe = small().set("hidden", vec![20]).set("probe_epochs", 2);
    let probe = probe.set("sampler.negatives", "uniform");
    for (name, run) in [("greedy", greedy), ("probe", probe)] {
        let path = base.path().join(name);
        let mut run = run.set("epochs", 2).out(&path).build()?;
        run.train_until(1, &mut ())?;
        drop(run);
        let resumed = |epochs: i64| Run::open(&path)?.set("epochs", epochs).resume();
        // Within the first phase there may be more.
        drop(resumed(3)?);
        Run::open(&path)?.resume()?.train_until(3, &mut ())?;
        let error = resumed(4).map(drop).unwrap_err().to_string();
        let expected = "expected 2: layer 1 has learned for 2 epochs";
        assert!(error.contains(expected), "{name}: {error}");
        // What is still to come may become longer.
        if name == "probe" {
            drop(Run::open(&path)?.set("probe_epochs", 5).resume()?);
        }
    }
    // Layers that all learn in every epoch.
    let path = base.path().join("plain");
    small().set("epochs", 1).out(&path).build()?.fit(&mut ())?;
    assert_eq!(Run::open(&path)?.set("epochs", 3).resume()?.epochs(), 3);
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
fn an_evaluation_that_was_cut_off_is_in_the_metrics_once() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole", "part"].map(|name| folder.path().join(name));
    let run = || small().set("epochs", 3).set("evaluate_training", 20);
    run().out(&whole).build()?.fit(&mut ())?;
    run().out(&part).build()?.train_until(1, &mut ())?;
    let lines = |path: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
        text.lines().map(String::from).collect()
    };
    let mut cut = lines(&part);
    let last = cut.pop().expect("the validation part");
    assert!(last.contains("validation") && cut[cut.len() - 1].contains("\"train\""));
    std::fs::write(part.join("metrics.jsonl"), cut.join("\n") + "\n").unwrap();
    Run::open(&part)?.resume()?.fit(&mut ())?;
    let evaluations = |path: &Path| -> Vec<String> {
        let of_evaluation = |line: &String| line.contains("evaluation");
        lines(path).into_iter().filter(of_evaluation).collect()
    };
    assert_eq!(evaluations(&part), evaluations(&whole));
    // Without a validation part, that of a run that ended is kept too.
    let alone = folder.path().join("alone");
    let run = run().set("validate", false).set("epochs", 1).out(&alone);
    run.build()?.fit(&mut ())?;
    Run::open(&alone)?.set("epochs", 2).resume()?.fit(&mut ())?;
    let of_training = |line: &&String| line.contains("\"train\"");
    assert_eq!(evaluations(&alone).iter().filter(of_training).count(), 2);
    Ok(())
}
