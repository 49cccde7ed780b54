//! Images and weights laid out for vectors of neighbouring locations: a row of the grid
//! is divided into pieces of [`LANES`] locations, each in a lane of a vector.

use rayon::prelude::*;

use super::Fields;
use crate::kernels::{fresh_pieces, Rows};

/// The number of locations in a piece: as many as the longest vectors have lanes.
pub(super) const LANES: usize = 16;

/// The number of weights of a location that are reordered at a time, so that those of all
/// locations of a piece stay in the L1 cache.
pub(super) const TILE: usize = 64;

/// The division of a grid into pieces.
#[derive(Clone, Copy)]
pub(super) struct Pieces {
    grid: [usize; 2],
    pub per_row: usize,
}

impl Pieces {
    pub fn of(fields: &Fields) -> Self {
        Self {
            grid: fields.grid,
            per_row: fields.grid[1].div_ceil(LANES),
        }
    }

    /// Whether at least half of the lanes of the pieces are locations of the grid.
    pub fn are_filled(self) -> bool {
        2 * self.grid[1] >= self.per_row * LANES
    }

    pub fn count(self) -> usize {
        self.grid[0] * self.per_row
    }

    /// The first location of a piece, and the number of its locations.
    pub fn locations(self, piece: usize) -> (usize, usize) {
        let (row, column) = (piece / self.per_row, piece % self.per_row * LANES);
        (
            row * self.grid[1] + column,
            (self.grid[1] - column).min(LANES),
        )
    }
}

/// Images with padding, laid out so that the same element of all fields of a piece is
/// [`LANES`] contiguous numbers.
///
/// Columns are grouped by their remainder modulo the stride:
/// `(R, C, lines, stride, length)`.
pub(super) struct Framed {
    pub data: Vec<f32>,
    pub channels: usize,
    lines: usize,
    stride: usize,
    length: usize,
}

impl Framed {
    pub fn new(fields: &Fields, images: &Rows<'_>) -> Self {
        let &Fields {
            image: [_, height, width],
            grid,
            field,
            stride,
            padding,
            ..
        } = fields;
        let channels = images.width / (height * width);
        let lines = (grid[0] - 1) * stride + field;
        let length = Pieces::of(fields).per_row * LANES + (field - 1) / stride;
        let framed = Self {
            data: Vec::new(),
            channels,
            lines,
            stride,
            length,
        };
        let per_image = framed.per_image();
        let rows = (0..images.rows).into_par_iter();
        let no_state = || ();
        let data = fresh_pieces(
            images.rows * per_image,
            per_image,
            rows,
            no_state,
            |(), out, row| {
                for (line, source) in images.row(row).chunks_exact(width).enumerate() {
                    let (channel, line) = (line / height, line % height + padding);
                    if line >= lines {
                        continue;
                    }
                    let out =
                        &mut out[(channel * lines + line) * stride * length..][..stride * length];
                    if stride == 1 {
                        out[padding..][..width].copy_from_slice(source);
                        continue;
                    }
                    for (column, number) in source.iter().enumerate() {
                        let column = column + padding;
                        if column / stride < length {
                            out[column % stride * length + column / stride] = *number;
                        }
                    }
                }
            },
        );
        Self { data, ..framed }
    }

    pub fn per_image(&self) -> usize {
        self.channels * self.lines * self.stride * self.length
    }

    /// The position at which the fields of a piece begin in a channel of an image.
    pub fn begin(&self, row: usize, channel: usize, pieces: Pieces, piece: usize) -> usize {
        let (line, column) = (
            piece / pieces.per_row * self.stride,
            piece % pieces.per_row * LANES,
        );
        row * self.per_image() + (channel * self.lines + line) * self.stride * self.length + column
    }

    /// The offset of each element of a field of `field×field` pixels from that position.
    pub fn offsets(&self, field: usize) -> Vec<usize> {
        let number = |number: usize| {
            let (line, column) = (number / field, number % field);
            (line * self.stride + column % self.stride) * self.length + column / self.stride
        };
        (0..field * field).map(number).collect()
    }
}

/// The weight, `(L, F, N)`, reordered with the locations of a piece side by side:
/// `(pieces, F, N, LANES)`.
pub(super) fn turned(fields: &Fields, weight: &[f32], units: usize) -> Vec<f32> {
    let (pieces, size) = (Pieces::of(fields), fields.numbers() * units);
    let (piece, indices) = (size * LANES, (0..pieces.count()).into_par_iter());
    let no_state = || ();
    fresh_pieces(
        pieces.count() * piece,
        piece,
        indices,
        no_state,
        |(), out, piece| {
            let (first, count) = pieces.locations(piece);
            for (tile, out) in out.chunks_mut(TILE * LANES).enumerate() {
                for lane in 0..count {
                    let weight = &weight[(first + lane) * size + tile * TILE..];
                    out[lane..]
                        .iter_mut()
                        .step_by(LANES)
                        .zip(weight)
                        .for_each(|(out, weight)| *out = *weight);
                }
            }
        },
    )
}
