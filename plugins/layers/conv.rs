//! Layer `conv`.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::flow::graph::{Graph, Node};
use onward_core::modules::conv::Convolved;
use onward_core::modules::passing::{Passes, Pool};
use onward_core::modules::rectifier::{Norm, Rectifier, RectifierSpec};
use onward_core::settings::Settings;
use onward_core::{
    kernels, BuildContext, Conv, Error, Input, LastResult, Lesson, LocalLayer, Optimiser, Result,
    Step,
};

onward_core::settings! {
    /// A convolution with pooling and rectified linear units.
    ///
    /// `z = pool(norm(x) ∗ W)`, `n = norm(z) + b`, `a = max(n, slope·n)`. By default there
    /// is no norm.
    ///
    /// | tensor | shape | |
    /// |---|---|---|
    /// | input | `(V·B, C, H, W)` | `(V·B, H, W)` is one channel |
    /// | `W` | `(N, C, field, field)` | `N(0, √(2/(C·field²)))`; zero padding |
    /// | `z` | `(V·B, N, ⌊H/P⌋, ⌊W/P⌋)` | the largest of each `P×P` pixels |
    /// | `b` | `(N,)` | starts at 0 |
    /// | activity | `(V·B, N, ⌊H/P⌋, ⌊W/P⌋)` | |
    ///
    /// `norm(z) = (z − mean) / √(variance + 10⁻⁵)`, over the batch and all pixels of a
    /// channel (`batch`), or over a whole example (`group`); or `z` less the mean over
    /// the channels of each pixel (`units`). Pooling comes first, since it is cheapest
    /// there; mean and variance are those of the pooled values. `passed_pool` comes last
    /// instead: the loss sees every pixel, the next layer a smaller map.
    ///
    /// Learns in closed form, from the gradient of the activity through `norm` and pool
    /// to the kernel; the gradient of the input is never computed.
    ///
    /// # Reference
    /// LeCun and others, "Gradient-based learning applied to document recognition", 1998;
    /// Ioffe and Szegedy, "Batch Normalization", 2015
    /// (<https://arxiv.org/abs/1502.03167>); for networks of local convolutions,
    /// Papachristodoulou and others, "Convolutional Channel-wise Competitive Learning",
    /// 2023 (<https://arxiv.org/abs/2312.12668>).
    pub struct Convolution {
        /// The number of output channels. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
        /// Height and width of the field, in pixels; odd.
        field: usize = 3, in 1..=101;
        /// Height and width of a pool, in pixels; 1 for none.
        pool: usize = 2, in 1..=15;
        /// The standardisation of the input: each channel over the batch (`batch`), over
        /// each example (`group`), or less the mean over its channels (`units`). Nothing
        /// in it is learned.
        input_norm: Norm = Norm::None;
        /// What is passed on: the activity, or what exceeds its mean over the channels of
        /// a pixel.
        passes: Passes = Passes::Activity;
        /// How the map that is passed on is made smaller.
        passed_pool: Pool = Pool::None;
        .. rectifier: RectifierSpec = RectifierSpec::default();
    }
}

/// What a forward pass computes on the way to the activity.
#[derive(Clone)]
struct Pass {
    images: Tensor,
    /// The images, standardised.
    x: Tensor,
    z: Convolved,
}

struct Layer {
    conv: Conv,
    /// The standardisation of the input.
    intake: Option<Rectifier>,
    rectifier: Rectifier,
    passes: Passes,
    passed_pool: Pool,
    /// The last forward pass in training, for the update after it.
    made: LastResult<Pass>,
}

impl Layer {
    fn new(settings: Convolution, context: &BuildContext) -> Result<Self> {
        let (units, vars) = (context.units_or(settings.units)?, &context.vars);
        let [channels, height, width] = context.image()?;
        let (field, pool) = (settings.field, settings.pool);
        if height.min(width) < pool {
            let problem = format!(
                "no pool of {pool}×{pool} fits into \
                 {height}×{width} images; set `pool = 1`"
            );
            return Err(Error::unfit("conv", problem));
        }
        let largest = 2 * height.max(width);
        if field > largest {
            let problem = format!(
                "`field = {field}` is too large for \
                 {height}×{width} images; expected at most {}",
                largest - 1
            );
            return Err(Error::unfit("conv", problem));
        }
        settings.passes.check(units)?;
        let inputs = channels * field * field;
        let init = Init::Randn {
            mean: 0.,
            stdev: (2. / inputs as f64).sqrt(),
        };
        Ok(Self {
            conv: Conv::new(vars, channels, units, field, pool, init)?,
            intake: RectifierSpec::only(settings.input_norm, &settings.rectifier)
                .map(|spec| Rectifier::new(&vars.scope("input"), channels, spec, false))
                .transpose()?,
            rectifier: Rectifier::new(vars, units, settings.rectifier, true)?,
            passes: settings.passes,
            passed_pool: settings.passed_pool,
            made: LastResult::default(),
        })
    }

    /// The input as images, `(V·B, C, H, W)`.
    fn images(input: &Input) -> Result<Tensor> {
        let joined = input.join()?;
        Ok(if joined.rank() == 3 {
            joined.unsqueeze(1)?
        } else {
            joined
        })
    }

    fn pass(&self, input: &Input, step: &Step) -> Result<Pass> {
        let images = Self::images(input)?;
        let x = match &self.intake {
            Some(intake) => intake.forward(&images, step)?,
            None => images.clone(),
        };
        let z = self.conv.forward(&x)?;
        Ok(Pass { images, x, z })
    }

    /// The gradient with respect to `n`.
    fn above(&self, lesson: &Lesson<'_>) -> Result<Tensor> {
        kernels::gate(lesson.gradient()?, lesson.activity, self.rectifier.gate(1.))
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let pass = self.pass(input, step)?;
        let activity = self.rectifier.forward(&pass.z.output, step)?;
        if step.has_lesson() {
            self.made.put(&activity, pass);
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let kept = self.made.take(lesson.activity);
        let Pass { images, x, z } = kept.map_or_else(|| self.pass(lesson.input, step), Ok)?;
        if let Some(intake) = &mut self.intake {
            intake.observe(&images, step)?;
        }
        let above = self.above(lesson)?;
        let delta = self.rectifier.learn(&z.output, above, optimiser, step)?;
        self.conv.update(&x, &z, &delta, optimiser, step)
    }

    fn observe(&mut self, lesson: &Lesson<'_>, step: &Step) -> Result<()> {
        let kept = self.made.take(lesson.activity);
        let pass = kept.map_or_else(|| self.pass(lesson.input, step), Ok)?;
        if let Some(intake) = &mut self.intake {
            intake.observe(&pass.images, step)?;
        }
        self.rectifier.observe(&pass.z.output, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        // The lesson of this layer itself, if there is one, comes later.
        let kept = self.made.get(lesson.activity);
        let Pass { images, x, z } = kept.map_or_else(|| self.pass(lesson.input, step), Ok)?;
        let above = self.above(lesson)?;
        let delta = self.rectifier.gradient(&z.output, above, step)?;
        let mut gradient = self.conv.input_gradient(&x, &z, &delta)?;
        if let Some(intake) = &self.intake {
            gradient = intake.gradient(&images, gradient, step)?;
        }
        let shape = [&[lesson.input.rows()], lesson.input.shape()].concat();
        Ok(gradient.reshape(shape)?)
    }

    fn pass_on(&self, activity: &Tensor) -> Result<Tensor> {
        match self.passes {
            Passes::Activity => self.passed_pool.of(&activity.detach()),
            Passes::Triangle => self.passed_pool.of_triangle(&activity.detach(), 1.),
        }
    }

    fn pass_on_gradient(&self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        if self.passed_pool != Pool::None {
            let problem = "no gradient crosses `passed_pool`; use `pool` instead";
            return Err(Error::unfit("conv", problem));
        }
        self.passes.gradient(activity, gradient)
    }

    fn pass_on_graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let passed = self.passes.graph(activity, graph)?;
        self.passed_pool.graph(passed, graph)
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let mut images = match *graph.shape(x) {
            [height, width] => graph.shaped(x, &[1, height, width]),
            _ => x,
        };
        if let Some(intake) = &self.intake {
            images = intake.graph(images, graph)?;
        }
        let sums = self.conv.graph(images, graph)?;
        self.rectifier.graph(sums, graph)
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.conv.weight_images()))
    }
}

onward_core::register! {
    dyn LocalLayer, "conv",
    "convolution, pooling, rectified linear units \
     (LeCun 1998; local learning: CwComp 2023, arXiv 2312.12668)",
    |settings: Convolution, context| Ok(Box::new(Layer::new(settings, context)?)),
    .idle(|own, _| {
        let settings = Convolution::read(own)?;
        Ok(settings.rectifier.idle_beside(settings.input_norm))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::optim::{OptimiserSpec, Span};
    use onward_core::{Normalise, Role, Targets, Vars};

    /// Joining the parts of an input writes all of its numbers.
    #[test]
    fn a_lesson_takes_the_images_of_its_pass() -> Result<()> {
        let learned = |is_kept: bool| -> Result<Vec<f32>> {
            let vars = Vars::new(1, DType::F32, &Device::Cpu);
            let context = BuildContext::new(vars.clone(), 1);
            let context = context.with_input(&[2, 4, 4]).with_units(3);
            let mut layer = Layer::new(Convolution::default(), &context)?;
            let images = Tensor::from_iter((0..96).map(|i| (i as f32).sin()), &Device::Cpu)?;
            let input = Input::stacked(images.reshape((3, 2, 4, 4))?, 1)?;
            let input = input.normalised(Normalise::MeanSquare)?;
            let step = Step::first(1);
            let activity = layer.forward(&input, &step)?;
            let again = Layer::images(&input)?.flatten_all()?.to_vec1::<f32>()?;
            let kept = layer.made.get(&activity).expect("a lesson follows").images;
            assert_eq!(kept.flatten_all()?.to_vec1::<f32>()?, again);
            if !is_kept {
                layer.made.take(&activity);
            }
            let mut optimiser = Optimiser::new(vars, OptimiserSpec::sgd(0.1), Span::Epochs(0..1));
            let targets = Targets::new(vec![Role::Positive])?;
            let lesson = Lesson {
                input: &input,
                activity: &activity,
                gradient: Some(&activity),
                targets: &targets,
            };
            layer.learn(&lesson, &mut optimiser, &step)?;
            assert!(layer.made.get(&activity).is_none());
            Ok(layer.conv.weight_images().flatten_all()?.to_vec1()?)
        };
        assert_eq!(learned(true)?, learned(false)?);
        Ok(())
    }
}
