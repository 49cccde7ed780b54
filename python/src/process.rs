//! The process that uses this module: its threads do not survive a fork, and its end waits
//! for what runs.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::OnwardError;

/// The process whose threads are used; 0 before the first use.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// The number of calls that run.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
/// What stops the trainings that run.
static STOPS: Mutex<Vec<Weak<AtomicBool>>> = Mutex::new(Vec::new());

/// A call that runs.
pub struct Active;

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, SeqCst);
    }
}

/// Begins a call that computes; an error in a process that was forked after the first one.
pub fn enter() -> PyResult<Active> {
    let own = std::process::id();
    let first = PROCESS.compare_exchange(0, own, SeqCst, SeqCst);
    if first.is_err_and(|first| first != own) {
        let problem = "this process was forked from one that had used onward, whose threads it \
                       lacks; start processes with multiprocessing.get_context(\"spawn\")";
        return Err(OnwardError::new_err(problem));
    }
    ACTIVE.fetch_add(1, SeqCst);
    Ok(Active)
}

/// Remembers what stops a training.
pub fn remember(stop: &Arc<AtomicBool>) {
    let mut stops = STOPS.lock().unwrap_or_else(PoisonError::into_inner);
    stops.retain(|stop| stop.strong_count() > 0);
    stops.push(Arc::downgrade(stop));
}

/// Stops all trainings and waits for all calls, a few seconds at most: Python ends, and
/// threads that need it would abort the process.
#[pyfunction]
pub fn finish(py: Python<'_>) {
    // A forked process has none of the threads that are counted.
    if PROCESS.load(SeqCst) != std::process::id() {
        return;
    }
    for stop in STOPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(stop) = stop.upgrade() {
            stop.store(true, SeqCst);
        }
    }
    py.detach(|| {
        let start = Instant::now();
        while ACTIVE.load(SeqCst) > 0 && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
