//! Numbers that a step reports, read only when somebody asks for them.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::kernels;

/// A number that a step reports, such as a loss.
///
/// On the CPU it is known at once. On a GPU it stays there until [`Reading::value`] is
/// called, because a step that reads a number waits for everything before it. Sums of
/// readings are also computed there.
///
/// ```
/// use onward_core::candle_core::{Device, Tensor};
/// use onward_core::Reading;
///
/// let loss = Reading::of(&Tensor::new(&[0.5f32], &Device::Cpu)?)?;
/// let mut sum = Reading::from(1.);
/// sum.add(&loss, 3.)?;
/// assert_eq!(sum.value()?, 2.5);
/// # Ok::<(), onward_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reading {
    known: f64,
    /// Tensors on a GPU, each for the mean of its numbers, and their weights.
    waiting: Vec<(Tensor, f64)>,
}

/// The number of waiting tensors that are replaced by their sum.
const MANY: usize = 64;

impl From<f64> for Reading {
    fn from(known: f64) -> Self {
        Self {
            known,
            waiting: Vec::new(),
        }
    }
}

impl Reading {
    /// The mean of the numbers of a tensor; of a loss, its only number.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        Ok(match (tensor.device(), tensor.elem_count()) {
            (Device::Cpu, 1) => kernels::scalar(&tensor.flatten_all()?.squeeze(0)?)?.into(),
            (Device::Cpu, _) => kernels::scalar(&tensor.mean_all()?)?.into(),
            _ => Self {
                known: 0.,
                waiting: vec![(tensor.detach().contiguous()?, 1.)],
            },
        })
    }

    /// The number. On a GPU this waits for it.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn value(&self) -> Result<f64> {
        match &self.waiting[..] {
            [] => Ok(self.known),
            waiting => Ok(self.known + kernels::scalar(&kernels::total(waiting)?.squeeze(0)?)?),
        }
    }

    /// Whether it is known already, and not finite.
    pub fn is_broken(&self) -> bool {
        !self.known.is_finite()
    }

    /// Adds `weight` times another number.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn add(&mut self, other: &Self, weight: f64) -> Result<()> {
        self.known += weight * other.known;
        let others = other.waiting.iter();
        self.waiting
            .extend(others.map(|(tensor, factor)| (tensor.clone(), factor * weight)));
        if self.waiting.len() >= MANY {
            self.waiting = vec![(kernels::total(&self.waiting)?, 1.)];
        }
        Ok(())
    }

    /// `factor` times the number.
    pub fn times(mut self, factor: f64) -> Self {
        self.known *= factor;
        let weights = self.waiting.iter_mut().map(|(_, weight)| weight);
        weights.for_each(|weight| *weight *= factor);
        self
    }
}
