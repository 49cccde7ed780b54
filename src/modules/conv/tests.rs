use super::tiles::pools;
use super::*;
use candle_core::{DType, Device};

fn numbers(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut rng = crate::flow::random::stream(seed, "test", 0);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| crate::flow::random::unit(&mut rng) as f32 - 0.5)
        .collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let difference = (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?;
    Ok(difference.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

fn conv(dtype: DType, inputs: usize, units: usize, field: usize, pool: usize) -> Result<Conv> {
    let vars = Vars::new(3, dtype, &Device::Cpu);
    Conv::new(
        &vars,
        inputs,
        units,
        field,
        pool,
        Init::Randn {
            mean: 0.,
            stdev: 0.5,
        },
    )
}

/// Compares both forms with candle's own convolution and its autograd.
#[test]
fn output_and_gradient_agree_with_candle() -> Result<()> {
    for (rows, inputs, height, width, units, field, pool) in [
        (2, 1, 5, 4, 3, 3, 1),
        (3, 2, 7, 6, 4, 5, 2),
        (21, 3, 16, 16, 5, 3, 2),
        (3, 2, 40, 33, 2, 3, 3),
        (1, 4, 2, 2, 3, 1, 2),
    ] {
        let x = numbers(&[rows, inputs, height, width], 1)?;
        let double = conv(DType::F64, inputs, units, field, pool)?;
        let weight = &double.weight.1;
        let x64 = Var::from_tensor(&x.to_dtype(DType::F64)?)?;
        let full = x64.conv2d(weight, field / 2, 1, 1, 1)?;
        let mut pooled = full.clone();
        if pool > 1 {
            let sizes = double.sizes(&x64)?;
            pooled = pools(&full, &sizes)?.max_keepdim(4)?.squeeze(4)?;
        }
        let delta = numbers(pooled.dims(), 2)?;
        let by_candle = (pooled.clone() * delta.to_dtype(DType::F64)?)?
            .sum_all()?
            .backward()?;
        let below = by_candle.get(&x64).expect("it depends on the images");
        let by_candle = by_candle.get(weight).expect("it depends on the weight");
        for dtype in [DType::F32, DType::F64] {
            let conv = conv(dtype, inputs, units, field, pool)?;
            let x = x.to_dtype(dtype)?;
            let made = conv.forward(&x)?;
            assert!(
                difference(&made.output, &pooled)? < 1e-4,
                "{dtype:?} {field} {pool}"
            );
            let delta = delta.to_dtype(dtype)?;
            for (gradient, expected) in [
                (conv.gradient(&x, &made, &delta)?, by_candle),
                (conv.input_gradient(&x, &made, &delta)?, below),
            ] {
                assert!(
                    difference(&gradient, expected)? < 1e-3,
                    "{dtype:?} {field} {pool}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_bits_are_the_same_with_any_number_of_threads() -> Result<()> {
    let conv = conv(DType::F32, 3, 8, 3, 2)?;
    let x = numbers(&[37, 3, 16, 16], 1)?;
    let with = |threads: usize| -> Result<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        let gradient = pool.install(|| {
            let made = conv.forward(&x)?;
            conv.gradient(&x, &made, &made.output)
        })?;
        Ok(gradient
            .flatten_all()?
            .to_vec1::<f32>()?
            .into_iter()
            .map(f32::to_bits)
            .collect())
    };
    assert_eq!(with(1)?, with(2)?);
    assert_eq!(with(1)?, with(5)?);
    Ok(())
}

#[test]
fn wrong_shapes_are_refused() -> Result<()> {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    assert!(Conv::new(&vars, 1, 1, 2, 1, Init::Const(0.)).is_err());
    assert!(Conv::new(&vars, 1, 1, 3, 0, Init::Const(0.)).is_err());
    let conv = conv(DType::F32, 2, 1, 3, 4)?;
    for shape in [&[1, 3, 8, 8][..], &[1, 2, 3, 8], &[1, 128]] {
        assert!(conv.forward(&numbers(shape, 1)?).is_err());
    }
    Ok(())
}
