//! Standardisation by means and deviations that are known.

use candle_core::Tensor;

use super::are_fast;
use super::fresh::fresh_rows;
use super::rows::with_values;
use crate::error::{Error, Result};

/// `(x − mean) / deviation` for each of the `N` channels or columns of `x`, `(B, N, …)`,
/// with `mean` and `deviation` of `(N,)`.
///
/// # Errors
/// [`Error::Shape`] if there is not one mean and one deviation for each; errors of candle.
pub(crate) fn standardise(x: &Tensor, mean: &Tensor, deviation: &Tensor) -> Result<Tensor> {
    for moments in [mean, deviation] {
        if moments.dims() != [x.dim(1)?] {
            let expected = format!(
                "(B, {}, …), one channel or column for each mean",
                mean.elem_count()
            );
            return Err(Error::shape("standardisation", x.dims(), expected));
        }
    }
    on_gpu!(
        [x, mean, deviation],
        super::cuda::standardise(x, mean, deviation)
    );
    if !are_fast([x, mean, deviation]) {
        let shape = [&[1, x.dim(1)?][..], &vec![1; x.rank() - 2]].concat();
        let (mean, deviation) = (mean.reshape(&*shape)?, deviation.reshape(shape)?);
        return Ok(x.broadcast_sub(&mean)?.broadcast_div(&deviation)?);
    }
    let (rows, channels) = (x.dim(0)?, x.dim(1)?);
    let width = x.elem_count() / rows.max(1);
    let pixels = width / channels.max(1);
    let moments = [mean.to_vec1::<f32>()?, deviation.to_vec1()?];
    let out = with_values(x, |x| {
        fresh_rows(rows, width, |row, out| {
            let x = &x[row * width..][..width];
            let [mean, deviation] = &moments;
            let planes = out.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
            for ((out, x), (mean, deviation)) in planes.zip(mean.iter().zip(deviation)) {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = (x - mean) / deviation;
                }
            }
        })
    })?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::flow::random::normals;

    /// In 64 bits the numbers are candle's own.
    #[test]
    fn channels_and_columns_are_standardised_as_by_candle() -> Result<()> {
        for shape in [
            &[2, 3, 4, 5][..],
            &[7, 3],
            &[0, 3, 2, 2],
            &[2, 3, 0, 2],
            &[4, 1, 1, 1],
        ] {
            let (x, moments) = (normals(shape, 1)?, normals(&[2, shape[1]], 2)?);
            let found = |dtype| -> Result<Vec<f64>> {
                let of = |x: &Tensor| x.to_dtype(dtype);
                let (mean, deviation) = (moments.get(0)?, (moments.get(1)?.abs()? + 0.5)?);
                let made = standardise(&of(&x)?, &of(&mean)?, &of(&deviation)?)?;
                assert_eq!(made.dims(), shape);
                Ok(made.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
            };
            for (here, candle) in found(DType::F32)?.iter().zip(found(DType::F64)?) {
                assert!((here - candle).abs() < 1e-5, "{here} {candle}");
            }
        }
        Ok(())
    }

    /// A transposed tensor, which is not contiguous.
    #[test]
    fn rows_may_lie_apart() -> Result<()> {
        let x = normals(&[3, 2, 4], 1)?.transpose(0, 2)?; // (4, 2, 3)
        let moments = normals(&[2, 2], 2)?;
        let [mean, deviation] = [moments.get(0)?, moments.get(1)?];
        let found = standardise(&x, &mean, &deviation)?;
        let expected = standardise(&x.contiguous()?, &mean, &deviation)?;
        let most = (found - expected)?.abs()?.flatten_all()?.max(0)?;
        assert_eq!(most.to_scalar::<f32>()?, 0.);
        Ok(())
    }

    #[test]
    fn other_channels_are_refused() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let x = normals(&[2, 3, 4], 1)?.to_dtype(dtype)?;
            for count in [0, 1, 2, 4] {
                let moments = Tensor::ones(count, dtype, x.device())?;
                let refused = standardise(&x, &moments, &moments);
                assert!(matches!(refused, Err(Error::Shape { .. })), "{count}");
            }
        }
        Ok(())
    }
}
