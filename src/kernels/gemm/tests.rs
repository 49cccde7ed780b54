use super::*;

#[test]
fn products_accumulate_and_transpose() {
    let a = [1f32, 2., 3., 4., 5., 6.]; // (2, 3)
    let b = [1f32, 0., 0., 1., 1., 1.]; // (3, 2)
    let (mut dst, mut beside) = ([10f32, 20., 30., 40.], [1f32; 4]);
    let (left, right) = (Matrix::of_rows(&a, 2, 3, 3), Matrix::of_rows(&b, 3, 2, 2));
    accumulate(
        &mut dst,
        &mut beside,
        0.5,
        2.,
        left,
        right,
        |dst, beside| beside[1] += dst[1],
    );
    assert_eq!(dst, [13., 20., 35., 42.]);
    assert_eq!(beside, [1., 21., 1., 43.]);
    // An empty sum.
    let (left, right) = (Matrix::of_rows(&[], 2, 0, 0), Matrix::of_rows(&[], 0, 2, 2));
    accumulate(&mut dst, &mut beside, 0.5, 2., left, right, |_, _| ());
    assert_eq!(dst, [6.5, 10., 17.5, 21.]);
    accumulate(&mut dst, &mut beside, 0., 2., left, right, |_, _| ());
    assert_eq!(dst, [0.; 4]);
    let (a, b) = (Matrix::of_rows(&a, 2, 3, 3), Matrix::of_rows(&b, 2, 3, 3));
    assert_eq!(
        product(a.transposed(), b, |_, _, _| ()),
        [5., 4., 4., 7., 5., 5., 9., 6., 6.]
    );
}

/// With numbers that rounding leaves as they are.
#[test]
fn a_prepared_factor_gives_the_product_in_bfloat16() {
    let numbers: Vec<f32> = (0..70 * 50).map(|i| (i * 37 % 17) as f32 - 8.).collect();
    let a = Matrix::of_rows(&numbers, 50, 70, 70);
    let b = Matrix::of_rows(&numbers, 70, 40, 50);
    let Some(unit) = bfloat16::unit() else { return };
    let prepared = Prepared::with(unit, b);
    let exact = product(a, b, |_, _, _| ());
    for _ in 0..2 {
        let found = product_with(a, b, Some(&prepared), |_, _, _| ());
        assert_eq!(found, exact);
    }
}

#[test]
fn the_bits_are_the_same_with_any_number_of_threads() {
    let numbers: Vec<f32> = (0..300 * 200)
        .map(|i| ((i * 7919 % 1009) as f32).sin())
        .collect();
    let (a, b) = (
        Matrix::of_rows(&numbers, 300, 200, 200),
        Matrix::of_rows(&numbers, 200, 300, 300),
    );
    for (a, b) in [(a, b), (Matrix { rows: 100, ..a }, b)] {
        assert!(
            a.rows * b.columns * a.columns >= SMALL,
            "too small to be divided"
        );
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let product = pool.install(|| product(a, b, |_, _, _| ()));
            product.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(with(1), with(2));
        assert_eq!(with(1), with(5));
    }
}

#[test]
fn panels_make_no_difference() {
    let numbers = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|i| (i * 37 % 101) as f32 / 50. - 1.)
            .collect()
    };
    for (m, n, k) in [(300, 70, 60), (70, 300, 60), (129, 1000, 9), (3, 5, 0)] {
        let (a, b) = (numbers(m * k), numbers(k * n));
        let (a, b) = (Matrix::of_rows(&a, m, k, k), Matrix::of_rows(&b, k, n, n));
        let found = product(a, b, |row, first, piece| {
            piece
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x += (row * n + first + i) as f32);
        });
        for (i, found) in found.iter().enumerate() {
            let (row, column) = (i / n, i % n);
            let sum: f64 = (0..k)
                .map(|j| f64::from(a.data[row * k + j] * b.data[j * n + column]))
                .sum();
            assert!(
                (f64::from(*found) - (sum + i as f64)).abs() < 1e-2,
                "{m} {n} {k} {i}"
            );
        }
    }
}

#[test]
fn a_repeated_row_with_more_numbers_than_memory_does_not_fit() {
    let one = [1f32];
    let repeated = |rows, row| Matrix::of_rows(&one, rows, 1, row);
    assert!(repeated(usize::MAX, 0).fits());
    assert!(!repeated(usize::MAX, 2).fits());
    assert!(!repeated(2, 1).fits());
}

#[test]
#[should_panic(expected = "must fit into memory")]
fn a_product_larger_than_memory_is_refused() {
    let one = [1f32];
    let tall = Matrix::of_rows(&one, 1 << 33, 1, 0);
    let wide = Matrix::of_rows(&one, 1 << 31, 1, 0).transposed();
    product(tall, wide, |_, _, _| ());
}
