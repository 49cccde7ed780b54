//! The net itself: how its layers step, learn and predict.

use std::ops::RangeInclusive;

use onward_core::candle_core::{DType, Device, Tensor};
use onward_core::contract::architecture::Readout;
use onward_core::contract::sampler::every_class;
use onward_core::data::images::moved;
use onward_core::kernels::damp;
use onward_core::optim::{Algorithm, OptimiserSpec};
use onward_core::plugin::registry;
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, Head, Input, NegativeSampler, Normalise,
    Objective, Optimiser, Report, Result, Role, Step, Values,
};
use rayon::prelude::*;

use super::clamps::{mismatch, Clamped, Clamps};
use super::Recurrent;

pub(super) struct Net {
    /// The hidden layers, from the pixels up; behind them the projection of the label, if there is one.
    blocks: Vec<Block>,
    heads: [Head; 1],
    readouts: Vec<Readout>,
    classes: usize,
    /// The widths of the hidden layers.
    hidden: Vec<usize>,
    /// How wide that is what stands above the last one; 0 if nothing does.
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

impl Net {
    pub fn new(settings: Recurrent, context: &BuildContext) -> Result<Self> {
        let clamps = Clamps::new(&settings, context)?;
        let top = if settings.label_units > 0 {
            settings.label_units
        } else {
            clamps.above()
        };
        let places = clamps.places();
        let hidden: Vec<usize> = settings
            .hidden
            .iter()
            .map(|units| units.saturating_mul(places))
            .collect();
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
            blocks.push(block(&settings, (index + 1).to_string(), &place)?);
        }
        if settings.label_units > 0 {
            let place = context
                .scope("label")
                .with_input(&[clamps.above()])
                .with_units(top);
            blocks.push(block(&settings, "label".into(), &place)?);
        }
        let by_class = blocks.iter().any(|block| block.classes().is_some());
        let of_head = OptimiserSpec {
            method: Algorithm::Sgd,
            rate: settings.head_lr,
            decay: settings.head_weight_decay,
            ..descent(&settings)
        };
        let head = Head::new(
            &context.scope("head").vars,
            hidden.iter().sum(),
            context.classes,
            of_head,
            0..context.epochs,
        )?;
        let mut readouts = vec![Readout {
            name: "head",
            cheap: true,
            log_probabilities: true,
        }];
        match (by_class, context.hypotheses) {
            (true, _) => readouts.push(Readout {
                name: "goodness",
                cheap: false,
                log_probabilities: false,
            }),
            (false, true) => readouts.push(Readout {
                name: "search",
                cheap: false,
                log_probabilities: false,
            }),
            (false, false) => (),
        }
        Ok(Self {
            blocks,
            heads: [head],
            readouts,
            classes: context.classes,
            hidden,
            top,
            clamps,
            normalise: settings.normalise,
            steps: settings.steps,
            window: window(&settings)?,
            damping: settings.damping,
            label_weight: settings.label_weight,
            redraw: settings.redraw,
            jitter: settings.jitter,
        })
    }

    /// What is below at time step `t`; `t = 0` is the start.
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

    /// What the neighbours hear of a state, `(V·B, …)`, or `(B, …)` if it is the same in all views.
    fn listen(&self, state: &Tensor, batch: usize, views: usize) -> Result<Input> {
        let rows = state.dim(0)?;
        let heard = match rows == batch {
            true => Input::shared(state.detach(), views)?,
            false => Input::stacked(state.detach(), views)?,
        };
        heard.normalised(self.normalise)
    }

    /// The states at the start: one pass from the bottom up, nothing being heard from above.
    fn start(&self, below: Input, step: &Step) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.hidden.len());
        let mut lower = below;
        for (index, block) in self.blocks[..self.hidden.len()].iter().enumerate() {
            let (batch, views) = (lower.batch(), lower.views());
            let above = self.hidden.get(index + 1).copied().unwrap_or(self.top);
            let silence = silence(above, batch, views, &lower.dtype_and_device().1)?;
            let heard = self.beside(lower, silence.as_ref())?;
            let state = block.forward(&heard, step)?.detach();
            lower = self.listen(&state, batch, views)?;
            states.push(state);
        }
        Ok(states)
    }

    /// What every hidden layer hears at the next time step, `(below | above)`.
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

    /// What a layer hears from below and above, side by side: columns, or the channels of maps.
    fn beside(&self, lower: Input, upper: Option<&Input>) -> Result<Input> {
        let heard = match upper {
            Some(upper) => Input::beside(&[lower, upper.clone()])?,
            None => lower,
        };
        let columns = heard.width();
        heard.shaped(&self.clamps.shape(columns))
    }

    /// What stands above the last layer, as loud as what that hears from below, times `label_weight`.
    fn above(&self, label: Option<&Input>, step: &Step) -> Result<Option<Input>> {
        let Some(label) = label else { return Ok(None) };
        let above = match self.blocks.get(self.hidden.len()) {
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

    /// The neutral view, the states at its start, and what the head sees of them.
    fn neutral(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<(Clamped, Vec<Tensor>, Input)> {
        let clamped = self.clamps.take(&sampler.neutral(batch)?)?;
        let states = self.start(self.below(&clamped, 0, batch, step)?, step)?;
        let features = self.features(&states, batch.size())?;
        Ok((clamped, states, features))
    }

    /// What the head sees of the states of one view, `(B, …)` each.
    fn features(&self, states: &[Tensor], batch: usize) -> Result<Input> {
        let features = states.iter().map(|state| self.listen(state, batch, 1));
        Input::beside(&features.collect::<Result<Vec<_>>>()?)
    }

    /// What the head makes of the first negative view's states by now, `(B, C)`.
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
        self.heads[0].log_probabilities(&self.features(&states, batch)?)
    }

    /// The states that views start from: those of the neutral view, unless they differ below.
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

    /// The goodness of views, summed over the hidden layers and the time steps of the window, `(V·B,)` or `(V·B, C)`.
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
            for ((block, heard), state) in self.blocks.iter().zip(&heard).zip(&mut states) {
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
        sum.ok_or_else(|| mismatch("the window holds no time step"))
    }
}

/// A block at a place that says how much enters it and how many units it has.
fn block(settings: &Recurrent, name: String, place: &BuildContext) -> Result<Block> {
    let layer = registry::build(&settings.layer, &place.scope("layer"))?;
    // One row is enough to see what comes out.
    let row = Tensor::ones(
        [&[1], &place.input[..]].concat(),
        place.vars.dtype(),
        &place.vars.device(),
    )?;
    let activity = layer.forward(&Input::of(row)?, &Step::evaluation(place.seed))?;
    let (found, units) = (
        activity.dims()[1..].to_vec(),
        place.units.unwrap_or_default(),
    );
    let (is_right, expected) = match place.input[..] {
        [_, height, width] => {
            let expected = format!(
                "[{units}, {height}, {width}], since `maps` keep their size: fields that are odd, with \
                 `padding = (field - 1) / 2` and no stride, do"
            );
            (found == [units, height, width], expected)
        }
        _ => (
            activity.elem_count() == units,
            format!("{units} units in all"),
        ),
    };
    if !is_right {
        return Err(mismatch(format!(
            "layer {name} gives {found:?} instead of {expected}"
        )));
    }
    let of_goodness = place.scope("goodness").with_input(&activity.dims()[1..]);
    let goodness = registry::build(&settings.goodness, &of_goodness)?;
    let objective = Objective {
        loss: settings.loss,
        theta: settings.theta,
        temperature: settings.temperature,
    };
    let optimiser = Optimiser::new(place.vars.clone(), descent(settings), 0..place.epochs);
    Ok(Block::new(
        name,
        layer,
        goodness,
        objective,
        settings.normalise,
        optimiser,
    ))
}

fn descent(settings: &Recurrent) -> OptimiserSpec {
    OptimiserSpec {
        method: settings.optimiser,
        rate: settings.lr,
        decay: settings.weight_decay,
        momentum: settings.momentum,
        schedule: settings.schedule,
    }
}

fn window(settings: &Recurrent) -> Result<RangeInclusive<usize>> {
    match settings.window[..] {
        [first, last] if first <= last && last <= settings.steps => Ok(first..=last),
        _ => Err(Error::Setting {
            key: "window".into(),
            value: format!("{:?}", settings.window),
            origin: "the settings".into(),
            expected: format!(
                "[first, last], two time steps with 1 <= first <= last <= steps = {}",
                settings.steps
            ),
        }),
    }
}

/// Nothing to be heard from `width` units: a part that costs nothing to multiply.
fn silence(width: usize, batch: usize, views: usize, device: &Device) -> Result<Option<Input>> {
    if width == 0 {
        return Ok(None);
    }
    let index = Tensor::zeros((batch, 1), DType::U32, device)?;
    let nothing = Values::OneHot {
        index,
        classes: width,
        strength: 0.,
    };
    Ok(Some(Input::new(vec![nothing], batch, views, &[width])?))
}

impl Architecture for Net {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        let (_, neutral, features) = self.neutral(batch, sampler, step)?;
        let log = self.heads[0].log_probabilities(&features)?;
        let mut views = sampler.views(&batch.shown_to(sampler), &mut || Ok(log.clone()), step)?;
        let mut clamped = self.clamps.take(&views.input)?;
        let mut states = self.start_of(&clamped, &neutral, batch, step)?;
        let mut reports = vec![Report::default(); self.blocks.len()];
        for block in &mut self.blocks {
            block.optimiser_mut().gather(self.steps);
        }
        for t in 1..=self.steps {
            let step = &step.pass(t as u32);
            if self.redraw && t > 1 {
                let mut predict = || self.prediction(&states, &views.roles, batch.size());
                views = sampler.views(&batch.shown_to(sampler), &mut predict, step)?;
                clamped = self.clamps.take(&views.input)?;
            }
            let above = self.above(clamped.label.as_ref(), step)?;
            let mut heard = self.heard(self.below(&clamped, t, batch, step)?, &states, above)?;
            // The projection of the label is a block like the others, only that it hears nothing but the label.
            heard.extend(clamped.label.iter().cloned());
            // All of them hear what was before this step, so that none waits for another.
            let places = self
                .blocks
                .iter_mut()
                .zip(&heard)
                .zip(states.iter_mut().map(Some).chain([None]));
            let learned: Vec<_> = places
                .collect::<Vec<_>>()
                .into_par_iter()
                .map(|((block, heard), state)| -> Result<Option<Report>> {
                    let is_learning = block.is_learning(step);
                    let activity = block.forward(
                        heard,
                        &Step {
                            train: is_learning,
                            ..*step
                        },
                    )?;
                    let report = is_learning
                        .then(|| block.learn(heard, &activity, &views, step))
                        .transpose()?;
                    if let Some(state) = state {
                        *state = damp(state, &activity.detach(), self.damping)?;
                    }
                    Ok(report)
                })
                .collect();
            for (sum, report) in reports.iter_mut().zip(learned) {
                if let Some(report) = report? {
                    sum.add(&report, 1. / self.steps as f64);
                }
            }
        }
        for block in &mut self.blocks {
            block.optimiser_mut().settle(step)?;
        }
        self.heads[0].learn(&features, &log, batch.labels()?, step)?;
        let learning = self.blocks.iter().zip(reports).enumerate();
        Ok(learning
            .filter(|(_, (block, _))| block.is_learning(step))
            .map(|(index, (_, report))| (index, report))
            .collect())
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        let (_, states, features) = self.neutral(batch, sampler, step)?;
        match readout {
            "head" => self.heads[0].log_probabilities(&features),
            "goodness" => self.goodness(&sampler.neutral(batch)?, &states, batch, step),
            _ => {
                let input = sampler.hypotheses(batch, &every_class(self.classes, batch)?)?;
                let input = input.ok_or_else(|| {
                    mismatch("the sampler makes no hypotheses, so labels cannot be searched")
                })?;
                let goodness = self.goodness(&input, &states, batch, step)?; // (C·B,)
                Ok(goodness
                    .reshape((input.views(), batch.size()))?
                    .t()?
                    .contiguous()?)
            }
        }
    }

    fn readouts(&self) -> Vec<Readout> {
        self.readouts.clone()
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    fn heads(&self) -> &[Head] {
        &self.heads
    }

    fn heads_mut(&mut self) -> &mut [Head] {
        &mut self.heads
    }
}
