//! Fields with many units at a location: a matrix product for each location.

use rayon::prelude::*;

use super::Fields;
use crate::kernels::gemm::{accumulate_here, Factor, Matrix, Right};
use crate::kernels::{fresh_pieces, Rows};

/// The sums of the fields over channels from `first` on, `(L, R, N)`; `weight` is
/// `(L, F, N)`.
pub(super) fn forward(
    fields: &Fields,
    images: &Rows<'_>,
    weight: &[f32],
    first: usize,
    units: usize,
) -> Vec<f32> {
    let (rows, numbers) = (images.rows, fields.of_width(images.width));
    let product = |seen: &mut Vec<f32>, out: &mut [f32], location: usize| {
        fields.at(location, images, seen);
        let weight = &weight[location * fields.numbers() * units + first * fields.area() * units..];
        let seen = Matrix::of_rows(seen, rows, numbers, numbers);
        accumulate_here(
            out,
            0.,
            &Factor::new(seen),
            Right::Matrix(Matrix::of_rows(weight, numbers, units, units)),
        );
    };
    let (piece, locations) = (rows * units, fields.locations());
    let indices = (0..locations).into_par_iter();
    fresh_pieces(locations * piece, piece, indices, Vec::new, product)
}

/// Adds `factor` times the gradient of the weight to `out`, `(L, F, N)`, for the channels
/// from `first` on; `delta` is `(R, N·L)`.
pub(super) fn gradient(
    fields: &Fields,
    images: &Rows<'_>,
    delta: &Rows<'_>,
    out: &mut [f32],
    first: usize,
    factor: f32,
) {
    let (rows, numbers, locations) = (
        images.rows,
        fields.of_width(images.width),
        fields.locations(),
    );
    let units = delta.width / locations;
    let learn = |(seen, here): &mut (Vec<f32>, Vec<f32>), (location, out): (usize, &mut [f32])| {
        fields.at(location, images, seen);
        here.clear();
        for row in 0..rows {
            here.extend(
                delta.row(row)[location..]
                    .iter()
                    .step_by(locations)
                    .map(|delta| factor * delta),
            );
        }
        let seen = Matrix::of_rows(seen, rows, numbers, numbers).transposed();
        let out = &mut out[first * fields.area() * units..][..numbers * units];
        let here = Right::Matrix(Matrix::of_rows(here, rows, units, units));
        accumulate_here(out, 1., &Factor::new(seen), here);
    };
    out.par_chunks_exact_mut(fields.numbers() * units)
        .enumerate()
        .for_each_init(Default::default, learn);
}
