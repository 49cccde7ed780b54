use super::*;

fn pixels_and_label() -> Result<Input> {
    let pixels = Tensor::new(&[[9f32, 3., 4.], [9., 0., 2.]], &Device::Cpu)?;
    let index = Tensor::new(&[[0u32], [1], [1], [0]], &Device::Cpu)?;
    let label = Values::OneHot {
        index,
        classes: 2,
        strength: 1.,
    };
    Input::new(
        vec![
            label,
            Values::Dense {
                matrix: pixels,
                columns: 1..3,
            },
        ],
        2,
        2,
        &[4],
    )
}

#[test]
fn a_view_has_its_own_rows_and_those_that_all_views_share() -> Result<()> {
    let input = pixels_and_label()?.normalised(Normalise::UnitLength)?;
    let rows = input.join()?;
    for index in 0..2 {
        let view = input.view(index)?;
        assert_eq!((view.views(), view.batch()), (1, 2));
        let expected = rows.narrow(0, 2 * index, 2)?.to_vec2::<f32>()?;
        assert_eq!(view.join()?.to_vec2::<f32>()?, expected);
    }
    assert!(input.view(2).is_err());
    Ok(())
}

/// Compares the fast form with candle's, including scales.
#[test]
fn both_forms_of_joining_agree() -> Result<()> {
    let matrix =
        Tensor::from_iter((0..30).map(|i| i as f32 / 7. - 2.), &Device::Cpu)?.reshape((6, 5))?;
    let in_form = |dtype: DType| -> Result<Tensor> {
        let dense = |rows: usize, columns| -> Result<Values> {
            Ok(Values::Dense {
                matrix: matrix.narrow(0, 0, rows)?.to_dtype(dtype)?,
                columns,
            })
        };
        let index = Tensor::new(&[[0u32, 2], [1, 0], [2, 2]], &Device::Cpu)?;
        let slots = Values::OneHot {
            index,
            classes: 3,
            strength: 0.5,
        };
        let input = Input::new(vec![dense(3, 1..4)?, slots, dense(6, 0..5)?], 3, 2, &[2, 7])?;
        input.normalised(Normalise::MeanSquare)?.join()
    };
    let (fast, plain) = (in_form(DType::F32)?, in_form(DType::F64)?);
    assert_eq!(
        (fast.dims(), plain.dims()),
        (&[6, 2, 7][..], &[6, 2, 7][..])
    );
    let difference = (fast.to_dtype(DType::F64)? - plain)?
        .abs()?
        .flatten_all()?
        .max(0)?
        .to_scalar::<f64>()?;
    assert!(difference < 1e-6, "{difference}");
    Ok(())
}

#[test]
fn a_shared_part_is_in_every_view() -> Result<()> {
    let joined = pixels_and_label()?.join()?.to_vec2::<f32>()?;
    assert_eq!(
        joined,
        [
            [1., 0., 3., 4.],
            [0., 1., 0., 2.],
            [0., 1., 3., 4.],
            [1., 0., 0., 2.]
        ]
    );
    Ok(())
}

#[test]
fn rows_are_scaled_over_all_parts_together() -> Result<()> {
    let input = pixels_and_label()?.normalised(Normalise::UnitLength)?;
    let squares = input.join()?.sqr()?.sum(1)?.to_vec1::<f32>()?;
    assert!(
        squares.iter().all(|square| (square - 1.).abs() < 1e-6),
        "{squares:?}"
    );
    let input = pixels_and_label()?.normalised(Normalise::MeanSquare)?;
    let means = input.join()?.sqr()?.mean(1)?.to_vec1::<f32>()?;
    assert!(
        means.iter().all(|mean| (mean - 1.).abs() < 1e-6),
        "{means:?}"
    );
    Ok(())
}

#[test]
fn an_input_that_is_final_is_not_normalised() -> Result<()> {
    let input = pixels_and_label()?;
    let rows = input.join()?.to_vec2::<f32>()?;
    let same = input.as_is().normalised(Normalise::UnitLength)?;
    assert_eq!(same.join()?.to_vec2::<f32>()?, rows);
    Ok(())
}

#[test]
fn factors_multiply() -> Result<()> {
    let scaled = pixels_and_label()?.scaled(2.)?.scaled(1.5)?.join()?;
    let expected = (pixels_and_label()?.join()? * 3.)?;
    assert_eq!(scaled.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn a_row_of_zeros_stays_zero() -> Result<()> {
    let zeros = Tensor::zeros((1, 3), DType::F32, &Device::Cpu)?;
    let joined = Input::of(zeros)?
        .normalised(Normalise::MeanSquare)?
        .join()?;
    assert_eq!(joined.to_vec2::<f32>()?, [[0., 0., 0.]]);
    Ok(())
}

#[test]
fn parts_that_do_not_add_up_are_refused() -> Result<()> {
    let matrix = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
    assert!(Input::new(vec![Values::dense(matrix.clone())?], 2, 1, &[4]).is_err());
    assert!(Input::new(vec![Values::dense(matrix)?], 3, 1, &[3]).is_err());
    Ok(())
}

/// Compares with finite differences of `Σ upstream·normalised(x)`.
#[test]
fn the_gradient_of_a_normalisation_equals_finite_differences() -> Result<()> {
    let x = Tensor::new(&[[1f64, -2., 0.5], [0.3, 0.1, 4.]], &Device::Cpu)?;
    let upstream = Tensor::new(&[[0.2f64, 1., -1.], [0.5, -0.4, 0.1]], &Device::Cpu)?;
    for how in [
        Normalise::MeanSquare,
        Normalise::UnitLength,
        Normalise::None,
    ] {
        let total = |x: &Tensor| -> Result<f64> {
            let normalised = Input::of(x.clone())?.normalised(how)?.join()?;
            Ok((normalised * &upstream)?.sum_all()?.to_scalar()?)
        };
        let gradient = how
            .gradient(&x, &upstream)?
            .flatten_all()?
            .to_vec1::<f64>()?;
        for (index, found) in gradient.into_iter().enumerate() {
            let mut step = vec![0f64; 6];
            step[index] = 1e-6;
            let step = Tensor::from_vec(step, (2, 3), &Device::Cpu)?;
            let slope = (total(&(&x + &step)?)? - total(&(&x - &step)?)?) / 2e-6;
            assert!(
                (slope - found).abs() < 1e-7,
                "{how:?} {index}: {slope} {found}"
            );
        }
    }
    Ok(())
}

#[test]
fn zeros_count_as_columns() -> Result<()> {
    let pixels = Tensor::new(&[[3f32, 4.], [0., 2.]], &Device::Cpu)?;
    let zeros = Values::Zeros { rows: 2, width: 1 };
    let input = Input::new([Values::dense(pixels)?, zeros], 2, 1, &[3])?;
    let joined = input
        .normalised(Normalise::UnitLength)?
        .join()?
        .to_vec2::<f32>()?;
    for (found, expected) in joined.concat().into_iter().zip([0.6, 0.8, 0., 0., 1., 0.]) {
        assert!(
            (found - expected).abs() < 1e-6,
            "{found} instead of {expected}"
        );
    }
    Ok(())
}
