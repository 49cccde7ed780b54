//! Layer `dense`.

use onward_core::candle_core::{DType, Tensor};
use onward_core::candle_nn::Init;
use onward_core::flow::graph::{Graph, Node};
use onward_core::kernels::{self, Gate};
use onward_core::modules::passing::Passes;
use onward_core::modules::peer_norm::PeerNorm;
use onward_core::modules::rectifier::{Norm, Rectifier, RectifierSpec};
use onward_core::optim::OutputGradient;
use onward_core::settings::{Idle, Settings};
use onward_core::{
    BuildContext, Input, LastResult, Lesson, Linear, LocalLayer, Optimiser, Result, Step,
};

onward_core::settings! {
    /// A fully connected layer of rectified linear units.
    ///
    /// `a = max(n, slope·n)`, `n = norm(norm(x)·W) + b`, with dropout
    /// `a ← a·m / (1 − d)`, where `m` is 0 with probability `d`. By default there is no
    /// norm and the slope is 0: `a = max(0, x·W + b)`.
    ///
    /// | tensor   | shape      |                                             |
    /// |----------|------------|---------------------------------------------|
    /// | input    | `(V·B, …)` | flattened to `D` columns                    |
    /// | `W`      | `(D, N)`   | drawn from `N(0, 1/√D)`                     |
    /// | `b`      | `(N,)`     | starts at 0                                 |
    /// | activity | `(V·B, N)` |                                             |
    ///
    /// Learns in closed form: with `δ` the gradient of the loss where a unit was active,
    /// `∂W = xᵀ·δ` and `∂b = Σ δ`.
    ///
    /// Peer normalisation ([`PeerNorm`]) keeps every unit about equally active.
    ///
    /// # Reference
    /// Hinton's Matlab program `ffnew.m` (2022), for the initial weights and the peer
    /// normalisation.
    pub struct Dense {
        /// The number of units. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
        /// Whether there is a bias.
        bias: bool = true;
        /// The probability that a unit is dropped in a training step.
        dropout: f64 = 0., in 0. ..=0.95;
        /// The standardisation of the input: each column over the batch (`batch`), over
        /// each example (`group`), or less the mean over its columns (`units`). Nothing in
        /// it is learned.
        input_norm: Norm = Norm::None;
        /// What is passed on: the activity, or what exceeds its mean over the units.
        passes: Passes = Passes::Activity;
        /// Strength of the peer normalisation; Hinton uses 0.03.
        peer: f64 = 0., in 0. ..;
        /// The fraction of the running mean of the activities that a step keeps.
        peer_momentum: f64 = 0.9, in 0. ..1.;
        .. rectifier: RectifierSpec = RectifierSpec::default();
    }
}

struct Layer {
    linear: Linear,
    /// The standardisation of the input.
    intake: Option<Rectifier>,
    passes: Passes,
    /// With a norm or a slope; without one `linear` adds the bias and cuts off at 0.
    rectifier: Option<Rectifier>,
    /// The sums of the last forward pass in training, before the rectifier.
    sums: LastResult<Tensor>,
    /// The standardised input of the last forward pass in training.
    taken: LastResult<Taken>,
    dtype: DType,
    peer: Option<PeerNorm>,
    dropout: f64,
    purpose: String,
}

/// An input that was standardised.
#[derive(Clone)]
struct Taken {
    /// Before, `(V·B, D)`.
    rows: Tensor,
    /// After.
    x: Input,
}

impl Layer {
    fn new(settings: Dense, context: &BuildContext) -> Result<Self> {
        let (inputs, units) = (context.inputs(), context.units_or(settings.units)?);
        let vars = &context.vars;
        settings.passes.check(units)?;
        let init = Init::Randn {
            mean: 0.,
            stdev: 1. / (inputs.max(1) as f64).sqrt(),
        };
        let intake = RectifierSpec::only(settings.input_norm, &settings.rectifier)
            .map(|spec| Rectifier::new(&vars.scope("input"), inputs, spec, false))
            .transpose()?;
        let (spec, bias) = (settings.rectifier, settings.bias);
        let is_plain = spec.norm == Norm::None && spec.slope == 0.;
        let linear = Linear::new(vars, inputs, units, init, bias && is_plain)?;
        let rectifier = match is_plain {
            true => None,
            false => Some(Rectifier::new(vars, units, spec, bias)?),
        };
        Ok(Self {
            linear,
            intake,
            passes: settings.passes,
            rectifier,
            sums: LastResult::default(),
            taken: LastResult::default(),
            dtype: vars.dtype(),
            peer: PeerNorm::new(vars, units, settings.peer, settings.peer_momentum)?,
            dropout: settings.dropout,
            purpose: vars.path("dropout"),
        })
    }

    /// The standardised input; `None` without a norm.
    fn take(&self, input: &Input, step: &Step) -> Result<Option<Taken>> {
        let Some(intake) = &self.intake else {
            return Ok(None);
        };
        // One-hot parts alone have no type of their own.
        let rows = input.join()?.flatten_from(1)?.to_dtype(self.dtype)?;
        let x = Input::stacked(intake.forward(&rows, step)?, input.views())?;
        Ok(Some(Taken { rows, x }))
    }

    /// The same for a lesson.
    fn taken(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Option<Taken>> {
        match self.taken.get(lesson.activity) {
            None => self.take(lesson.input, step),
            known => Ok(known),
        }
    }

    /// The gradient with respect to the input of the non-linearity.
    fn above(
        &self,
        lesson: &Lesson<'_>,
        peer: Option<&PeerNorm>,
        step: &Step,
    ) -> Result<OutputGradient> {
        let dropout = if step.train { self.dropout } else { 0. };
        let gain = 1. / (1. - dropout);
        let rectifier = self.rectifier.as_ref();
        let gate = rectifier.map_or(Gate { slope: 0., gain }, |rectifier| rectifier.gate(gain));
        let (activity, gradient) = (lesson.activity, lesson.gradient()?);
        PeerNorm::gate(peer, activity, gradient, lesson.positive_rows(), gate)
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let taken = self.take(input, step)?;
        let x = taken.as_ref().map_or(input, |taken| &taken.x);
        let sums = self.linear.forward(x, self.rectifier.is_none())?;
        let mut activity = match &self.rectifier {
            Some(rectifier) => rectifier.forward(&sums, step)?,
            None => sums.clone(),
        };
        if step.train && self.dropout > 0. {
            let stream = step.stream(&self.purpose);
            activity = kernels::dropout(&activity, self.dropout, &stream)?;
        }
        if let (true, Some(taken)) = (step.has_lesson(), taken) {
            self.taken.put(&activity, taken);
        }
        if step.has_lesson() && self.rectifier.is_some() {
            self.sums.put(&activity, sums);
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let taken = self.taken(lesson, step)?;
        self.taken.take(lesson.activity);
        let x = taken.as_ref().map_or(lesson.input, |taken| &taken.x);
        if let (Some(intake), Some(taken)) = (&mut self.intake, &taken) {
            intake.observe(&taken.rows, step)?;
        }
        let mut gradient = self.above(lesson, self.peer.as_ref(), step)?;
        if let Some(rectifier) = &mut self.rectifier {
            let sums = self.sums.take(lesson.activity);
            let sums = sums.map_or_else(|| self.linear.forward(x, false), Ok)?;
            let above = gradient.whole()?;
            gradient = rectifier.learn(&sums, above, optimiser, step)?.into();
        }
        self.linear.update(x, gradient, optimiser, step)
    }

    fn observe(&mut self, lesson: &Lesson<'_>, step: &Step) -> Result<()> {
        let taken = self.taken(lesson, step)?;
        self.taken.take(lesson.activity);
        let x = taken.as_ref().map_or(lesson.input, |taken| &taken.x);
        if let (Some(intake), Some(taken)) = (&mut self.intake, &taken) {
            intake.observe(&taken.rows, step)?;
        }
        let Some(rectifier) = &mut self.rectifier else {
            return Ok(());
        };
        let sums = self.sums.take(lesson.activity);
        let sums = sums.map_or_else(|| self.linear.forward(x, false), Ok)?;
        rectifier.observe(&sums, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        let taken = self.taken(lesson, step)?;
        let x = taken.as_ref().map_or(lesson.input, |taken| &taken.x);
        let mut gradient = self.above(lesson, None, step)?.whole()?;
        if let Some(rectifier) = &self.rectifier {
            // The lesson of this layer itself, if there is one, comes later.
            let sums = self.sums.get(lesson.activity);
            let sums = sums.map_or_else(|| self.linear.forward(x, false), Ok)?;
            gradient = rectifier.gradient(&sums, gradient, step)?;
        }
        let mut gradient = self.linear.joined_gradient(&gradient)?;
        if let (Some(intake), Some(taken)) = (&self.intake, &taken) {
            gradient = intake.gradient(&taken.rows, gradient, step)?;
        }
        let shape = [&[lesson.input.rows()], lesson.input.shape()].concat();
        Ok(gradient.reshape(shape)?)
    }

    fn pass_on(&self, activity: &Tensor) -> Result<Tensor> {
        self.passes.of(activity)
    }

    fn pass_on_gradient(&self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        self.passes.gradient(activity, gradient)
    }

    fn pass_on_graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        self.passes.graph(activity, graph)
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let x = match &self.intake {
            Some(intake) => {
                let rows = graph.flat(x);
                intake.graph(rows, graph)?
            }
            None => x,
        };
        let sums = self.linear.graph(x, graph)?;
        match &self.rectifier {
            Some(rectifier) => rectifier.graph(sums, graph),
            None => Ok(graph.relu(sums)),
        }
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.linear.weight_images()?))
    }
}

onward_core::register! {
    dyn LocalLayer, "dense",
    "fully connected rectified linear units, peer normalisation, dropout \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: Dense, context| Ok(Box::new(Layer::new(settings, context)?)),
    .idle(|own, _| {
        let settings = Dense::read(own)?;
        let mut idle = settings.rectifier.idle_beside(settings.input_norm);
        if settings.peer == 0. {
            let because = "there is no peer normalisation (`peer = 0`)";
            idle.extend(Idle::all(&["peer_momentum"], because));
        }
        Ok(idle)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::optim::{OptimiserSpec, Span};
    use onward_core::{Role, Targets, Vars};

    /// Else all layers of a deep net would keep them at the same time.
    #[test]
    fn sums_are_kept_for_a_lesson_alone() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let context = BuildContext::new(vars, 1).with_input(&[3]).with_units(4);
        let mut settings = Dense::default();
        settings.rectifier.slope = 0.1;
        let layer = Layer::new(settings, &context)?;
        let input = Input::of(Tensor::ones((2, 3), DType::F32, &Device::Cpu)?)?;
        let lesson = Step::first(1);
        let neutral = Step {
            neutral: true,
            ..lesson
        };
        for (step, keeps) in [
            (lesson, true),
            (neutral, false),
            (Step::evaluation(1), false),
        ] {
            let activity = layer.forward(&input, &step)?;
            assert_eq!(layer.sums.take(&activity).is_some(), keeps, "{step:?}");
        }
        Ok(())
    }

    /// Compares with finite differences of the loss `½·Σ a²`, whose gradient with respect
    /// to the activity is the activity, under the same mask.
    #[test]
    fn dropout_masks_and_scales_the_gradient_like_the_activity() -> Result<()> {
        let vars = Vars::new(1, DType::F64, &Device::Cpu);
        let context = BuildContext::new(vars.clone(), 1)
            .with_input(&[3])
            .with_units(4);
        let mut layer = Layer::new(
            Dense {
                // Not a multiple of 2⁻¹⁶, to which the draws are rounded.
                dropout: 0.3,
                ..Dense::default()
            },
            &context,
        )?;
        let x = Tensor::new(
            &[[1f64, 2., -1.], [0.5, -1., 3.], [2., 2., 1.], [-1., 1., 0.]],
            &Device::Cpu,
        )?;
        let input = Input::stacked(x, 1)?;
        let step = Step::first(5);
        let activity = layer.forward(&input, &step)?;
        let silenced = activity
            .eq(0.)?
            .to_dtype(DType::F64)?
            .sum_all()?
            .to_scalar::<f64>()?;
        assert!((3. ..14.).contains(&silenced), "{silenced}");
        let weight = vars
            .learned()
            .into_iter()
            .find(|(name, _)| name.ends_with("weight"))
            .expect("it has one")
            .1;
        let before = weight.as_tensor().copy()?.flatten_all()?.to_vec1::<f64>()?;
        let loss = |values: &[f64]| -> Result<f64> {
            weight.set(&Tensor::from_slice(values, weight.shape(), &Device::Cpu)?)?;
            Ok(layer
                .forward(&input, &step)?
                .sqr()?
                .sum_all()?
                .to_scalar::<f64>()?
                / 2.)
        };
        let mut expected = before.clone();
        for (at, expected) in expected.iter_mut().enumerate() {
            let moved = |by: f64| {
                before
                    .iter()
                    .enumerate()
                    .map(move |(i, w)| if i == at { w + by } else { *w })
            };
            let (up, down): (Vec<f64>, Vec<f64>) = (moved(1e-6).collect(), moved(-1e-6).collect());
            *expected -= (loss(&up)? - loss(&down)?) / 2e-6;
        }
        loss(&before)?;
        let descent = OptimiserSpec::sgd(1.);
        let mut optimiser = Optimiser::new(vars, descent, Span::Epochs(0..1));
        let targets = Targets::new(vec![Role::Positive])?;
        let gradient = Some(&activity);
        let lesson = Lesson {
            input: &input,
            activity: &activity,
            gradient,
            targets: &targets,
        };
        layer.learn(&lesson, &mut optimiser, &step)?;
        for (found, expected) in weight
            .as_tensor()
            .flatten_all()?
            .to_vec1::<f64>()?
            .iter()
            .zip(expected)
        {
            assert!(
                (found - expected).abs() < 1e-6,
                "{found} instead of {expected}"
            );
        }
        Ok(())
    }
}
