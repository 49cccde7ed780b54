//! Roll-outs of `next_token` are generated for the epochs in which layers learn from them.

use onward::{conformance, Result, Run};

/// The roll-outs at the end of a run, and whether there are any.
fn pool(architecture: &str, settings: &[(&str, i64)], frozen: bool) -> Result<(Vec<u32>, u32)> {
    let mut run = Run::builder(architecture).preset("none");
    run = run.data_set(conformance::text()?);
    run = run.set("sampler", "next_token").set("hidden", vec![8]);
    run = run.set("sampler.negatives", "roll_outs");
    run = run.set("sampler.pool", 4).set("sampler.length", 3);
    if frozen {
        run = run.set("frozen", true);
    }
    for (key, value) in settings {
        run = run.set(key, *value);
    }
    let mut run = run.build()?;
    run.fit(&mut ())?;
    let state = |name: &str| -> Result<Vec<u32>> {
        let state = run.vars().training_state().into_iter();
        let mut state = state.filter(|(path, _)| path.ends_with(name));
        let (_, var) = state.next().expect("a state of the sampler");
        Ok(var.flatten_all()?.to_vec1()?)
    };
    Ok((state("pool")?, state("pool_made")?[0]))
}

#[test]
fn epochs_without_layers_that_learn_need_no_roll_outs() -> Result<()> {
    for (architecture, frozen, expected) in [
        ("nlp", false, 1),
        ("nlp", true, 0),
        ("progressive", true, 0),
        ("backprop", false, 0),
    ] {
        let (_, made) = pool(architecture, &[("epochs", 2)], frozen)?;
        assert_eq!(made, expected, "{architecture} frozen {frozen}");
    }
    Ok(())
}

#[test]
fn a_probe_keeps_the_roll_outs_of_the_last_epoch_of_the_layers() -> Result<()> {
    let of = |epochs, probe| {
        pool(
            "progressive",
            &[("epochs", epochs), ("probe_epochs", probe)],
            false,
        )
    };
    // The head predicts nothing before the first epoch and the probe.
    assert_eq!(of(1, 0)?, of(1, 2)?);
    assert_ne!(of(2, 0)?, of(1, 2)?);
    Ok(())
}
