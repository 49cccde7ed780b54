//! The unit of locality: a layer with its goodness, loss and optimiser.

use std::ops::Range;

use candle_core::Tensor;

use crate::contract::goodness::GoodnessFn;
use crate::contract::layer::{Lesson, LocalLayer};
use crate::contract::loss::{scalar, Loss};
use crate::error::{Error, Located, Result};
use crate::flow::input::{Input, Normalise};
use crate::flow::step::Step;
use crate::flow::views::{Role, Views};
use crate::optim::Optimiser;

/// What a block minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The loss.
    pub loss: Loss,
    /// The goodness above which a view counts as positive; `None` leaves it to the goodness.
    pub theta: Option<f64>,
    /// How soft the decision is: goodness is divided by it.
    pub temperature: f64,
}

/// A layer with its goodness, its loss, what is done to its activity before the next layer sees it, its optimiser, and
/// the span of epochs in which it learns. A step of one block changes no variable of another.
pub struct Block {
    name: String,
    layer: Box<dyn LocalLayer>,
    goodness: Box<dyn GoodnessFn>,
    objective: Objective,
    normalise: Normalise,
    optimiser: Optimiser,
}

/// What a step of a block came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// The loss.
    pub loss: f64,
    /// The mean goodness of the positive views.
    pub positive: f64,
    /// The mean goodness of the negative views, where there are any.
    pub negative: Option<f64>,
}

impl Report {
    /// Adds `share` of another report: means over the lessons of a step.
    pub fn add(&mut self, other: &Report, share: f64) {
        self.loss += share * other.loss;
        self.positive += share * other.positive;
        self.negative = other
            .negative
            .map(|negative| self.negative.unwrap_or(0.) + share * negative)
            .or(self.negative);
    }
}

impl Block {
    /// A block called `name`, learning when and how its optimiser says; the variables of layer and goodness have to be
    /// those of the optimiser.
    pub fn new(
        name: impl Into<String>,
        layer: Box<dyn LocalLayer>,
        goodness: Box<dyn GoodnessFn>,
        objective: Objective,
        normalise: Normalise,
        optimiser: Optimiser,
    ) -> Self {
        Self {
            name: name.into(),
            layer,
            goodness,
            objective,
            normalise,
            optimiser,
        }
    }

    /// The block's name in reports and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the block learns in the epoch of `step`.
    pub fn is_learning(&self, step: &Step) -> bool {
        self.optimiser.span().contains(&step.epoch)
    }

    /// The epochs in which the block learns.
    pub fn span(&self) -> &Range<usize> {
        self.optimiser.span()
    }

    /// The optimiser, whose state a checkpoint holds.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser, to restore its state.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }

    /// What each unit of its layer responds to: [`LocalLayer::features`].
    ///
    /// # Errors
    /// Whatever the layer refuses.
    pub fn features(&self) -> Result<Option<Tensor>> {
        self.layer.features()
    }

    /// How many columns the goodness has, if one for each class.
    pub fn classes(&self) -> Option<usize> {
        self.goodness.classes()
    }

    /// The layer's activity, `(V·B, …)`.
    ///
    /// # Errors
    /// Whatever the layer refuses; [`Error::Shape`] if it gives another number of rows.
    pub fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let activity = self.layer.forward(input, step).at(|| self.place())?;
        if activity.rank() < 2 || activity.dim(0)? != input.rows() {
            let (found, expected) = (
                activity.dims().to_vec(),
                format!("an activity ({}, …)", input.rows()),
            );
            return Err(Error::Shape {
                place: self.place(),
                found,
                expected,
            });
        }
        Ok(activity)
    }

    /// What the next block sees of an activity: detached and normalised.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn pass_on(&self, activity: &Tensor, views: usize) -> Result<Input> {
        Input::stacked(activity.detach(), views)?.normalised(self.normalise)
    }

    /// The goodness of every row of an activity, `(V·B,)` or `(V·B, C)`.
    ///
    /// # Errors
    /// Whatever the goodness refuses; [`Error::Shape`] if it gives another shape than documented.
    pub fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let goodness = self
            .goodness
            .goodness(&activity.detach())
            .at(|| self.place())?;
        let rows = activity.dim(0)?;
        let expected = self
            .goodness
            .classes()
            .map_or(vec![rows], |classes| vec![rows, classes]);
        if goodness.dims() != expected {
            let (found, expected) = (
                goodness.dims().to_vec(),
                format!("a goodness of shape {expected:?}"),
            );
            return Err(Error::Shape {
                place: self.place(),
                found,
                expected,
            });
        }
        Ok(goodness)
    }

    /// The log-odds of every row being that of a positive view, `(g − θ) / T`: `(V·B,)` or `(V·B, C)`.
    ///
    /// # Errors
    /// As [`Block::goodness`].
    pub fn log_odds(&self, activity: &Tensor) -> Result<Tensor> {
        let theta = self.theta(activity)?;
        Ok(((self.goodness(activity)? - theta)? / self.objective.temperature)?)
    }

    /// The threshold for an activity.
    fn theta(&self, activity: &Tensor) -> Result<f64> {
        let units = activity.elem_count() / activity.dim(0)?.max(1);
        Ok(self
            .objective
            .theta
            .unwrap_or_else(|| self.goodness.threshold(units)))
    }

    /// One step: the goodness of the activity is graded, and the layer learns from the gradient.
    ///
    /// `activity` is what [`Block::forward`] gave for `input`.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss is not finite; whatever layer, goodness and loss refuse.
    pub fn learn(
        &mut self,
        input: &Input,
        activity: &Tensor,
        views: &Views,
        step: &Step,
    ) -> Result<Report> {
        let place = self.place();
        let lesson = Lesson {
            input,
            activity,
            gradient: None,
            roles: &views.roles,
        };
        let goodness = self.goodness(activity)?;
        let mut report = report(&goodness, &views.roles)?;
        if self.objective.loss == Loss::None {
            self.layer
                .learn(&lesson, &mut self.optimiser, step)
                .at(|| place)?;
            return Ok(report);
        }
        let detached = activity.detach();
        let (
            Objective {
                loss, temperature, ..
            },
            theta,
        ) = (self.objective, self.theta(&detached)?);
        let grade = loss.grade(
            &goodness,
            theta,
            temperature,
            &views.roles,
            views.labels.as_deref(),
        );
        let grade = grade.at(|| place.clone())?;
        report.loss = grade.loss;
        let values = [
            ("loss", report.loss),
            ("goodness", report.positive + report.negative.unwrap_or(0.)),
        ];
        if let Some((what, value)) = values.into_iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::Diverged {
                block: self.name.clone(),
                what,
                value,
                step: step.index,
            });
        }
        let gradient = self
            .goodness
            .gradient(&detached, &grade.gradient)
            .at(|| place.clone())?;
        let lesson = Lesson {
            gradient: Some(&gradient),
            ..lesson
        };
        self.layer
            .learn(&lesson, &mut self.optimiser, step)
            .at(|| place.clone())?;
        self.goodness
            .learn(&detached, &grade.gradient, &mut self.optimiser, step)
            .at(|| place)?;
        Ok(report)
    }

    fn place(&self) -> String {
        format!("block {}", self.name)
    }
}

/// The mean goodness of the views of either role; of a goodness with classes, the mean over all of them.
fn report(goodness: &Tensor, roles: &[Role]) -> Result<Report> {
    let rows = goodness.dim(0)? / roles.len().max(1);
    let mean = |wanted: Role| -> Result<Option<f64>> {
        let mut sum = 0.;
        let mut count = 0;
        for (view, role) in roles.iter().enumerate() {
            if *role == wanted {
                sum += scalar(&goodness.narrow(0, view * rows, rows)?.mean_all()?)?;
                count += 1;
            }
        }
        Ok((count > 0).then(|| sum / count as f64))
    };
    Ok(Report {
        loss: 0.,
        positive: mean(Role::Positive)?.unwrap_or(0.),
        negative: mean(Role::Negative)?,
    })
}
