//! Peer normalisation: the extra term that keeps every unit about equally active.

use candle_core::{Tensor, Var};
use candle_nn::Init;

use crate::error::{Located, Result};
use crate::flow::vars::Vars;
use crate::kernels;
use crate::optim::OutputGradient;

/// The running means of the activities of a layer's units, and the strength with which they are drawn together.
///
/// With `m ← momentum·m + (1 − momentum)·(batch mean of a)`, taken over the positive views, it adds
/// `strength·(m_j − mean(m))` to the gradient of unit `j` in every positive example, *whether the unit was active or
/// not*: a unit that is never active would otherwise never learn.
///
/// # Reference
/// Hinton's Matlab program `ffnew.m`, 2022; there the momentum is 0.9, the strength 0.03, the start ½.
pub struct PeerNorm {
    means: Var,
    strength: f64,
    momentum: f64,
}

impl PeerNorm {
    /// The peer normalisation of `units` units, with its means in the buffer `means` at `vars`; none if the strength is 0.
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

    /// The gradient with respect to the sums of rectified units, `(V·B, N)`: `gradient` where a unit was active, times
    /// `gain`; and the term of `peer`, if there is one, in the first `rows` rows, those of the positive views of `batch`
    /// examples.
    ///
    /// # Errors
    /// Errors of candle, such as for shapes that do not fit.
    pub fn gate(
        peer: Option<&Self>,
        activity: &Tensor,
        gradient: &Tensor,
        [rows, batch]: [usize; 2],
        gain: f64,
    ) -> Result<OutputGradient> {
        let activity = activity.flatten_from(1)?;
        let gated = kernels::gate(&gradient.flatten_from(1)?, &activity, gain)?;
        let gated = OutputGradient::from(gated);
        let Some(peer) = peer else { return Ok(gated) };
        let excess = peer
            .excess(&activity, rows, batch)
            .at(|| "peer normalisation".into())?;
        gated.with_common(&excess, rows)
    }

    /// The term of each unit, from the first `rows` rows.
    fn excess(&self, activity: &Tensor, rows: usize, batch: usize) -> Result<Tensor> {
        let now = kernels::column_means(activity, rows)?;
        let means = ((self.means.as_tensor() * self.momentum)? + (now * (1. - self.momentum))?)?;
        self.means.set(&means.detach())?;
        let excess = means.broadcast_sub(&means.mean_all()?)?;
        Ok((excess * (self.strength / batch as f64))?)
    }
}
