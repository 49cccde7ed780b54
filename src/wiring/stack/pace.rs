//! Whether it is faster to read an input or to compute it.

use std::time::{Duration, Instant};

/// So many batches are read from a disk before it is called too slow.
pub(super) const TRIAL: u32 = 20;

/// How long it takes to compute an input, and to read it.
#[derive(Default)]
pub(super) struct Pace {
    begun: Option<Instant>,
    computing: Sum,
    reading: Sum,
}

/// Durations of so many batches.
type Sum = (Duration, u32);

impl Pace {
    /// An input is asked for.
    pub fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// It was read.
    pub fn has_read(&mut self) {
        add(&mut self.begun, &mut self.reading);
    }

    /// It was computed.
    pub fn has_computed(&mut self) {
        add(&mut self.begun, &mut self.computing);
    }

    pub fn reading_is_slower(&self) -> bool {
        let mean = |(time, batches): Sum| time / batches.max(1);
        self.reading.1 >= TRIAL && mean(self.reading) > mean(self.computing)
    }
}

/// Adds the time since the input was asked for.
fn add(begun: &mut Option<Instant>, (time, batches): &mut Sum) {
    if let Some(begun) = begun.take() {
        *time += begun.elapsed();
        *batches += 1;
    }
}
