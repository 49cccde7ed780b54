//! Layer `conv`.

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::kernels::ChannelStats;
use onward_core::modules::conv::Convolved;
use onward_core::optim::Gradient;
use onward_core::{
    kernels, BuildContext, Conv, Error, Input, LastResult, Lesson, LocalLayer, Optimiser, Result,
    Step,
};

onward_core::choices! {
    /// The standardisation of the sums of a convolution before the non-linearity.
    pub enum Norm {
        /// No standardisation.
        None = "none",
        /// Each channel over the batch; in evaluation with running means.
        Batch = "batch",
        /// All channels of an example together. The length of the activity, and a
        /// goodness of it, then carries little information.
        Group = "group",
    }
}

onward_core::settings! {
    /// A convolution with pooling and rectified linear units.
    ///
    /// `z = pool(x ∗ W)`, `a = max(0, norm(z) + b)`.
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
    /// channel (`batch`), or over a whole example (`group`). Pooling comes first, since
    /// it is cheapest there; mean and variance are those of the pooled values.
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
        /// The standardisation of `z`.
        norm: Norm = Norm::None;
        /// The fraction of the running means that a step keeps.
        norm_momentum: f64 = 0.9, in 0. ..1.;
    }
}

struct Layer {
    settings: Convolution,
    conv: Conv,
    bias: (String, Var),
    /// Running means and variances of the channels, for `batch`.
    running: Option<[Var; 2]>,
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
        let conv = Conv::new(vars, channels, units, field, pool, init)?;
        let bias = (vars.path("bias"), vars.get("bias", units, Init::Const(0.))?);
        let running = match settings.norm {
            Norm::Batch => Some([
                vars.buffer("running_mean", units, Init::Const(0.))?,
                vars.buffer("running_variance", units, Init::Const(1.))?,
            ]),
            _ => None,
        };
        Ok(Self {
            settings,
            conv,
            bias,
            running,
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

    /// The mean and variance for standardising `z`, and whether they are fixed instead of
    /// computed from `z`.
    fn moments(&self, z: &Tensor, step: &Step) -> Result<Option<(ChannelStats, bool)>> {
        Ok(match (self.settings.norm, &self.running) {
            (Norm::Group, _) => Some((ChannelStats::of(z, true)?, false)),
            (Norm::Batch, Some([mean, variance])) if !step.train => {
                let [mean, variance] = [mean, variance].map(|var| var.as_detached_tensor());
                Some((
                    ChannelStats {
                        mean,
                        variance,
                        by_row: false,
                    },
                    true,
                ))
            }
            (Norm::Batch, _) => Some((ChannelStats::of(z, false)?, false)),
            (Norm::None, _) => None,
        })
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let made = self.conv.forward(&Self::images(input)?)?;
        let moments = self.moments(&made.output, step)?;
        let bias = self.bias.1.as_detached_tensor();
        let activity = kernels::standardised_relu(
            &made.output,
            moments.as_ref().map(|(moments, _)| moments),
            &bias,
        )?;
        if step.train {
            self.made.put(&activity, made);
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let images = Self::images(lesson.input)?;
        let made = self
            .made
            .take(lesson.activity)
            .map_or_else(|| self.conv.forward(&images), Ok)?;
        let moments = self.moments(&made.output, step)?;
        let above = kernels::gate(lesson.gradient()?, lesson.activity, 1.)?;
        let delta = match &moments {
            Some((moments, fixed)) => moments.gradient(&made.output, &above, *fixed)?,
            None => above.clone(),
        };
        self.conv.update(&images, &made, &delta, optimiser, step)?;
        optimiser.update(
            &self.bias.0,
            &self.bias.1,
            Gradient::Whole(&kernels::channel_sums(&above)?),
            step,
        )?;
        if let (Some(running), Some((now, false))) = (&self.running, &moments) {
            let keep = self.settings.norm_momentum;
            for (var, now) in running.iter().zip([&now.mean, &now.variance]) {
                var.set(&((var.as_tensor() * keep)? + (now * (1. - keep))?)?.detach())?;
            }
        }
        Ok(())
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.conv.weight_images()))
    }
}

onward_core::register! {
    dyn LocalLayer, "conv",
    "convolution, pooling, rectified linear units \
     (LeCun 1998; local learning: CwComp 2023, arXiv 2312.12668)",
    |settings: Convolution, context| Ok(Box::new(Layer::new(settings, context)?))
}
