//! Layer `dense`.

use onward::candle_core::Tensor;
use onward::candle_nn::Init;
use onward::peer::Peer;
use onward::{ops, Error, Input, Lesson, Linear, LocalLayer, Optimiser, Result, Site, Step};

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
    /// Peer normalisation ([`Peer`]) keeps every unit about equally active.
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
    peer: Option<Peer>,
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
        let peer = Peer::new(&site.vars, units, settings.peer, settings.peer_momentum)?;
        Ok(Self { settings, linear, peer, purpose: site.vars.path("dropout") })
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
        let gain = if step.train { 1. / (1. - self.settings.dropout) } else { 1. };
        let delta = Peer::gate(self.peer.as_ref(), lesson, gain)?;
        self.linear.learn(lesson.input, delta, optimiser, step)
    }

    fn features(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.linear.features()?))
    }
}

onward::register! {
    dyn LocalLayer, "dense", "fully connected rectified linear units, peer normalisation, dropout (Hinton 2022, arXiv 2212.13345)",
    |settings: Dense, site| Ok(Box::new(Layer::new(settings, site)?))
}
