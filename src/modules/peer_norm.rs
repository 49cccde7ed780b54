//! PeerNorm normalisation: the extra term that keeps every unit about equally active.

use candle_core::{Tensor, Var};
use candle_nn::Init;

use crate::contract::layer::Lesson;
use crate::error::{Located, Result};
use crate::flow::vars::Vars;
use crate::flow::views::Role;
use crate::kernels;
use crate::optim::OutputGradient;

/// The running means of the activities of a layer's units, and how strongly they are drawn together.
///
/// With `m ← momentum·m + (1 − momentum)·(batch mean of a)`, taken over the positive views, it adds
/// `strength·(m_j − mean(m))` to the gradient of unit `j` in every positive example, *whether the unit was active or
/// not*: a unit that is never active would otherwise never learn.
///
/// # Reference
/// Hinton's Matlab program `ffnew.m`, 2022; the momentum is 0.9 there, the strength 0.03, the start ½.
pub struct PeerNorm {
    means: Var,
    strength: f64,
    momentum: f64,
}

impl PeerNorm {
    /// That of `units` units, its means the buffer `means` at `vars`; none if the strength is 0.
    ///
    /// # Errors
    /// As [`Vars::buffer`].
    pub fn new(vars: &Vars, units: usize, strength: f64, momentum: f64) -> Result<Option<Self>> {
        if strength == 0. {
            return Ok(None);
        }
        Ok(Some(Self {
            means: vars.buffer("means", units, Init::Const(0.5))?,
            strength,
            momentum,
        }))
    }

    /// The gradient below the ReLU that a lesson is about: `lesson.gradient` where a unit was active, times `gain`; the
    /// term of `peer`, if there is one, is common to the rows of the positive views. `(V·B, N)`.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the lesson has no gradient.
    pub fn gate(peer: Option<&Self>, lesson: &Lesson<'_>, gain: f64) -> Result<OutputGradient> {
        let activity = lesson.activity.flatten_from(1)?;
        let gated = OutputGradient::from(kernels::gate(
            &lesson.gradient()?.flatten_from(1)?,
            &activity,
            gain,
        )?);
        let Some(peer) = peer else { return Ok(gated) };
        // The positive views come first.
        let positive = lesson
            .roles
            .iter()
            .take_while(|role| **role == Role::Positive)
            .count();
        let (batch, rows) = (lesson.input.batch(), positive * lesson.input.batch());
        if rows == 0 {
            return Ok(gated);
        }
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
