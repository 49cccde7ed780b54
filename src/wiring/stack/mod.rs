//! Stacked blocks: the wiring that several architectures share.

mod architecture;
mod graph;
mod heads;
mod kept_rows;
mod pace;
mod readout;
mod remembered;
mod stages;

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use self::heads::Sampling;
pub use self::readout::no_hypotheses;
use self::remembered::Remembered;
pub(crate) use self::stages::no_prediction_below;
use self::stages::{Passing, Way};
use crate::comm::{Averager, Team};
use crate::contract::block::{Block, StepReport};
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::head::{Head, HeadPlan};
use crate::contract::layer::LocalLayer;
use crate::contract::loss::Objective;
use crate::contract::net::Net;
use crate::contract::prediction::Prediction;
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::error::{Error, Located, Result};
use crate::flow::batch::Batch;
use crate::flow::input::{Input, Normalise};
use crate::flow::step::Step;
use crate::flow::views::Targets;
use crate::kernels;
use crate::optim::{Optimiser, OptimiserSpec, Span};
use crate::plugin;
use crate::settings::Pick;

crate::choices! {
    /// The order in which layers learn.
    pub enum Order {
        /// All layers in every step.
        Interleaved = "interleaved",
        /// One layer after the other, each for all epochs.
        Greedy = "greedy",
    }
}

impl Order {
    /// The epochs in which layer `layer`, counted from 0, learns.
    pub fn span(self, layer: usize, epochs: usize) -> Span {
        match self {
            Self::Interleaved => Span::Epochs(0..epochs),
            Self::Greedy => Span::Epochs(layer * epochs..(layer + 1) * epochs),
        }
    }
}

/// The settings of one block of a [`Stack`].
#[derive(Clone)]
pub struct Level {
    /// The number of units of the layer.
    pub units: usize,
    /// The layer.
    pub layer: Pick<dyn LocalLayer>,
    /// The goodness.
    pub goodness: Pick<dyn GoodnessFn>,
    /// The objective.
    pub objective: Objective,
    /// The dropout of what is passed on: [`Block::with_dropout`].
    pub dropout: f64,
    /// The optimiser.
    pub optimiser: OptimiserSpec,
    /// The epochs or steps in which the level learns.
    pub span: Span,
    /// Shortcuts: lower levels, counted from 0, whose activities are added to the
    /// activity of the level below. They are detached, like all inputs of a level, and
    /// must have the shape of that activity.
    pub shortcuts: Vec<usize>,
}

/// Stacked blocks, each learning from the normalised activity of the block below, with an
/// optional head.
///
/// Level `l` sees `xₗ = norm(aₗ₋₁ + Σₛ aₛ)` for every view, with `x₁ = norm(input)` and
/// the levels `s` of its shortcuts. Its activity is `aₗ`, its goodness `gₗ`. Nothing else
/// passes between levels. The head is a softmax over the normalised activities of the
/// neutral input, `log softmax(Σₗ norm(aₗ)·Wₗ)`. All views of a step see the weights from
/// before the step.
///
/// A stack is an [`Architecture`](crate::Architecture). One with its own way of learning
/// or of reading out has a stack, and forwards the other calls to it.
///
/// ```
/// use onward::candle_core::{DType, Device, Tensor};
/// use onward::optim::{OptimiserSpec, Span};
/// use onward::wiring::stack::{Level, Stack};
/// use onward::{BuildContext, Input, Normalise, Objective, Step, Vars};
///
/// let vars = Vars::new(1, DType::F32, &Device::Cpu);
/// let context = BuildContext::new(vars, 1).with_input(&[4]);
/// let level = Level {
///     units: 3,
///     layer: "dense".into(),
///     goodness: "sum_squares".into(),
///     objective: Objective::default(),
///     dropout: 0.,
///     optimiser: OptimiserSpec::default(),
///     span: Span::Epochs(0..1),
///     shortcuts: Vec::new(),
/// };
/// // Two levels; both are read out.
/// let levels = vec![level.clone(), level];
/// let example = context.probe_input()?;
/// let stack = Stack::new(&context, example, Normalise::MeanSquare, &levels, 0..2)?;
///
/// let input = Input::of(Tensor::ones((5, 4), DType::F32, &Device::Cpu)?)?;
/// let goodness = stack.goodness(input, &Step::evaluation(1))?;
/// assert_eq!(goodness.dims(), [5]); // the sum of both levels for each example
/// # Ok::<(), onward::Error>(())
/// ```
pub struct Stack {
    /// The blocks and the head. The architecture adds its readouts: [`Stack::readouts`].
    pub net: Net,
    normalise: Normalise,
    /// The levels that are read out.
    readout: Range<usize>,
    /// The number of input columns of a head.
    features: usize,
    /// The number of classes of the data.
    labels: usize,
    shortcuts: Vec<Vec<usize>>,
    /// The place among the ranks, if there are several.
    team: Option<Team>,
    /// Averages gradients, if there are several replicas.
    averager: Option<Averager>,
    remembered: Remembered,
    /// How some of the classes are chosen, if steps do not compare all.
    sampling: Option<Sampling>,
}

impl Stack {
    /// Builds the levels, starting at the input. `example` is an input of one row that
    /// determines the shapes; `readout` are the levels that are read out, counted from 0.
    ///
    /// # Errors
    /// [`Error::Usage`] for a readout of levels that there are not; as [`plugin::build`] and
    /// [`Net::check_label`]; errors of a layer about its input;
    /// [`Error::Unfit`] if some of the levels that are read out have a goodness for each
    /// class and others do not; as [`Net::check_solved`].
    pub fn new(
        context: &BuildContext,
        example: Input,
        normalise: Normalise,
        levels: &[Level],
        readout: Range<usize>,
    ) -> Result<Self> {
        if readout.start > readout.end || readout.end > levels.len() {
            let problem = format!(
                "expected a range of the {} levels, found {readout:?}",
                levels.len()
            );
            return Err(Error::usage("readout of a stack", problem));
        }
        let mut stack = Self {
            net: Net::default(),
            normalise,
            readout,
            features: 0,
            labels: context.classes,
            shortcuts: levels.iter().map(|level| level.shortcuts.clone()).collect(),
            team: None,
            averager: None,
            remembered: Remembered::new(context.cache.clone()),
            sampling: Sampling::new(context),
        };
        stack.check_shortcuts()?;
        let step = Step::evaluation(context.seed);
        let mut kept = Kept::default();
        let mut input = example.normalised(normalise)?;
        for (index, level) in levels.iter().enumerate() {
            let place = context.scope("blocks").scope(index);
            let place = place.with_input(input.shape()).with_units(level.units);
            let name = (index + 1).to_string();
            let here = || format!("block {name}");
            let layer = plugin::build(&level.layer, &place.scope("layer")).at(here)?;
            let activity = layer.forward(&input, &step).at(here)?;
            let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
            let goodness = plugin::build(&level.goodness, &of_goodness).at(here)?;
            let spec = level.optimiser.clone();
            let optimiser = Optimiser::new(place.vars.clone(), spec, level.span.clone());
            let objective = level.objective.clone();
            let block = Block::new(name, layer, goodness, objective, normalise, optimiser);
            let block = block.with_dropout(level.dropout);
            if block.rule() == Rule::SecondPass {
                check_one_mask(index, &levels[..index])?;
            }
            stack.net.blocks.push(block);
            kept.add(&stack, index, &activity);
            input = stack.input_above(index, &activity, &kept, 1, &step)?;
            if stack.readout.contains(&index) {
                stack.features += input.width();
            }
        }
        stack.net.check_label(context)?;
        stack.net.check_solved(stack.readout.clone())?;
        let read_out = &stack.net.blocks[stack.readout.clone()];
        let columns: Vec<_> = read_out.iter().map(Block::classes).collect();
        if columns.windows(2).any(|pair| pair[0] != pair[1]) {
            let problem = "the goodness of some layers has a column per class, that of \
                           others one value; the layers that are read out are summed, so \
                           choose one kind for all of them";
            return Err(Error::unfit("goodness", problem));
        }
        Ok(stack)
    }

    /// Adds a head over the levels that are read out. It learns in the same epochs as the
    /// levels or, if `probe_epochs` is not 0, as a probe in that many epochs after them.
    ///
    /// # Errors
    /// As [`Head::new`] and [`Net::check_solved`].
    pub fn with_head(
        mut self,
        context: &BuildContext,
        plan: impl Into<HeadPlan>,
        probe_epochs: usize,
    ) -> Result<Self> {
        let in_steps = |block: &Block| matches!(block.span(), Span::Steps(_));
        if probe_epochs > 0 && self.net.blocks.iter().any(in_steps) {
            let problem = "a probe begins after the last epoch of the levels; give their spans \
                           in epochs";
            return Err(Error::unfit("probe_epochs", problem));
        }
        let last = |block: &Block| match block.span() {
            Span::Epochs(epochs) => epochs.end,
            Span::Steps(_) => context.epochs,
        };
        let epochs = self.net.blocks.iter().map(last).max().unwrap_or(0);
        let span = match probe_epochs {
            0 => Span::Epochs(0..epochs.max(context.epochs)),
            more => Span::Epochs(epochs..epochs + more),
        };
        let vars = &context.scope("head").vars;
        let plan = match context.samples {
            0 => plan.into(),
            _ => plan.into().with_sampled_classes(),
        };
        let head = Head::new(vars, self.features, context.classes, plan, span)?;
        self.net.heads = vec![head];
        self.net.check_solved(self.readout.clone())?;
        Ok(self)
    }

    /// The activity of a level. A level that is not learning runs in evaluation mode, as
    /// a probe will see it later.
    fn forward_level(&self, index: usize, input: &Input, step: &Step) -> Result<Tensor> {
        let block = &self.net.blocks[index];
        let train = step.train && block.is_learning(step);
        block.forward(input, &Step { train, ..*step })
    }

    fn has_shortcut(&self, index: usize) -> bool {
        self.shortcuts
            .get(index)
            .is_some_and(|shortcuts| !shortcuts.is_empty())
    }

    /// The neutral view, if the head learns at this step.
    fn neutral(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Passing> {
        let mut passing = Passing::default();
        if self.head_learns(step) {
            let input = sampler.neutral(batch)?.normalised(self.normalise)?;
            passing.neutral = Some(input.into());
            passing.labels = Some(batch.labels()?.to_vec());
        }
        Ok(passing)
    }

    /// The number of the levels up to the last one that learns.
    fn learning(&self, step: &Step) -> usize {
        let mut blocks = self.net.blocks.iter();
        let last = blocks.rposition(|block| block.is_learning(step));
        last.map_or(0, |last| last + 1)
    }

    /// Passes the neutral view through some levels, and collects the features of the
    /// head.
    fn pass_neutral(&self, passing: &mut Passing, levels: Range<usize>, step: &Step) -> Result<()> {
        let step = &Step {
            neutral: true,
            ..*step
        };
        match &mut passing.neutral {
            Some(way) => self.collect(way, levels, &mut passing.features, step),
            None => Ok(()),
        }
    }

    /// The views to learn from. None are needed in epochs in which only the head learns.
    fn views(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        prediction: &Prediction<'_>,
        step: &Step,
    ) -> Result<Option<(Way, Targets)>> {
        if self.learning(step) == 0 {
            return Ok(None);
        }
        let views = sampler.views(batch, prediction, step)?;
        let input = views.input.normalised(self.normalise)?;
        Ok(Some((input.into(), views.targets)))
    }

    /// One step of those of some levels that learn.
    ///
    /// Levels do not depend on each other's updates, so several learn in parallel: one
    /// per thread, so that memory does not grow with the depth.
    fn learn_levels(
        &mut self,
        passing: &mut Passing,
        levels: Range<usize>,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let mut reports = Vec::new();
        let Some((way, targets)) = &mut passing.views else {
            return Ok(reports);
        };
        let end = self.learning(step);
        let own = levels.start..levels.end.min(end);
        let width = match self.replicas() {
            None => kernels::blocks_at_once(&way.input.dtype_and_device().1),
            // Replicas meet in every update, in one order.
            Some(_) => 1,
        };
        for first in own.clone().step_by(width) {
            let levels = first..(first + width).min(own.end);
            let lessons = self.forward_some(levels.clone(), way, end, step)?;
            let blocks = self.net.blocks[levels].par_iter_mut().zip(lessons);
            let targets = &*targets;
            let learned: Vec<_> = blocks
                .map(|(block, lesson)| {
                    let (input, activity) = lesson?;
                    Some(block.learn(&input, &activity, targets, step))
                })
                .collect();
            for (index, report) in learned.into_iter().enumerate() {
                if let Some(report) = report {
                    reports.push((first + index, report?));
                }
            }
        }
        Ok(reports)
    }

    /// Passes views through some levels. Returns the input and activity of each level
    /// that learns. The input of the next level is not computed for the level `end`.
    fn forward_some(
        &self,
        levels: Range<usize>,
        way: &mut Way,
        end: usize,
        step: &Step,
    ) -> Result<Vec<Option<Passed>>> {
        let mut lessons = Vec::with_capacity(levels.len());
        for index in levels {
            let block = &self.net.blocks[index];
            let activity = self.forward_level(index, &way.input, step)?;
            let above = if index + 1 < end {
                way.kept.add(self, index, &activity);
                self.input_above(index, &activity, &way.kept, way.input.views(), step)?
            } else {
                way.input.clone()
            };
            let input = std::mem::replace(&mut way.input, above);
            lessons.push(block.is_learning(step).then_some((input, activity)));
        }
        Ok(lessons)
    }

    /// The input of the level above `index`: its activity, and those of the shortcuts,
    /// summed, detached and normalised.
    fn input_above(
        &self,
        index: usize,
        activity: &Tensor,
        kept: &Kept,
        views: usize,
        step: &Step,
    ) -> Result<Input> {
        let mut sum = activity.detach();
        for shortcut in self.shortcuts.get(index + 1).into_iter().flatten() {
            let other = &kept.0[shortcut];
            if other.dims() != sum.dims() {
                let expected =
                    format!("{:?}, since it is added to layer {}", sum.dims(), index + 1);
                let place = format!("shortcut from layer {}", shortcut + 1);
                return Err(Error::shape(place, other.dims(), expected));
            }
            sum = (sum + other)?;
        }
        self.net.blocks[index].pass_on(&sum, views, step)
    }

    fn check_shortcuts(&self) -> Result<()> {
        for (index, shortcuts) in self.shortcuts.iter().enumerate() {
            // The level directly below is part of the input anyway.
            if let Some(from) = shortcuts.iter().find(|from| **from + 1 >= index) {
                let problem = format!(
                    "layer {} cannot have a shortcut from layer {}; expected a layer \
                     below layer {index}",
                    index + 1,
                    from + 1
                );
                return Err(Error::unfit("shortcuts", problem));
            }
        }
        Ok(())
    }
}

/// Refuses dropout below a level that compares two passes: each row has a mask of its
/// own.
fn check_one_mask(index: usize, below: &[Level]) -> Result<()> {
    if below.last().is_none_or(|level| level.dropout == 0.) {
        return Ok(());
    }
    let problem = format!(
        "layer {} learns from the difference of two passes, and dropout of what layer {index} \
         passes on has another mask in each; set `dropout = 0`, or drop units in the layer: \
         `layer.dropout`",
        index + 1
    );
    Err(Error::unfit("dropout", problem))
}

/// The input and the activity of a level.
type Passed = (Input, Tensor);

/// The activities that shortcuts still need, by level.
#[derive(Default)]
struct Kept(BTreeMap<usize, Tensor>);

impl Kept {
    /// Keeps the activity of a level if a shortcut needs it later, and drops activities
    /// that no shortcut needs any more.
    fn add(&mut self, stack: &Stack, index: usize, activity: &Tensor) {
        let is_needed = |level: &usize, by: usize| {
            let above = stack.shortcuts.iter().skip(by);
            above.flatten().any(|shortcut| shortcut == level)
        };
        if is_needed(&index, index + 2) {
            self.0.insert(index, activity.detach());
        }
        self.0.retain(|level, _| is_needed(level, index + 1));
    }
}
