//! A block: a layer with its goodness, objective and optimiser. It is the unit of
//! locality.

use candle_core::Tensor;

use crate::contract::goodness::{GoodnessFn, Grade};
use crate::contract::layer::{Lesson, LocalLayer};
use crate::contract::loss::{Loss, Objective};
use crate::contract::rule::Rule;
use crate::error::{Error, Located, Result};
use crate::flow::graph::{Graph, Node};
use crate::flow::input::{Input, Normalise};
use crate::flow::reading::Reading;
use crate::flow::step::Step;
use crate::flow::views::{Role, Targets};
use crate::kernels;
use crate::optim::{Optimiser, Span};

/// The result of a block's step: its loss, and the mean goodness of the views of each
/// role.
///
/// A value is `None` if the rule has no such thing, such as a goodness where there is
/// no loss. The values are [`Reading`]s while a step runs, and numbers after
/// [`StepReport::read`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport<T = Reading> {
    /// The loss.
    pub loss: Option<T>,
    /// The mean goodness of the positive views; of a goodness with classes, over all
    /// classes that the step compares.
    pub positive: Option<T>,
    /// The mean goodness of the negative views.
    pub negative: Option<T>,
}

impl StepReport {
    /// Adds `weight` times another report, value by value.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn add(&mut self, other: &Self, weight: f64) -> Result<()> {
        let add = |sum: &mut Option<Reading>, value: &Option<Reading>| match value {
            Some(value) => sum.get_or_insert_default().add(value, weight),
            None => Ok(()),
        };
        add(&mut self.loss, &other.loss)?;
        add(&mut self.positive, &other.positive)?;
        add(&mut self.negative, &other.negative)
    }

    /// The values as numbers. On a GPU this waits for them.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn read(&self) -> Result<StepReport<f64>> {
        let read = |value: &Option<Reading>| value.as_ref().map(Reading::value).transpose();
        Ok(StepReport {
            loss: read(&self.loss)?,
            positive: read(&self.positive)?,
            negative: read(&self.negative)?,
        })
    }
}

/// A layer that learns by itself: its goodness, its objective, its optimiser.
///
/// One step of a block is [`forward`](Self::forward), then [`grade`](Self::grade), then
/// [`follow`](Self::follow). [`learn`](Self::learn) does the last two. An architecture
/// that has to put something in between, such as the goodness of other blocks, calls
/// them one by one.
///
/// ```
/// use onward::candle_core::{DType, Device, Tensor};
/// use onward::optim::{Optimiser, OptimiserSpec, Span};
/// use onward::settings::Pick;
/// use onward::{plugin, Block, BuildContext, GoodnessFn, Input, LocalLayer, Normalise, Objective};
/// use onward::{Result, Role, Step, Targets, Vars};
///
/// let vars = Vars::new(1, DType::F32, &Device::Cpu);
/// let context = BuildContext::new(vars.clone(), 1).with_input(&[2]).with_units(3);
/// let layer = plugin::build(&Pick::<dyn LocalLayer>::new("dense"), &context)?;
/// let goodness = plugin::build(&Pick::<dyn GoodnessFn>::new("sum_squares"), &context)?;
/// let optimiser = Optimiser::new(vars, OptimiserSpec::default(), Span::Epochs(0..1));
/// let mut block =
///     Block::new("1", layer, goodness, Objective::default(), Normalise::MeanSquare, optimiser);
///
/// // One example in two views.
/// let views = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu)?;
/// let input = Input::stacked(views, 2)?;
/// let targets = Targets::new(vec![Role::Positive, Role::Negative])?;
/// let step = Step { train: true, ..Step::evaluation(1) };
///
/// let goodness = |block: &Block| -> Result<Vec<f32>> {
///     Ok(block.goodness(&block.forward(&input, &step)?)?.to_vec1()?)
/// };
/// let before = goodness(&block)?;
/// for _ in 0..10 {
///     let activity = block.forward(&input, &step)?;
///     block.learn(&input, &activity, &targets, &step)?;
/// }
/// let after = goodness(&block)?;
/// assert!(after[0] - after[1] > before[0] - before[1]); // the views are further apart
/// # Ok::<(), onward::Error>(())
/// ```
pub struct Block {
    name: String,
    layer: Box<dyn LocalLayer>,
    goodness: Box<dyn GoodnessFn>,
    objective: Objective,
    normalise: Normalise,
    dropout: f64,
    optimiser: Optimiser,
}

impl Block {
    /// A block. `name` appears in reports: `1`, `label`. `normalise` is applied to its
    /// activity before the next block sees it.
    ///
    /// The optimiser updates the variables below its place alone, so the variables of
    /// layer and goodness have to be made at or below that place.
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
            dropout: 0.,
            optimiser,
        }
    }

    /// Drops each number of what is passed on with this probability in training steps,
    /// before it is normalised. The block's own loss sees all numbers.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Whether numbers of what is passed on are dropped in training steps.
    pub(crate) fn has_dropout(&self) -> bool {
        self.dropout > 0.
    }

    /// The name in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The epochs or steps in which the block learns.
    pub fn span(&self) -> &Span {
        self.optimiser.span()
    }

    /// Whether the block learns at this step.
    pub fn is_learning(&self, step: &Step) -> bool {
        self.span().contains(step)
    }

    /// Whether the block looks at labels while it learns.
    pub fn uses_labels(&self) -> bool {
        let has_goodness = self.objective.loss != Loss::None;
        self.layer.uses_labels() || has_goodness && self.goodness.uses_labels(&self.objective)
    }

    /// The class of its rule.
    pub fn rule(&self) -> Rule {
        match self.layer.rule() {
            _ if self.span().is_empty() => Rule::Frozen,
            Some(rule) => rule,
            None if self.objective.loss == Loss::None => Rule::Frozen,
            None => self.goodness.rule(&self.objective),
        }
    }

    /// Whether its layer is solved for: its activity then changes at the end of an epoch.
    pub(crate) fn has_solved_layer(&self) -> bool {
        self.layer.rule() == Some(Rule::ClosedForm)
    }

    /// Whether its goodness learns; `None` if it has no variables at `goodness` below the
    /// place of the block.
    pub(crate) fn goodness_learns(&self) -> Option<bool> {
        let vars = self.optimiser.vars().scope("goodness");
        (!vars.learned().is_empty()).then_some(self.objective.loss != Loss::None)
    }

    /// The optimiser, whose state is part of a checkpoint.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser, to restore its state.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }

    /// The weights of each unit of its layer: [`LocalLayer::weight_images`].
    ///
    /// # Errors
    /// Errors of the layer.
    pub fn weight_images(&self) -> Result<Option<Tensor>> {
        self.layer.weight_images()
    }

    /// The number of columns of the goodness, if there is one per class.
    pub fn classes(&self) -> Option<usize> {
        self.goodness.classes()
    }

    /// The layer's activity, `(V·B, …)`.
    ///
    /// # Errors
    /// Errors of the layer.
    pub fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        self.layer.forward(input, step).at(|| self.place())
    }

    /// The input of the next block: what the layer passes on of its activity, detached,
    /// with dropout in a training step, then normalised. `activity` is `(V·B, …)`, of
    /// `views` = `V` views.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows cannot be divided among the views; errors of the layer.
    pub fn pass_on(&self, activity: &Tensor, views: usize, step: &Step) -> Result<Input> {
        let kept = self.passed(activity, step)?;
        Input::stacked(kept, views)?.normalised(self.normalise)
    }

    /// What is passed on before it is normalised.
    fn passed(&self, activity: &Tensor, step: &Step) -> Result<Tensor> {
        let passed = self.layer.pass_on(&activity.detach());
        self.drop_some(passed.at(|| self.place())?.detach(), step)
    }

    fn drop_some(&self, passed: Tensor, step: &Step) -> Result<Tensor> {
        if !step.train || self.dropout == 0. {
            return Ok(passed);
        }
        let purpose = self.optimiser.vars().path("passed");
        kernels::dropout(&passed, self.dropout, &step.stream(&purpose))
    }

    /// The goodness of every row of an activity: `(V·B,)`, `(V·B, C)` or `(V·B, P, C)`.
    ///
    /// # Errors
    /// Errors of the goodness.
    pub fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.goodness
            .goodness(&activity.detach())
            .at(|| self.place())
    }

    /// The log-odds that each row is a positive view, `(g − θ) / T`, of the shape of the
    /// goodness.
    ///
    /// # Errors
    /// As [`Block::goodness`].
    pub fn log_odds(&self, activity: &Tensor) -> Result<Tensor> {
        let units = activity.elem_count() / activity.dim(0)?.max(1);
        let theta = self.goodness.theta(&self.objective, units);
        Ok(((self.goodness(activity)? - theta)? / self.objective.temperature)?)
    }

    /// The loss of an activity and its gradient; `None` if the block has no loss. No
    /// variable changes. `activity` is `(V·B, …)`, with the roles of the `V` views and
    /// the labels of the `B` examples in `targets`.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss is not finite; errors of the goodness and the
    /// loss.
    pub fn grade(
        &self,
        activity: &Tensor,
        targets: &Targets,
        step: &Step,
    ) -> Result<Option<Grade>> {
        if self.objective.loss == Loss::None {
            return Ok(None);
        }
        let hidden;
        let targets = match self.goodness.uses_labels(&self.objective) {
            true => targets,
            false => {
                hidden = targets.hidden();
                &hidden
            }
        };
        let grade = self
            .goodness
            .grade(&activity.detach(), targets, &self.objective);
        let mut grade = grade.at(|| self.place())?;
        // The fast forms of what follows are for tensors that autograd does not follow.
        grade.gradient = grade.gradient.map(|gradient| gradient.detach());
        if grade.loss.is_broken() {
            return Err(self.diverged("loss", grade.loss.value()?, step));
        }
        Ok(Some(grade))
    }

    /// Updates the variables of layer and goodness from what [`Block::grade`] returned
    /// for this activity, `(V·B, …)`. `input` has the same `V` views of `B` examples.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the goodness is not finite; errors of layer and goodness.
    pub fn follow(
        &mut self,
        input: &Input,
        activity: &Tensor,
        targets: &Targets,
        grade: Option<&Grade>,
        step: &Step,
    ) -> Result<StepReport> {
        let report = report(grade, targets.roles())?;
        for value in [&report.positive, &report.negative].into_iter().flatten() {
            if value.is_broken() {
                return Err(self.diverged("goodness", value.value()?, step));
            }
        }
        let place = self.place();
        let of_layer;
        let lesson = Lesson {
            input,
            activity,
            gradient: grade.and_then(|grade| grade.gradient.as_ref()),
            targets: match self.layer.uses_labels() {
                true => targets,
                false => {
                    of_layer = targets.hidden();
                    &of_layer
                }
            },
        };
        // Without a gradient only the goodness learns, and a layer with a rule of its
        // own.
        let learns = lesson.gradient.is_some() || self.layer.rule().is_some();
        let learned = match grade.is_none() || learns {
            true => self.layer.learn(&lesson, &mut self.optimiser, step),
            false => self.layer.observe(&lesson, step),
        };
        learned.at(|| place.clone())?;
        if let Some(grade) = grade {
            let shown = self.goodness.uses_labels(&self.objective);
            let targets = if shown {
                targets.clone()
            } else {
                targets.hidden()
            };
            let activity = activity.detach();
            let optimiser = &mut self.optimiser;
            let learned = self
                .goodness
                .learn(&activity, grade, &targets, optimiser, step);
            learned.at(|| place)?;
        }
        Ok(report)
    }

    /// One step: [`Block::grade`], then [`Block::follow`]. `activity` is what
    /// [`Block::forward`] returned for `input`, `(V·B, …)`.
    ///
    /// # Errors
    /// As [`Block::grade`] and [`Block::follow`].
    pub fn learn(
        &mut self,
        input: &Input,
        activity: &Tensor,
        targets: &Targets,
        step: &Step,
    ) -> Result<StepReport> {
        let grade = self.grade(activity, targets, step)?;
        self.follow(input, activity, targets, grade.as_ref(), step)
    }

    /// Adds the activity for an input to a graph.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the layer cannot be exported.
    pub fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        self.layer.graph(x, graph).at(|| self.place())
    }

    /// Adds the goodness of an activity to a graph.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the goodness cannot be exported.
    pub fn goodness_graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        self.goodness.graph(activity, graph).at(|| self.place())
    }

    /// Adds the input of the next block to a graph.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the layer cannot be exported.
    pub fn pass_on_graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let passed = self.layer.pass_on_graph(activity, graph);
        graph.normalised(passed.at(|| self.place())?, self.normalise)
    }

    /// The gradient with respect to the joined input, `(V·B, …)`, given that with
    /// respect to the activity; for rules in which a gradient crosses a few blocks.
    ///
    /// # Errors
    /// As [`LocalLayer::input_gradient`].
    pub fn input_gradient(
        &self,
        input: &Input,
        activity: &Tensor,
        targets: &Targets,
        gradient: &Tensor,
        step: &Step,
    ) -> Result<Tensor> {
        let targets = &targets.hidden();
        let lesson = Lesson {
            input,
            activity,
            gradient: Some(gradient),
            targets,
        };
        self.layer.input_gradient(&lesson, step).at(|| self.place())
    }

    /// The gradient with respect to the activity, given that with respect to what
    /// [`Block::pass_on`] made of it: both `(V·B, …)`.
    ///
    /// # Errors
    /// As [`LocalLayer::pass_on_gradient`].
    pub fn pass_on_gradient(
        &self,
        activity: &Tensor,
        gradient: &Tensor,
        step: &Step,
    ) -> Result<Tensor> {
        let kept = self.passed(activity, step)?;
        let of_passed = self.drop_some(self.normalise.gradient(&kept, gradient)?, step)?;
        let of_activity = self.layer.pass_on_gradient(activity, &of_passed);
        of_activity.at(|| self.place())
    }

    /// Tells layer and goodness that an epoch in which they learned has ended.
    ///
    /// # Errors
    /// Errors of layer and goodness.
    pub fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        self.layer.epoch_ended(step).at(|| self.place())?;
        match self.objective.loss {
            Loss::None => Ok(()),
            _ => self.goodness.epoch_ended(step).at(|| self.place()),
        }
    }

    fn diverged(&self, what: &'static str, value: f64, step: &Step) -> Error {
        Error::Diverged {
            block: self.name.clone(),
            what,
            value,
            step: step.index,
        }
    }

    fn place(&self) -> String {
        format!("block {}", self.name)
    }
}

fn report(grade: Option<&Grade>, roles: &[Role]) -> Result<StepReport> {
    let Some(grade) = grade else {
        return Ok(StepReport::default());
    };
    let mut report = StepReport {
        loss: Some(grade.loss.clone()),
        ..StepReport::default()
    };
    let Some(goodness) = &grade.goodness else {
        return Ok(report);
    };
    report.positive = mean(goodness, roles, Role::Positive)?;
    report.negative = mean(goodness, roles, Role::Negative)?;
    Ok(report)
}

/// The mean goodness of the views of a role.
fn mean(goodness: &Tensor, roles: &[Role], wanted: Role) -> Result<Option<Reading>> {
    let rows = goodness.dim(0)? / roles.len().max(1);
    let of_role = roles.iter().enumerate();
    let of_role = of_role.filter(|(_, role)| **role == wanted);
    let views: Vec<usize> = of_role.map(|(view, _)| view).collect();
    let mut sum = Reading::default();
    for view in &views {
        let of_view = goodness.narrow(0, view * rows, rows)?;
        sum.add(&Reading::of(&of_view)?, 1.)?;
    }
    Ok((!views.is_empty()).then(|| sum.times(1. / views.len() as f64)))
}
