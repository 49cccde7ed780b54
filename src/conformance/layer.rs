//! Trials of a layer alone.

use candle_core::{DType, Tensor};
use candle_nn::Init;

use super::toys::{all_finite, bits, optimiser, random, step, values, Toy};
use super::{ensure, milliseconds, Checked, Complaint, Examiner};
use crate::contract::build_context::BuildContext;
use crate::contract::layer::{Lesson, LocalLayer};
use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::views::{Role, Targets};
use crate::kernels::scalar;
use crate::plugin;
use crate::settings::Pick;

pub(super) fn trials(name: &str, examiner: &mut Examiner<'_>) {
    let toy = match toy(name) {
        Ok(toy) => toy,
        Err(complaint) => return examiner.check("shapes", || Err(complaint)),
    };
    let subject = Subject { name, toy };
    examiner.check("shapes", || subject.shapes());
    examiner.check("rows", || subject.rows());
    examiner.check("seed", || subject.seed());
    examiner.check("input gradient", || subject.input_gradient());
    examiner.check("locality", || subject.locality());
    examiner.note(subject.speed());
}

/// The first kind of trial input that the layer accepts.
fn toy(name: &str) -> Result<Toy, Complaint> {
    let takes = |toy: Toy| -> Result<()> {
        let layer = Subject { name, toy }.build(1)?;
        layer
            .forward(&toy.input(&toy.rows(1)?, 1)?, &step(1, 0))
            .map(|_| ())
    };
    let mut why = String::new();
    for toy in Toy::ALL {
        match takes(toy) {
            Ok(()) => return Ok(toy),
            Err(error) if error.is_unfit() => why = format!("{why} {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Complaint::Skip(format!(
        "it accepts none of the trial inputs:{why}"
    )))
}

/// A layer, and the kind of input that it accepts.
struct Subject<'a> {
    name: &'a str,
    toy: Toy,
}

impl Subject<'_> {
    fn build(&self, seed: u64) -> Result<Box<dyn LocalLayer>> {
        self.build_in(&self.toy.context(seed, 6)?)
    }

    fn build_in(&self, context: &BuildContext) -> Result<Box<dyn LocalLayer>> {
        plugin::build(&Pick::new(self.name), &context.scope("layer"))
    }

    fn input(&self, batch: usize, views: usize) -> Result<Input> {
        self.toy.input(&self.toy.rows(batch * views)?, views)
    }

    fn shapes(&self) -> Checked {
        let step = step(1, 0);
        for (batch, views) in [(1, 1), (3, 1), (3, 2)] {
            let layer = self.build(1)?;
            let input = self.input(batch, views)?;
            let activity = layer.forward(&input, &step)?;
            ensure!(all_finite(&activity)?, "an activity that is not finite");
            let again = layer.forward(&input, &step)?;
            ensure!(
                bits(&activity)? == bits(&again)?,
                "the same input and step give different bits"
            );
        }
        Ok(())
    }

    fn rows(&self) -> Checked {
        let layer = self.build(1)?;
        let rows = self.toy.rows(3)?;
        let step = Step::evaluation(1);
        let all = layer
            .forward(&self.toy.input(&rows, 1)?, &step)?
            .narrow(0, 2, 1)?;
        let last = rows.narrow(0, 2, 1)?.contiguous()?;
        let last = layer.forward(&self.toy.input(&last, 1)?, &step)?;
        let apart = scalar(&(all - last)?.abs()?.flatten_all()?.max(0)?)?;
        ensure!(
            apart < 1e-5,
            "in evaluation, the activity of a row changes by {apart} with the other rows"
        );
        Ok(())
    }

    fn seed(&self) -> Checked {
        let input = self.input(2, 1)?;
        let activity = |seed: u64| bits(&self.build(seed)?.forward(&input, &step(1, 0))?);
        ensure!(
            activity(1)? == activity(1)?,
            "two layers of one seed give different bits; draw from `BuildContext::vars` \
             and `Step`"
        );
        let context = self.toy.context(1, 6)?;
        self.build_in(&context)?;
        ensure!(
            context.vars.learned().is_empty() || activity(1)? != activity(2)?,
            "two layers of different seeds are the same: the seed is ignored"
        );
        Ok(())
    }

    /// Compares the input gradient with finite differences along a direction.
    fn input_gradient(&self) -> Checked {
        if self.toy == Toy::Text {
            return Err(Complaint::Skip("its input is tokens".into()));
        }
        let (layer, step) = (self.build(1)?, Step::evaluation(1));
        let rows = self.toy.rows(2)?;
        let input = self.toy.input(&rows, 1)?;
        let activity = layer.forward(&input, &step)?.detach();
        let upstream = random(activity.dims(), 2)?;
        let targets = Targets::new(vec![Role::Positive])?;
        let lesson = Lesson {
            input: &input,
            activity: &activity,
            gradient: Some(&upstream),
            targets: &targets,
        };
        let gradient = match layer.input_gradient(&lesson, &step) {
            Err(error @ Error::Usage { .. }) => return Err(Complaint::Skip(error.to_string())),
            gradient => gradient?,
        };
        let direction = random(rows.dims(), 3)?;
        let total = |by: f64| -> Result<f64> {
            let rows = (&rows + (&direction * by)?)?;
            let activity = layer.forward(&self.toy.input(&rows, 1)?, &step)?;
            scalar(&(activity * &upstream)?.sum_all()?)
        };
        let slope = (total(1e-3)? - total(-1e-3)?) / 2e-3;
        let predicted = scalar(&(gradient * &direction)?.sum_all()?)?;
        ensure!(
            (slope - predicted).abs() < 2e-2 * (0.1 + slope.abs()),
            "along a direction of the input, finite differences give {slope}, the input \
             gradient gives {predicted}"
        );
        Ok(())
    }

    fn locality(&self) -> Checked {
        match (self.locality_of(16, 1), self.locality_of(3, 2)) {
            // Some rules need two passes.
            (Err(Complaint::Skip(_)), two) => two,
            (one, Err(Complaint::Skip(_))) => one,
            (one, two) => one.and(two),
        }
    }

    fn locality_of(&self, batch: usize, views: usize) -> Checked {
        let context = self.toy.context(1, 6)?;
        let other = context
            .vars
            .get("another.weight", (2, 2), Init::Const(1.))?;
        let mut layer = self.build_in(&context)?;
        let rows = self.toy.rows(batch * views)?;
        let before = rows.copy()?;
        let variables = values(&context.vars)?;
        let input = self.toy.input(&rows, views)?;
        match learn(&mut *layer, &input, &context) {
            Err(error @ Error::Unfit { .. }) => return Err(Complaint::Skip(error.to_string())),
            learned => learned?,
        };
        layer.epoch_ended(&step(1, 0))?;
        let after = values(&context.vars)?;
        let learns = variables.iter().any(|(path, value)| after[path] != *value);
        ensure!(
            learns || variables.len() == 1,
            "a step with a gradient changes none of its variables"
        );
        let untouched = bits(&other)? == bits(&other.ones_like()?)?;
        ensure!(untouched, "a step changes a variable that is not its own");
        let changed = scalar(&rows.ne(&before)?.to_dtype(DType::F32)?.sum_all()?)?;
        ensure!(changed == 0., "a step changes the input");
        Ok(())
    }

    fn speed(&self) -> Result<String> {
        let toy = if self.toy == Toy::Text {
            Toy::Text
        } else {
            Toy::Images(28)
        };
        let context = toy.context(1, 100)?;
        let mut layer = self.build_in(&context)?;
        let input = toy.input(&toy.rows(200)?, 2)?;
        let forward = milliseconds(|| layer.forward(&input, &step(1, 0)).map(|_| ()))?;
        let both = milliseconds(|| learn(&mut *layer, &input, &context).map(|_| ()))?;
        let shape = input.shape();
        Ok(format!(
            "forward {forward:.2} ms, with learning {both:.2} ms, of 200 inputs of \
             {shape:?} to 100 units"
        ))
    }
}

/// Takes one step of a layer, with its activity as the gradient.
fn learn(layer: &mut dyn LocalLayer, input: &Input, context: &BuildContext) -> Result<Tensor> {
    let step = step(1, 0);
    let activity = layer.forward(input, &step)?;
    let gradient = activity.detach();
    let mut learned = Ok(());
    // A rule without negatives may refuse the first.
    for second in [Role::Negative, Role::Positive] {
        let roles = [Role::Positive, second].into_iter().take(input.views());
        let targets = Targets::new(roles.collect())?;
        let labels = (0..input.batch() as u32).map(|index| index % 4).collect();
        let targets = match layer.uses_labels() {
            true => targets.with_labels(Some(labels)),
            false => targets,
        };
        let lesson = Lesson {
            input,
            activity: &activity,
            gradient: Some(&gradient),
            targets: &targets,
        };
        learned = layer.learn(&lesson, &mut optimiser(context, "layer"), &step);
        if !learned.as_ref().is_err_and(Error::is_unfit) {
            break;
        }
    }
    learned?;
    Ok(activity)
}
