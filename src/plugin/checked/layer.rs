//! The wrapper around layers.

use candle_core::Tensor;

use super::{has_shape, is_finite, is_tame_input, Checkable, Checked};
use crate::contract::build_context::BuildContext;
use crate::contract::layer::{Lesson, LocalLayer};
use crate::contract::rule::Rule;
use crate::error::Result;
use crate::flow::graph::{Graph, Node};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::optim::Optimiser;

struct Facts {
    uses_labels: bool,
}

impl Checkable for dyn LocalLayer {
    fn checked(built: Box<Self>, called: String, context: &BuildContext) -> Result<Box<Self>> {
        let facts = |layer: &Self| {
            Ok(Facts {
                uses_labels: layer.uses_labels(),
            })
        };
        Ok(Box::new(Checked::new(built, called, context, facts)?))
    }
}

impl LocalLayer for Checked<dyn LocalLayer, Facts> {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let activity = self.attempt(|layer| layer.forward(input, step))?;
        let (found, rows) = (activity.dims(), input.rows());
        if activity.rank() < 2 || found[0] != rows {
            let problem = format!("returned an activity of shape {found:?}, expected ({rows}, …)");
            return Err(self.fault(problem));
        }
        // A network that diverges because of its settings is not a fault of the layer.
        let is_finite = || is_finite(&activity) || !is_tame_input(input);
        if step.train && !is_finite() && self.has_tame_variables() {
            let problem = "returned an activity that is not finite, for a finite input \
                           and finite variables";
            return Err(self.fault(problem.into()));
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        self.attempt_mut(|layer| layer.learn(lesson, optimiser, step))
    }

    fn observe(&mut self, lesson: &Lesson<'_>, step: &Step) -> Result<()> {
        self.attempt_mut(|layer| layer.observe(lesson, step))
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        let gradient = self.attempt(|layer| layer.input_gradient(lesson, step))?;
        let expected = [&[lesson.input.rows()], lesson.input.shape()].concat();
        has_shape(
            &self.called,
            "an input gradient",
            gradient.dims(),
            &expected,
        )?;
        Ok(gradient)
    }

    fn pass_on(&self, activity: &Tensor) -> Result<Tensor> {
        let passed = self.attempt(|layer| layer.pass_on(activity))?;
        let (found, rows) = (passed.dims(), activity.dim(0)?);
        if passed.rank() < 2 || found[0] != rows {
            let problem = format!("passed on a shape {found:?}, expected ({rows}, …)");
            return Err(self.fault(problem));
        }
        Ok(passed)
    }

    fn pass_on_gradient(&self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let found = self.attempt(|layer| layer.pass_on_gradient(activity, gradient))?;
        let what = "a gradient of what is passed on";
        has_shape(&self.called, what, found.dims(), activity.dims())?;
        Ok(found)
    }

    fn pass_on_graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        self.attempt(|layer| layer.pass_on_graph(activity, graph))
    }

    fn uses_labels(&self) -> bool {
        self.facts.uses_labels
    }

    fn rule(&self) -> Option<Rule> {
        self.inner.rule()
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        self.attempt(|plugin| plugin.graph(x, graph))
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        self.attempt_mut(|layer| layer.epoch_ended(step))
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        self.attempt(|layer| layer.weight_images())
    }
}
