//! The wrapper around goodness functions.

use candle_core::Tensor;

use super::{fault, has_shape, is_finite, is_tame, Checkable, Checked};
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::{GoodnessFn, Grade};
use crate::contract::loss::Objective;
use crate::contract::rule::Rule;
use crate::error::Result;
use crate::flow::graph::{Graph, Node};
use crate::flow::step::Step;
use crate::flow::views::Targets;
use crate::optim::Optimiser;

struct Facts {
    classes: Option<usize>,
    /// The number of units for `threshold`.
    units: usize,
    threshold: f64,
}

impl Checkable for dyn GoodnessFn {
    fn checked(built: Box<Self>, called: String, context: &BuildContext) -> Result<Box<Self>> {
        let units = context.inputs();
        let name = called.clone();
        let facts = |goodness: &Self| {
            let threshold = goodness.threshold(units);
            if !threshold.is_finite() {
                let problem =
                    format!("has a threshold of {threshold} for {units} units, expected finite");
                return Err(fault(&name, problem));
            }
            Ok(Facts {
                classes: goodness.classes(),
                units,
                threshold,
            })
        };
        Ok(Box::new(Checked::new(built, called, context, facts)?))
    }
}

impl Checked<dyn GoodnessFn, Facts> {
    /// Whether a goodness has the documented shape: `(R,)`, `(R, C)` or `(R, P, C)`.
    fn check_shape(&self, found: &[usize], rows: usize) -> Result<()> {
        self.check_columns(found, rows, self.facts.classes)
    }

    fn check_columns(&self, found: &[usize], rows: usize, classes: Option<usize>) -> Result<()> {
        let (fits, expected) = match (classes, found) {
            (Some(classes), [r, c] | [r, _, c]) => {
                ((*r, *c) == (rows, classes), format!("({rows}, {classes})"))
            }
            (Some(classes), _) => (false, format!("({rows}, {classes})")),
            (None, _) => (found == [rows], format!("({rows},)")),
        };
        if fits {
            return Ok(());
        }
        Err(self.fault(format!(
            "returned a goodness of shape {found:?}, expected {expected}"
        )))
    }

    /// Refuses numbers that are not finite, unless they were computed from numbers beyond
    /// [`LARGE`](super::LARGE).
    fn check_finite(&self, what: &str, found: &Tensor, from: &[&Tensor]) -> Result<()> {
        if is_finite(found) || !from.iter().all(|from| is_tame(from)) || !self.has_tame_variables()
        {
            return Ok(());
        }
        Err(self.fault(format!(
            "returned {what} that is not finite, for a finite activity"
        )))
    }
}

impl GoodnessFn for Checked<dyn GoodnessFn, Facts> {
    fn theta(&self, objective: &Objective, units: usize) -> f64 {
        self.inner.theta(objective, units)
    }

    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let goodness = self.attempt(|plugin| plugin.goodness(activity))?;
        self.check_shape(goodness.dims(), activity.dim(0)?)?;
        self.check_finite("a goodness", &goodness, &[activity])?;
        Ok(goodness)
    }

    fn classes(&self) -> Option<usize> {
        self.facts.classes
    }

    fn threshold(&self, units: usize) -> f64 {
        match units == self.facts.units {
            true => self.facts.threshold,
            false => self.inner.threshold(units),
        }
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let gradient = self.attempt(|plugin| plugin.gradient(activity, upstream))?;
        has_shape(&self.called, "a gradient", gradient.dims(), activity.dims())?;
        self.check_finite("a gradient", &gradient, &[activity, upstream])?;
        Ok(gradient)
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        let grade = self.attempt(|plugin| plugin.grade(activity, targets, objective))?;
        if let Some(goodness) = &grade.goodness {
            let sampled = targets.sampled().map(|sampled| sampled.classes().len());
            let found = goodness.dims();
            let is_sampled = targets.roles().len() == 1 && found.last() == sampled.as_ref();
            let classes = self.facts.classes.map(|all| match sampled {
                Some(sampled) if is_sampled => sampled,
                _ => all,
            });
            self.check_columns(found, activity.dim(0)?, classes)?;
            self.check_finite("a goodness", goodness, &[activity])?;
        }
        if let Some(gradient) = &grade.gradient {
            has_shape(&self.called, "a gradient", gradient.dims(), activity.dims())?;
            // The block reports a loss that is not finite.
            if !grade.loss.is_broken() {
                self.check_finite("a gradient", gradient, &[activity])?;
            }
        }
        Ok(grade)
    }

    fn uses_labels(&self, objective: &Objective) -> bool {
        self.inner.uses_labels(objective)
    }

    fn rule(&self, objective: &Objective) -> Rule {
        self.inner.rule(objective)
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        self.attempt_mut(|plugin| plugin.learn(activity, grade, targets, optimiser, step))
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        self.attempt(|plugin| plugin.graph(activity, graph))
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        self.attempt_mut(|plugin| plugin.epoch_ended(step))
    }
}
