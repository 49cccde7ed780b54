//! Fields with many units at a location: a matrix product for each location.

use std::cell::RefCell;

use rayon::prelude::*;

use super::Fields;
use crate::kernels::gemm::{accumulate, Matrix};
use crate::kernels::{fresh_pieces, Rows};

thread_local! {
    /// Where a thread writes the fields of a location, and its deltas.
    static ROOM: RefCell<(Vec<f32>, Vec<f32>)> = RefCell::default();
}

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
    let product = |_: &mut (), out: &mut [f32], location: usize| {
        let (mut seen, here) = ROOM.take();
        fields.at(location, images, &mut seen);
        let weight = &weight[location * fields.numbers() * units + first * fields.area() * units..];
        let x = Matrix::of_rows(&seen, rows, numbers, numbers);
        let weight = Matrix::of_rows(weight, numbers, units, units);
        accumulate(out, &mut [], 0., 1., x, weight, |_, _| ());
        ROOM.set((seen, here));
    };
    let (piece, locations) = (rows * units, fields.locations());
    let indices = (0..locations).into_par_iter();
    fresh_pieces(locations * piece, piece, indices, || (), product)
}

/// Computes `sum ← keep·sum + factor·gradient` for each location, and calls `finish` with
/// pieces of it and of what is beside it. A sum, `(F, N)`, has the rows of the columns of
/// the images; the deltas are `(R, N·L)`.
pub(super) fn gradient(
    fields: &Fields,
    [images, delta]: [&Rows<'_>; 2],
    sums: Vec<[&mut [f32]; 2]>,
    [keep, factor]: [f32; 2],
    finish: &(dyn Fn(&mut [f32], &mut [f32]) + Sync),
) {
    let (rows, locations) = (images.rows, fields.locations());
    let (numbers, units) = (fields.of_width(images.width), delta.width / locations);
    let learn = |(location, sum): (usize, _)| {
        // Taken, since the thread may begin another location while it waits for the product.
        let (mut seen, mut here) = ROOM.take();
        fields.at(location, images, &mut seen);
        here.clear();
        for row in 0..rows {
            here.extend(delta.row(row)[location..].iter().step_by(locations));
        }
        let x = Matrix::of_rows(&seen, rows, numbers, numbers).transposed();
        let delta = Matrix::of_rows(&here, rows, units, units);
        let [sum, beside]: [&mut [f32]; 2] = sum;
        accumulate(sum, beside, keep, factor, x, delta, finish);
        ROOM.set((seen, here));
    };
    sums.into_par_iter().enumerate().for_each(learn);
}
