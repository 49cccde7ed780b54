//! Trials of a goodness function by itself.

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
    let subject = match subject(name) {
        Ok(subject) => subject,
        Err(complaint) => return examiner.check("shapes", || Err(complaint)),
    };
    examiner.check("shapes", || subject.shapes());
    examiner.check("rows", || subject.rows());
    examiner.check("gradient", || subject.gradient());
    examiner.check("grade", || subject.grade());
    examiner.check("locality", || subject.locality());
    examiner.note(subject.speed());
}

/// A goodness, the data that it takes, and the shape of an activity.
struct Subject<'a> {
    name: &'a str,
    toy: Toy,
    shape: [usize; 2],
}

/// Activities of images, or of sequences with a label at each of four positions.
fn subject(name: &str) -> Result<Subject<'_>, Complaint> {
    let mut why = String::new();
    for (toy, shape) in [(Toy::Images(4), [2, 3]), (Toy::Sequences, [4, 3])] {
        let subject = Subject { name, toy, shape };
        match subject.build() {
            Ok(_) => return Ok(subject),
            Err(error) if error.is_unfit() => why = format!("{why} {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Complaint::Skip(format!(
        "it accepts none of the trial activities:{why}"
    )))
}

/// The losses that a goodness can be graded by, and the roles of the views.
fn objectives() -> Vec<(Objective, Vec<Role>)> {
    let pair = vec![Role::Positive, Role::Negative];
    let of = |loss: Loss, roles: &[Role]| {
        let objective = Objective {
            loss,
            ..Objective::default()
        };
        (objective, roles.to_vec())
    };
    vec![
        of(Loss::Logistic, &pair),
        of(Loss::Symmetric, &pair),
        of(Loss::CrossEntropy, &[Role::Positive]),
        of(Loss::CrossEntropy, &[Role::Positive; 2]),
    ]
}

/// An objective that the goodness takes, the targets, an activity, and the grade.
type Graded = (Objective, Targets, Tensor, Grade);

impl Subject<'_> {
    fn build(&self) -> Result<Box<dyn GoodnessFn>> {
        self.build_in(&self.context()?)
    }

    fn build_in(&self, context: &BuildContext) -> Result<Box<dyn GoodnessFn>> {
        plugin::build(&Pick::new(self.name), &context.scope("goodness"))
    }

    fn context(&self) -> Result<BuildContext> {
        Ok(self.toy.context(1, 6)?.with_input(&self.shape))
    }

    fn activity(&self, rows: usize) -> Result<Tensor> {
        random(&[rows, self.shape[0], self.shape[1]], 1)
    }

    fn shapes(&self) -> Checked {
        let goodness = self.build()?;
        for rows in [1, 3] {
            let activity = self.activity(rows)?;
            let before = bits(&activity)?;
            let found = goodness.goodness(&activity)?;
            ensure!(all_finite(&found)?, "a goodness that is not finite");
            let gradient = goodness.gradient(&activity, &random(found.dims(), 2)?)?;
            ensure!(all_finite(&gradient)?, "a gradient that is not finite");
            let untouched = bits(&activity)? == before;
            ensure!(untouched, "it changes the given activity");
            let again = goodness.goodness(&activity)?;
            let same = bits(&found)? == bits(&again)?;
            ensure!(same, "the same activity gives a different goodness");
        }
        Ok(())
    }

    fn rows(&self) -> Checked {
        let goodness = self.build()?;
        let activity = self.activity(3)?;
        let all = goodness.goodness(&activity)?.narrow(0, 2, 1)?;
        let last = goodness.goodness(&activity.narrow(0, 2, 1)?.contiguous()?)?;
        let apart = scalar(&(all - last)?.abs()?.flatten_all()?.max(0)?)?;
        ensure!(
            apart < 1e-5,
            "the goodness of a row changes by {apart} with the other rows"
        );
        Ok(())
    }

    fn gradient(&self) -> Checked {
        let goodness = self.build()?;
        let activity = self.activity(3)?;
        let upstream = random(goodness.goodness(&activity)?.dims(), 2)?;
        let total = |activity: &Tensor| -> Result<f64> {
            scalar(&(goodness.goodness(activity)? * &upstream)?.sum_all()?)
        };
        let gradient = goodness.gradient(&activity, &upstream)?;
        agree("the goodness", &activity, &gradient, total)
    }

    /// Grades an activity by the first objective that the goodness takes.
    fn graded(&self, goodness: &dyn GoodnessFn) -> Result<Graded, Complaint> {
        let mut why = String::new();
        for (objective, roles) in objectives() {
            let activity = self.activity(3 * roles.len())?;
            let labels = [0, 3, 1].repeat(self.context()?.positions);
            let targets = Targets::new(roles)?.with_labels(Some(labels));
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
        let why = format!("it accepts none of the trial losses and targets: {why}");
        Err(Complaint::Skip(why))
    }

    fn grade(&self) -> Checked {
        let goodness = self.build()?;
        let (objective, targets, activity, grade) = self.graded(&*goodness)?;
        let loss = grade.loss.value()?;
        ensure!(loss.is_finite(), "a loss of {loss}");
        let Some(gradient) = grade.gradient else {
            return Ok(()); // the layer does not learn
        };
        let is_finite = all_finite(&gradient)?;
        ensure!(is_finite, "a gradient of the loss that is not finite");
        let loss = |activity: &Tensor| -> Result<f64> {
            let grade = goodness.grade(activity, &targets, &objective)?;
            grade.loss.value()
        };
        agree("the loss", &activity, &gradient, loss)
    }

    fn locality(&self) -> Checked {
        let context = self.context()?;
        let other = context
            .vars
            .get("another.weight", (2, 2), Init::Const(1.))?;
        let mut goodness = self.build_in(&context)?;
        let (_, targets, activity, grade) = self.graded(&*goodness)?;
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

    fn speed(&self) -> Result<String> {
        let shape = [self.shape[0], 1000 / self.shape[0]];
        let context = self.toy.context(1, 6)?.with_input(&shape);
        let goodness = self.build_in(&context)?;
        let activity = random(&[200, shape[0], shape[1]], 1)?;
        let upstream = random(goodness.goodness(&activity)?.dims(), 2)?;
        let found = milliseconds(|| goodness.goodness(&activity).map(|_| ()))?;
        let gradient = milliseconds(|| goodness.gradient(&activity, &upstream).map(|_| ()))?;
        Ok(format!(
            "goodness {found:.2} ms, gradient {gradient:.2} ms of 200 activities of 1000"
        ))
    }
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
