//! Counts what the program takes from its allocator, for `onward bench`.

#![allow(unsafe_code)] // every allocator is unsafe

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

static IS_COUNTED: AtomicBool = AtomicBool::new(false);
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// The bytes that are held, less those at the start.
static HELD: AtomicI64 = AtomicI64::new(0);
/// The most bytes that were held.
static MOST: AtomicI64 = AtomicI64::new(0);

/// An allocator that can count, so that `onward bench` can show the allocations of a step
/// and the memory of a training:
///
/// ```
/// use std::alloc::System;
/// use onward_core::kernels::Counting;
///
/// #[global_allocator]
/// static ALLOCATOR: Counting<System> = Counting(System);
/// ```
///
/// It counts from the moment `onward bench` asks for it; until then it only passes on.
pub struct Counting<A>(pub A);

// SAFETY: each call is passed on as it is, and counting takes no memory.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the promises of the caller.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the promises of the caller.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: the promises of the caller.
        unsafe { self.0.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the promises of the caller.
        unsafe { self.0.dealloc(pointer, layout) }
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
    use std::alloc::System;

    use super::*;

    #[test]
    fn what_is_taken_is_counted_and_what_is_given_back_is_not_held() {
        let (allocator, layout) = (Counting(System), Layout::new::<[u64; 100]>());
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
