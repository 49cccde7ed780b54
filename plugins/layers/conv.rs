//! Layer `conv`.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::flow::graph::{Graph, Node};
use onward_core::modules::conv::Convolved;
use onward_core::modules::rectifier::{Rectifier, RectifierSpec};
use onward_core::settings::Settings;
use onward_core::{
    kernels, BuildContext, Conv, Error, Input, LastResult, Lesson, LocalLayer, Optimiser, Result,
    Step,
};

onward_core::settings! {
    /// A convolution with pooling and rectified linear units.
    ///
    /// `z = pool(x ∗ W)`, `n = norm(z) + b`, `a = max(n, slope·n)`.
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
    /// there; mean and variance are those of the pooled values.
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
        .. rectifier: RectifierSpec = RectifierSpec::default();
    }
}

struct Layer {
    conv: Conv,
    rectifier: Rectifier,
    /// The result of the last forward pass in training, for the update after it.
    made: LastResult<Convolved>,
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
        let inputs = channels * field * field;
        let init = Init::Randn {
            mean: 0.,
            stdev: (2. / inputs as f64).sqrt(),
        };
        Ok(Self {
            conv: Conv::new(vars, channels, units, field, pool, init)?,
            rectifier: Rectifier::new(vars, units, settings.rectifier, true)?,
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

    /// The gradient with respect to `n`.
    fn above(&self, lesson: &Lesson<'_>) -> Result<Tensor> {
        kernels::gate(lesson.gradient()?, lesson.activity, self.rectifier.gate(1.))
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let made = self.conv.forward(&Self::images(input)?)?;
        let activity = self.rectifier.forward(&made.output, step)?;
        if step.has_lesson() {
            self.made.put(&activity, made);
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let images = Self::images(lesson.input)?;
        let made = self.made.take(lesson.activity);
        let made = made.map_or_else(|| self.conv.forward(&images), Ok)?;
        let above = self.above(lesson)?;
        let delta = self.rectifier.learn(&made.output, above, optimiser, step)?;
        self.conv.update(&images, &made, &delta, optimiser, step)
    }

    fn observe(&mut self, lesson: &Lesson<'_>, step: &Step) -> Result<()> {
        let made = self.made.take(lesson.activity);
        let made = made.map_or_else(|| self.conv.forward(&Self::images(lesson.input)?), Ok)?;
        self.rectifier.observe(&made.output, step)
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, step: &Step) -> Result<Tensor> {
        let images = Self::images(lesson.input)?;
        // The lesson of this layer itself, if there is one, comes later.
        let made = self.made.get(lesson.activity);
        let made = made.map_or_else(|| self.conv.forward(&images), Ok)?;
        let above = self.above(lesson)?;
        let delta = self.rectifier.gradient(&made.output, above, step)?;
        let gradient = self.conv.input_gradient(&images, &made, &delta)?;
        let shape = [&[lesson.input.rows()], lesson.input.shape()].concat();
        Ok(gradient.reshape(shape)?)
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let images = match *graph.shape(x) {
            [height, width] => graph.shaped(x, &[1, height, width]),
            _ => x,
        };
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
    .idle(|own, _| Ok(Convolution::read(own)?.rectifier.idle()))
}
