//! Tests that a product treats all rows of a batch alike.

use super::{product, Matrix, PANELS};

fn numbers(count: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 % 10_007) as f32).sin();
    (0..count).map(number).collect()
}

fn bits(product: &[f32]) -> Vec<u32> {
    product.iter().map(|x| x.to_bits()).collect()
}

/// With panels of equal kinds, the bits of a row do not depend on its place, also in a
/// small batch.
#[test]
fn rows_of_a_small_batch_are_treated_alike() {
    let sizes = [
        (1, 1),
        (2, 7),
        (5, 3),
        (784, 1),
        (784, 10),
        (6000, 10),
        (9000, 2),
        (600, 65),
        (1500, 100),
        (600, 520),
    ];
    for rows in (2..=40).filter(|rows| rows % usize::div_ceil(*rows, PANELS) != 1) {
        for (depth, columns) in sizes {
            let (a, b) = (numbers(rows * depth), numbers(depth * columns));
            let mut turned = a.clone();
            turned.rotate_left(depth * (rows / 2));
            let across = Matrix::of_rows(&b, depth, columns, columns);
            let down = Matrix::of_rows(&b, columns, depth, depth).transposed();
            for b in [across, down] {
                let of = |a: &[f32]| {
                    let a = Matrix::of_rows(a, rows, depth, depth);
                    bits(&product(a, b, |_, _, _| ()))
                };
                let (mut found, expected) = (of(&turned), of(&a));
                found.rotate_right(columns * (rows / 2));
                assert!(found == expected, "{rows} {depth} {columns}");
            }
        }
    }
}
