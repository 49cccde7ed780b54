//! What is asked of everything that is registered: `onward::conformance`, and what holds of this project's own plugins
//! together.
//!
//! Nobody adds a plugin to a list here: what is linked is tried.

use std::collections::BTreeSet;

use onward::candle_core::{DType, Device, Tensor};
use onward::conformance::{self, Outcome};
use onward::data::Content;
use onward::plugin::registry::{self, KINDS};
use onward::{
    Architecture, GoodnessFn, LocalLayer, NegativeSampler, Result, Run, RunBuilder, Summary,
};

fn names<T: registry::Registered + ?Sized>() -> Vec<&'static str> {
    registry::all::<T>()
        .unwrap()
        .iter()
        .map(|plugin| plugin.info.name)
        .collect()
}

fn conforms(kind: &str) {
    let verdict = conformance::of(|of_kind, _| of_kind == kind);
    verdict.assert_passed();
    let idle = verdict
        .trials
        .iter()
        .find(|trial| trial.trial == "trains" && trial.outcome != Outcome::Passed);
    assert!(idle.is_none(), "works nowhere: {}", idle.unwrap());
}

#[test]
fn every_goodness_conforms() {
    conforms("goodness");
}

#[test]
fn every_layer_conforms() {
    conforms("layer");
}

#[test]
fn every_sampler_conforms() {
    conforms("sampler");
}

#[test]
fn every_architecture_conforms() {
    conforms("architecture");
}

#[test]
fn every_data_set_conforms() {
    conforms("data");
}

#[test]
fn every_plugin_says_where_it_was_published() {
    let mut seen = 0;
    for kind in KINDS {
        for info in registry::infos(kind).unwrap() {
            let digits = info.about.chars().filter(char::is_ascii_digit).count();
            let cites =
                digits >= 4 || info.about.contains("made for") || info.about.contains("exdb");
            assert!(cites, "{kind} {}: {}", info.name, info.about);
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} plugins are linked");
}

/// All that is registered fits together, or is refused as a wrong use.
#[test]
fn every_layer_goodness_and_sampler_works_in_every_architecture() -> Result<()> {
    let mut worked = BTreeSet::new();
    for architecture in names::<dyn Architecture>() {
        let info = registry::info("architecture", architecture)?;
        let has = |key: &str| (info.settings)().iter().any(|setting| setting.key == key);
        for layer in names::<dyn LocalLayer>() {
            for goodness in names::<dyn GoodnessFn>() {
                for sampler in names::<dyn NegativeSampler>() {
                    let place = format!("{architecture} {layer} {goodness} {sampler}");
                    let builder = |loss: Option<&str>| -> RunBuilder {
                        let mut builder =
                            Run::builder(architecture).set("epochs", 1).set("batch", 20);
                        builder = builder.set("sampler", sampler);
                        for (key, value) in [
                            ("layer", Some(layer)),
                            ("goodness", Some(goodness)),
                            ("loss", loss),
                        ] {
                            if let Some(value) = value.filter(|_| has(key)) {
                                builder = builder.set(key, value);
                            }
                        }
                        if has("hidden") {
                            builder = builder.set("hidden", vec![12, 12]);
                        }
                        builder
                    };
                    let train = |builder: RunBuilder| -> Result<(Run, Summary)> {
                        let mut run = builder.build()?;
                        let summary = run.fit(&mut ())?;
                        Ok((run, summary))
                    };
                    let trained = [None, Some("cross_entropy")].into_iter().find_map(|loss| {
                        let on = [conformance::images().unwrap(), conformance::text().unwrap()];
                        on.into_iter()
                            .find_map(|data| match train(builder(loss).data_set(data)) {
                                Ok(trained) => Some(trained),
                                Err(error) if error.is_usage() => None,
                                Err(error) => panic!("{place}: {error}"),
                            })
                    });
                    let Some((run, summary)) = trained else {
                        continue;
                    };
                    assert!(summary.test.error.is_finite(), "{place}");
                    let kind = &run.data().spec;
                    let shape = [&[3], &kind.shape[..]].concat();
                    let examples = match kind.content {
                        Content::Text => Tensor::ones(shape, DType::U32, &Device::Cpu)?,
                        _ => Tensor::rand(0f32, 1., shape, &Device::Cpu)?,
                    };
                    for readout in &run.architecture().net().readouts {
                        let scores = run.scores(examples.clone(), readout.name)?;
                        assert_eq!(scores.dims(), [3, 4], "{place}");
                        let scores = scores.flatten_all()?.to_vec1::<f32>()?;
                        assert!(scores.iter().all(|score| score.is_finite()), "{place}");
                    }
                    worked.extend([architecture, sampler]);
                    worked.extend(
                        [("layer", layer), ("goodness", goodness)]
                            .iter()
                            .filter(|(key, _)| has(key))
                            .map(|kv| kv.1),
                    );
                }
            }
        }
    }
    assert!(worked.len() >= 12, "only these fit together: {worked:?}");
    Ok(())
}
