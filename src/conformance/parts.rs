//! Trials of a plugin by itself.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::Init;

use super::toys::{all_finite, bits, random, step, values, Toy};
use super::{ensure, Complaint, Court};
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::layer::{Lesson, LocalLayer};
use crate::contract::sampler::{every_class, NegativeSampler};
use crate::data::{Augment, DataSet, Split};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::step::Step;
use crate::flow::views::Role;
use crate::optim::{Algorithm, Optimiser, OptimiserSpec, Schedule};
use crate::plugin::registry::{self, Info, Kind};
use crate::settings::Pick;

type Trial = Result<(), Complaint>;

/// The longest line that `onward list` shows of a plugin.
const LINE: usize = 140;

pub(super) fn description(info: &Info) -> Trial {
    let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    ensure!(
        !info.name.is_empty() && info.name.chars().all(of_a_name),
        "the name `{}` has other characters than a-z, 0-9, _ and -",
        info.name
    );
    let length = info.about.chars().count();
    ensure!(
        (1..=LINE).contains(&length),
        "the line about it has {length} characters, expected 1 to {LINE}"
    );
    for setting in (info.settings)() {
        let (key, help) = (setting.key, &setting.help);
        ensure!(
            help.ends_with('.'),
            "the help of the setting `{key}` is no sentence with a full stop: {help:?}"
        );
    }
    Ok(())
}

pub(super) fn settings(kind: &'static str, info: &Info) -> Trial {
    let settings = (info.settings)();
    let defaults = settings
        .iter()
        .filter_map(|s| Some((s.key.to_string(), s.default.clone()?)))
        .collect();
    let complete = crate::plugin::config::complete(kind, info, defaults)?;
    let again = crate::plugin::config::complete(kind, info, complete.clone())?;
    ensure!(
        complete == again,
        "defaults that are written and read again are {again:?}, expected {complete:?}"
    );
    let unknown = toml::Table::from_iter([("no_such_key".to_string(), true.into())]);
    ensure!(
        crate::plugin::config::complete(kind, info, unknown).is_err(),
        "a setting `no_such_key` is not refused"
    );
    Ok(())
}

fn build<T: Kind + ?Sized>(name: &str, context: &BuildContext) -> Result<Box<T>> {
    registry::build(&Pick::<T>::new(name), context)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f32> {
    Ok((a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

pub(super) fn goodness(name: &str, court: &mut Court<'_>) {
    let build = || -> Result<_> {
        let context = Toy::Images(4).context(1, 6)?.with_input(&[2, 3]);
        build::<dyn GoodnessFn>(name, &context)
    };
    court.hold("shapes", || {
        let goodness = build()?;
        for rows in [1, 3] {
            let activity = random(&[rows, 2, 3], 1)?;
            let before = bits(&activity)?;
            let found = goodness.goodness(&activity)?;
            ensure!(all_finite(&found)?, "a goodness that is not finite");
            let gradient = goodness.gradient(&activity, &random(found.dims(), 2)?)?;
            ensure!(all_finite(&gradient)?, "a gradient that is not finite");
            ensure!(
                bits(&activity)? == before,
                "it changes the activity that it is given"
            );
            ensure!(
                bits(&found)? == bits(&goodness.goodness(&activity)?)?,
                "the same activity, another goodness"
            );
        }
        Ok(())
    });
    court.hold("rows", || {
        let goodness = build()?;
        let activity = random(&[3, 2, 3], 1)?;
        let (all, last) = (
            goodness.goodness(&activity)?,
            goodness.goodness(&activity.narrow(0, 2, 1)?.contiguous()?)?,
        );
        let apart = largest_difference(&all.narrow(0, 2, 1)?, &last)?;
        ensure!(
            apart < 1e-5,
            "the goodness of a row changes by {apart} with the rows beside it"
        );
        Ok(())
    });
    court.hold("gradient", || {
        let goodness = build()?;
        let activity = random(&[3, 2, 3], 1)?;
        let upstream = random(goodness.goodness(&activity)?.dims(), 2)?;
        let direction = random(&[3, 2, 3], 3)?;
        let total = |activity: &Tensor| -> Result<f32> {
            Ok((goodness.goodness(activity)? * &upstream)?
                .sum_all()?
                .to_scalar()?)
        };
        let (up, down) = (
            (&activity + (&direction * 1e-2)?)?,
            (&activity - (&direction * 1e-2)?)?,
        );
        let slope = (total(&up)? - total(&down)?) / 2e-2;
        let gradient = goodness.gradient(&activity, &upstream)?;
        let predicted = (gradient * &direction)?.sum_all()?.to_scalar::<f32>()?;
        ensure!(
            (slope - predicted).abs() < 1e-2 * (1. + slope.abs()),
            "along a direction the goodness grows by {slope}, its gradient says {predicted}"
        );
        Ok(())
    });
    let timed = || -> Result<String> {
        let context = Toy::Images(4).context(1, 6)?.with_input(&[1000]);
        let goodness = registry::build(&Pick::<dyn GoodnessFn>::new(name), &context)?;
        let activity = random(&[200, 1000], 1)?;
        let upstream = random(goodness.goodness(&activity)?.dims(), 2)?;
        let found = milliseconds(|| goodness.goodness(&activity).map(|_| ()))?;
        let gradient = milliseconds(|| goodness.gradient(&activity, &upstream).map(|_| ()))?;
        Ok(format!(
            "goodness {found:.2} ms, gradient {gradient:.2} ms of 200 activities of 1000"
        ))
    };
    if let Ok(line) = timed() {
        court.note(line);
    }
}

/// How long `work` takes, the best of a few times.
fn milliseconds(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        work()?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// An optimiser of what is at a place called `layer`.
fn optimiser(context: &BuildContext) -> Optimiser {
    let descent = OptimiserSpec {
        method: Algorithm::Sgd,
        rate: 0.1,
        decay: 0.,
        momentum: 0.,
        schedule: Schedule::Constant,
    };
    Optimiser::new(context.vars.scope("layer"), descent, 0..1)
}

pub(super) fn layer(name: &str, court: &mut Court<'_>) {
    let at = |context: &BuildContext| build::<dyn LocalLayer>(name, &context.scope("layer"));
    let takes = |toy: Toy| -> Result<()> {
        let layer = at(&toy.context(1, 6)?)?;
        layer
            .forward(&toy.input(&toy.rows(1)?, 1)?, &step(1, 0))
            .map(|_| ())
    };
    let mut refused = None;
    let Some(toy) = Toy::ALL.into_iter().find(|toy| {
        takes(*toy)
            .map_err(|error| refused.get_or_insert(error))
            .is_ok()
    }) else {
        court.hold("shapes", || match refused {
            Some(error) if error.is_usage() => Err(Complaint::Skip(format!(
                "it takes nothing that is at hand: {error}"
            ))),
            Some(error) => Err(error.into()),
            None => Ok(()),
        });
        return;
    };
    let (step, layer_at) = (step(1, 0), |seed: u64| -> Result<_> {
        at(&toy.context(seed, 6)?)
    });
    court.hold("shapes", || {
        for (batch, views) in [(1, 1), (3, 1), (3, 2)] {
            let layer = layer_at(1)?;
            let input = toy.input(&toy.rows(batch * views)?, views)?;
            let activity = layer.forward(&input, &step)?;
            ensure!(all_finite(&activity)?, "an activity that is not finite");
            ensure!(
                bits(&activity)? == bits(&layer.forward(&input, &step)?)?,
                "the same input and step, other bits"
            );
        }
        Ok(())
    });
    court.hold("rows", || {
        let layer = layer_at(1)?;
        let rows = toy.rows(3)?;
        let step = Step {
            train: false,
            ..step
        };
        let all = layer.forward(&toy.input(&rows, 1)?, &step)?;
        let last = layer.forward(&toy.input(&rows.narrow(0, 2, 1)?.contiguous()?, 1)?, &step)?;
        let apart = largest_difference(&all.narrow(0, 2, 1)?, &last)?;
        ensure!(
            apart < 1e-5,
            "in evaluation, the activity of a row changes by {apart} with the rows beside it"
        );
        Ok(())
    });
    court.hold("seed", || {
        let input = toy.input(&toy.rows(2)?, 1)?;
        let activity = |seed: u64| bits(&layer_at(seed)?.forward(&input, &step)?);
        ensure!(
            activity(1)? == activity(1)?,
            "two layers of one seed give other bits; draw from `BuildContext::vars` and `Step`"
        );
        let variables = |seed: u64| -> Result<_> {
            let context = toy.context(seed, 6)?;
            at(&context)?;
            values(&context.vars)
        };
        let has_variables = !variables(1)?.is_empty();
        ensure!(
            !has_variables || activity(1)? != activity(2)?,
            "two layers of other seeds are the same: the seed is ignored"
        );
        Ok(())
    });
    court.hold("locality", || {
        for (batch, views) in [(1, 1), (3, 2)] {
            let context = toy.context(1, 6)?;
            let other = context
                .vars
                .get("another.weight", (2, 2), Init::Const(1.))?;
            let mut layer = at(&context)?;
            let rows = toy.rows(batch * views)?;
            let before = rows.copy()?;
            let input = toy.input(&rows, views)?;
            let activity = layer.forward(&input, &step)?;
            let variables = values(&context.vars)?;
            let roles: Vec<Role> = [Role::Positive, Role::Negative]
                .into_iter()
                .take(views)
                .collect();
            let gradient = activity.detach();
            let lesson = Lesson {
                input: &input,
                activity: &activity,
                gradient: Some(&gradient),
                roles: &roles,
            };
            layer.learn(&lesson, &mut optimiser(&context), &step)?;
            let after = values(&context.vars)?;
            let learns = variables.iter().any(|(path, value)| after[path] != *value);
            ensure!(
                learns || variables.len() == 1,
                "a step with a gradient changes none of its variables"
            );
            ensure!(
                bits(&other)? == bits(&other.ones_like()?)?,
                "a step changes a variable that is not its own"
            );
            let changed = rows
                .ne(&before)?
                .to_dtype(DType::F32)?
                .sum_all()?
                .to_scalar::<f32>()?;
            ensure!(changed == 0., "a step changes the input");
        }
        Ok(())
    });
    let timed = || -> Result<String> {
        let toy = if toy == Toy::Text {
            toy
        } else {
            Toy::Images(28)
        };
        let context = toy.context(1, 100)?;
        let mut layer = at(&context)?;
        let input = toy.input(&toy.rows(200)?, 2)?;
        let mut optimiser = optimiser(&context);
        let forward = milliseconds(|| layer.forward(&input, &step).map(|_| ()))?;
        let both = milliseconds(|| {
            let activity = layer.forward(&input, &step)?;
            let gradient = activity.detach();
            let roles = [Role::Positive, Role::Negative];
            let lesson = Lesson {
                input: &input,
                activity: &activity,
                gradient: Some(&gradient),
                roles: &roles,
            };
            layer.learn(&lesson, &mut optimiser, &step)
        })?;
        let shape = input.shape();
        Ok(format!("forward {forward:.2} ms, with learning {both:.2} ms, of 200 inputs of {shape:?} to 100 units"))
    };
    if let Ok(line) = timed() {
        court.note(line);
    }
}

pub(super) fn sampler(name: &str, court: &mut Court<'_>) {
    let at = |context: &BuildContext| build::<dyn NegativeSampler>(name, context);
    let fits = |toy: &Toy| toy.context(1, 6).and_then(|context| at(&context)).is_ok();
    let Some(toy) = Toy::ALL.into_iter().find(fits) else {
        court.hold("shapes", || {
            match Toy::ALL[0].context(1, 6).and_then(|context| at(&context)) {
                Err(error) if error.is_usage() => Err(Complaint::Skip(format!(
                    "it takes nothing that is at hand: {error}"
                ))),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(()),
            }
        });
        return;
    };
    let build = || at(&toy.context(1, 6)?);
    let least = build().map_or(1, |sampler| sampler.smallest_batch());
    let batch = |size: usize| {
        let size = size.max(least);
        Batch::new(
            toy.rows(size)?,
            (0..size as u32).map(|index| index % 4).collect(),
        )
    };
    let views = |sampler: &mut dyn NegativeSampler, batch: &Batch, step: &Step| {
        let mut predict = || Ok(Tensor::full(-1.4f32, (batch.size(), 4), &Device::Cpu)?);
        sampler.views(&batch.shown_to(sampler), &mut predict, step)
    };
    court.hold("shapes", || {
        let mut sampler = build()?;
        for size in [least, least + 2] {
            let batch = batch(size)?;
            let neutral = sampler.neutral(&batch.hidden())?;
            let views = views(&mut *sampler, &batch, &step(1, 0))?;
            ensure!(
                views.input.shape() == neutral.shape(),
                "views of shape {:?}, but neutral ones of {:?}",
                views.input.shape(),
                neutral.shape()
            );
            if let Some(hypotheses) =
                sampler.hypotheses(&batch.hidden(), &every_class(4, &batch)?)?
            {
                let (views, shape) = (hypotheses.views(), hypotheses.shape());
                ensure!(
                    (views, shape) == (4, neutral.shape()),
                    "{views} hypotheses of shape {shape:?}, expected 4 of {:?}",
                    neutral.shape()
                );
            }
        }
        Ok(())
    });
    court.hold("labels", || {
        let mut sampler = build()?;
        let (shown, hidden) = (batch(3)?, batch(3)?.hidden());
        let same = bits(&sampler.neutral(&shown)?.join()?)? == bits(&sampler.neutral(&hidden)?.join()?)?;
        ensure!(same, "the neutral view depends on the labels");
        let hypotheses = |sampler: &dyn NegativeSampler, batch: &Batch| -> Result<Option<Vec<u32>>> {
            let input = sampler.hypotheses(batch, &every_class(4, batch)?)?;
            input.map(|input| bits(&input.join()?)).transpose()
        };
        let same = hypotheses(&*sampler, &shown)? == hypotheses(&*sampler, &hidden)?;
        ensure!(same, "hypotheses depend on the labels");
        // With the labels hidden it either does without them or says that it needs them.
        match views(&mut *sampler, &hidden, &step(1, 0)) {
            Ok(blind) => ensure!(blind.labels.is_none(), "it knows labels that were hidden"),
            Err(error) if sampler.is_supervised() => ensure!(
                error.is_usage(),
                "without labels it breaks down ({error}); expected Error::Mismatch, as of `Batch::labels`"
            ),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    });
    court.hold("seed", || {
        let seen = |step: &Step| -> Result<Vec<u32>> {
            let mut sampler = build()?;
            bits(&views(&mut *sampler, &batch(8)?, step)?.input.join()?)
        };
        let first = seen(&step(1, 0))?;
        ensure!(
            first == seen(&step(1, 0))?,
            "the same seed and step, other views; draw from `Step::stream`"
        );
        let mut sampler = build()?;
        let twice = [0, 1].map(|_| views(&mut *sampler, &batch(8)?, &step(1, 0)));
        let [once, again] = twice.map(|views| views.and_then(|views| bits(&views.input.join()?)));
        ensure!(
            once? == again?,
            "asked twice at the same step it gives other views; draw from `Step::stream`"
        );
        let varies = (1..4)
            .map(|index| seen(&step(1, index)))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .any(|v| *v != first);
        let seeded = (2..6)
            .map(|seed| seen(&step(seed, 0)))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .any(|v| *v != first);
        ensure!(
            !varies || seeded,
            "views change from step to step, but not with the seed; draw from `Step::stream`"
        );
        Ok(())
    });
    let timed = || -> Result<String> {
        let toy = if toy == Toy::Text {
            toy
        } else {
            Toy::Images(28)
        };
        let mut sampler = at(&toy.context(1, 100)?)?;
        let batch = Batch::new(toy.rows(100)?, (0..100).map(|index| index % 4).collect())?;
        let time = milliseconds(|| views(&mut *sampler, &batch, &step(1, 0)).map(|_| ()))?;
        Ok(format!(
            "{time:.2} ms for views of 100 examples of {:?}",
            batch.shape()
        ))
    };
    if let Ok(line) = timed() {
        court.note(line);
    }
}

pub(super) fn data(name: &str, court: &mut Court<'_>) {
    // Without folders and cache: nothing is downloaded, and what needs files is skipped.
    let build = || -> Result<Box<DataSet>, Complaint> {
        let context =
            BuildContext::new(crate::flow::vars::Vars::new(1, DType::F32, &Device::Cpu), 1);
        build::<DataSet>(name, &context).map_err(|error| match error {
            Error::Plugin { .. } => error.into(),
            error => Complaint::Skip(format!("it cannot be had here: {error}")),
        })
    };
    court.hold("shapes", || {
        let data = build()?;
        let classes = data.kind.classes.len();
        ensure!(classes >= 2, "{classes} classes, expected 2 at least");
        ensure!(
            !data.train.is_empty() && !data.test.is_empty(),
            "a part to train on or to test on is empty"
        );
        for split in [Split::Train, Split::Validation, Split::Test] {
            let part = data.split(split);
            let indices: Vec<usize> = (0..part.len().min(100)).collect();
            if indices.is_empty() {
                continue;
            }
            let batch = part.batch(&indices, None)?;
            ensure!(batch.labels().is_ok(), "the {split:?} part has no labels");
            if batch.examples().dtype().is_float() {
                ensure!(
                    all_finite(batch.examples())?,
                    "examples that are not finite in the {split:?} part"
                );
            }
        }
        Ok(())
    });
    court.hold("seed", || {
        let (data, again) = (build()?, build()?);
        let step = step(1, 0);
        let augment = data.text.is_none().then_some(Augment {
            shift: 1,
            flip: true,
            step: &step,
        });
        let indices: Vec<usize> = (0..data.train.len().min(20)).rev().collect();
        for augment in [None, augment.as_ref()] {
            let [first, second] = [&data, &again].map(|data| data.train.batch(&indices, augment));
            let (first, second) = (first?, second?);
            ensure!(
                bits(first.examples())? == bits(second.examples())?
                    && first.labels().ok() == second.labels().ok(),
                "asked twice for the same examples at the same step, it gives others"
            );
        }
        let forth: Vec<usize> = (0..indices.len()).collect();
        let (forth, back) = (
            data.train.batch(&forth, None)?,
            data.train.batch(&indices, None)?,
        );
        let (first, last) = (
            forth.examples().narrow(0, 0, 1)?,
            back.examples().narrow(0, indices.len() - 1, 1)?,
        );
        ensure!(
            bits(&first)? == bits(&last)?,
            "an example depends on where in the batch it is asked for"
        );
        Ok(())
    });
}
