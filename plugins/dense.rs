//! Layer `dense`.

use onward::candle_core::{Tensor, Var};
use onward::candle_nn::Init;
use onward::{ops, Context, Error, Input, Lesson, Linear, LocalLayer, Optimiser, Result, Role, Site, Step};

onward::settings! {
    /// A fully connected layer of rectified linear units.
    ///
    /// `a = max(0, x·W + b)`, with dropout: `a ← a·m / (1 − d)`, `m` being 0 with probability `d`.
    ///
    /// | tensor   | shape      |                                             |
    /// |----------|------------|---------------------------------------------|
    /// | input    | `(V·B, …)` | flattened to `D` columns                    |
    /// | `W`      | `(D, N)`   | drawn from `N(0, 1/√D)`                     |
    /// | `b`      | `(N,)`     | starts at 0                                 |
    /// | activity | `(V·B, N)` |                                             |
    ///
    /// Learns in closed form: with `δ` the gradient of the loss where a unit was active, `∂W = xᵀ·δ` and `∂b = Σ δ`.
    ///
    /// Peer normalisation keeps every unit about equally active. With `m ← 0.9·m + 0.1·(batch mean of a)`, taken over
    /// the positive views, it adds `peer·(m_j − mean(m))` to the gradient of unit `j` in every positive example,
    /// *whether the unit was active or not*: a unit that is never active would otherwise never learn.
    ///
    /// # Reference
    /// Hinton's Matlab program `ffnew.m` (2022), for the initial weights and the peer normalisation.
    pub struct Dense {
        /// How many units; the architecture's `hidden` if it is not set here.
        units: Option<usize> = None, in 1..;
        /// Whether there is a bias.
        bias: bool = true;
        /// Probability that a unit is silenced in a training step.
        dropout: f64 = 0., in 0. ..=0.95;
        /// Strength of the peer normalisation; Hinton's is 0.03.
        peer: f64 = 0., in 0. ..;
        /// How much of the running mean of the activities a step keeps.
        peer_momentum: f64 = 0.9, in 0. ..1.;
    }
}

struct Layer {
    settings: Dense,
    linear: Linear,
    /// The running means of the activities, `(N,)`.
    means: Option<Var>,
    purpose: String,
}

impl Layer {
    fn new(settings: Dense, site: &Site) -> Result<Self> {
        let units = settings.units.or(site.units).ok_or_else(|| Error::Mismatch {
            place: "dense".into(),
            problem: "nobody says how many `units`; set it, or the architecture's `hidden`".into(),
        })?;
        let inputs: usize = site.input.iter().product();
        let init = Init::Randn { mean: 0., stdev: 1. / (inputs.max(1) as f64).sqrt() };
        let linear = Linear::new(&site.vars, inputs, units, init, settings.bias)?;
        let means = match settings.peer > 0. {
            true => Some(site.vars.buffer("means", units, Init::Const(0.5))?),
            false => None,
        };
        Ok(Self { settings, linear, means, purpose: site.vars.path("dropout") })
    }

    /// What peer normalisation adds to the gradient of every positive example, `(N,)`, from the means of before.
    fn peer(&self, activity: &Tensor, rows: usize, batch: usize) -> Result<Option<Tensor>> {
        let Some(means) = &self.means else { return Ok(None) };
        let momentum = self.settings.peer_momentum;
        let now = ops::column_means(activity, rows)?;
        let means_now = ((means.as_tensor() * momentum)? + (now * (1. - momentum))?)?;
        means.set(&means_now.detach())?;
        let excess = means_now.broadcast_sub(&means_now.mean_all()?)?;
        Ok(Some((excess * (self.settings.peer / batch as f64))?))
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let activity = self.linear.forward(input, true)?;
        if step.train && self.settings.dropout > 0. {
            return ops::dropout(&activity, self.settings.dropout, &step.stream(&self.purpose));
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let Some(gradient) = lesson.gradient else {
            let problem = "it learns from a gradient, but its block has no loss; choose a `loss`".to_string();
            return Err(Error::Mismatch { place: "dense".into(), problem });
        };
        // The positive views come first.
        let positive = lesson.roles.iter().take_while(|role| **role == Role::Positive).count();
        let (batch, rows) = (lesson.input.batch(), positive * lesson.input.batch());
        let peer = self.peer(lesson.activity, rows, batch).at(|| "peer normalisation".into())?;
        let gain = if step.train { 1. / (1. - self.settings.dropout) } else { 1. };
        let delta = ops::gate(gradient, lesson.activity, gain, peer.as_ref().map(|peer| (peer, rows)))?;
        self.linear.learn(lesson.input, &delta, optimiser, step)
    }
}

onward::register! {
    dyn LocalLayer, "dense", "fully connected rectified linear units, peer normalisation, dropout (Hinton 2022, arXiv 2212.13345)",
    |settings: Dense, site| Ok(Box::new(Layer::new(settings, site)?))
}
