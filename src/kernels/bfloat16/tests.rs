use super::*;
use crate::kernels::sizes::Sizes;

/// The units of this processor. Both kinds are tested where there are both.
fn units() -> Vec<Unit> {
    let mut units = Vec::from_iter(unit());
    #[cfg(target_arch = "x86_64")]
    if !units.is_empty() && !units.contains(&Unit::Vectors) {
        units.push(Unit::Vectors);
    }
    if units.is_empty() {
        crate::error::notify("skipped: this processor has no product of bfloat16 numbers");
    }
    units
}

/// A number rounded to nearest, ties to even.
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// The sum of products in the order of the unit. Products of two numbers in bfloat16
/// are exact in 32 bits.
fn sum(unit: Unit, terms: &[(f32, f32)]) -> f32 {
    let mut terms: Vec<f32> = terms
        .iter()
        .map(|(a, b)| rounded(*a) * rounded(*b))
        .collect();
    terms.resize(terms.len().next_multiple_of(DEPTH), 0.);
    let add = |sum: f32, term: &f32| sum + term;
    match unit {
        // In each tile, the first and the second terms of all pairs; then both.
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Unit::Tiles => terms.chunks(DEPTH).fold(0., |sum, tile| {
            let first = tile.iter().step_by(2).fold(0., add);
            let second = tile.iter().skip(1).step_by(2).fold(0., add);
            sum + (first + second)
        }),
        // The second term of each pair comes first.
        #[cfg(target_arch = "x86_64")]
        Unit::Vectors => terms
            .chunks(2)
            .fold(0., |sum, pair| sum + pair[1] + pair[0]),
    }
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32;
    (0..count).map(|i| number(i).sin()).collect()
}

/// The product of `(m, k)` and `(k, n)`, multiplied by 2, in a result of NaN.
fn product(unit: Unit, a: Matrix<'_>, b: Matrix<'_>, in_parallel: bool) -> Vec<f32> {
    let mut dst = vec![f32::NAN; a.rows * b.columns];
    let left = Packed::left(unit, a, in_parallel);
    let right = Packed::right(unit, b, in_parallel);
    let (whole, across) = ((&left, 0, a.rows), (&right, 0, b.columns));
    // SAFETY: `dst` has room for the product.
    unsafe { multiply((dst.as_mut_ptr(), b.columns), [0., 2.], whole, across) };
    dst
}

#[test]
fn products_have_the_bits_of_the_scalar_sums() {
    for unit in units() {
        for [m, k, n] in [
            [1, 1, 1],
            [17, 33, 49],
            [64, 64, 32],
            [5, 200, 100],
            [40, 0, 3],
        ] {
            let (a, b) = (numbers(2 * m * k + 1, 1), numbers(2 * k * n + 1, 2));
            let whole = |data, rows, columns| Matrix::of_rows(data, rows, columns, columns);
            let apart = |data, rows, columns| Matrix {
                column: 2,
                ..Matrix::of_rows(data, rows, columns, 2 * columns)
            };
            // Rows, columns, and neither side by side in memory.
            let lefts = [
                whole(&a, m, k),
                whole(&a, k, m).transposed(),
                apart(&a, m, k),
            ];
            let rights = [
                whole(&b, k, n),
                whole(&b, n, k).transposed(),
                apart(&b, k, n),
            ];
            for (a, b) in lefts
                .iter()
                .flat_map(|a| rights.iter().map(move |b| (*a, *b)))
            {
                let found = product(unit, a, b, false);
                assert_eq!(
                    found.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    product(unit, a, b, true)
                        .iter()
                        .map(|x| x.to_bits())
                        .collect::<Vec<_>>()
                );
                for (place, found) in found.iter().enumerate() {
                    let (row, column) = (place / n, place % n);
                    let at = |x: Matrix<'_>, r, c| x.data[r * x.row + c * x.column];
                    let terms: Vec<_> = (0..k).map(|i| (at(a, row, i), at(b, i, column))).collect();
                    let expected = 2. * sum(unit, &terms);
                    assert_eq!(*found, expected, "{unit:?} {m} {k} {n} at {place}");
                }
            }
        }
    }
}

#[test]
fn fields_have_the_bits_of_a_whole_matrix() {
    for unit in units() {
        // Lines of every kind: wider than a vector, a part of one, odd.
        for (width, field) in [(32, 3), (19, 5), (8, 3), (7, 3), (1, 1)] {
            let sizes = Sizes {
                rows: 3,
                inputs: 2,
                height: 5,
                width,
                units: 7,
                field,
                pool: 1,
            };
            let (mut padded, mut whole) = (Vec::new(), Vec::new());
            sizes.pad(&numbers(3 * 2 * 5 * width, 5), &mut padded);
            let fields = Fields::new(&sizes, &padded, (1, 3));
            fields.gather(&mut whole);
            let (rows, pixels) = (fields.numbers(), fields.pixels());
            assert_eq!(pixels, 3 * 3 * width);
            let whole = Matrix::of_rows(&whole, rows, pixels, pixels);
            for (transposed, whole) in [(false, whole), (true, whole.transposed())] {
                let found = Packed::fields(unit, &fields, transposed);
                let expected = Packed::right(unit, whole, false);
                let strips = 0..whole.columns.div_ceil(SIDE);
                for (strip, tile) in strips.flat_map(|s| (0..found.tiles).map(move |t| (s, t))) {
                    let of = |packed: &Packed| {
                        let at = strip * packed.of_strip + tile * packed.of_tile;
                        packed.lines[at..][..SIDE]
                            .iter()
                            .map(|line| line.0)
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(of(&found), of(&expected), "{width} {strip} {tile}");
                }
            }
        }
    }
}

#[test]
fn parts_of_the_factors_are_added_to_what_is_there() {
    const SIZE: usize = 70;
    for unit in units() {
        let (a, b) = (numbers(SIZE * SIZE, 3), numbers(SIZE * SIZE, 4));
        let [a, b] = [&a, &b].map(|data| Matrix::of_rows(data, SIZE, SIZE, SIZE));
        let whole = product(unit, a, b, false);
        let [left, right] = [Packed::left(unit, a, false), Packed::right(unit, b, false)];
        let (rows, columns) = (SIZE - 64, SIZE - 32);
        // A row more and a column more than the part, which must stay.
        let mut dst = vec![1f32; (rows + 1) * (columns + 1)];
        let place = (dst.as_mut_ptr(), columns + 1);
        // SAFETY: `dst` has room for the part.
        unsafe { multiply(place, [3., 2.], (&left, 64, rows), (&right, 32, columns)) };
        for (place, found) in dst.iter().enumerate() {
            let (row, column) = (place / (columns + 1), place % (columns + 1));
            let expected = match row < rows && column < columns {
                true => 3. + whole[(64 + row) * SIZE + 32 + column],
                false => 1.,
            };
            assert_eq!(*found, expected, "{unit:?} at {row}, {column}");
        }
    }
}
