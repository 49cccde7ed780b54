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
    /// Tensors of one number each on a GPU, and their weights.
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
    /// The only number of a tensor.
    ///
    /// # Errors
    /// Errors of candle, for example if there is more than one number.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.detach().reshape(1)?;
        Ok(match tensor.device() {
            Device::Cpu => kernels::scalar(&tensor.squeeze(0)?)?.into(),
            _ => Self {
                known: 0.,
                waiting: vec![(tensor, 1.)],
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
