//! A probe: a head that learns after the levels. What these make of an example that stays
//! as it is, is computed once.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use onward::candle_core::Tensor;
use onward::plugin;
use onward::settings::Pick;
use onward::{BuildContext, Input, Lesson, LocalLayer, Optimiser, Result, Run, RunBuilder, Step};

/// The examples that the layer `counted` has seen in training steps.
static SEEN: AtomicUsize = AtomicUsize::new(0);

onward::settings! {
    /// A dense layer that counts the examples of the passes of a training in evaluation
    /// mode.
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
}

onward::register! {
    dyn LocalLayer, "counted", "a dense layer that counts what it sees (for these tests, 2026)",
    |_settings: Counted, context| Ok(Box::new(Layer::new(context)?))
}

/// Two epochs of the levels, then five of the probe.
fn builder() -> RunBuilder {
    Run::builder("progressive")
        .data("digits")
        .set("data.size", 308)
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
    for (settings, times) in [
        (&[][..], 1),
        // What is moved or dropped is not the same in every epoch.
        (&[("shift", 1.)][..], 5),
        (&[("dropout", 0.1)][..], 5),
    ] {
        let mut run = builder().set("layer", "counted");
        for (key, value) in settings {
            run = match *key {
                "shift" => run.set(key, *value as i64),
                _ => run.set(key, *value),
            };
        }
        let mut run = run.build()?;
        let count = run.data().train.len();
        SEEN.store(0, Ordering::Relaxed);
        run.train_until(7, &mut ())?;
        assert_eq!(
            SEEN.load(Ordering::Relaxed),
            2 * times * count,
            "{settings:?}"
        );
    }
    Ok(())
}

#[test]
fn what_is_kept_changes_no_bit() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let images = r#"{ name = "conv", norm = "batch" }"#;
    for (index, layer) in [r#""dense""#, images].into_iter().enumerate() {
        let builder = || -> Result<RunBuilder> {
            let table = format!("layer = {layer}").parse::<onward::export::Table>();
            Ok(builder().set("layer", table.expect("TOML")["layer"].clone()))
        };
        let [whole, parts] =
            ["whole", "parts"].map(|name| folder.path().join(format!("{name}{index}")));
        builder()?.out(&whole).build()?.train_until(7, &mut ())?;
        // Whoever opens a run knows nothing of its epochs before.
        for epochs in 1..=7 {
            let mut run = match epochs {
                1 => builder()?.out(&parts).build()?,
                _ => Run::open(&parts)?.resume()?,
            };
            run.train_until(epochs, &mut ())?;
        }
        let bytes = |folder: &Path| std::fs::read(folder.join("state.safetensors")).unwrap();
        assert!(bytes(&whole) == bytes(&parts), "{layer}");
    }
    Ok(())
}
