//! Trials of `onward::conformance` on all built-in plugins, alone and combined.
//!
//! The tests iterate over the registry. There is no list of plugins to maintain.

use std::collections::BTreeSet;

use onward::candle_core::{DType, Device, Tensor};
use onward::conformance::{self, Outcome};
use onward::data::Content;
use onward::export::{Table, Value};
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
    assert!(idle.is_none(), "trains in no run: {}", idle.unwrap());
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

/// Whether there is a year in parentheses, or the number of a preprint.
fn is_cited(about: &str) -> bool {
    let source = about.split_once('(').map_or("", |(_, source)| source);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let words: Vec<&str> = source.split(|c| !is_word(c)).collect();
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let has_year = words.iter().any(|word| {
        let century = word.starts_with("19") || word.starts_with("20");
        century && word.len() == 4 && is_number(word)
    });
    let of_preprint = |pair: &[&str]| pair[0] == "arXiv" && pair[1].len() == 10;
    has_year || words.windows(2).any(of_preprint)
}

#[test]
fn every_plugin_cites_a_publication() {
    let mut seen = 0;
    for kind in KINDS {
        for info in registry::infos(kind).unwrap() {
            assert!(is_cited(info.about), "{kind} {}: {}", info.name, info.about);
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} plugins are linked");
}

/// A head beside it would cost a forward pass more.
#[test]
fn a_goodness_for_each_class_brings_no_head() -> Result<()> {
    let mut seen = 0;
    for goodness in names::<dyn GoodnessFn>() {
        let run = Run::builder("progressive").data_set(conformance::images()?);
        let run = run.set("goodness", goodness).set("hidden", vec![12]);
        let run = run.build()?;
        let net = run.architecture().net();
        if net.blocks[0].classes().is_some() {
            assert!(net.heads.is_empty(), "{goodness}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
    Ok(())
}

/// A run with these plugins, in so many layers.
fn combined(
    architecture: &str,
    parts: [(&str, Option<Value>); 4],
    depth: Option<usize>,
) -> RunBuilder {
    // A layer that is solved for at the end of an epoch is learned from in the next one.
    let is_in_turn = parts
        .iter()
        .any(|(key, value)| *key == "order" && value.is_some());
    let epochs = if is_in_turn { 2 } else { 1 };
    let mut builder = Run::builder(architecture).set("epochs", epochs);
    builder = builder.set("batch", 20);
    for (key, value) in parts {
        if let Some(value) = value {
            builder = builder.set(key, value);
        }
    }
    if let Some(depth) = depth {
        builder = builder.set("hidden", vec![12; depth]);
    }
    builder
}

/// The place of a layer in a network.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    All,
    First,
    Alone,
}

impl Place {
    /// The setting `layer`.
    fn layer(self, name: &str) -> Value {
        match self {
            Self::First => vec![of_all_layers(name), "dense".into()].into(),
            Self::All | Self::Alone => of_all_layers(name),
        }
    }

    /// The number of layers.
    fn depth(self) -> usize {
        match self {
            Self::All | Self::First => 2,
            Self::Alone => 1,
        }
    }

    /// What is recorded after the way.
    fn word(self) -> &'static str {
        match self {
            Self::All => "",
            Self::First => " first",
            Self::Alone => " alone",
        }
    }
}

/// The setting `layer` for all layers: with a field that two of them on small images have
/// room for.
fn of_all_layers(name: &str) -> Value {
    match name {
        "local" => "name = \"local\"\nfield = 2"
            .parse::<Table>()
            .unwrap()
            .into(),
        _ => name.into(),
    }
}

/// Trains on small images or on text; `None` if both refuse these settings.
fn trained(place: &str, settings: &dyn Fn() -> RunBuilder) -> Result<Option<(Run, Summary)>> {
    for data in [conformance::images()?, conformance::text()?] {
        let fitted = settings().data_set(data).build().and_then(|mut run| {
            let summary = run.fit(&mut ())?;
            Ok((run, summary))
        });
        match fitted {
            Ok(trained) => return Ok(Some(trained)),
            Err(error) if error.is_usage() => {}
            Err(error) => panic!("{place}: {error}"),
        }
    }
    Ok(None)
}

fn assert_scores_are_finite(place: &str, run: &Run) -> Result<()> {
    let spec = &run.data().spec;
    let shape = [&[3], &spec.shape[..]].concat();
    let examples = match spec.content {
        Content::Text => Tensor::ones(shape, DType::U32, &Device::Cpu)?,
        _ => {
            let pixels = (0..shape.iter().product()).map(|at: usize| (at as f32).sin().abs());
            Tensor::from_iter(pixels, &Device::Cpu)?.reshape(shape)?
        }
    };
    for readout in &run.architecture().net().readouts {
        let scores = run.scores(examples.clone(), readout.name)?;
        assert_eq!(scores.dims(), [3, 4], "{place}");
        let scores = scores.flatten_all()?.to_vec1::<f32>()?;
        assert!(scores.iter().all(|score| score.is_finite()), "{place}");
    }
    Ok(())
}

/// The first way in which a combination trains: with the defaults, or with other settings
/// for what is refused with them.
fn way(
    architecture: &str,
    [layer, goodness]: [Option<Value>; 2],
    sampler: &str,
    depth: usize,
    has: &dyn Fn(&str) -> bool,
) -> Result<Option<&'static str>> {
    let place = format!("{architecture} {layer:?} {goodness:?} {sampler}");
    let ways = [
        ("loss", None),
        ("loss", Some("cross_entropy")),
        ("order", Some("greedy")),
    ];
    for (key, way) in ways {
        if way.is_some() && !has(key) {
            continue;
        }
        let settings = || {
            let parts = [
                ("layer", layer.clone()),
                ("goodness", goodness.clone()),
                ("sampler", Some(sampler.into())),
                (key, way.map(Value::from)),
            ];
            combined(architecture, parts, has("hidden").then_some(depth))
        };
        if let Some((run, summary)) = trained(&place, &settings)? {
            assert!(summary.test.error.is_finite(), "{place}");
            assert_scores_are_finite(&place, &run)?;
            return Ok(Some(way.unwrap_or("default")));
        }
    }
    Ok(None)
}

/// Tries every combination of plugins: it trains, or it is refused as a usage error.
///
/// `combinations.txt` lists the combinations that train, with `-` where an architecture
/// has no such setting. A layer that does not train as both layers is tried below a dense
/// one (`first`), and as the only one (`alone`). `RECORD=1 cargo test --test conformance`
/// writes this file.
#[test]
fn every_combination_trains_or_is_refused_as_recorded() -> Result<()> {
    let (layers, goodnesses) = (names::<dyn LocalLayer>(), names::<dyn GoodnessFn>());
    let mut worked = String::new();
    for architecture in names::<dyn Architecture>() {
        let info = registry::info("architecture", architecture)?;
        let has = |key: &str| (info.settings)().iter().any(|setting| setting.key == key);
        let choices = |key: &str, names: &[&'static str]| -> Vec<Option<&'static str>> {
            if has(key) {
                names.iter().copied().map(Some).collect()
            } else {
                vec![None]
            }
        };
        for layer in choices("layer", &layers) {
            // A layer that trains as all layers need not be tried elsewhere.
            for place in [Place::All, Place::First, Place::Alone] {
                let mut of_layer = String::new();
                for goodness in choices("goodness", &goodnesses) {
                    for sampler in names::<dyn NegativeSampler>() {
                        let of_place = layer.map(|name| place.layer(name));
                        let parts = [of_place, goodness.map(Value::from)];
                        let depth = place.depth();
                        let Some(way) = way(architecture, parts, sampler, depth, &has)? else {
                            continue;
                        };
                        let names = [layer, goodness].map(|name| name.unwrap_or("-"));
                        let [layer, goodness] = names;
                        let place = place.word();
                        of_layer +=
                            &format!("{architecture} {layer} {goodness} {sampler} {way}{place}\n");
                    }
                }
                worked += &of_layer;
                if !of_layer.is_empty() || layer.is_none() {
                    break;
                }
            }
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/combinations.txt");
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(file, &worked).unwrap();
    }
    let recorded = std::fs::read_to_string(file).unwrap();
    let now: BTreeSet<_> = worked.lines().collect();
    let before: BTreeSet<_> = recorded.lines().collect();
    let gained: Vec<_> = now.difference(&before).collect();
    let lost: Vec<_> = before.difference(&now).collect();
    assert!(
        gained.is_empty() && lost.is_empty(),
        "new: {gained:#?}, lost: {lost:#?}"
    );
    Ok(())
}
