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
        static ALL: Uses = Uses::new(turn);
        ALL.hold(Use {
            on_cpu: device.is_cpu(),
            rounding: self,
            is_training,
        })
    }
}

/// Sets how products on the CPU, or those on a GPU, round.
fn turn(on_cpu: bool, to: Rounding) {
    match on_cpu {
        true => bfloat16::turn(to == Rounding::Bf16),
        #[cfg(feature = "cuda")]
        false => super::cuda::round_products(to),
        #[cfg(not(feature = "cuda"))]
        false => (),
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
    /// Sets the rounding of the CPU, or of a GPU.
    turn: fn(bool, Rounding),
}

impl Uses {
    const fn new(turn: fn(bool, Rounding)) -> Self {
        Self {
            running: Mutex::new(Vec::new()),
            one_ended: Condvar::new(),
            turn,
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Use>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what has another rounding, then turns to the wanted one.
    fn hold(&'static self, wanted: Use) -> Result<Held> {
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
        (self.turn)(wanted.on_cpu, wanted.rounding);
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
        let on_cpu = self.held.on_cpu;
        if running.iter().all(|other| other.on_cpu != on_cpu) {
            // A product outside of any run has all its bits.
            (self.uses.turn)(on_cpu, Rounding::None);
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
        static USES: Uses = Uses::new(|_, _| ());
        let hold = |wanted| USES.hold(wanted).map(|_| ());
        let _training = USES.hold(used(Rounding::Bf16, true)).unwrap();
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
    fn nothing_is_rounded_after_the_last_use_of_a_device() {
        static ON: [Mutex<Rounding>; 2] = [const { Mutex::new(Rounding::None) }; 2];
        static USES: Uses = Uses::new(|on_cpu, to| *ON[usize::from(on_cpu)].lock().unwrap() = to);
        let now = || [0, 1].map(|kind: usize| *ON[kind].lock().unwrap());
        let training = USES.hold(used(Rounding::Bf16, true)).unwrap();
        let on_gpu = Use {
            on_cpu: false,
            ..used(Rounding::Tf32, true)
        };
        let on_gpu = USES.hold(on_gpu).unwrap();
        drop(USES.hold(used(Rounding::Bf16, false)).unwrap());
        assert_eq!(now(), [Rounding::Tf32, Rounding::Bf16]);
        drop(training);
        assert_eq!(now(), [Rounding::Tf32, Rounding::None]);
        drop(on_gpu);
        assert_eq!(now(), [Rounding::None; 2]);
    }

    #[test]
    fn a_pass_waits_for_the_end_of_another_with_other_rounding() {
        static USES: Uses = Uses::new(|_, _| ());
        let (said, heard) = channel();
        let first = USES.hold(used(Rounding::Bf16, false)).unwrap();
        let other = std::thread::spawn(move || {
            let _held = USES.hold(used(Rounding::None, false)).unwrap();
            said.send(()).unwrap();
        });
        let waits = heard.recv_timeout(Duration::from_millis(50));
        assert!(waits.is_err(), "it did not wait");
        drop(first);
        heard.recv().unwrap();
        other.join().unwrap();
        // A thread of a pool may be needed for the end of the other pass.
        let _first = USES.hold(used(Rounding::Bf16, false)).unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let held = pool.install(|| USES.hold(used(Rounding::None, false)).is_ok());
        assert!(!held);
    }
}
