//! Exponentials and logarithms of several numbers at a time. Those of the system's library
//! take one after the other.

/// `eˣ`, for `x` up to 700; below −700 it is e⁻⁷⁰⁰. The relative error is below 10⁻¹⁵.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    let x = if x < -700. { -700. } else { x };
    // Its lowest bits are the whole number n nearest to x / ln 2.
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let rest = (x - n * LN_2[0]) - n * LN_2[1];
    // The series of the exponential, of a number of at most ln 2 / 2.
    let inverse = FACTORIALS.iter().rev();
    let power = inverse.fold(0., |sum, factorial| sum * rest + 1. / factorial);
    f64::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 52))
}

/// `eˣ` in single precision; 0 below −87, where it would be subnormal, and infinite above
/// 88.7. The relative error is below 1.5·10⁻⁷.
#[inline(always)]
pub(crate) fn exp_f32(x: f32) -> f32 {
    let shifted = x * std::f32::consts::LOG2_E + SHIFT_F32;
    let n = shifted - SHIFT_F32;
    let rest = (x - n * LN_2_F32[0]) - n * LN_2_F32[1];
    let inverse = FACTORIALS[..8].iter().rev();
    let power = inverse.fold(0., |sum, factorial| sum * rest + (1. / factorial) as f32);
    let scaled = f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23));
    let scaled = if x > 88.7 { f32::INFINITY } else { scaled };
    let scaled = if x.is_nan() { x } else { scaled };
    if x < -87. {
        0.
    } else {
        scaled
    }
}

/// `ln x` of a positive number that is not subnormal. The error is below 10⁻¹⁵, relative
/// where the logarithm is above 1.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    // x = f·2ⁿ with f from 1 to 2; then from √½ to √2. A number with the bits of 2⁵² and a
    // whole number behind them is the sum of both.
    let n = f64::from_bits(bits >> 52 | 1075 << 52) - (2f64.powi(52) + 1023.);
    let f = f64::from_bits(bits & FRACTION | 1023 << 52);
    let is_high = f > std::f64::consts::SQRT_2;
    let f = if is_high { f / 2. } else { f };
    let n = if is_high { n + 1. } else { n };
    // ln f = 2·(s + s³/3 + s⁵/5 + …) with s = (f − 1) / (f + 1).
    let s = (f - 1.) / (f + 1.);
    let square = s * s;
    let odd = ODD.iter().rev();
    let series = odd.fold(0., |sum, odd| sum * square + 1. / odd);
    n * LN_2[0] + (2. * s * series + n * LN_2[1])
}

/// Added to a small number, it moves the whole number to the lowest bits.
const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;

/// ln 2 as the sum of two numbers, the first with zeros at its end, so that products with
/// small whole numbers are exact.
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];

/// As [`SHIFT`].
const SHIFT_F32: f32 = 1.5 * (1u32 << 23) as f32;

/// As [`LN_2`].
const LN_2_F32: [f32; 2] = [355. / 512., -2.121_944_4e-4];

/// 0! to 13!.
const FACTORIALS: [f64; 14] = {
    let mut of = [1.; 14];
    let mut k = 1;
    while k < 14 {
        of[k] = of[k - 1] * k as f64;
        k += 1;
    }
    of
};

const ODD: [f64; 11] = [1., 3., 5., 7., 9., 11., 13., 15., 17., 19., 21.];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_agree_with_the_standard_library() {
        let mut x = -699.9;
        while x < 700. {
            let (found, expected) = (exp(x), x.exp());
            assert!((found / expected - 1.).abs() < 1e-15, "exp({x}): {found}");
            let found = ln(expected);
            assert!(
                (found - x).abs() < 1e-15 * x.abs().max(1.),
                "ln(exp({x})): {found}"
            );
            x += 0.0137;
        }
        for x in [1e-300, 0.25, 0.5, 0.7, 0.71, 1., 1.5, 3., 1e300] {
            let expected = f64::ln(x);
            assert!(
                (ln(x) - expected).abs() <= 1e-15 * expected.abs().max(1.),
                "ln({x})"
            );
        }
        let mut x = -87f32;
        while x < 88.7 {
            let expected = f64::from(x).exp();
            let error = f64::from(exp_f32(x)) / expected - 1.;
            assert!(error.abs() < 1.5e-7, "exp({x}): {error}");
            x += 0.0137;
        }
        assert_eq!((exp_f32(0.), exp_f32(-1e9)), (1., 0.));
        assert_eq!([-87.01, f32::NEG_INFINITY].map(exp_f32), [0., 0.]);
        assert_eq!([88.8, 1e9, f32::INFINITY].map(exp_f32), [f32::INFINITY; 3]);
        let not_numbers = [f32::NAN, -f32::NAN, f32::from_bits(0x7fc0_0001)];
        assert!(not_numbers.map(exp_f32).iter().all(|x| x.is_nan()));
        assert_eq!((exp(0.), ln(1.)), (1., 0.));
        assert!(exp(f64::NAN).is_nan());
        assert!(exp(-1e9) < 1e-300 && exp(f64::NEG_INFINITY) > 0.);
    }
}
