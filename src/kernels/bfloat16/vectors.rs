//! Products of tiles by the vectors of AVX-512 BF16.

use std::arch::x86_64::*;

use super::{Square, Strip, SIDE};

/// Whether the processor has them.
pub fn are_there() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512f")
}

/// The rows whose sums are in registers at a time, with the columns of two strips: each
/// number of a row that is read serves two instructions.
const ROWS: usize = 8;

/// The sums of two strips by two others.
///
/// # Safety
/// [`are_there`]. All strips have as many tiles, which fit.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn square(left: [Strip<'_>; 2], right: [Strip<'_>; 2], sums: &mut Square) {
    for (strip, sums) in left.into_iter().zip(sums.0.chunks_exact_mut(SIDE)) {
        for (part, sums) in sums.chunks_exact_mut(ROWS).enumerate() {
            // SAFETY: as the caller promises; a strip has 16 rows.
            let found = unsafe { rows(strip, part * ROWS, right) };
            for (to, found) in sums.iter_mut().zip(found) {
                for (to, found) in to.chunks_exact_mut(SIDE).zip(found) {
                    // SAFETY: there is room for 16 numbers.
                    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), found) };
                }
            }
        }
    }
}

/// Computes `dst ← keep·dst + factor·sums` for so many rows and columns, for `[keep,
/// factor]`. If `keep` is 0, `dst` is not read.
///
/// # Safety
/// [`are_there`]. `dst` must have room for `rows` rows of `columns` elements, `stride`
/// apart, which no other code accesses during the call.
#[target_feature(enable = "avx512f")]
pub unsafe fn put(
    sums: &Square,
    (dst, stride): (*mut f32, usize),
    [rows, columns]: [usize; 2],
    [keep, factor]: [f32; 2],
) {
    let (kept, factor) = (_mm512_set1_ps(keep), _mm512_set1_ps(factor));
    for (row, sums) in sums.0.iter().enumerate().take(rows) {
        for (first, sums) in (0..columns).step_by(SIDE).zip(sums.chunks_exact(SIDE)) {
            let dst = dst.wrapping_add(row * stride + first);
            let mask = mask(columns - first);
            // SAFETY: the mask leaves out what is not in the row.
            unsafe {
                let mut result = _mm512_mul_ps(_mm512_loadu_ps(sums.as_ptr()), factor);
                if keep != 0. {
                    result = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, dst), kept, result);
                }
                _mm512_mask_storeu_ps(dst, mask, result);
            }
        }
    }
}

/// The first `count` of 16 numbers.
pub fn mask(count: usize) -> __mmask16 {
    match count {
        16.. => !0,
        count => (1 << count) - 1,
    }
}

/// The sums of some rows of a strip, from the first one on, by two strips.
///
/// # Safety
/// As [`square`]; the strip must have these rows.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows(left: Strip<'_>, first: usize, right: [Strip<'_>; 2]) -> [[__m512; 2]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for tile in 0..left.tiles {
        let terms = left
            .lines
            .as_ptr()
            .wrapping_add(tile * left.of_tile + first);
        let columns = right.map(|right| right.lines.as_ptr().wrapping_add(tile * right.of_tile));
        for pair in 0..SIDE {
            // SAFETY: a tile has 16 lines of 16 pairs.
            unsafe {
                let columns = columns.map(|columns| columns.add(pair).cast::<__m512bh>().read());
                for (row, sums) in sums.iter_mut().enumerate() {
                    let terms = terms.add(row).cast::<i32>().add(pair).read();
                    let terms = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(terms));
                    sums[0] = _mm512_dpbf16_ps(sums[0], terms, columns[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], terms, columns[1]);
                }
            }
        }
    }
    sums
}
