//! Trials of a goodness function alone.

use candle_core::Tensor;
use candle_nn::Init;

use super::toys::{all_finite, bits, optimiser, random, step, values, Toy};
use super::{ensure, milliseconds, Checked, Complaint, Examiner};
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::{GoodnessFn, Grade};
use crate::contract::loss::{Loss, Objective};
use crate::error::{Error, Result};
use crate::flow::views::{Role, Targets};
use crate::kernels::scalar;
use crate::plugin;
use crate::settings::Pick;

pub(super) fn trials(name: &str, examiner: &mut Examiner<'_>) {
    examiner.check("shapes", || shapes(name));
    examiner.check("rows", || rows(name));
    examiner.check("gradient", || gradient(name));
    examiner.check("grade", || grade(name));
    examiner.check("locality", || locality(name));
    examiner.note(speed(name));
}

fn context() -> Result<BuildContext> {
    Ok(Toy::Images(4).context(1, 6)?.with_input(&[2, 3]))
}

fn build(name: &str, context: &BuildContext) -> Result<Box<dyn GoodnessFn>> {
    plugin::build(&Pick::new(name), &context.scope("goodness"))
}

fn shapes(name: &str) -> Checked {
    let goodness = build(name, &context()?)?;
    for rows in [1, 3] {
        let activity = random(&[rows, 2, 3], 1)?;
        let before = bits(&activity)?;
        let found = goodness.goodness(&activity)?;
        ensure!(all_finite(&found)?, "a goodness that is not finite");
        let gradient = goodness.gradient(&activity, &random(found.dims(), 2)?)?;
        ensure!(all_finite(&gradient)?, "a gradient that is not finite");
        ensure!(bits(&activity)? == before, "it changes the given activity");
        let again = goodness.goodness(&activity)?;
        ensure!(
            bits(&found)? == bits(&again)?,
            "the same activity gives a different goodness"
        );
    }
    Ok(())
}

fn rows(name: &str) -> Checked {
    let goodness = build(name, &context()?)?;
    let activity = random(&[3, 2, 3], 1)?;
    let all = goodness.goodness(&activity)?.narrow(0, 2, 1)?;
    let last = goodness.goodness(&activity.narrow(0, 2, 1)?.contiguous()?)?;
    let apart = scalar(&(all - last)?.abs()?.flatten_all()?.max(0)?)?;
    ensure!(
        apart < 1e-5,
        "the goodness of a row changes by {apart} with the other rows"
    );
    Ok(())
}

fn gradient(name: &str) -> Checked {
    let goodness = build(name, &context()?)?;
    let activity = random(&[3, 2, 3], 1)?;
    let upstream = random(goodness.goodness(&activity)?.dims(), 2)?;
    let total = |activity: &Tensor| -> Result<f64> {
        scalar(&(goodness.goodness(activity)? * &upstream)?.sum_all()?)
    };
    let gradient = goodness.gradient(&activity, &upstream)?;
    agree("the goodness", &activity, &gradient, total)
}

/// The losses for grading a goodness, and the roles of the views.
fn objectives() -> Vec<(Objective, Vec<Role>)> {
    let pair = vec![Role::Positive, Role::Negative];
    let of = |loss: Loss, roles: &[Role]| {
        (
            Objective {
                loss,
                ..Objective::default()
            },
            roles.to_vec(),
        )
    };
    vec![
        of(Loss::Logistic, &pair),
        of(Loss::Symmetric, &pair),
        of(Loss::CrossEntropy, &[Role::Positive]),
    ]
}

/// An objective that the goodness accepts, targets, an activity, and their grade.
fn graded(goodness: &dyn GoodnessFn) -> Result<(Objective, Targets, Tensor, Grade), Complaint> {
    let mut why = String::new();
    for (objective, roles) in objectives() {
        let activity = random(&[3 * roles.len(), 2, 3], 1)?;
        let targets = Targets::new(roles)?.with_labels(Some(vec![0, 3, 1]));
        let targets = match goodness.uses_labels(&objective) {
            true => targets,
            false => targets.hidden(),
        };
        match goodness.grade(&activity, &targets, &objective) {
            Ok(grade) => return Ok((objective, targets, activity, grade)),
            Err(error @ Error::Unfit { .. }) => why = error.to_string(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Complaint::Skip(format!(
        "it accepts none of the trial losses and targets: {why}"
    )))
}

fn grade(name: &str) -> Checked {
    let goodness = build(name, &context()?)?;
    let (objective, targets, activity, grade) = graded(&*goodness)?;
    ensure!(grade.loss.is_finite(), "a loss of {}", grade.loss);
    let Some(gradient) = grade.gradient else {
        return Ok(()); // the layer does not learn
    };
    ensure!(
        all_finite(&gradient)?,
        "a gradient of the loss that is not finite"
    );
    let loss = |activity: &Tensor| -> Result<f64> {
        Ok(goodness.grade(activity, &targets, &objective)?.loss)
    };
    agree("the loss", &activity, &gradient, loss)
}

/// Compares a gradient with finite differences along a direction.
fn agree(
    what: &str,
    activity: &Tensor,
    gradient: &Tensor,
    total: impl Fn(&Tensor) -> Result<f64>,
) -> Checked {
    let direction = random(activity.dims(), 3)?;
    let step = (&direction * 1e-2)?;
    let slope = (total(&(activity + &step)?)? - total(&(activity - &step)?)?) / 2e-2;
    let predicted = scalar(&(gradient * &direction)?.sum_all()?)?;
    ensure!(
        (slope - predicted).abs() < 1e-2 * (0.1 + slope.abs()),
        "along a direction, finite differences of {what} give {slope}, its gradient \
         gives {predicted}"
    );
    Ok(())
}

fn locality(name: &str) -> Checked {
    let context = context()?;
    let other = context
        .vars
        .get("another.weight", (2, 2), Init::Const(1.))?;
    let mut goodness = build(name, &context)?;
    let (_, targets, activity, grade) = graded(&*goodness)?;
    let (before, variables) = (bits(&activity)?, values(&context.vars)?);
    let mut optimiser = optimiser(&context, "goodness");
    goodness.learn(&activity, &grade, &targets, &mut optimiser, &step(1, 0))?;
    goodness.epoch_ended(&step(1, 0))?;
    let after = values(&context.vars)?;
    let learns = variables.iter().any(|(path, value)| after[path] != *value);
    ensure!(
        learns || variables.len() == 1,
        "a step changes none of its variables"
    );
    let untouched = bits(&other)? == bits(&other.ones_like()?)?;
    ensure!(untouched, "a step changes a variable that is not its own");
    ensure!(bits(&activity)? == before, "a step changes the activity");
    Ok(())
}

fn speed(name: &str) -> Result<String> {
    let context = Toy::Images(4).context(1, 6)?.with_input(&[1000]);
    let goodness = build(name, &context)?;
    let activity = random(&[200, 1000], 1)?;
    let upstream = random(goodness.goodness(&activity)?.dims(), 2)?;
    let found = milliseconds(|| goodness.goodness(&activity).map(|_| ()))?;
    let gradient = milliseconds(|| goodness.gradient(&activity, &upstream).map(|_| ()))?;
    Ok(format!(
        "goodness {found:.2} ms, gradient {gradient:.2} ms of 200 activities of 1000"
    ))
}
