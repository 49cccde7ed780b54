//! Operations per second of one thread by the product of bfloat16 numbers
//! (`vdpbf16ps`, sums in 32 bits) and by the fused multiplication of 32 bits. Products in
//! bfloat16 can only pay where the first number is the larger one.
//!
//! Run with `cargo bench --bench bf16`; needs a processor with AVX-512 and its BF16.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod measure {
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::time::Instant;

    /// Enough sums beside each other that none waits for the one before.
    const SUMS: usize = 24;
    const ROUNDS: usize = 20_000_000;

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs() -> f32 {
        // SAFETY: both types have 512 bits, and any bits are numbers.
        let ones: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi16(0x3f80)) };
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            let ones = black_box(ones);
            sums.iter_mut()
                .for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, ones, ones));
        }
        total(sums)
    }

    #[target_feature(enable = "avx512f")]
    fn fused() -> f32 {
        let ones = _mm512_set1_ps(1.);
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..ROUNDS {
            let ones = black_box(ones);
            sums.iter_mut()
                .for_each(|sum| *sum = _mm512_fmadd_ps(ones, ones, *sum));
        }
        total(sums)
    }

    #[target_feature(enable = "avx512f")]
    fn total(sums: [__m512; SUMS]) -> f32 {
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    pub fn run() {
        if !is_x86_feature_detected!("avx512bf16") || !is_x86_feature_detected!("avx512f") {
            println!("skipped: this processor has no product of bfloat16 numbers");
            return;
        }
        // A vector has 16 numbers of 32 bits; each sum of the first takes two products.
        for (what, work, products) in [
            ("bfloat16", pairs as unsafe fn() -> f32, 32),
            ("32 bits", fused as unsafe fn() -> f32, 16),
        ] {
            let start = Instant::now();
            // SAFETY: the processor has what both functions need.
            black_box(unsafe { work() });
            let operations = 2. * (ROUNDS * SUMS * products) as f64;
            let speed = operations / start.elapsed().as_secs_f64() / 1e9;
            println!("{what}: {speed:.0} GFLOP/s");
        }
    }
}

fn main() {
    #[cfg(target_arch = "x86_64")]
    measure::run();
    #[cfg(not(target_arch = "x86_64"))]
    println!("skipped: for processors of the x86-64 kind alone");
}
