//! What is asked of everything that is registered, with its default settings and random data.
//!
//! Nobody adds a plugin to a list here: what is linked is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use onward::candle_core::{DType, Device, Tensor};
use onward::config::{Config, RunSettings, Source};
use onward::data::images::Images;
use onward::data::text::{self, Parts, Text};
use onward::data::{Content, DataSet, Framing, Kind};
use onward::observe::Event;
use onward::registry::{self, KINDS};
use onward::sampler::every_class;
use onward::seed::{below, stream, unit};
use onward::settings::{Pick, Settings};
use onward::tokenizer::Tokenizer;
use onward::{Architecture, Batch, Error, GoodnessFn, Input, Lesson, LocalLayer, NegativeSampler};
use onward::{Optimiser, Result, Role, Run, RunBuilder, Site, Step, Summary, Values, Vars};
use onward_plugins as _;

onward::settings! {
    /// Random images of 4×4 pixels whose brightest quarter says the class.
    struct Toy {
        /// How many to train on.
        size: usize = 60, in 1..;
    }
}

onward::register! {
    DataSet, "toy", "random images for these tests (made 2026)",
    |settings: Toy, _site| {
        let images = |first: usize, count: usize| {
            let mut pixels = Vec::new();
            let mut labels = Vec::new();
            for index in first..first + count {
                let mut rng = stream(7, "toy", index as u64);
                let class = below(&mut rng, 4);
                labels.push(class as u8);
                pixels.extend((0..16).map(|pixel| {
                    let bright = if pixel / 4 == class { 120. } else { 0. };
                    (bright + 100. * unit(&mut rng)) as u8
                }));
            }
            Images::new(pixels, labels, [1, 4, 4])
        };
        Ok(Box::new(DataSet {
            kind: Kind {
                shape: vec![1, 4, 4],
                classes: ["a", "b", "c", "d"].map(String::from).to_vec(),
                content: Content::Picture(Framing::Whole),
            },
            train: Box::new(images(0, settings.size)?),
            validation: Box::new(images(10_000, 20)?),
            test: Box::new(images(20_000, 20)?),
            text: None,
        }))
    }
}

onward::settings! {
    /// A text in which every letter says which one follows it.
    struct ToyText {}
}

onward::register! {
    DataSet, "toy_text", "letters in a fixed order, for these tests (made 2026)",
    |_settings: ToyText, _site| {
        let tokenizer = Arc::new(tokenizer());
        let part = |count: usize| vec!["abcd".repeat(count)];
        let parts = Parts { train: part(15), validation: part(6), test: part(6) };
        Ok(Box::new(text::data_set(&parts, Text { tokenizer, ngram: 2 }, 3)?))
    }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::characters("abcd").unwrap()
}

fn step(index: u64) -> Step {
    Step { seed: 1, index, epoch: 0, epochs: 1, train: true, pass: 0 }
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = stream(seed, "test", 0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| unit(&mut rng) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn values(vars: &Vars) -> BTreeMap<String, Vec<u32>> {
    vars.all().into_iter().map(|(name, var)| (name, bits(&var))).collect()
}

fn all_finite(tensor: &Tensor) -> bool {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|value| value.is_finite())
}

fn site(seed: u64) -> Site {
    let mut site = Site::new(Vars::new(seed, DType::F32, &Device::Cpu), seed).with_input(&[1, 4, 4]).with_units(6);
    (site.example, site.classes, site.hypotheses) = (vec![1, 4, 4], 4, true);
    site
}

fn names<T: registry::Kind + ?Sized>() -> Vec<&'static str> {
    registry::all::<T>().unwrap().iter().map(|plugin| plugin.info.name).collect()
}

/// On the pictures above, or on the text if the architecture, or what is set, is for text.
fn toy(architecture: &str) -> RunBuilder {
    toy_with(architecture, |builder| builder).unwrap_or_else(|error| panic!("{architecture}: {error}"))
}

fn toy_with(architecture: &str, set: impl Fn(RunBuilder) -> RunBuilder) -> Result<RunBuilder> {
    let on = |data: &str| set(Run::builder(architecture).data(data).set("epochs", 2).set("batch", 20));
    match on("toy").build() {
        Ok(_) => Ok(on("toy")),
        Err(error) if error.is_usage() => on("toy_text").build().map(|_| on("toy_text")).map_err(|_| error),
        Err(error) => Err(error),
    }
}

/// Makes so many examples.
type Rows = fn(usize) -> Tensor;

/// What a layer or sampler can be given: pictures, and windows of three letters.
fn kinds_of_data() -> Vec<(Site, Rows)> {
    let mut text = site(1);
    (text.example, text.tokenizer, text.input) = (vec![3], Some(Arc::new(tokenizer())), vec![12]);
    let letters = |rows: usize| {
        Tensor::from_iter((0..3 * rows as u32).map(|i| i % 4), &Device::Cpu).unwrap().reshape((rows, 3)).unwrap()
    };
    vec![(site(1), |rows| random(&[rows, 1, 4, 4], 4)), (text, letters)]
}

/// Rows as the input of a layer: numbers as they are, letters as one-hot slots.
fn as_input(rows: &Tensor, views: usize) -> Result<Input> {
    if rows.dtype() != DType::U32 {
        return Input::stacked(rows.clone(), views);
    }
    let slots = Values::OneHot { index: rows.clone(), classes: 4, strength: 1. };
    Input::new(vec![slots], rows.dim(0)? / views, views, &[12])
}

#[test]
fn every_plugin_says_what_it_is_and_where_it_was_published() {
    for kind in KINDS {
        for info in registry::infos(kind).unwrap() {
            let digits = info.about.chars().filter(char::is_ascii_digit).count();
            let cites = digits >= 4 || info.about.contains("made for") || info.about.contains("exdb");
            assert!(cites, "{kind} {}: {}", info.name, info.about);
            assert!(info.about.len() <= 140, "{kind} {}: a line of {} characters", info.name, info.about.len());
            for setting in (info.settings)() {
                assert!(setting.help.ends_with('.'), "{kind} {} {}: {}", info.name, setting.key, setting.help);
            }
        }
    }
}

#[test]
fn every_default_reads_back_equal_and_an_unknown_key_is_refused() {
    let mut tried = 0;
    for kind in KINDS {
        for info in registry::infos(kind).unwrap() {
            let settings = (info.settings)();
            let defaults = settings.iter().filter_map(|s| Some((s.key.to_string(), s.default.clone()?))).collect();
            (info.check)(&defaults).unwrap_or_else(|error| panic!("{kind} {}: {error}", info.name));
            tried += 1;
        }
    }
    assert!(tried >= 10, "only {tried} plugins are linked");
    for name in names::<dyn Architecture>() {
        let config = toy(name).config().unwrap();
        let written = Source { origin: "config.toml".into(), table: config.to_toml().parse().unwrap() };
        assert_eq!(Config::resolve(name, None, vec![written]).unwrap(), config, "{name}");
        let error = toy(name).set("no_such_key", 1).config().unwrap_err();
        assert!(matches!(error, Error::UnknownSetting { .. }), "{name}: {error}");
        let shadowed = RunSettings::describe().into_iter().map(|setting| setting.key);
        let own = (registry::info("architecture", name).unwrap().settings)();
        let both: Vec<_> = shadowed.filter(|key| own.iter().any(|setting| setting.key == *key)).collect();
        assert!(both.is_empty(), "{name}: settings that the trainer has already: {both:?}");
    }
}

#[test]
fn every_goodness_has_the_shape_and_the_gradient_it_says() -> Result<()> {
    for name in names::<dyn GoodnessFn>() {
        let goodness = registry::build(&Pick::<dyn GoodnessFn>::new(name), &site(1).with_input(&[2, 3]))?;
        for rows in [1, 3] {
            let activity = random(&[rows, 2, 3], 1);
            let before = bits(&activity);
            let found = goodness.goodness(&activity)?;
            let expected = goodness.classes().map_or(vec![rows], |classes| vec![rows, classes]);
            assert_eq!(found.dims(), expected, "{name}");
            assert!(all_finite(&found), "{name}");
            let upstream = random(&expected, 2);
            let gradient = goodness.gradient(&activity, &upstream)?;
            assert_eq!(gradient.dims(), activity.dims(), "{name}");
            assert_eq!(bits(&activity), before, "{name} changes its input");
            // A step along a direction against the gradient's prediction of it.
            let direction = random(&[rows, 2, 3], 3);
            let total = |activity: &Tensor| -> Result<f32> {
                Ok((goodness.goodness(activity)? * &upstream)?.sum_all()?.to_scalar()?)
            };
            let (up, down) = ((&activity + (&direction * 1e-2)?)?, (&activity - (&direction * 1e-2)?)?);
            let slope = (total(&up)? - total(&down)?) / 2e-2;
            let predicted = (gradient * &direction)?.sum_all()?.to_scalar::<f32>()?;
            assert!((slope - predicted).abs() < 1e-2 * (1. + slope.abs()), "{name}: {slope} {predicted}");
        }
    }
    Ok(())
}

#[test]
fn every_layer_answers_row_by_row_and_learns_nothing_but_its_own_variables() -> Result<()> {
    for name in names::<dyn LocalLayer>() {
        let fits = |(site, rows): &(Site, Rows)| {
            let layer = registry::build(&Pick::<dyn LocalLayer>::new(name), &site.scope("layer"));
            layer.is_ok_and(|layer| layer.forward(&as_input(&rows(1), 1).unwrap(), &step(0)).is_ok())
        };
        let (site, rows) = kinds_of_data().into_iter().find(fits).unwrap_or_else(|| panic!("{name} takes nothing"));
        let fresh = |seed: u64| Site { vars: Vars::new(seed, DType::F32, &Device::Cpu), seed, ..site.clone() };
        for (batch, views) in [(1, 1), (3, 1), (3, 2)] {
            let site = fresh(1);
            let other = site.vars.get("another.weight", (2, 2), onward::candle_nn::Init::Const(1.))?;
            let mut layer = registry::build(&Pick::<dyn LocalLayer>::new(name), &site.scope("layer"))?;
            let twin = registry::build(&Pick::<dyn LocalLayer>::new(name), &fresh(1).scope("layer"))?;
            let stranger = registry::build(&Pick::<dyn LocalLayer>::new(name), &fresh(2).scope("layer"))?;
            let tensor = rows(batch * views);
            let before = tensor.copy()?;
            let input = as_input(&tensor, views)?;
            let activity = layer.forward(&input, &step(0))?;
            assert_eq!(activity.dim(0)?, batch * views, "{name}");
            assert!(activity.rank() >= 2 && all_finite(&activity), "{name}");
            assert_eq!(bits(&activity), bits(&layer.forward(&input, &step(0))?), "{name}: forward changes something");
            assert_eq!(bits(&activity), bits(&twin.forward(&input, &step(0))?), "{name}: same seed, other bits");
            assert_ne!(bits(&activity), bits(&stranger.forward(&input, &step(0))?), "{name}: the seed is ignored");
            let last = as_input(&tensor.narrow(0, batch * views - 1, 1)?.contiguous()?, 1)?;
            let alone = layer.forward(&last, &step(0))?;
            let apart = (activity.narrow(0, batch * views - 1, 1)? - alone)?.abs()?.flatten_all()?.max(0)?;
            assert!(apart.to_scalar::<f32>()? < 1e-5, "{name}: a row depends on the others");

            let state = values(&site.vars);
            let descent = onward::optim::Descent {
                method: onward::optim::Method::Sgd,
                rate: 0.1,
                decay: 0.,
                momentum: 0.,
                schedule: onward::optim::Schedule::Constant,
            };
            let mut optimiser = Optimiser::new(site.vars.scope("layer"), descent, 0..1);
            let roles: Vec<Role> = [Role::Positive, Role::Negative].into_iter().take(views).collect();
            let gradient = activity.detach();
            let lesson = Lesson { input: &input, activity: &activity, gradient: Some(&gradient), roles: &roles };
            layer.learn(&lesson, &mut optimiser, &step(0))?;
            assert_ne!(values(&site.vars), state, "{name} does not learn");
            assert_eq!(bits(&other), bits(&other.ones_like()?), "{name} changes a variable that is not its own");
            let changed = tensor.ne(&before)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
            assert_eq!(changed, 0., "{name} changes its input");
        }
    }
    Ok(())
}

#[test]
fn every_sampler_gives_views_of_one_width_from_its_seed_and_never_sees_hidden_labels() -> Result<()> {
    for name in names::<dyn NegativeSampler>() {
        let build = |site: &Site| registry::build(&Pick::<dyn NegativeSampler>::new(name), site);
        let (site, rows) = kinds_of_data().into_iter().find(|(site, _)| build(site).is_ok()).expect(name);
        let mut sampler = build(&site)?;
        for size in [1, 3] {
            let labels: Vec<u32> = (0..size as u32).collect();
            let batch = Batch::new(rows(size), labels)?;
            let mut predict = || Ok(Tensor::full(-1.4f32, (size, 4), &Device::Cpu)?);
            let views = match sampler.views(&batch, &mut predict, &step(0)) {
                // A negative that is made of another example takes two.
                Err(Error::Mismatch { .. }) if size == 1 => continue,
                views => views?,
            };
            assert_eq!((views.input.batch(), views.input.views()), (size, views.roles.len()), "{name}");
            let again = sampler.views(&batch, &mut predict, &step(0))?;
            assert_eq!(bits(&views.input.join()?), bits(&again.input.join()?), "{name}: same step, other views");
            let neutral = sampler.neutral(&batch.hidden())?;
            assert_eq!(neutral.shape(), views.input.shape(), "{name}");
            if let Some(hypotheses) = sampler.hypotheses(&batch.hidden(), &every_class(4, &batch)?)? {
                assert_eq!((hypotheses.views(), hypotheses.shape()), (4, neutral.shape()), "{name}");
            }
            // With the labels hidden it either does without them or says that it needs them.
            if let Ok(blind) = sampler.views(&batch.hidden(), &mut predict, &step(0)) {
                assert!(blind.labels.is_none(), "{name} knows hidden labels");
            }
        }
    }
    Ok(())
}

#[test]
fn every_architecture_repeats_itself_bit_for_bit() -> Result<()> {
    for name in names::<dyn Architecture>() {
        let trained = |seed: u32| -> Result<BTreeMap<String, Vec<u32>>> {
            let mut run = toy(name).seed(seed).build()?;
            run.fit(&mut ())?;
            Ok(values(run.vars()))
        };
        let first = trained(1)?;
        assert_eq!(first, trained(1)?, "{name}");
        assert_ne!(first, trained(2)?, "{name}");
    }
    Ok(())
}

#[test]
fn every_architecture_goes_on_from_a_checkpoint_as_if_it_had_not_stopped() -> Result<()> {
    for name in names::<dyn Architecture>() {
        let mut whole = toy(name).build()?;
        whole.fit(&mut ())?;
        let mut half = toy(name).build()?;
        half.train_until(1, &mut ())?;
        assert_eq!(half.epoch(), 1, "{name}");
        let folder = tempfile::tempdir().unwrap();
        half.save(folder.path())?;
        let mut resumed = Run::load(folder.path())?;
        assert_eq!(values(resumed.vars()), values(half.vars()), "{name}");
        resumed.fit(&mut ())?;
        assert_eq!(values(resumed.vars()), values(whole.vars()), "{name}");

        // Stopped in the middle of an epoch.
        let stop = Arc::new(AtomicBool::new(false));
        let folder = folder.path().join("stopped");
        let mut stopped = toy(name).out(&folder).stop_when(stop.clone()).build()?;
        let mut after_four = |event: &Event<'_>| {
            if let Event::Stepped { step, .. } = event {
                stop.store(step.index == 3, Ordering::Relaxed);
            }
        };
        let error = stopped.fit(&mut after_four).unwrap_err();
        assert!(matches!(error, Error::Stopped { step: 4, .. }), "{name}: {error}");
        drop(stopped);
        let mut resumed = Run::open(&folder)?.resume()?;
        resumed.fit(&mut ())?;
        assert_eq!(values(resumed.vars()), values(whole.vars()), "{name}");
    }
    Ok(())
}

/// The point of the field. What a block learns in a step is the same, bit for bit, whether the others learn in it or
/// not; and its step changes no variable of another block or of a head.
#[test]
fn every_block_learns_from_its_own_input_and_output_alone() -> Result<()> {
    for name in names::<dyn Architecture>() {
        let one_step = |only: Option<usize>| -> Result<(Run, BTreeMap<String, Vec<u32>>)> {
            let mut run = toy(name).set("epochs", 1).set("batch", 60).build()?;
            let before = values(run.vars());
            for (index, block) in run.architecture_mut().blocks_mut().iter_mut().enumerate() {
                let span = if only.is_none_or(|only| only == index) { 0..1 } else { 0..0 };
                block.optimiser_mut().set_span(span);
            }
            run.train_until(1, &mut ())?;
            Ok((run, before))
        };
        let (together, before) = one_step(None)?;
        let together_after = values(together.vars());
        let blocks = together.architecture().blocks();
        assert!(!blocks.is_empty(), "{name}");
        for (index, block) in blocks.iter().enumerate() {
            let place = block.optimiser().vars().path("");
            let (alone, _) = one_step(Some(index))?;
            let mut changed = false;
            for (variable, after) in values(alone.vars()) {
                if variable.starts_with(&place) {
                    assert_eq!(after, together_after[&variable], "{name}: {variable} depends on other blocks learning");
                    changed |= after != before[&variable];
                } else if blocks.iter().any(|b| variable.starts_with(b.optimiser().vars().path("").as_str())) {
                    assert_eq!(after, before[&variable], "{name}: a step of block {index} changed {variable}");
                }
            }
            assert!(changed, "{name}: block {index} did not learn");
        }
    }
    Ok(())
}

/// All that is registered fits together, or is refused as a wrong use; nothing fits nowhere.
#[test]
fn every_layer_goodness_and_sampler_works_in_every_architecture() -> Result<()> {
    let mut worked = BTreeSet::new();
    for architecture in names::<dyn Architecture>() {
        let info = registry::info("architecture", architecture)?;
        for layer in names::<dyn LocalLayer>() {
            for goodness in names::<dyn GoodnessFn>() {
                for sampler in names::<dyn NegativeSampler>() {
                    let place = format!("{architecture} {layer} {goodness} {sampler}");
                    let has = |key: &str| (info.settings)().iter().any(|setting| setting.key == key);
                    let train = |loss: Option<&str>| -> Result<(Run, Summary)> {
                        let set = |mut builder: RunBuilder| {
                            builder = builder.set("sampler", sampler);
                            for (key, value) in [("layer", Some(layer)), ("goodness", Some(goodness)), ("loss", loss)] {
                                if let Some(value) = value.filter(|_| has(key)) {
                                    builder = builder.set(key, value);
                                }
                            }
                            if has("hidden") {
                                builder = builder.set("hidden", vec![12, 12]);
                            }
                            builder
                        };
                        let mut run = toy_with(architecture, set)?.build()?;
                        let summary = run.fit(&mut ())?;
                        Ok((run, summary))
                    };
                    let (run, summary) = match train(None).or_else(|_| train(Some("cross_entropy"))) {
                        Ok(trained) => trained,
                        Err(error) => {
                            assert!(error.is_usage(), "{place}: {error}");
                            continue;
                        }
                    };
                    assert!(summary.test.error.is_finite());
                    let kind = &run.data().kind;
                    let shape = [&[3], &kind.shape[..]].concat();
                    let examples = match kind.content {
                        Content::Text => Tensor::ones(shape, DType::U32, &Device::Cpu)?,
                        _ => random(&shape, 6),
                    };
                    for readout in run.architecture().readouts() {
                        let scores = run.scores(examples.clone(), readout.name)?;
                        assert_eq!(scores.dims(), [3, 4], "{place}");
                        assert!(all_finite(&scores));
                    }
                    worked.extend([architecture, layer, goodness, sampler]);
                }
            }
        }
    }
    let all = [names::<dyn Architecture>(), names::<dyn LocalLayer>(), names::<dyn GoodnessFn>()].concat();
    for name in [all, names::<dyn NegativeSampler>()].concat() {
        assert!(worked.contains(name), "{name} fits nothing");
    }
    Ok(())
}
