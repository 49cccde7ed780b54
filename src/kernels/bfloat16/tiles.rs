//! Products of tiles by AMX. The compiler has no stable functions for it, so its
//! instructions are written out.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use super::{Line, Square, Strip, SQUARE};

/// Whether the processor has AMX with bfloat16, and the system permits its use.
pub fn are_there() -> bool {
    const FEATURES: u32 = 7;
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    let has_leaf = __cpuid_count(0, 0).eax >= FEATURES;
    has_leaf && __cpuid_count(FEATURES, 0).edx & BF16_AND_TILES == BF16_AND_TILES && permitted()
}

/// Asks the system for the permission to use tiles, which holds for all threads.
fn permitted() -> bool {
    // ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of Linux.
    const ASK_PERMISSION: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call changes nothing but this permission, and afterwards Linux refuses
    // stacks for signals that have no room for tiles. Older systems refuse the call.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) == 0 }
}

/// The sizes of the eight tiles, as the processor reads them.
#[repr(C, align(64))]
struct Sizes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

const WHOLE: Sizes = Sizes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Sets up whole tiles on this thread.
///
/// # Safety
/// [`are_there`].
pub unsafe fn begin() {
    // SAFETY: as the caller promises; the instruction only reads.
    unsafe {
        asm!(
            "ldtilecfg [{}]",
            in(reg) &WHOLE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        );
    }
}

/// Frees the tiles of this thread, so that the system need not save them.
///
/// # Safety
/// [`are_there`].
pub unsafe fn end() {
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "tilerelease",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem, preserves_flags),
        );
    }
}

/// The sums of two strips by two others: tiles 0 to 3 are the sums, 4 and 5 the left
/// factors, 6 and 7 the right ones.
///
/// # Safety
/// [`are_there`], after [`begin`]. All strips have as many tiles, which fit.
pub unsafe fn square(left: [Strip<'_>; 2], right: [Strip<'_>; 2], sums: &mut Square) {
    const LINE: usize = size_of::<Line>();
    if left[0].tiles == 0 {
        sums.0 = [[0.; SQUARE]; SQUARE];
        return;
    }
    // SAFETY: as the caller promises: the tiles that are read fit, and `sums` has room for
    // four tiles.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {line}*1]",
            "tileloadd tmm6, [{near} + {line}*1]",
            "tileloadd tmm5, [{lower} + {line}*1]",
            "tileloadd tmm7, [{far} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, {of_left}",
            "add {lower}, {of_left}",
            "add {near}, {of_right}",
            "add {far}, {of_right}",
            "dec {tiles}",
            "jnz 2b",
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 64], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 2112], tmm3",
            upper = inout(reg) left[0].lines.as_ptr() => _,
            lower = inout(reg) left[1].lines.as_ptr() => _,
            near = inout(reg) right[0].lines.as_ptr() => _,
            far = inout(reg) right[1].lines.as_ptr() => _,
            of_left = in(reg) left[0].of_tile * LINE,
            of_right = in(reg) right[0].of_tile * LINE,
            tiles = inout(reg) left[0].tiles => _,
            line = in(reg) LINE,
            row = in(reg) SQUARE * size_of::<f32>(),
            sums = in(reg) sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
