//! What a processor multiplies numbers in bfloat16 with.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::OnceLock;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::tiles;
#[cfg(target_arch = "x86_64")]
use super::{pack, vectors, SIDE};
use super::{Line, Side, Square, Strip};
use crate::kernels::fields::Fields;
use crate::kernels::gemm::Matrix;

/// What multiplies numbers in bfloat16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// AMX.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles,
    /// AVX-512 BF16.
    #[cfg(target_arch = "x86_64")]
    Vectors,
}

/// What this processor has: the faster one of both.
pub fn unit() -> Option<Unit> {
    static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
    *UNIT.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        if vectors::are_there() {
            #[cfg(target_os = "linux")]
            if tiles::are_there() {
                return Some(Unit::Tiles);
            }
            return Some(Unit::Vectors);
        }
        None
    })
}

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Sets whether the products of this process round to bfloat16.
pub fn turn(on: bool) {
    IS_ON.store(on, Relaxed);
}

/// What products are to use; `None` for products of 32 bits.
pub fn chosen() -> Option<Unit> {
    match IS_ON.load(Relaxed) {
        true => unit(),
        false => None,
    }
}

/// A unit that is ready on this thread.
pub(super) struct Ready {
    unit: Unit,
    /// It holds for this thread alone.
    _here: PhantomData<*const ()>,
}

#[cfg(target_arch = "x86_64")]
impl Unit {
    /// Writes the tile whose first row and column are `at`.
    ///
    /// # Safety
    /// The matrix must fit its slice, and the tile must begin within it.
    pub(super) unsafe fn pack(
        self,
        matrix: Matrix<'_>,
        at: [usize; 2],
        side: Side,
        to: &mut [MaybeUninit<Line>],
    ) {
        // SAFETY: there is a unit only where its instructions were found, and each kind
        // has those for packing; the caller promises the rest.
        unsafe { pack::tile(matrix, at, side, to) }
    }

    /// Writes all tiles of fields, strip by strip.
    pub(super) fn pack_fields(
        self,
        fields: &Fields<'_>,
        transposed: bool,
        to: &mut [MaybeUninit<Line>],
    ) {
        // SAFETY: the instructions are there, as in `pack`.
        unsafe { pack::fields(fields, transposed, to) }
    }

    /// Makes the unit ready on this thread.
    pub(super) fn begin(self) -> Ready {
        #[cfg(target_os = "linux")]
        if self == Self::Tiles {
            // SAFETY: there is such a unit only where the system permits its use.
            unsafe { tiles::begin() }
        }
        Ready {
            unit: self,
            _here: PhantomData,
        }
    }

    /// Computes `dst ← keep·dst + factor·sums` for so many rows and columns.
    ///
    /// # Safety
    /// As [`multiply`](super::multiply).
    pub(super) unsafe fn put(
        self,
        sums: &Square,
        dst: (*mut f32, usize),
        size: [usize; 2],
        factors: [f32; 2],
    ) {
        // SAFETY: each kind of unit has these instructions, and the caller promises room.
        unsafe { vectors::put(sums, dst, size, factors) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Ready {
    /// The sums of two strips by two others.
    pub(super) fn square(&self, left: [Strip<'_>; 2], right: [Strip<'_>; 2], sums: &mut Square) {
        for strip in left.iter().chain(&right) {
            let end = strip.tiles.saturating_sub(1) * strip.of_tile + SIDE;
            assert!(strip.tiles == left[0].tiles && (strip.tiles == 0 || end <= strip.lines.len()));
        }
        match self.unit {
            // SAFETY: the unit is ready, and the strips fit.
            #[cfg(target_os = "linux")]
            Unit::Tiles => unsafe { tiles::square(left, right, sums) },
            // SAFETY: the instructions are there, and the strips fit.
            Unit::Vectors => unsafe { vectors::square(left, right, sums) },
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl Drop for Ready {
    fn drop(&mut self) {
        if self.unit == Unit::Tiles {
            // SAFETY: as in `Unit::begin`.
            unsafe { tiles::end() }
        }
    }
}

/// On other processors there is no unit.
#[cfg(not(target_arch = "x86_64"))]
impl Unit {
    pub(super) unsafe fn pack(
        self,
        _: Matrix<'_>,
        _: [usize; 2],
        _: Side,
        _: &mut [MaybeUninit<Line>],
    ) {
        match self {}
    }

    pub(super) fn pack_fields(self, _: &Fields<'_>, _: bool, _: &mut [MaybeUninit<Line>]) {
        match self {}
    }

    pub(super) fn begin(self) -> Ready {
        match self {}
    }

    pub(super) unsafe fn put(self, _: &Square, _: (*mut f32, usize), _: [usize; 2], _: [f32; 2]) {
        match self {}
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Ready {
    pub(super) fn square(&self, _: [Strip<'_>; 2], _: [Strip<'_>; 2], _: &mut Square) {
        match self.unit {}
    }
}
