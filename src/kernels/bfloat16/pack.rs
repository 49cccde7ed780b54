//! Rounds numbers to bfloat16 and orders them for a tile.

use std::arch::x86_64::*;
use std::mem::{transmute, MaybeUninit};
use std::ops::Range;

use super::vectors::mask;
use super::{Line, Side, DEPTH, SIDE};
use crate::kernels::fields::Fields;
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
    let by_rows = |start: *const f32, stride: usize| {
        let halves = [mask(size[1]), mask(size[1].saturating_sub(16))];
        of_rows(|row, half| {
            let place = start.wrapping_add(row * stride + 16 * half);
            let mask = if row < size[0] { halves[half] } else { 0 };
            // SAFETY: the mask leaves out what is not in the matrix.
            unsafe { _mm512_maskz_loadu_ps(mask, place) }
        })
    };
    let (lines, found) = if matrix.column == 1 {
        (by_rows(start, matrix.row), Side::Left)
    } else if matrix.row == 1 {
        let whole = mask(size[0]);
        let lines = of_columns(|column| {
            let place = start.wrapping_add(column * matrix.column);
            let mask = if column < size[1] { whole } else { 0 };
            // SAFETY: as above.
            unsafe { _mm512_maskz_loadu_ps(mask, place) }
        });
        (lines, Side::Right)
    } else {
        let mut copy = [0f32; SIDE * DEPTH];
        for (index, copy) in copy.iter_mut().enumerate() {
            let [row, column] = [index / DEPTH, index % DEPTH];
            if row < size[0] && column < size[1] {
                // SAFETY: rows and columns lie within the matrix.
                *copy = unsafe { *start.add(row * matrix.row + column * matrix.column) };
            }
        }
        (by_rows(copy.as_ptr(), DEPTH), Side::Left)
    };
    let lines = if found == side {
        lines
    } else {
        transposed(lines)
    };
    write(lines, to);
}

/// Writes the tiles of fields as a right factor, `(numbers, pixels)` or, transposed,
/// `(pixels, numbers)`, strip by strip.
///
/// # Safety
/// The processor must have AVX-512 with BF16 and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn fields(fields: &Fields<'_>, is_transposed: bool, to: &mut [MaybeUninit<Line>]) {
    let (pixels, (runs, groups)) = (fields.pixels(), groups(fields));
    let numbers: Vec<usize> = (0..fields.numbers()).map(|n| fields.of_number(n)).collect();
    let Some((last_number, last_pixel)) = numbers.last().zip(pixels.checked_sub(1)) else {
        return;
    };
    // Later rows and columns lie further behind.
    assert!(last_number + fields.of_pixel(last_pixel) < fields.images().len());
    let start = fields.images().as_ptr();
    // 16 pixels' numbers in this place of their fields; zeros beyond the last one.
    let load = |number: usize, group: usize| {
        let mut found = _mm512_setzero_ps();
        if let (Some(number), Some(group)) = (numbers.get(number), groups.get(group)) {
            for run in &runs[group.clone()] {
                let place = start
                    .wrapping_add(number + run.pixel)
                    .wrapping_sub(run.lane);
                // SAFETY: the mask leaves out all but pixels of the images.
                found = unsafe { _mm512_mask_loadu_ps(found, run.mask, place) };
            }
        }
        found
    };
    let (strips, tiles) = match is_transposed {
        false => (groups.len(), numbers.len().div_ceil(DEPTH)),
        true => (numbers.len().div_ceil(SIDE), pixels.div_ceil(DEPTH)),
    };
    assert!(to.len() == strips * tiles * SIDE, "a place for each tile");
    let mut places = to.chunks_exact_mut(SIDE);
    for strip in 0..strips {
        for tile in 0..tiles {
            let lines = match is_transposed {
                false => of_columns(|number| load(tile * DEPTH + number, strip)),
                true => transposed(of_rows(|number, half| {
                    load(strip * SIDE + number, 2 * tile + half)
                })),
            };
            write(lines, places.next().expect("a place for each tile"));
        }
    }
}

/// Pixels of a group that lie side by side.
struct Run {
    /// The place of the first one in the images, for the first number of a field.
    pixel: usize,
    /// Its place in the group.
    lane: usize,
    mask: __mmask16,
}

/// The runs of all groups of 16 pixels, and for each group its place among them.
fn groups(fields: &Fields<'_>) -> (Vec<Run>, Vec<Range<usize>>) {
    let (pixels, width) = (fields.pixels(), fields.width());
    let (mut runs, mut groups) = (Vec::new(), Vec::new());
    for first in (0..pixels).step_by(SIDE) {
        let (start, mut lane) = (runs.len(), 0);
        while lane < SIDE && first + lane < pixels {
            let pixel = first + lane;
            let count = (width - pixel % width).min(SIDE - lane);
            runs.push(Run {
                pixel: fields.of_pixel(pixel),
                lane,
                mask: mask(count) << lane,
            });
            lane += count;
        }
        groups.push(start..runs.len());
    }
    (runs, groups)
}

fn write(lines: [__m512i; 16], to: &mut [MaybeUninit<Line>]) {
    for (to, line) in to.iter_mut().zip(lines) {
        // SAFETY: both have 512 bits, and any bits are numbers.
        to.write(Line(unsafe { transmute::<__m512i, [u16; DEPTH]>(line) }));
    }
}

/// The terms of each row, in two halves; the numbers of a row lie side by side.
#[target_feature(enable = "avx512f,avx512bf16")]
fn of_rows(load: impl Fn(usize, usize) -> __m512) -> [__m512i; 16] {
    let mut lines = [_mm512_setzero_si512(); 16];
    for (row, line) in lines.iter_mut().enumerate() {
        *line = rounded(load(row, 0), load(row, 1));
    }
    lines
}

/// Two terms of each row; the numbers of a column lie side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn of_columns(load: impl Fn(usize) -> __m512) -> [__m512i; 16] {
    // The numbers of both columns in turn.
    let in_turn: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
    // SAFETY: both have 512 bits.
    let in_turn = unsafe { transmute::<[u16; 32], __m512i>(in_turn) };
    let mut lines = [_mm512_setzero_si512(); 16];
    for (pair, line) in lines.iter_mut().enumerate() {
        let both = rounded(load(2 * pair), load(2 * pair + 1));
        *line = _mm512_permutexvar_epi16(in_turn, both);
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
