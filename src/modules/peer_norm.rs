//! Peer normalisation: the extra term that keeps every unit about equally active.

use candle_core::{Tensor, Var};
use candle_nn::Init;

use crate::error::{Located, Result};
use crate::flow::vars::Vars;
use crate::kernels::{self, Gate};
use crate::optim::OutputGradient;

/// Peer normalisation: running means of the activities of a layer's units, and the
/// strength that draws them together.
///
/// The means are `m ← momentum·m + (1 − momentum)·(batch mean of a)` over the positive
/// views. The term `strength·(m_j − mean(m))` is added to the gradient of unit `j` in
/// every positive example, *whether the unit was active or not*: a unit that is never
/// active would otherwise never learn.
///
/// # Reference
/// Hinton's Matlab program `ffnew.m`, 2022; it uses momentum 0.9, strength 0.03 and
/// initial means of ½.
pub struct PeerNorm {
    means: Var,
    strength: f64,
    momentum: f64,
}

impl PeerNorm {
    /// The peer normalisation of `units` units, with its means in the buffer `means` of
    /// `vars`; `None` if the strength is 0.
    ///
    /// # Errors
    /// As [`Vars::buffer`].
    pub fn new(vars: &Vars, units: usize, strength: f64, momentum: f64) -> Result<Option<Self>> {
        if strength == 0. {
            return Ok(None);
        }
        let means = vars.buffer("means", units, Init::Const(0.5))?;
        Ok(Some(Self {
            means,
            strength,
            momentum,
        }))
    }

    /// The gradient with respect to the inputs of the ReLU, `(V·B, N)`.
    ///
    /// It is [`kernels::gate`] of the gradient. If there is a `peer`, its term is added
    /// to the first `rows` rows, those of the positive views of `batch` examples.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the two do not have one shape; errors of
    /// candle.
    pub fn gate(
        peer: Option<&Self>,
        activity: &Tensor,
        gradient: &Tensor,
        [rows, batch]: [usize; 2],
        gate: Gate,
    ) -> Result<OutputGradient> {
        let (activity, gradient) = (activity.flatten_from(1)?, gradient.flatten_from(1)?);
        kernels::check_gate(&gradient, &activity)?;
        kernels::on_gpu!(
            &activity,
            Self::gate_on_gpu(peer, &activity, &gradient, [rows, batch], gate)
        );
        let gated = kernels::gate(&gradient, &activity, gate)?;
        let gated = OutputGradient::from(gated);
        let Some(peer) = peer else { return Ok(gated) };
        let excess = peer
            .excess(&activity, rows, batch)
            .at(|| "peer normalisation".into())?;
        gated.with_common(&excess, rows)
    }

    /// The same in one pass. Rows of zeros are multiplied like all others on a GPU, so
    /// the common row is not kept apart.
    #[cfg(feature = "cuda")]
    fn gate_on_gpu(
        peer: Option<&Self>,
        activity: &Tensor,
        gradient: &Tensor,
        [rows, batch]: [usize; 2],
        gate: Gate,
    ) -> Result<OutputGradient> {
        let term = |peer: &Self| {
            let now = kernels::column_means(activity, rows)?;
            let factor = peer.strength / batch as f64;
            kernels::cuda::peer(peer.means.as_tensor(), &now, peer.momentum, factor)
        };
        let term = peer.map(term).transpose()?;
        let common = term.as_ref().map(|term| (term, rows));
        Ok(kernels::cuda::gate(gradient, activity, gate, common)?.into())
    }

    /// Updates the means from the first `rows` rows, and returns the term of each unit.
    fn excess(&self, activity: &Tensor, rows: usize, batch: usize) -> Result<Tensor> {
        let now = kernels::column_means(activity, rows)?;
        let before = self.means.as_detached_tensor();
        let means = ((before * self.momentum)? + (now * (1. - self.momentum))?)?;
        self.means.set(&means)?;
        let excess = means.broadcast_sub(&means.mean_all()?)?;
        Ok((excess * (self.strength / batch as f64))?)
    }
}
