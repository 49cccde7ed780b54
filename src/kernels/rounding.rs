//! How the numbers of matrix products are rounded: one choice for the whole process.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

    /// Holds how products on this device round, for all runs of the process, until the end
    /// of a training.
    ///
    /// # Errors
    /// [`Error::Usage`] while a training holds another rounding.
    pub fn hold(self, device: &Device) -> Result<Held> {
        self.held(device, true)
    }

    /// The same until the end of a forward pass. Waits for passes with another rounding.
    ///
    /// # Errors
    /// As [`Self::hold`]; within a parallel loop also while a pass holds another rounding:
    /// to wait there could be for ever.
    pub fn hold_for_a_pass(self, device: &Device) -> Result<Held> {
        self.held(device, false)
    }

    fn held(self, device: &Device, is_training: bool) -> Result<Held> {
        static ALL: Uses = Uses::new();
        let wanted = Use {
            on_cpu: device.is_cpu(),
            rounding: self,
            is_training,
        };
        ALL.hold(wanted, || {
            #[cfg(feature = "cuda")]
            if device.is_cuda() {
                super::cuda::round_products(self);
            }
            if device.is_cpu() {
                bfloat16::turn(self == Self::Bf16);
            }
        })
    }
}

/// A training or a forward pass.
#[derive(Clone, Copy, PartialEq)]
struct Use {
    on_cpu: bool,
    rounding: Rounding,
    is_training: bool,
}

/// All trainings and forward passes that are running.
struct Uses {
    running: Mutex<Vec<Use>>,
    one_ended: Condvar,
}

impl Uses {
    const fn new() -> Self {
        Self {
            running: Mutex::new(Vec::new()),
            one_ended: Condvar::new(),
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Use>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what has another rounding, then calls `turn`.
    fn hold(&'static self, wanted: Use, turn: impl FnOnce()) -> Result<Held> {
        let mut running = self.running();
        loop {
            let others = running
                .iter()
                .filter(|other| other.on_cpu == wanted.on_cpu && other.rounding != wanted.rounding);
            let is_training = others.clone().any(|other| other.is_training);
            if others.count() == 0 {
                break;
            }
            if is_training || rayon::current_thread_index().is_some() {
                let problem = "a run of this process uses another `precision`, which all runs of \
                               a process share; wait for its end, or use a process for each of \
                               them";
                return Err(Error::usage("precision", problem));
            }
            let ended = self.one_ended.wait(running);
            running = ended.unwrap_or_else(PoisonError::into_inner);
        }
        running.push(wanted);
        turn();
        Ok(Held {
            uses: self,
            held: wanted,
        })
    }
}

/// A training or a forward pass that holds its rounding.
pub(crate) struct Held {
    uses: &'static Uses,
    held: Use,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut running = self.uses.running();
        if let Some(place) = running.iter().position(|running| *running == self.held) {
            running.swap_remove(place);
        }
        self.uses.one_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    fn used(rounding: Rounding, is_training: bool) -> Use {
        Use {
            on_cpu: true,
            rounding,
            is_training,
        }
    }

    #[test]
    fn a_training_keeps_its_rounding_on_its_kind_of_device() {
        static USES: Uses = Uses::new();
        let hold = |wanted| USES.hold(wanted, || ()).map(|_| ());
        let _training = USES.hold(used(Rounding::Bf16, true), || ()).unwrap();
        assert!(hold(used(Rounding::Bf16, false)).is_ok());
        let on_gpu = Use {
            on_cpu: false,
            ..used(Rounding::None, true)
        };
        assert!(hold(on_gpu).is_ok());
        for is_training in [true, false] {
            let error = hold(used(Rounding::None, is_training)).unwrap_err();
            assert!(error.to_string().contains("another `precision`"), "{error}");
        }
    }

    #[test]
    fn a_pass_waits_for_the_end_of_another_with_other_rounding() {
        static USES: Uses = Uses::new();
        let (said, heard) = channel();
        let first = USES.hold(used(Rounding::Bf16, false), || ()).unwrap();
        let other = std::thread::spawn(move || {
            let _held = USES.hold(used(Rounding::None, false), || said.send(()).unwrap());
        });
        let waits = heard.recv_timeout(Duration::from_millis(50));
        assert!(waits.is_err(), "it did not wait");
        drop(first);
        heard.recv().unwrap();
        other.join().unwrap();
        // A thread of a pool may be needed for the end of the other pass.
        let _first = USES.hold(used(Rounding::Bf16, false), || ()).unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let held = pool.install(|| USES.hold(used(Rounding::None, false), || ()).is_ok());
        assert!(!held);
    }
}
