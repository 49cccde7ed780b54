//! Counts matrix products, and times them for `onward bench`.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use candle_core::Device;

use super::gemm::{product, Matrix};
use super::rounding::Rounding;

static IS_TIMED: AtomicBool = AtomicBool::new(false);
static MULTIPLY_ADDS: AtomicU64 = AtomicU64::new(0);
static NANOSECONDS: AtomicU64 = AtomicU64::new(0);

/// What the matrix products of this process have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    /// The multiplications, each with an addition: `m·k·n` for a product of `(m, k)` and
    /// `(k, n)`. Rows that are left out since their gradient is zero do not count, nor do
    /// rows of a weight that one-hot inputs pick, local fields with few units, and
    /// products that a plugin leaves to candle.
    pub multiply_adds: u64,
    /// The sum of the times of all threads, since [`start`].
    pub time: Duration,
}

impl Work {
    /// What was done after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            multiply_adds: self.multiply_adds - earlier.multiply_adds,
            time: self.time.saturating_sub(earlier.time),
        }
    }
}

/// Counts the multiplications of one training.
pub(crate) struct Account {
    before: u64,
    /// The number of trainings that had begun, this one included.
    begun: u64,
    is_alone: bool,
}

static BEGUN: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicU64 = AtomicU64::new(0);

impl Account {
    pub fn open() -> Self {
        Self {
            begun: BEGUN.fetch_add(1, SeqCst) + 1,
            is_alone: RUNNING.fetch_add(1, SeqCst) == 0,
            before: so_far().multiply_adds,
        }
    }

    /// The multiplications since it was opened. `None` if another training of the process
    /// ran meanwhile, whose multiplications would be among them.
    pub fn close(self) -> Option<u64> {
        let is_alone = self.is_alone && BEGUN.load(SeqCst) == self.begun;
        is_alone.then(|| so_far().multiply_adds - self.before)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, SeqCst);
    }
}

/// Begins to time products, for the whole process.
pub(crate) fn start() {
    IS_TIMED.store(true, Relaxed);
}

/// Adds to the multiplications.
pub(super) fn note(multiply_adds: u64) {
    MULTIPLY_ADDS.fetch_add(multiply_adds, Relaxed);
}

/// What was counted so far.
pub(crate) fn so_far() -> Work {
    Work {
        multiply_adds: MULTIPLY_ADDS.load(Relaxed),
        time: Duration::from_nanos(NANOSECONDS.load(Relaxed)),
    }
}

/// Does the work of `[m, k, n]` multiplications, and counts them.
#[inline(always)]
pub(super) fn count(sizes: [usize; 3], work: impl FnOnce()) {
    note(sizes.iter().map(|&size| size as u64).product());
    time(work);
}

/// Does work that is part of a product.
#[inline(always)]
pub(super) fn time<R>(work: impl FnOnce() -> R) -> R {
    if !IS_TIMED.load(Relaxed) {
        return work();
    }
    let start = Instant::now();
    let done = work();
    NANOSECONDS.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    done
}

/// The operations per second, two for each multiplication with its addition, of the best
/// of several products of square matrices on the CPU, by all threads. `None` if it cannot
/// round so, or another run of the process is training.
pub(crate) fn best_product(rounding: Rounding) -> Option<f64> {
    if !rounding.suits(&Device::Cpu) {
        return None;
    }
    let _pass = rounding.hold_for_a_pass(&Device::Cpu).ok()?;
    const SIZE: usize = 2048;
    let numbers: Vec<f32> = (0..SIZE * SIZE).map(|i| (i % 7) as f32 - 3.).collect();
    let matrix = Matrix::of_rows(&numbers, SIZE, SIZE, SIZE);
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < Duration::from_secs(1) {
        let one = Instant::now();
        std::hint::black_box(product(matrix, matrix, |_, _, _| ()));
        best = best.min(one.elapsed().as_secs_f64());
    }
    Some(2. * (SIZE as f64).powi(3) / best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplications_are_counted_and_timed() {
        let ones = vec![1f32; 64 * 64];
        let (a, b) = (
            Matrix::of_rows(&ones, 3, 5, 5),
            Matrix::of_rows(&ones, 5, 7, 7),
        );
        start();
        let before = so_far();
        product(a, b, |_, _, _| ());
        // Other tests multiply at the same time.
        assert!(so_far().since(before).multiply_adds >= 3 * 5 * 7);
        assert!(so_far().time > before.time);
    }

    #[test]
    fn trainings_at_the_same_time_are_not_counted() {
        let outer = Account::open();
        let inner = Account::open();
        assert_eq!((inner.close(), outer.close()), (None, None));
    }
}
