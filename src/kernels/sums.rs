//! Sums over planes and channels of images, each in a fixed order.

use rayon::prelude::*;

/// `Σ f(x)` over a plane, in 16 lanes in a fixed order.
pub(super) fn lanes(plane: &[f32], f: impl Fn(usize, f32) -> f32) -> f64 {
    let mut lanes = [0f32; 16];
    let whole = plane.len() / 16 * 16;
    for start in (0..whole).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane, plane[start + lane]);
        }
    }
    let rest: f32 = (whole..plane.len())
        .map(|index| f(index, plane[index]))
        .sum();
    f64::from(lanes.iter().sum::<f32>() + rest)
}

/// The sum of `plane(r·N + n)` over each row or over each channel. Each sum is computed
/// by one thread.
pub(super) fn sums<const K: usize>(
    (rows, channels): (usize, usize),
    by_row: bool,
    plane: impl Fn(usize) -> [f64; K] + Sync,
) -> Vec<[f64; K]> {
    let (groups, members) = if by_row {
        (rows, channels)
    } else {
        (channels, rows)
    };
    let sum = |group: usize| {
        let mut sums = [0.; K];
        for member in 0..members {
            let index = if by_row {
                group * channels + member
            } else {
                member * channels + group
            };
            sums.iter_mut()
                .zip(plane(index))
                .for_each(|(sum, value)| *sum += value);
        }
        sums
    };
    (0..groups)
        .into_par_iter()
        .with_min_len(8)
        .map(sum)
        .collect()
}

/// The sums over all rows of `f(row·N + n)` for each of `N` channels of one number. A
/// thread sums up neighbouring channels, so that it reads the rows in order.
pub(super) fn column_sums<const K: usize>(
    (rows, channels): (usize, usize),
    f: impl Fn(usize) -> [f32; K] + Sync,
) -> Vec<[f64; K]> {
    const STRIP: usize = 64;
    let mut sums = vec![[0.; K]; channels];
    let strips = sums.par_chunks_mut(STRIP).enumerate().with_min_len(4);
    strips.for_each(|(strip, out)| {
        let mut sums = [[0f32; STRIP]; K];
        for row in 0..rows {
            let first = row * channels + strip * STRIP;
            for column in 0..out.len() {
                let values = f(first + column);
                for (sums, value) in sums.iter_mut().zip(values) {
                    sums[column] += value;
                }
            }
        }
        for (column, out) in out.iter_mut().enumerate() {
            *out = sums.map(|sums| f64::from(sums[column]));
        }
    });
    sums
}
