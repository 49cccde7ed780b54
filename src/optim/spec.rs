//! The settings of an optimiser.

use super::schedule::Schedule;
use crate::settings::Positive;

crate::choices! {
    /// The update rule of an optimiser.
    pub enum Algorithm {
        /// SGD with momentum: `v ← μ·v + (1 − μ)·g`, `w ← w − η·(v + λ·w)`.
        Sgd = "sgd",
        /// Adam with decoupled weight decay (Kingma and Ba 2014, Loshchilov and Hutter
        /// 2017).
        Adam = "adam",
        /// Adam that leaves every row of a weight without a gradient as it is, moments
        /// and decay included, as PyTorch's `SparseAdam` does. For large tables of
        /// one-hot inputs, of which an example picks a few rows.
        SparseAdam = "sparse_adam",
        /// Momentum, then all singular values of the update are made alike, matrix by
        /// matrix (Jordan 2024, Muon); Adam for biases. Rates are those of Adam. Costs
        /// about 15 products of the size of the weights in every step.
        Muon = "muon",
    }
}

impl Algorithm {
    /// The names of the moments that are kept for a variable of so many dimensions.
    pub(super) fn moments(self, rank: usize) -> &'static [&'static str] {
        match self {
            Self::Sgd => &["velocity"],
            Self::Muon if rank >= 2 => &["velocity"],
            Self::Adam | Self::SparseAdam | Self::Muon => &["first", "second"],
        }
    }
}

crate::settings! {
    /// The optimiser of the layers.
    pub struct OptimiserSpec {
        /// The update rule of the layers.
        optimiser: Algorithm = Algorithm::Sgd;
        /// Learning rate of the layers, `η`, before the schedule.
        lr: f64 = 0.01, in Positive.up_to(1000.);
        /// Weight decay of the layers, `λ`; biases have none.
        weight_decay: f64 = 0.001, in 0. ..=1.;
        /// Momentum `μ`: the share of the running mean of gradients that a step keeps.
        /// Adam uses 0.9 and 0.999 instead.
        momentum: f64 = 0.9, in 0. ..1.;
        /// Schedule of the learning rates over the epochs in which a layer learns.
        schedule: Schedule = Schedule::HalfLinear;
    }
}

impl OptimiserSpec {
    /// SGD at a constant rate, without momentum or weight decay.
    pub fn sgd(lr: f64) -> Self {
        Self {
            optimiser: Algorithm::Sgd,
            lr,
            weight_decay: 0.,
            momentum: 0.,
            schedule: Schedule::Constant,
        }
    }
}
