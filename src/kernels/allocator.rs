//! The allocator of a program that trains: it counts for `onward bench`, and keeps what a
//! training frees.

#![allow(unsafe_code)] // every allocator is unsafe

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_long;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::OnceLock;

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// The allocator of the program `onward`, and for every other program that trains:
///
/// ```
/// use onward_core::kernels::Allocator;
///
/// #[global_allocator]
/// static ALLOCATOR: Allocator = Allocator;
/// ```
///
/// It is mimalloc. The system's allocator gives the memory of a large tensor back to the
/// kernel after every operation, and asks for it again in the next one. This one keeps it
/// while a run trains or is evaluated. To have it given back earlier, set
/// `MIMALLOC_PURGE_DELAY` in the environment, in milliseconds.
///
/// It also counts, so that `onward bench` can show the allocations of a step and the memory
/// of a training. It needs the feature `allocator`, which `cli` includes.
pub struct Allocator;

static IS_COUNTED: AtomicBool = AtomicBool::new(false);
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// The bytes that are held, less those at the start.
static HELD: AtomicI64 = AtomicI64::new(0);
/// The most bytes that were held.
static MOST: AtomicI64 = AtomicI64::new(0);

// SAFETY: each call is passed on as it is, and counting takes no memory.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the promises of the caller.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the promises of the caller.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: the promises of the caller.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the promises of the caller.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

fn count(number: u64, bytes: i64) {
    if !IS_COUNTED.load(Relaxed) {
        return;
    }
    NUMBER.fetch_add(number, Relaxed);
    let held = HELD.fetch_add(bytes, Relaxed) + bytes;
    if bytes > 0 {
        MOST.fetch_max(held, Relaxed);
    }
}

/// Whether memory that is freed stays with the program.
pub(super) fn keep(is_kept: bool) {
    let usual = *USUAL.get_or_init(delay);
    set_delay(if is_kept { LONG } else { usual });
}

/// Returns what was freed to the system, but for the little that other threads hold.
pub(super) fn give_back() {
    // SAFETY: any thread may call it at any time.
    unsafe { mi_collect(true) };
}

/// The option for the milliseconds after which mimalloc returns what was freed.
const PURGE_DELAY: mi_option_t = 15;
/// What mimalloc or the user has chosen.
static USUAL: OnceLock<c_long> = OnceLock::new();
/// A day. After "never", mimalloc would not return what was freed meanwhile even if asked.
const LONG: c_long = 24 * 60 * 60 * 1000;

fn delay() -> c_long {
    // SAFETY: mimalloc has this option.
    unsafe { mi_option_get(PURGE_DELAY) }
}

/// Sets the delay, unless the user has set `MIMALLOC_PURGE_DELAY`. Only `keep` calls it,
/// one thread at a time.
fn set_delay(milliseconds: c_long) {
    // SAFETY: mimalloc has this option: an aligned word, of which threads that free memory
    // meanwhile read the old or the new number.
    unsafe { mi_option_set_default(PURGE_DELAY, milliseconds) };
}

/// Begins to count, for the whole process; what is held now counts as nothing.
pub(crate) fn start() {
    HELD.store(0, Relaxed);
    MOST.store(0, Relaxed);
    IS_COUNTED.store(true, Relaxed);
}

/// The number of allocations so far.
pub(crate) fn number() -> u64 {
    NUMBER.load(Relaxed)
}

/// The most bytes that were held at a time since [`start`]; 0 in a program whose
/// allocator does not count.
pub(crate) fn most() -> u64 {
    MOST.load(Relaxed).max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::memory::Kept;

    // The number of the option is that of one version of mimalloc.
    #[test]
    fn memory_is_kept_as_long_as_anyone_wants_it() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            return crate::error::notify(format_args!("skipped: MIMALLOC_PURGE_DELAY is set"));
        }
        assert_eq!(delay(), 1000);
        let (one, other) = (Kept::new(), Kept::new());
        assert_eq!(delay(), LONG);
        drop(one);
        assert_eq!(delay(), LONG);
        drop(other);
        assert_eq!(delay(), 1000);
    }

    #[test]
    fn what_is_taken_is_counted_and_what_is_given_back_is_not_held() {
        let (allocator, layout) = (Allocator, Layout::new::<[u64; 100]>());
        // SAFETY: each pointer is given back with the layout that it was taken with.
        let cycle = || unsafe {
            let pointer = allocator.alloc(layout);
            let pointer = allocator.realloc(pointer, layout, 2000);
            let other = allocator.alloc_zeroed(layout);
            allocator.dealloc(other, layout);
            allocator.dealloc(pointer, Layout::from_size_align(2000, 8).unwrap());
        };
        cycle();
        assert_eq!((number(), most()), (0, 0));
        start();
        cycle();
        assert_eq!((number(), most()), (3, 2800));
        assert_eq!(HELD.load(Relaxed), 0);
    }
}
