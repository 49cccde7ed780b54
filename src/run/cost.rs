//! What a training costs: time, multiplications, energy.

use std::time::Instant;

use candle_core::Device;

use crate::kernels::energy::{Counters, Energy};
use crate::kernels::meter::Account;

/// What the steps of some epochs have cost, without evaluation.
pub(super) struct Cost {
    pub seconds: f64,
    counters: Counters,
    energy: Energy,
    /// The multiplications, unless those of another training would be among them.
    multiply_adds: Option<u64>,
    examples: u64,
}

/// The steps of an epoch, being taken.
pub(super) struct Lap {
    clock: Instant,
    account: Account,
}

impl Cost {
    pub fn new(device: &Device) -> Self {
        Self {
            seconds: 0.,
            counters: Counters::open(device),
            energy: Energy::default(),
            multiply_adds: Some(0),
            examples: 0,
        }
    }

    /// Begins to count.
    pub fn begin(&mut self) -> Lap {
        // What an evaluation has used does not count.
        self.counters.skip();
        Lap {
            clock: Instant::now(),
            account: Account::open(),
        }
    }

    /// Looks at the counters of energy, within an epoch.
    pub fn look(&mut self) {
        self.counters.look();
    }

    /// Adds what these examples have cost; returns the seconds.
    pub fn end(&mut self, lap: Lap, examples: usize) -> f64 {
        let seconds = lap.clock.elapsed().as_secs_f64();
        self.seconds += seconds;
        self.examples += examples as u64;
        self.multiply_adds = match (self.multiply_adds, lap.account.close()) {
            (Some(before), Some(now)) => Some(before + now),
            _ => None,
        };
        self.energy = self.counters.look();
        seconds
    }

    /// The multiplications for one example; `None` if nothing was trained or counted.
    pub fn multiply_adds_per_example(&self) -> Option<u64> {
        let all = self.multiply_adds.filter(|all| *all > 0)?;
        Some((all as f64 / self.examples.max(1) as f64).round() as u64)
    }

    pub fn energy(&self) -> Energy {
        self.energy
    }
}
