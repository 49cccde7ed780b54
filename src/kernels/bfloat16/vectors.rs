//! Products of tiles by the vectors of AVX-512 BF16.

use std::arch::x86_64::*;

use super::{Square, Strip, SIDE};

/// Whether the processor has them.
pub fn are_there() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512f")
}

/// The sums of two strips by two others.
///
/// # Safety
/// [`are_there`]. All strips have as many tiles, which fit.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn square(left: [Strip<'_>; 2], right: [Strip<'_>; 2], sums: &mut Square) {
    for (down, left) in left.into_iter().enumerate() {
        for (across, right) in right.into_iter().enumerate() {
            // SAFETY: as the caller promises.
            let found = unsafe { tile(left, right) };
            for (row, found) in found.into_iter().enumerate() {
                let to = &mut sums.0[down * SIDE + row][across * SIDE..][..SIDE];
                // SAFETY: there is room for 16 numbers.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), found) };
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

/// The sums of one strip by another, row by row.
///
/// # Safety
/// As [`square`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile(left: Strip<'_>, right: Strip<'_>) -> [__m512; SIDE] {
    let mut sums = [_mm512_setzero_ps(); SIDE];
    for tile in 0..left.tiles {
        let terms = left.lines.as_ptr().wrapping_add(tile * left.of_tile);
        let columns = right.lines.as_ptr().wrapping_add(tile * right.of_tile);
        for pair in 0..SIDE {
            // SAFETY: a tile has 16 lines of 16 pairs.
            unsafe {
                let column = columns.add(pair).cast::<__m512bh>().read();
                for (row, sum) in sums.iter_mut().enumerate() {
                    let terms = terms.add(row).cast::<i32>().add(pair).read();
                    let terms = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(terms));
                    *sum = _mm512_dpbf16_ps(*sum, terms, column);
                }
            }
        }
    }
    sums
}
