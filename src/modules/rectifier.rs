//! What layers do with their sums: standardisation, bias, rectified linear units.

use candle_core::{Device, Tensor, Var};
use candle_nn::Init;

use crate::error::{Error, Result};
use crate::flow::graph::{Graph, Node};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels::{self, ChannelStats, Gate};
use crate::modules::cache::LastResult;
use crate::modules::running_moments::{Moments, RunningMoments};
use crate::optim::{Gradient, Optimiser};
use crate::settings::Idle;

crate::choices! {
    /// The standardisation of the sums of a layer before the non-linearity.
    pub enum Norm {
        /// No standardisation.
        None = "none",
        /// Each unit or channel over the batch; in evaluation, and for a head, with running
        /// means.
        Batch = "batch",
        /// All units or channels of an example together. The length of the activity, and
        /// a goodness of it, then carries little information.
        Group = "group",
        /// The mean over all units, or over all channels of a pixel, is subtracted;
        /// nothing is divided. With a ReLU only units above the mean are active (the
        /// "triangle").
        Units = "units",
    }
}

crate::settings! {
    /// How sums become activities.
    pub struct RectifierSpec {
        /// The standardisation of the sums before the non-linearity: batch
        /// normalisation (`batch`), over each example (`group`), or less the mean over
        /// all units (`units`).
        norm: Norm = Norm::None;
        /// The fraction of the running means that a step keeps.
        norm_momentum: f64 = 0.9, in 0. ..1.;
        /// The slope of the units below 0: 0 for ReLU, 0.01 for the usual leaky ReLU, 1 for
        /// linear units.
        slope: f64 = 0., in 0. ..=1.;
    }
}

impl RectifierSpec {
    /// The settings of a rectifier that standardises and does nothing else; `None` for no
    /// norm. The running means are kept as those of `other`.
    pub fn only(norm: Norm, other: &Self) -> Option<Self> {
        let spec = Self {
            norm,
            slope: 1.,
            ..other.clone()
        };
        (norm != Norm::None).then_some(spec)
    }

    /// The settings without an effect beside the others.
    pub fn idle(&self) -> Vec<Idle> {
        self.idle_beside(Norm::None)
    }

    /// The settings without an effect beside the others and a norm of the input.
    pub fn idle_beside(&self, input: Norm) -> Vec<Idle> {
        match (self.norm, input) {
            (Norm::Batch, _) | (_, Norm::Batch) => Vec::new(),
            _ => Idle::all(
                &["norm_momentum"],
                "there are no running means (`norm = batch`)",
            ),
        }
    }
}

/// `a = max(n, slope·n)` with `n = norm(z) + b`.
///
/// | tensor | shape       |                                   |
/// |--------|-------------|-----------------------------------|
/// | `z`    | `(R, N, …)` | the sums of `N` units or channels |
/// | `b`    | `(N,)`      | the variable `bias`, starts at 0  |
/// | `a`    | `(R, N, …)` | the activity                      |
///
/// `norm(z) = (z − mean) / √(variance + 10⁻⁵)`, over the batch and all pixels of a
/// channel (`batch`), or over a whole example (`group`). There is no learned scale: what
/// follows a layer is linear and has its own. For `units`, `norm(z) = z − mean` with the
/// mean over the `N` units or channels at each pixel.
///
/// # Reference
/// Ioffe and Szegedy, "Batch Normalization", 2015 (<https://arxiv.org/abs/1502.03167>);
/// Wu and He, "Group Normalization", 2018 (<https://arxiv.org/abs/1803.08494>); Maas
/// and others, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013;
/// for `units`, Coates, Lee, Ng, "An Analysis of Single-Layer Networks in Unsupervised
/// Feature Learning", 2011.
pub struct Rectifier {
    spec: RectifierSpec,
    bias: Option<(String, Var)>,
    /// For `batch`.
    running: Option<RunningMoments>,
    /// The moments of the sums of the last forward pass in training.
    kept: LastResult<Option<Moments>>,
}

impl Rectifier {
    /// The rectifier of `units` units or channels, with its variables at `vars`, and with
    /// a bias if `bias` is set.
    ///
    /// # Errors
    /// [`Error::Unfit`] for the difference from the mean of a single unit or channel,
    /// which is 0; as [`Vars::get`].
    pub fn new(vars: &Vars, units: usize, spec: RectifierSpec, bias: bool) -> Result<Self> {
        if spec.norm == Norm::Units && units == 1 {
            let problem = "a single unit or channel less the mean over units is always 0; use \
                           another `norm` and `input_norm`";
            return Err(Error::unfit("rectifier", problem));
        }
        let running = match spec.norm {
            Norm::Batch => Some(RunningMoments::new(vars, units, spec.norm_momentum)?),
            _ => None,
        };
        let bias = match bias {
            true => Some((vars.path("bias"), vars.get("bias", units, Init::Const(0.))?)),
            false => None,
        };
        Ok(Self {
            spec,
            bias,
            running,
            kept: LastResult::default(),
        })
    }

    /// The activity of the sums `z`, `(R, N, …)`.
    ///
    /// # Errors
    /// As [`RunningMoments::of`].
    pub fn forward(&self, z: &Tensor, step: &Step) -> Result<Tensor> {
        let found = self.moments(z, step)?;
        let moments = found.as_ref().map(|(moments, _)| moments);
        let bias = match &self.bias {
            Some((_, bias)) => bias.as_detached_tensor(),
            None => Tensor::zeros(z.dim(1)?, z.dtype(), z.device())?,
        };
        let activity = match self.spec.norm {
            Norm::Units => {
                let n = kernels::centred(z)?;
                kernels::standardised_relu(&n, None, &bias, self.spec.slope)?
            }
            _ => kernels::standardised_relu(z, moments, &bias, self.spec.slope)?,
        };
        if step.has_lesson() {
            self.kept.put(z, found);
        }
        Ok(activity)
    }

    /// Adds the activity of the sums `z` in evaluation to a graph.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a norm over each example.
    pub fn graph(&self, z: Node, graph: &mut Graph) -> Result<Node> {
        if self.spec.norm == Norm::Group {
            let problem = "cannot be exported with `norm` or `input_norm = \"group\"`";
            return Err(Error::unfit("rectifier", problem));
        }
        // A number for each channel, and for all of its pixels.
        let sides = vec![1; graph.shape(z).len() - 1];
        let of_channels = [&graph.shape(z)[..1], &sides[..]].concat();
        let mut found = match self.spec.norm {
            Norm::Units => centred(z, graph)?,
            _ => z,
        };
        if let Some(moments) = self.running.as_ref().map(RunningMoments::fixed) {
            let factor = moments.scale()?;
            let offset = (moments.mean * &factor)?.neg()?;
            let factor = graph.constant(&factor.reshape(&of_channels[..])?)?;
            let offset = graph.constant(&offset.reshape(&of_channels[..])?)?;
            found = graph.multiply(found, factor);
            found = graph.add(found, offset);
        }
        if let Some((name, bias)) = &self.bias {
            let bias = graph.variable(name, bias)?;
            let bias = graph.reshaped(bias, &of_channels);
            found = graph.add(found, bias);
        }
        Ok(graph.leaky_relu(found, self.spec.slope))
    }

    /// What a gradient is multiplied by between the activity and `n`. `gain` is the
    /// factor of units that dropout kept.
    pub fn gate(&self, gain: f64) -> Gate {
        let slope = self.spec.slope;
        Gate { slope, gain }
    }

    /// The gradient with respect to `z`, given that with respect to `n`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, z: &Tensor, above: Tensor, step: &Step) -> Result<Tensor> {
        let kept = self.kept.get(z);
        let moments = kept.map_or_else(|| self.moments(z, step), Ok)?;
        Ok(self.below(z, &above, moments.as_ref())?.0)
    }

    /// As [`Rectifier::gradient`]; also updates the bias and the running means.
    ///
    /// # Errors
    /// Errors of candle and of the update.
    pub fn learn(
        &mut self,
        z: &Tensor,
        above: Tensor,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<Tensor> {
        let moments = self.kept_moments(z, step)?;
        let (below, sums) = self.below(z, &above, moments.as_ref())?;
        if let Some((name, bias)) = &self.bias {
            let sums = sums.map_or_else(|| kernels::channel_sums(&above), Ok)?;
            optimiser.update(name, bias, Gradient::Whole(&sums), step)?;
        }
        self.average(moments.as_ref())?;
        Ok(below)
    }

    /// Updates the running means alone.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn observe(&mut self, z: &Tensor, step: &Step) -> Result<()> {
        let moments = self.kept_moments(z, step)?;
        self.average(moments.as_ref())
    }

    fn kept_moments(&mut self, z: &Tensor, step: &Step) -> Result<Option<Moments>> {
        let kept = self.kept.take(z);
        kept.map_or_else(|| self.moments(z, step), Ok)
    }

    fn average(&mut self, moments: Option<&Moments>) -> Result<()> {
        match (&self.running, moments) {
            (Some(running), Some(now)) => running.average(now),
            _ => Ok(()),
        }
    }

    /// The mean and variance for standardising `z`.
    fn moments(&self, z: &Tensor, step: &Step) -> Result<Option<Moments>> {
        match (&self.running, self.spec.norm) {
            (Some(running), _) => running.of(z, step).map(Some),
            (None, Norm::Group) => Ok(Some((ChannelStats::of(z, true)?, false))),
            (None, _) => Ok(None),
        }
    }

    /// The gradient with respect to `z`, given that with respect to the standardised
    /// values; and the sums of the latter, if they were needed for it.
    fn below(
        &self,
        z: &Tensor,
        above: &Tensor,
        moments: Option<&Moments>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        Ok(match (moments, self.spec.norm) {
            (Some((moments, fixed)), _) => moments.gradient_and_sums(z, above, *fixed)?,
            (None, Norm::Units) => (kernels::centred(above)?, None),
            (None, _) => (above.clone(), None),
        })
    }
}

/// Less the mean over all units or channels: that of each pixel by a convolution.
pub(super) fn centred(z: Node, graph: &mut Graph) -> Result<Node> {
    let (units, is_map) = (graph.shape(z)[0], graph.shape(z).len() > 1);
    let share = -1. / units as f64;
    let mean = if is_map {
        let kernel = Tensor::full(share, (1, units, 1, 1), &Device::Cpu)?;
        let kernel = graph.constant(&kernel)?;
        graph.conv(z, kernel)
    } else {
        let sum = graph.sums(z, 1);
        graph.times(sum, share)?
    };
    Ok(graph.add(z, mean))
}
