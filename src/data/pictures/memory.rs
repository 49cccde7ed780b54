//! The memory that pictures take while they are read, all threads together.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::kernels::memory;

/// A picture that takes less than this is not counted.
const SMALL: u64 = 48 << 20;

#[derive(Debug)]
struct Use {
    taken: u64,
    /// The most that may be taken: half of the memory that was free when nothing was.
    limit: u64,
}

/// Memory that is shared.
#[derive(Debug)]
struct Memory {
    in_use: Mutex<Use>,
    freed: Condvar,
}

static MEMORY: Memory = Memory::new();

/// A share of the memory, which is given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Share(Option<(u64, &'static Memory)>);

impl Share {
    /// Takes this many bytes, before they are allocated. It waits for pictures that other
    /// threads read if they take the memory at the moment.
    ///
    /// # Errors
    /// The most that can be taken, if this is more.
    pub fn take(bytes: u64) -> Result<Self, u64> {
        let free = || memory::available().unwrap_or(u64::MAX) / 2;
        MEMORY.take(bytes, free)
    }
}

impl Memory {
    const fn new() -> Self {
        Self {
            in_use: Mutex::new(Use { taken: 0, limit: 0 }),
            freed: Condvar::new(),
        }
    }

    fn take(&'static self, bytes: u64, free: impl Fn() -> u64) -> Result<Share, u64> {
        if bytes <= SMALL {
            return Ok(Share::default());
        }
        let mut now = self.lock();
        loop {
            if now.taken == 0 {
                now.limit = free();
            }
            if now.taken + bytes <= now.limit {
                now.taken += bytes;
                return Ok(Share(Some((bytes, self))));
            }
            if now.taken == 0 {
                return Err(now.limit);
            }
            now = self.freed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Use> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((bytes, memory)) = self.0 {
            memory.lock().taken -= bytes;
            memory.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn threads_together_stay_within_the_free_memory() {
        const MB: u64 = 1 << 20;
        // Other tests read pictures meanwhile, from the memory of the machine.
        static MEMORY: Memory = Memory::new();
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let free = || 500 * MB;
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (now, most) = (&now, &most);
                scope.spawn(move || {
                    for step in 0..20 {
                        let bytes = (100 + 40 * ((thread + step) % 5)) * MB;
                        let share = MEMORY.take(bytes, free).unwrap();
                        let taken = bytes + now.fetch_add(bytes, Ordering::SeqCst);
                        most.fetch_max(taken, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(bytes, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((200 * MB..=500 * MB).contains(&most), "{most}");
        // What can never be free is refused instead of awaited.
        assert_eq!(MEMORY.take(501 * MB, free).unwrap_err(), 500 * MB);
        assert!(MEMORY.take(1, || 0).is_ok());
    }
}
