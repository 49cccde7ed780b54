//! New vectors, whose pieces are made by the threads that write them.
//!
//! `vec![0.; n]` is filled by the calling thread alone, while the others wait. Here each
//! thread fills its own piece with zeros, which stay in the cache until it writes the
//! numbers.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::rows::{each_piece, EachRow};
use super::wide::Loop;

/// The number of elements that are filled with zeros before they are written: a part of
/// the L1 cache.
const AT_ONCE: usize = 1 << 12;

/// `rows` rows of `width` numbers. Calls `f(row index, row of zeros)` for each of them,
/// in parallel if there are many elements.
pub(crate) fn fresh_rows(
    rows: usize,
    width: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let count = rows * width;
    let mut made = Vec::<f32>::with_capacity(count);
    let room = &mut made.spare_capacity_mut()[..count];
    each_piece(room, width, width, |first, room| {
        let rows = (AT_ONCE / width).max(1);
        for (index, room) in room.chunks_mut(rows * width).enumerate() {
            let (first, f) = (first + index * rows, &f);
            EachRow {
                out: zeroed(room),
                width,
                first,
                f,
            }
            .wide();
        }
    });
    // SAFETY: the pieces are the whole room, and all of their elements are set.
    unsafe { made.set_len(count) };
    made
}

/// `count` numbers in pieces of the length `piece`. Calls `f(state, piece of zeros, item
/// of beside)` for each of them, in parallel; `init` makes the state of a thread.
///
/// # Panics
/// If `beside` has fewer items than there are pieces.
pub(crate) fn fresh_pieces<B: IndexedParallelIterator, S>(
    count: usize,
    piece: usize,
    beside: B,
    init: impl Fn() -> S + Sync + Send,
    f: impl Fn(&mut S, &mut [f32], B::Item) + Sync + Send,
) -> Vec<f32> {
    let mut made = Vec::<f32>::with_capacity(count);
    let room = &mut made.spare_capacity_mut()[..count];
    let pieces = room.par_chunks_mut(piece.max(1)).zip(beside);
    let set = pieces.map_init(init, |state, (room, beside)| {
        let out = zeroed(room);
        f(state, out, beside);
        out.len()
    });
    let set: usize = set.sum();
    assert!(set == count, "expected an item for each piece");
    // SAFETY: the pieces are disjoint, and have as many elements as the room together.
    unsafe { made.set_len(count) };
    made
}

fn zeroed(room: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    room.fill(MaybeUninit::new(0.));
    // SAFETY: each element was just set.
    unsafe { &mut *(room as *mut [MaybeUninit<f32>] as *mut [f32]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::for_rows;

    /// Rows that are added to, so that a number which was not set to 0 is met.
    #[test]
    fn rows_are_those_that_are_written_into_zeros() {
        for (rows, width) in [(0, 3), (3, 0), (7, 5), (3, 50_000), (30_001, 3), (70, 1000)] {
            let add = |row: usize, out: &mut [f32]| {
                let numbers = out.iter_mut().enumerate();
                numbers.for_each(|(i, out)| *out += (row * 31 + i * 7) as f32);
            };
            let mut expected = vec![0f32; rows * width];
            for_rows(&mut expected, width, add);
            drop(vec![f32::NAN; rows * width]); // what the allocator may give again
            assert_eq!(fresh_rows(rows, width, add), expected);
        }
    }

    #[test]
    fn pieces_get_what_is_beside_them() {
        let beside: Vec<f32> = (0..4).map(|i| i as f32).collect();
        for (count, piece) in [(0, 0), (8, 2), (7, 2), (4, 1)] {
            let made = fresh_pieces(
                count,
                piece,
                beside.par_iter(),
                || (),
                |_, out, by| out.iter_mut().for_each(|out| *out += by + 1.),
            );
            let expected: Vec<f32> = (0..count).map(|i| (i / piece) as f32 + 1.).collect();
            assert_eq!(made, expected);
        }
    }

    #[test]
    #[should_panic(expected = "an item for each piece")]
    fn a_piece_with_nothing_beside_it_is_refused() {
        fresh_pieces(9, 2, [0; 4].par_iter(), || (), |_, _, _| ());
    }
}
