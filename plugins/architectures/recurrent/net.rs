//! The recurrent network: time steps, learning and prediction.

use std::ops::RangeInclusive;

use onward_core::candle_core::Tensor;
use onward_core::contract::negatives::every_class;
use onward_core::data::images::moved;
use onward_core::kernels::{blocks_at_once, damp};
use onward_core::optim::{Optimiser, Span};
use onward_core::plugin;
use onward_core::wiring::stack::no_hypotheses;
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, Head, Input, Located, NegativeSampler, Net,
    Normalise, Prediction, Readout, Result, Role, Rule, Step, StepReport, Targets, Values,
};
use rayon::prelude::*;

use super::clamps::{unfit, Clamped, Clamps};
use super::Recurrent;

pub(super) struct RecurrentNet {
    /// The blocks are the hidden layers, from the pixels up, and then the projection of
    /// the label, if there is one.
    net: Net,
    classes: usize,
    /// The widths of the hidden layers.
    hidden: Vec<usize>,
    /// The width of the input from above the last layer; 0 without one.
    top: usize,
    clamps: Clamps,
    normalise: Normalise,
    steps: usize,
    window: RangeInclusive<usize>,
    damping: f64,
    label_weight: f64,
    redraw: bool,
    jitter: usize,
}

impl RecurrentNet {
    pub fn new(settings: &Recurrent, context: &BuildContext) -> Result<Self> {
        let clamps = Clamps::new(settings, context)?;
        let top = match settings.label_units {
            0 => clamps.above(),
            units => units,
        };
        let places = clamps.places();
        let hidden = settings
            .hidden
            .iter()
            .map(|units| units.saturating_mul(places));
        let hidden: Vec<usize> = hidden.collect();
        let mut blocks = Vec::with_capacity(hidden.len() + 1);
        for (index, &units) in settings.hidden.iter().enumerate() {
            let below = if index == 0 {
                clamps.below
            } else {
                hidden[index - 1]
            };
            let above = hidden.get(index + 1).copied().unwrap_or(top);
            let place = context.scope("blocks").scope(index).with_units(units);
            let place = place.with_input(&clamps.shape(below.saturating_add(above)));
            blocks.push(block(settings, (index + 1).to_string(), &place)?);
        }
        if settings.label_units > 0 {
            let place = context
                .scope("label")
                .with_input(&[clamps.above()])
                .with_units(top);
            blocks.push(block(settings, "label".into(), &place)?);
        }
        let spec = settings.head_spec.beside(&settings.optimiser);
        let (vars, span) = (context.scope("head").vars, Span::Epochs(0..context.epochs));
        let head = Head::new(&vars, hidden.iter().sum(), context.classes, spec, span)?;
        let mut readouts = vec![Readout::new("head").cheap().with_log_probabilities()];
        if blocks.iter().any(|block| block.classes().is_some()) {
            readouts.push(Readout::new("goodness"));
        } else if context.hypotheses {
            readouts.push(Readout::new("search"));
        }
        let net = Net {
            blocks,
            heads: vec![head],
            readouts,
        };
        net.check_label(context)?;
        net.check_solved(0..hidden.len())?;
        check_waiting(&net)?;
        Ok(Self {
            net,
            classes: context.classes,
            hidden,
            top,
            clamps,
            normalise: settings.normalise,
            steps: settings.steps,
            window: window(settings)?,
            damping: settings.damping,
            label_weight: settings.label_weight,
            redraw: settings.redraw,
            jitter: settings.jitter,
        })
    }

    fn layers(&self) -> &[Block] {
        &self.net.blocks[..self.hidden.len()]
    }

    /// The input from below at time step `t`; `t = 0` is the start.
    fn below(&self, clamped: &Clamped, t: usize, batch: &Batch, step: &Step) -> Result<Input> {
        let mut values = clamped.below.clone();
        if let (2.., [Values::Dense { matrix, columns }]) = (self.clamps.frames, &values[..]) {
            let first = columns.start + t.saturating_sub(1) * self.clamps.below;
            values = vec![Values::Dense {
                matrix: matrix.clone(),
                columns: first..first + self.clamps.below,
            }];
        } else if step.train && self.jitter > 0 && t > 0 {
            values = vec![Values::dense(moved(
                batch.examples(),
                self.jitter,
                &mut step.stream("jitter"),
            )?)?];
        }
        Input::new(values, clamped.batch, clamped.views, &[self.clamps.below])?
            .normalised(self.normalise)
    }

    /// A state, `(V·B, …)`, or `(B, …)` if it is the same in all views, as the input of
    /// its neighbours.
    fn listen(&self, state: &Tensor, batch: usize, views: usize) -> Result<Input> {
        let rows = state.dim(0)?;
        let heard = match rows == batch {
            true => Input::shared(state.detach(), views)?,
            false => Input::stacked(state.detach(), views)?,
        };
        heard.normalised(self.normalise)
    }

    /// The states at the start: one bottom-up pass without top-down input.
    fn start(&self, below: Input, step: &Step) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.hidden.len());
        let mut lower = below;
        for (index, block) in self.layers().iter().enumerate() {
            let (batch, views) = (lower.batch(), lower.views());
            let above = self.hidden.get(index + 1).copied().unwrap_or(self.top);
            let silence = Values::Zeros {
                rows: batch,
                width: above,
            };
            let silence = Input::new([silence], batch, views, &[above])?;
            let heard = self.beside(lower, (above > 0).then_some(&silence))?;
            let state = block.forward(&heard, step)?.detach();
            lower = self.listen(&state, batch, views)?;
            states.push(state);
        }
        Ok(states)
    }

    /// The input of every hidden layer at the next time step, `(below | above)`.
    fn heard(&self, below: Input, states: &[Tensor], above: Option<Input>) -> Result<Vec<Input>> {
        let (batch, views) = (below.batch(), below.views());
        let states = states.iter().map(|state| self.listen(state, batch, views));
        let mut around = vec![below];
        around.extend(states.collect::<Result<Vec<_>>>()?);
        (0..self.hidden.len())
            .map(|index| {
                let upper = if index + 1 < self.hidden.len() {
                    around.get(index + 2)
                } else {
                    above.as_ref()
                };
                self.beside(around[index].clone(), upper)
            })
            .collect()
    }

    /// The inputs from below and above, side by side: columns, or the channels of maps.
    fn beside(&self, lower: Input, upper: Option<&Input>) -> Result<Input> {
        let heard = match upper {
            Some(upper) => Input::beside(&[lower, upper.clone()])?,
            None => lower,
        };
        let columns = heard.width();
        heard.shaped(&self.clamps.shape(columns))
    }

    /// The input from above the last layer. Its norm is that of the input from below,
    /// times `label_weight`.
    fn above(&self, label: Option<&Input>, step: &Step) -> Result<Option<Input>> {
        let Some(label) = label else { return Ok(None) };
        let above = match self.net.blocks.get(self.hidden.len()) {
            Some(projection) => self.listen(
                &projection.forward(label, step)?,
                label.batch(),
                label.views(),
            )?,
            None => label.clone().normalised(self.normalise)?,
        };
        let below = self
            .hidden
            .len()
            .checked_sub(2)
            .map_or(self.clamps.below, |below| self.hidden[below]);
        let length = match self.normalise {
            Normalise::MeanSquare => (below as f64 / self.top as f64).sqrt(),
            _ => 1.,
        };
        Ok(Some(above.scaled(self.label_weight * length)?))
    }

    /// The neutral view, its states at the start, and the input of the head.
    fn neutral(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<(Clamped, Vec<Tensor>, Input)> {
        let step = &Step {
            neutral: true,
            ..*step
        };
        let clamped = self.clamps.take(&sampler.neutral(batch)?)?;
        let states = self.start(self.below(&clamped, 0, batch, step)?, step)?;
        let features = self.features(&states, batch.size())?;
        Ok((clamped, states, features))
    }

    /// The input of the head: the states of one view, `(B, …)` each.
    fn features(&self, states: &[Tensor], batch: usize) -> Result<Input> {
        let features = states.iter().map(|state| self.listen(state, batch, 1));
        Input::beside(&features.collect::<Result<Vec<_>>>()?)
    }

    /// The head's prediction from the current states of the first negative view,
    /// `(B, C)`.
    fn prediction(&self, states: &[Tensor], roles: &[Role], batch: usize) -> Result<Tensor> {
        let view = roles
            .iter()
            .position(|role| *role == Role::Negative)
            .unwrap_or(0);
        let of_view = |state: &Tensor| -> Result<Tensor> {
            Ok(if state.dim(0)? == batch {
                state.clone()
            } else {
                state.narrow(0, view * batch, batch)?
            })
        };
        let states = states.iter().map(of_view).collect::<Result<Vec<_>>>()?;
        self.net.heads[0].log_probabilities(&self.features(&states, batch)?)
    }

    /// Takes one time step of all blocks in parallel. All inputs are from before the
    /// step, so that no block waits for another.
    fn learn_step(
        &mut self,
        heard: &[Input],
        states: &mut [Tensor],
        targets: &Targets,
        step: &Step,
    ) -> Vec<Result<Option<StepReport>>> {
        let damping = self.damping;
        let states = states.iter_mut().map(Some).chain([None]);
        let places: Vec<_> = self.net.blocks.iter_mut().zip(heard).zip(states).collect();
        let device = heard[0].dtype_and_device().1;
        let each = places.len().div_ceil(blocks_at_once(&device));
        let places = places.into_par_iter().with_min_len(each);
        let learned = places.map(|((block, heard), state)| {
            let is_learning = block.is_learning(step);
            let activity = block.forward(
                heard,
                &Step {
                    train: is_learning,
                    ..*step
                },
            )?;
            let report = is_learning
                .then(|| block.learn(heard, &activity, targets, step))
                .transpose()?;
            if let Some(state) = state {
                *state = damp(state, &activity.detach(), damping)?;
            }
            Ok(report)
        });
        learned.collect()
    }

    /// The states at the start of views: those of the neutral view, unless the views
    /// differ below.
    fn start_of(
        &self,
        clamped: &Clamped,
        neutral: &[Tensor],
        batch: &Batch,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        match self.clamps.above() {
            0 => self.start(self.below(clamped, 0, batch, step)?, step),
            _ => Ok(neutral.to_vec()),
        }
    }

    /// The goodness of views, summed over the hidden layers and the time steps of the
    /// window, `(V·B,)` or `(V·B, C)`.
    fn goodness(
        &self,
        input: &Input,
        neutral: &[Tensor],
        batch: &Batch,
        step: &Step,
    ) -> Result<Tensor> {
        let clamped = self.clamps.take(input)?;
        let mut states = self.start_of(&clamped, neutral, batch, step)?;
        let above = self.above(clamped.label.as_ref(), step)?;
        let mut sum: Option<Tensor> = None;
        for t in 1..=*self.window.end() {
            let heard = self.heard(
                self.below(&clamped, t, batch, step)?,
                &states,
                above.clone(),
            )?;
            for ((block, heard), state) in self.layers().iter().zip(&heard).zip(&mut states) {
                let activity = block.forward(heard, step)?;
                if self.window.contains(&t) {
                    let goodness = block.goodness(&activity)?;
                    sum = Some(match sum {
                        None => goodness,
                        Some(sum) => (sum + goodness)?,
                    });
                }
                *state = damp(state, &activity, self.damping)?;
            }
        }
        sum.ok_or_else(|| unfit("the window contains no time step"))
    }
}

/// Refuses layers that may change their weights as soon as they learn: their updates
/// cannot wait for the last time step.
fn check_waiting(net: &Net) -> Result<()> {
    let changes_at_once = |block: &&Block| block.rule() == Rule::NoGradient;
    let Some(block) = net.blocks.iter().find(changes_at_once) else {
        return Ok(());
    };
    Err(unfit(format!(
        "layer {} has a rule without a gradient and may change its weights at every time \
         step, but all time steps of a batch see the same weights; choose another layer: \
         --set layer=dense",
        block.name()
    )))
}

/// Builds a block; `place` has the shape of its input and its number of units.
fn block(settings: &Recurrent, name: String, place: &BuildContext) -> Result<Block> {
    let here = || format!("block {name}");
    let layer = plugin::build(&settings.layer, &place.scope("layer")).at(here)?;
    let step = Step::evaluation(place.seed);
    let activity = layer.forward(&place.probe_input()?, &step).at(here)?;
    let found = &activity.dims()[1..];
    let units = place.units.unwrap_or_default();
    let (is_right, expected) = match place.input[..] {
        [_, height, width] => {
            let expected = format!(
                "[{units}, {height}, {width}], since `maps` keep their size; use an odd \
                 `field`, `padding = (field - 1) / 2` and `stride = 1`"
            );
            (*found == [units, height, width], expected)
        }
        _ => (
            activity.elem_count() == units,
            format!("{units} units in total"),
        ),
    };
    if !is_right {
        return Err(unfit(format!(
            "layer {name}: found shape {found:?}, expected {expected}"
        )));
    }
    let of_goodness = place.scope("goodness").with_input(found);
    let goodness = plugin::build(&settings.goodness, &of_goodness).at(here)?;
    let span = Span::Epochs(0..place.epochs);
    let optimiser = Optimiser::new(place.vars.clone(), settings.optimiser.clone(), span);
    let objective = settings.objective.clone();
    Ok(Block::new(
        name,
        layer,
        goodness,
        objective,
        settings.normalise,
        optimiser,
    ))
}

fn window(settings: &Recurrent) -> Result<RangeInclusive<usize>> {
    match settings.window[..] {
        [first, last] if first <= last && last <= settings.steps => Ok(first..=last),
        _ => Err(Error::refused(
            "window",
            format!("{:?}", settings.window),
            format!(
                "[first, last], two time steps with 1 <= first <= last <= steps = {}",
                settings.steps
            ),
        )),
    }
}

impl Architecture for RecurrentNet {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        let (_, neutral, features) = self.neutral(batch, sampler, step)?;
        let log = self.net.heads[0].log_probabilities(&features)?;
        let mut views = sampler.views(batch, &Prediction::of(log.clone()), step)?;
        let mut clamped = self.clamps.take(&views.input)?;
        let mut states = self.start_of(&clamped, &neutral, batch, step)?;
        let mut reports = vec![StepReport::default(); self.net.blocks.len()];
        for block in &mut self.net.blocks {
            block.optimiser_mut().accumulate(self.steps);
        }
        for t in 1..=self.steps {
            let step = &step.pass(t as u32);
            if self.redraw && t > 1 {
                let roles = views.targets.roles();
                let prediction = Prediction::new(|| self.prediction(&states, roles, batch.size()));
                let redrawn = sampler.views(batch, &prediction, step)?;
                drop(prediction);
                views = redrawn;
                clamped = self.clamps.take(&views.input)?;
            }
            let above = self.above(clamped.label.as_ref(), step)?;
            let mut heard = self.heard(self.below(&clamped, t, batch, step)?, &states, above)?;
            // The projection of the label is a block like the others, but its only input
            // is the label.
            heard.extend(clamped.label.iter().cloned());
            let learned = self.learn_step(&heard, &mut states, &views.targets, step);
            for (sum, report) in reports.iter_mut().zip(learned) {
                if let Some(report) = report? {
                    sum.add(&report, 1. / self.steps as f64)?;
                }
            }
        }
        for block in &mut self.net.blocks {
            block.optimiser_mut().apply_accumulated(step)?;
        }
        self.net.heads[0].learn(&features, &log, batch.labels()?, step)?;
        let is_learning = |index: &usize| self.net.blocks[*index].is_learning(step);
        let reports = reports.into_iter().enumerate();
        Ok(reports.filter(|(index, _)| is_learning(index)).collect())
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        let (_, states, features) = self.neutral(batch, sampler, step)?;
        match readout.name {
            "head" => self.net.heads[0].log_probabilities(&features),
            "goodness" => self.goodness(&sampler.neutral(batch)?, &states, batch, step),
            _ => {
                let candidates = every_class(self.classes, batch)?;
                let input = sampler
                    .hypotheses(batch, &candidates)?
                    .ok_or_else(no_hypotheses)?;
                let goodness = self.goodness(&input, &states, batch, step)?; // (C·B,)
                Ok(goodness
                    .reshape((self.classes, batch.size()))?
                    .t()?
                    .contiguous()?)
            }
        }
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        let (_, states, _) = self.neutral(batch, sampler, step)?;
        Ok(states)
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}
