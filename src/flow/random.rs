//! Random numbers drawn from a seed, a purpose and an index. All generators are made in
//! this file.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The generator for `(seed, purpose, index)`: ChaCha with 8 rounds, the same numbers on
/// every machine.
pub fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    keyed(seed, purpose, index, 0)
}

/// A number in `0..n`; `n` must be at least 1. The bias is below 2⁻³² for every `n` used
/// here.
pub fn below(rng: &mut impl Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// A number in `[0, 1)`.
pub fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Puts some items into random order (Fisher–Yates shuffle).
pub fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

pub(super) fn keyed(seed: u64, purpose: &str, index: u64, pass: u32) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&fnv1a(purpose).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    key[24..28].copy_from_slice(&pass.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The FNV-1a hash. Unlike the standard library's hash it never changes.
pub(crate) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Standard normal numbers for a test: the same in every run, since a limit on rounding
/// that holds for one draw need not hold for all.
#[cfg(test)]
pub(crate) fn normals(shape: &[usize], seed: u64) -> crate::Result<candle_core::Tensor> {
    use rand_distr::{Distribution, StandardNormal};
    let numbers = StandardNormal.sample_iter(stream(seed, "normals", 0));
    let numbers: Vec<f32> = numbers.take(shape.iter().product()).collect();
    let device = &candle_core::Device::Cpu;
    Ok(candle_core::Tensor::from_vec(numbers, shape, device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffled_order_has_every_number_once() {
        let mut order: Vec<u32> = (0..100).collect();
        shuffle(&mut stream(1, "shuffle", 0), &mut order);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(order, sorted);
    }

    #[test]
    fn draws_stay_in_range() {
        let mut rng = stream(1, "test", 0);
        assert!((0..1000).all(|_| below(&mut rng, 3) < 3 && (0. ..1.).contains(&unit(&mut rng))));
    }

    // Published test values of FNV-1a, 64 bits (draft-eastlake-fnv, appendix C).
    #[test]
    fn purposes_are_hashed_as_published() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }
}
