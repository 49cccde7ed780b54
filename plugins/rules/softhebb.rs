//! SoftHebb: units that compete learn from their own activity, without labels and
//! without a gradient.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::kernels::{self, ChannelStats};
use onward_core::modules::conv::Convolved;
use onward_core::modules::passing::Pool;
use onward_core::modules::rectifier::Norm;
use onward_core::modules::running_moments::{Moments, RunningMoments};
use onward_core::settings::Positive;
use onward_core::{
    plugin, Architecture, BuildContext, Conv, Error, Input, LastResult, Lesson, LocalLayer,
    Optimiser, Reading, Result, Rule, Step, Vars,
};

onward_core::settings! {
    /// A convolution whose units compete at each pixel, and learn by Hebb's rule.
    ///
    /// With `n = norm(input)` and `u = n ∗ W`, the units share out each pixel:
    /// `p = softmax(t·u)` over the `N` units. The winner of a pixel has `y = p`, the
    /// others `y = −p`. Summed over the pixels and the batch,
    ///
    /// `ΔWᵢ = Σ yᵢ·n − (Σ yᵢ·uᵢ)·Wᵢ`,
    /// `Wᵢ ← Wᵢ + rate·|‖Wᵢ‖ − 1|^½ · ΔWᵢ / max |ΔW|`.
    ///
    /// `‖Wᵢ‖` converges to 1, and the unit stops learning: one epoch is enough. The
    /// activity is `a = pool(max(0, u − mean u)^power)`, with the mean over the units.
    ///
    /// | tensor   | shape                 |                                     |
    /// |----------|-----------------------|-------------------------------------|
    /// | input    | `(B, C, H, W)`        | `(B, H, W)` is one channel          |
    /// | `W`      | `(N, C, field, field)`| drawn from `N(0, 25/√(C·field²))`   |
    /// | activity | `(B, N, …)`           | half the height and width if pooled |
    ///
    /// # Reference
    /// Journé, Garcia Rodriguez, Guo, Moraitis, "Hebbian Deep Learning Without Feedback",
    /// 2023 (<https://arxiv.org/abs/2209.11883>).
    pub struct SoftHebb {
        /// The number of units. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
        /// Height and width of the field, in pixels; odd.
        field: usize = 3, in 1..=101;
        /// `t`: how much of a pixel the best units take.
        sharpness: f64 = 1., in Positive;
        /// The exponent of the activity.
        power: f64 = 1., in Positive.up_to(10.);
        /// How the map is made smaller.
        pool: Pool = Pool::Max;
        /// The standardisation of the input, by batch normalisation (`batch`), over
        /// each example (`group`), or less the mean over its channels (`units`).
        /// Nothing in it is learned.
        norm: Norm = Norm::None;
        /// The learning rate; `lr` and `optimiser` do not change this layer.
        rate: f64 = 0.01, in Positive;
    }
}

/// The length of a vector of weights at the start.
const LENGTH: f64 = 25.;
/// The fraction of the running means that a step keeps.
const KEEP: f64 = 0.99;

/// Refuses the difference from the mean of a single unit or channel, which is 0.
fn check_means(units: usize, channels: usize, norm: Norm) -> Result<()> {
    let problem = match (units, channels, norm) {
        (1, _, _) => "a single unit less the mean over units is always 0; use more units",
        (_, 1, Norm::Units) => {
            "a single channel less the mean over channels is always 0; use another `norm`"
        }
        _ => return Ok(()),
    };
    Err(Error::unfit("softhebb", problem))
}

struct Layer {
    settings: SoftHebb,
    conv: Conv,
    vars: Vars,
    /// Of the channels of the input, for `batch`.
    running: Option<RunningMoments>,
    /// What the last forward pass in training computed on the way.
    passed: LastResult<Passed>,
}

#[derive(Clone)]
struct Passed {
    moments: Option<Moments>,
    /// `n`.
    input: Tensor,
    /// `u`.
    sums: Convolved,
}

impl Layer {
    fn new(settings: SoftHebb, context: &BuildContext) -> Result<Self> {
        let (units, vars, field) = (
            context.units_or(settings.units)?,
            &context.vars,
            settings.field,
        );
        let [channels, _, _] = context.image()?;
        check_means(units, channels, settings.norm)?;
        let stdev = LENGTH / ((channels * field * field) as f64).sqrt();
        let conv = Conv::new(
            vars,
            channels,
            units,
            field,
            1,
            Init::Randn { mean: 0., stdev },
        )?;
        Ok(Self {
            conv,
            vars: vars.clone(),
            running: match settings.norm {
                Norm::Batch => Some(RunningMoments::new(vars, channels, KEEP)?),
                _ => None,
            },
            passed: LastResult::default(),
            settings,
        })
    }

    fn pass(&self, input: &Input, step: &Step) -> Result<Passed> {
        let x = input.join()?;
        let x = if x.rank() == 3 { x.unsqueeze(1)? } else { x }.contiguous()?;
        let moments = match (&self.running, self.settings.norm) {
            (Some(running), _) => Some(running.of(&x, step)?),
            (None, Norm::Group) => Some((ChannelStats::of(&x, true)?, false)),
            (None, _) => None,
        };
        let input = match &moments {
            // With the slope 1 it only standardises.
            Some((stats, _)) => {
                let zero = Tensor::zeros(x.dim(1)?, x.dtype(), x.device())?;
                kernels::standardised_relu(&x, Some(stats), &zero, 1.)?
            }
            None if self.settings.norm == Norm::Units => kernels::centred(&x)?,
            None => x,
        };
        let sums = self.conv.forward(&input)?;
        Ok(Passed {
            moments,
            input,
            sums,
        })
    }

    fn activity(&self, sums: &Tensor) -> Result<Tensor> {
        self.settings.pool.of_triangle(sums, self.settings.power)
    }

    /// Refuses a change of the weights that is not finite. On a GPU, where it would have
    /// to be waited for, this is left to the next checkpoint.
    fn check_finite(&self, change: [&Tensor; 2], step: &Step) -> Result<()> {
        for part in change {
            let part = Reading::of(part)?;
            if part.is_broken() {
                return Err(Error::Diverged {
                    block: self.vars.path("weight"),
                    what: "change",
                    value: part.value()?,
                    step: step.index,
                });
            }
        }
        Ok(())
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let passed = self.pass(input, step)?;
        let activity = self.activity(&passed.sums.output)?.detach();
        if step.has_lesson() {
            self.passed.put(&activity, passed);
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, _: &mut Optimiser, step: &Step) -> Result<()> {
        let passed = self.passed.take(lesson.activity);
        let passed = passed.map_or_else(|| self.pass(lesson.input, step), Ok)?;
        let Passed {
            moments,
            input,
            sums,
        } = &passed;
        // What each unit gets of each pixel, positive for the winner.
        let y = kernels::signed_softmax(&sums.output, self.settings.sharpness)?;
        let of_input = self.conv.gradient(input, sums, &y)?;
        let of_units = kernels::channel_dots(&y, &sums.output)?;
        let weight = self.conv.weight().as_detached_tensor();
        let change = kernels::add_scaled_rows(&of_input, &weight, &of_units.neg()?)?;
        let largest = (kernels::largest(&change)? + 1e-30)?;
        let lengths = weight.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?;
        let rates = ((lengths - 1.)?.abs()?.sqrt()? * self.settings.rate)?;
        let rates = rates.broadcast_div(&largest)?;
        self.check_finite([&largest, &rates], step)?;
        let changed = kernels::add_scaled_rows(&weight, &change, &rates)?;
        self.conv.weight().set(&changed.detach())?;
        self.vars.changed();
        match (&self.running, moments) {
            (Some(running), Some(now)) => running.average(now),
            _ => Ok(()),
        }
    }

    fn rule(&self) -> Option<Rule> {
        Some(Rule::NoGradient)
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.conv.weight_images()))
    }
}

onward_core::register! {
    dyn LocalLayer, "softhebb",
    "units that compete and learn by Hebb's rule, without labels (SoftHebb 2023, \
     arXiv 2209.11883)",
    |settings: SoftHebb, context| Ok(Box::new(Layer::new(settings, context)?)),
    .idle(|_, all| plugin::beside_own_rule(all, "softhebb"))
}

onward_core::preset! {
    dyn Architecture, "progressive", "softhebb",
    "three convolutions by Hebb's rule in one epoch, then a linear probe (SoftHebb 2023)",
    r#"
        data = "cifar-10"
        epochs = 1
        batch = 10
        standardise = true
        hidden = [96, 384, 1536]
        sampler = "plain"
        layer = [
            { name = "softhebb", norm = "batch", field = 5, power = 0.7, rate = 0.08 },
            { name = "softhebb", norm = "batch", sharpness = 0.65, power = 1.4, rate = 0.005 },
            { name = "softhebb", norm = "batch", sharpness = 0.25, pool = "mean" },
        ]
        loss = "none"
        normalise = "none"
        readout_from = 1000 # the last layer alone
        probe_epochs = 10
        head_optimiser = "adam"
        head_lr = 0.001
        head_weight_decay = 0.0
    "#
}
