//! Rounds numbers to bfloat16 and orders them for a tile.

use std::arch::x86_64::*;
use std::mem::{transmute, MaybeUninit};

use super::vectors::mask;
use super::{Line, Side, DEPTH, SIDE};
use crate::kernels::gemm::Matrix;

/// Writes the tile of a matrix, whose columns are the terms, that begins at this row and
/// column. Zeros stand for what lies beyond the matrix.
///
/// A line has the terms of one row (left), or two terms of each row (right).
///
/// # Safety
/// The processor must have AVX-512 with BF16 and BW, and the matrix must fit its slice.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn tile(
    matrix: Matrix<'_>,
    [row, column]: [usize; 2],
    side: Side,
    to: &mut [MaybeUninit<Line>],
) {
    let size = [
        SIDE.min(matrix.rows - row),
        DEPTH.min(matrix.columns - column),
    ];
    let start = matrix
        .data
        .as_ptr()
        .wrapping_add(row * matrix.row + column * matrix.column);
    // SAFETY: the rows and columns of `size` lie within the matrix.
    let (lines, found) = unsafe {
        if matrix.column == 1 {
            (of_rows(start, matrix.row, size), Side::Left)
        } else if matrix.row == 1 {
            (of_columns(start, matrix.column, size), Side::Right)
        } else {
            let mut copy = [0f32; SIDE * DEPTH];
            for (index, copy) in copy.iter_mut().enumerate() {
                let [row, column] = [index / DEPTH, index % DEPTH];
                if row < size[0] && column < size[1] {
                    *copy = *start.add(row * matrix.row + column * matrix.column);
                }
            }
            (of_rows(copy.as_ptr(), DEPTH, [SIDE, DEPTH]), Side::Left)
        }
    };
    let lines = if found == side {
        lines
    } else {
        transposed(lines)
    };
    for (to, line) in to.iter_mut().zip(lines) {
        // SAFETY: both have 512 bits, and any bits are numbers.
        to.write(Line(unsafe { transmute::<__m512i, [u16; DEPTH]>(line) }));
    }
}

/// The terms of each row; the numbers of a row lie side by side.
///
/// # Safety
/// `rows` rows of `columns` numbers, `stride` apart, can be read.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn of_rows(start: *const f32, stride: usize, [rows, columns]: [usize; 2]) -> [__m512i; 16] {
    let [low, high] = [mask(columns), mask(columns.saturating_sub(16))];
    let mut lines = [_mm512_setzero_si512(); 16];
    for (row, line) in lines.iter_mut().enumerate().take(rows) {
        let row = start.wrapping_add(row * stride);
        // SAFETY: the masks leave out what is not in the row.
        let [first, second] = unsafe {
            [
                _mm512_maskz_loadu_ps(low, row),
                _mm512_maskz_loadu_ps(high, row.wrapping_add(16)),
            ]
        };
        *line = rounded(first, second);
    }
    lines
}

/// Two terms of each row; the numbers of a column lie side by side.
///
/// # Safety
/// `columns` columns of `rows` numbers, `stride` apart, can be read.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn of_columns(
    start: *const f32,
    stride: usize,
    [rows, columns]: [usize; 2],
) -> [__m512i; 16] {
    // The numbers of both columns in turn.
    let in_turn: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: both have 512 bits.
    let in_turn = unsafe { transmute::<[u16; 32], __m512i>(in_turn) };
    let mask = mask(rows);
    let mut lines = [_mm512_setzero_si512(); 16];
    for (pair, line) in lines.iter_mut().enumerate().take(columns.div_ceil(2)) {
        let column = start.wrapping_add(2 * pair * stride);
        let has_second = 2 * pair + 1 < columns;
        // SAFETY: the masks leave out what is not in the columns.
        let [first, second] = unsafe {
            [
                _mm512_maskz_loadu_ps(mask, column),
                _mm512_maskz_loadu_ps(
                    if has_second { mask } else { 0 },
                    column.wrapping_add(stride),
                ),
            ]
        };
        *line = _mm512_permutexvar_epi16(in_turn, rounded(first, second));
    }
    lines
}

/// Both vectors in bfloat16, rounded to nearest, ties to even.
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(first: __m512, second: __m512) -> __m512i {
    // SAFETY: both have 512 bits.
    unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) }
}

/// 16 lines of 16 pairs, lines and pairs exchanged.
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut two = rows;
    for i in (0..16).step_by(2) {
        two[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        two[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Of each four rows: in part `p` of line `c` the pairs `4·p + c`.
    let mut four = two;
    for i in (0..16).step_by(4) {
        four[i] = _mm512_unpacklo_epi64(two[i], two[i + 2]);
        four[i + 1] = _mm512_unpackhi_epi64(two[i], two[i + 2]);
        four[i + 2] = _mm512_unpacklo_epi64(two[i + 1], two[i + 3]);
        four[i + 3] = _mm512_unpackhi_epi64(two[i + 1], two[i + 3]);
    }
    let mut lines = four;
    for c in 0..4 {
        // Parts 0 and 2, and parts 1 and 3, of all four groups of rows.
        let even = [
            _mm512_shuffle_i32x4(four[c], four[4 + c], 0x88),
            _mm512_shuffle_i32x4(four[8 + c], four[12 + c], 0x88),
        ];
        let odd = [
            _mm512_shuffle_i32x4(four[c], four[4 + c], 0xdd),
            _mm512_shuffle_i32x4(four[8 + c], four[12 + c], 0xdd),
        ];
        lines[c] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
        lines[4 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
        lines[8 + c] = _mm512_shuffle_i32x4(even[0], even[1], 0xdd);
        lines[12 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd);
    }
    lines
}
