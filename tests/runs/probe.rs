//! What learns from levels that have stopped: a probe, and a level after the others. What
//! comes up from those below is computed once for an example that stays as it is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use onward::candle_core::Tensor;
use onward::data::Split;
use onward::plugin;
use onward::settings::Pick;
use onward::{
    conformance, BuildContext, Input, Lesson, LocalLayer, Optimiser, Result, Run, RunBuilder, Step,
};

/// The examples that the layer `counted` has seen in training steps.
static SEEN: AtomicUsize = AtomicUsize::new(0);

onward::settings! {
    /// A dense layer that counts the examples of a training's passes after epoch 2.
    struct Counted {}
}

struct Layer(Box<dyn LocalLayer>);

impl Layer {
    fn new(context: &BuildContext) -> Result<Self> {
        Ok(Self(plugin::build(&Pick::new("dense"), context)?))
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        // An evaluation is no step of an epoch.
        if step.epochs > 0 && step.epoch >= 2 {
            SEEN.fetch_add(input.rows(), Ordering::Relaxed);
        }
        self.0.forward(input, step)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        self.0.learn(lesson, optimiser, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        self.0.input_gradient(lesson, step)
    }
}

onward::register! {
    dyn LocalLayer, "counted", "a dense layer that counts what it sees (for these tests, 2026)",
    |_settings: Counted, context| Ok(Box::new(Layer::new(context)?))
}

/// The number of examples that the layers `counted` see in a training.
fn seen(mut run: Run, epochs: usize) -> Result<usize> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    SEEN.store(0, Ordering::Relaxed);
    run.train_until(epochs, &mut ())?;
    Ok(SEEN.load(Ordering::Relaxed))
}

/// Two epochs of the levels, then five of the probe.
fn builder() -> RunBuilder {
    Run::builder("progressive")
        .data("digits")
        .set("data.size", 320)
        .set("sampler", "hybrid_images")
        .set("hidden", vec![24, 12])
        .set("batch", 32)
        .set("epochs", 2)
        .set("probe_epochs", 5)
        .set("readout_from", 1)
        .set("evaluate_every", 100)
}

#[test]
fn the_levels_see_each_example_once() -> Result<()> {
    let run = || builder().set("layer", "counted");
    for (run, times) in [
        (run(), 1),
        // What is moved or dropped is not the same in every epoch.
        (run().set("shift", 1), 5),
        (run().set("dropout", 0.1), 5),
    ] {
        let run = run.build()?;
        let count = run.data().train.len();
        assert_eq!(seen(run, 7)?, 2 * times * count);
    }
    Ok(())
}

#[test]
fn a_probe_is_evaluated_once_it_has_begun_to_learn() -> Result<()> {
    let builder = builder().set("sampler", "label_overlay");
    let builder = builder.set("sampler.negatives", "uniform");
    let mut run = builder.clone().build()?;
    run.train_until(1, &mut ())?;
    let evaluation = run.evaluate(Split::Test, None)?;
    assert!(!evaluation.readouts.contains_key("head"), "{evaluation:?}");
    let error = run
        .evaluate(Split::Test, Some("head"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("learns from epoch 3 on, and 1 are trained"),
        "{error}"
    );
    // The one that is set is used once it has begun.
    let mut set = builder.set("readout", "head").build()?;
    set.train_until(1, &mut ())?;
    assert_eq!(set.evaluate(Split::Test, None)?.readout, "search");
    run.train_until(3, &mut ())?;
    assert!(run
        .evaluate(Split::Test, None)?
        .readouts
        .contains_key("head"));
    Ok(())
}

/// Three layers, one after the other, five epochs each.
fn greedy() -> RunBuilder {
    builder()
        .preset("mono_forward")
        .set("order", "greedy")
        .set("hidden", vec![24, 18, 12])
        .set("epochs", 5)
        .set("probe_epochs", 0)
        .set("sampler", "plain")
}

#[test]
fn lower_layers_see_each_example_once_for_each_layer_above() -> Result<()> {
    for (shift, times) in [(0, 1), (1, 5)] {
        let run = greedy()
            .set("layer", "counted")
            .set("shift", shift)
            .build()?;
        let count = run.data().train.len();
        // The first layer learns in three epochs that count, the others in five. Below
        // the second is one layer, below the third there are two.
        let passes = 3 + (times + 5) + (2 * times + 5);
        assert_eq!(seen(run, 15)?, passes * count, "{shift}");
    }
    Ok(())
}

#[test]
fn what_is_kept_changes_no_bit() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let images = r#"{ name = "conv", norm = "batch" }"#;
    let [probe, one_by_one]: [fn() -> RunBuilder; 2] = [builder, greedy];
    // Products with 64 units and batches of 100 are divided into panels. A batch of 57
    // would have a panel of one row, which is a product of another kind.
    for (index, (layer, builder, epochs, units, batch)) in [
        (r#""dense""#, probe, 7, 24, 32),
        (images, probe, 7, 24, 32),
        (r#""dense""#, one_by_one, 15, 24, 32),
        (images, one_by_one, 15, 24, 32),
        (r#""dense""#, probe, 7, 64, 100),
        (r#""dense""#, one_by_one, 15, 64, 100),
        (r#""dense""#, probe, 7, 64, 57),
    ]
    .into_iter()
    .enumerate()
    {
        let builder = || -> Result<RunBuilder> {
            let table = format!("layer = {layer}").parse::<onward::export::Table>();
            let layer = table.expect("TOML")["layer"].clone();
            // The last batch of an epoch is smaller.
            let builder = builder().set("layer", layer).set("data.size", 308);
            let hidden = builder.config()?.settings["hidden"].clone();
            let mut hidden = hidden.as_array().expect("a list").clone();
            hidden[0] = units.into();
            Ok(builder.set("hidden", hidden).set("batch", batch))
        };
        let [whole, parts] =
            ["whole", "parts"].map(|name| folder.path().join(format!("{name}{index}")));
        builder()?
            .out(&whole)
            .build()?
            .train_until(epochs, &mut ())?;
        // A run that is opened again has kept nothing.
        for epochs in 1..=epochs {
            let mut run = match epochs {
                1 => builder()?.out(&parts).build()?,
                _ => Run::open(&parts)?.resume()?,
            };
            run.train_until(epochs, &mut ())?;
        }
        let bytes = |folder: &Path| std::fs::read(folder.join("state.safetensors")).unwrap();
        assert!(bytes(&whole) == bytes(&parts), "{index}: {layer}");
    }
    Ok(())
}

/// The forward passes of the layers `marked` in training, for a head and for themselves.
static PASSES: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

onward::settings! {
    /// A dense layer that counts the passes of a training.
    struct Marked {}
}

struct MarkedLayer(Box<dyn LocalLayer>);

impl LocalLayer for MarkedLayer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        if step.train {
            PASSES[usize::from(step.has_lesson())].fetch_add(1, Ordering::Relaxed);
        }
        self.0.forward(input, step)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        self.0.learn(lesson, optimiser, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        self.0.input_gradient(lesson, step)
    }
}

onward::register! {
    dyn LocalLayer, "marked", "a dense layer that counts its passes (for these tests, 2026)",
    |_settings: Marked, context| {
        Ok(Box::new(MarkedLayer(plugin::build(&Pick::new("dense"), context)?)))
    }
}

#[test]
fn no_layer_learns_from_the_pass_for_the_head() -> Result<()> {
    for (architecture, of_lessons) in [
        ("progressive", 2),
        ("layer_collaboration", 2),
        ("trifecta", 2),
        // Eight time steps.
        ("recurrent", 16),
    ] {
        let run = Run::builder(architecture).data_set(conformance::images()?);
        let run = run.set("layer", "marked").set("hidden", vec![12, 8]);
        let mut run = run.set("batch", 60).set("epochs", 1).build()?;
        for count in &PASSES {
            count.store(0, Ordering::Relaxed);
        }
        // A step.
        run.train_until(1, &mut ())?;
        let counts = [0, 1].map(|index: usize| PASSES[index].load(Ordering::Relaxed));
        assert_eq!(counts, [2, of_lessons], "{architecture}");
    }
    Ok(())
}

/// The goodness of random layers means nothing.
#[test]
fn frozen_layers_are_read_out_by_a_head_alone() -> Result<()> {
    let frozen = |goodness: &str, head: bool| {
        let run = Run::builder("progressive").data_set(conformance::images().unwrap());
        let run = run
            .preset("none")
            .set("hidden", vec![6, 6])
            .set("frozen", true);
        run.set("goodness", goodness)
            .set("sampler", "label_overlay")
            .set("head", head)
            .build()
    };
    for goodness in ["sum_squares", "projection"] {
        let run = frozen(goodness, true)?;
        let names: Vec<_> = run
            .architecture()
            .net()
            .readouts
            .iter()
            .map(|of| of.name)
            .collect();
        assert_eq!(names, ["head"], "{goodness}");
        let error = frozen(goodness, false)
            .err()
            .expect("nothing learns")
            .to_string();
        assert!(error.contains("nothing learns"), "{error}");
    }
    // Without a loss the layers learn, but not the map to the classes.
    let run = Run::builder("progressive").data_set(conformance::images()?);
    let run = run
        .preset("none")
        .set("hidden", vec![6])
        .set("loss", "none");
    let run = run.set("layer", "softhebb").set("goodness", "projection");
    let run = run.set("sampler", "plain").set("head", true).build()?;
    assert_eq!(run.architecture().net().readouts[0].name, "head");
    Ok(())
}

/// Without a partner the last layer of `trifecta` does not learn in every second step.
#[test]
fn views_do_not_reach_a_layer_without_a_partner() -> Result<()> {
    let run = Run::builder("trifecta")
        .preset("none")
        .data_set(conformance::images()?)
        .set("sampler", "label_overlay")
        .set("hidden", vec![24, 12])
        .set("batch", 20)
        .set("epochs", 4)
        .set("evaluate_every", 100)
        .set("layer", vec!["dense", "counted"]);
    // In two epochs of three steps: 120 neutral views, and both views in every second
    // step.
    assert_eq!(seen(run.build()?, 4)?, 120 + 120);
    Ok(())
}
