//! How the numbers of matrix products are rounded: one choice for the whole process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Device;

use super::bfloat16;
use crate::error::{Error, Result};

/// How the numbers of a matrix product are rounded; its sums have 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    None,
    /// TensorFloat-32: 10 bits after the point, on a GPU alone.
    Tf32,
    /// bfloat16: 7 bits after the point.
    Bf16,
}

impl Rounding {
    /// Whether products on this device can be rounded so.
    pub fn suits(self, device: &Device) -> bool {
        match self {
            Self::None => true,
            Self::Bf16 if device.is_cpu() => bfloat16::unit().is_some(),
            _ => device.is_cuda(),
        }
    }

    /// Sets how products on this device round, for all runs of the process.
    ///
    /// # Errors
    /// [`Error::Usage`] while a training holds another rounding.
    pub fn set(self, device: &Device) -> Result<()> {
        trainings().set(self, device)
    }

    /// The same, held until the end of a training.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn hold(self, device: &Device) -> Result<Held> {
        let mut trainings = trainings();
        trainings.set(self, device)?;
        let training = Training {
            on_cpu: device.is_cpu(),
            rounding: self,
        };
        trainings.0.push(training);
        Ok(Held(training))
    }
}

/// A training that is running.
#[derive(Clone, Copy, PartialEq)]
struct Training {
    on_cpu: bool,
    rounding: Rounding,
}

/// All of this process.
struct Trainings(Vec<Training>);

impl Trainings {
    fn set(&self, rounding: Rounding, device: &Device) -> Result<()> {
        let on_cpu = device.is_cpu();
        let mut beside = self.0.iter().filter(|training| training.on_cpu == on_cpu);
        if beside.any(|training| training.rounding != rounding) {
            let problem = "a run of this process is training with another `precision`, which \
                           all runs of a process share; wait for its end, or use a process for \
                           each of them";
            return Err(Error::usage("precision", problem));
        }
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            super::cuda::round_products(rounding);
        }
        if on_cpu {
            bfloat16::turn(rounding == Rounding::Bf16);
        }
        Ok(())
    }
}

fn trainings() -> MutexGuard<'static, Trainings> {
    static TRAININGS: Mutex<Trainings> = Mutex::new(Trainings(Vec::new()));
    TRAININGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A training that holds its rounding.
pub(crate) struct Held(Training);

impl Drop for Held {
    fn drop(&mut self) {
        let running = &mut trainings().0;
        if let Some(place) = running.iter().position(|training| *training == self.0) {
            running.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_keeps_its_rounding_on_its_kind_of_device() {
        // Other tests train at the same time, so that nothing is turned on here.
        let beside = |on_cpu, rounding| {
            let trainings = Trainings(vec![Training { on_cpu, rounding }]);
            trainings.set(Rounding::None, &Device::Cpu)
        };
        assert!(beside(true, Rounding::None).is_ok());
        assert!(beside(false, Rounding::Bf16).is_ok());
        let error = beside(true, Rounding::Bf16).unwrap_err().to_string();
        assert!(error.contains("another `precision`"), "{error}");
    }
}
