//! Layers with receptive fields on images: forward pass and gradient of the weight.
//!
//! The baselines are the matrix products of the layers, and candle's convolution with its
//! backward pass. Run with `cargo bench --bench fields`. The allocator is that of the
//! program, because it affects the speed.
#![allow(missing_docs)] // criterion's macros make public functions

use criterion::{criterion_group, criterion_main, Criterion};
use onward::candle_core::{DType, Device, Tensor, Var};
use onward::candle_nn::Init;
use onward::kernels::Allocator;
use onward::modules::locally_connected::{Fields, LocallyConnected};
use onward::{Conv, Input, Vars};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const INIT: Init = Init::Randn {
    mean: 0.,
    stdev: 0.05,
};

fn waves(shape: &[usize]) -> Tensor {
    let numbers = (0..shape.iter().product()).map(|at: usize| (at as f32).sin().abs());
    let numbers = Tensor::from_iter(numbers, &Device::Cpu).and_then(|x| x.reshape(shape));
    numbers.expect("a tensor on the CPU")
}

fn product(a: &Tensor, b: &Tensor) -> Tensor {
    a.matmul(b).expect("matching shapes")
}

/// 64 images of 32 channels, 32×32 pixels; 32 kernels of 3×3.
fn conv(criterion: &mut Criterion) {
    let (rows, channels, side, units, field) = (64, 32, 32, 32, 3);
    let mut group = criterion.benchmark_group("conv 64x32x32x32, 3x3");
    let (x, delta) = (
        waves(&[rows, channels, side, side]),
        waves(&[rows, units, side, side]),
    );
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let conv = Conv::new(&vars, channels, units, field, 1, INIT).expect("a convolution");
    group.bench_function("forward and gradient", |bencher| {
        bencher.iter(|| {
            let made = conv.forward(&x).expect("forward");
            conv.gradient(&x, &made, &delta).expect("gradient")
        });
    });
    let (numbers, pixels) = (channels * field * field, rows * side * side);
    let (weight, fields) = (waves(&[units, numbers]), waves(&[numbers, pixels]));
    let (delta_rows, fields_rows) = (waves(&[units, pixels]), waves(&[pixels, numbers]));
    group.bench_function("matrix products", |bencher| {
        bencher.iter(|| {
            (
                product(&weight, &fields),
                product(&delta_rows, &fields_rows),
            )
        });
    });
    let kernel = Var::from_tensor(&waves(&[units, channels, field, field])).expect("a variable");
    group.bench_function("candle's conv2d with backward", |bencher| {
        bencher.iter(|| {
            let y = x.conv2d(&kernel, field / 2, 1, 1, 1).expect("forward");
            let loss = (y * &delta)
                .and_then(|product| product.sum_all())
                .expect("loss");
            loss.backward().expect("backward")
        });
    });
    group.finish();
}

/// The second layer of Hinton's net of local receptive fields.
///
/// 4×4 pixels of 128 channels, fields of 2×2.
fn local(criterion: &mut Criterion) {
    let (rows, channels, side, units, field) = (200, 128, 4, 220, 2);
    let mut group = criterion.benchmark_group("local 200x128x4x4, 2x2, 220 units");
    let fields = Fields::new([channels, side, side], field, 1, 0).expect("fields");
    let (locations, numbers) = (fields.grid().iter().product::<usize>(), fields.numbers());
    let (x, delta) = (
        waves(&[rows, channels, side, side]),
        waves(&[rows, units, side - 1, side - 1]),
    );
    // A new `Input` for every pass, because layers cache results by input.
    let x = || Input::of(x.clone()).expect("images");
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let local = LocallyConnected::new(&vars, fields, units, INIT).expect("a layer");
    group.bench_function("forward and gradient", |bencher| {
        bencher.iter(|| {
            (
                local.forward(&x()).expect("forward"),
                local.gradients(&x(), &delta).expect("gradient"),
            )
        });
    });
    let (seen, weight) = (
        waves(&[locations, rows, numbers]),
        waves(&[locations, numbers, units]),
    );
    let (seen_columns, deltas) = (
        waves(&[locations, numbers, rows]),
        waves(&[locations, rows, units]),
    );
    group.bench_function("matrix products", |bencher| {
        bencher.iter(|| (product(&seen, &weight), product(&seen_columns, &deltas)));
    });
    group.finish();
}

/// A layer of Hinton's net for CIFAR-10.
///
/// Three channels from below and three from above, fields of 11×11, three units per
/// location.
fn narrow(criterion: &mut Criterion) {
    let (rows, channels, side, units, field) = (200, 6, 32, 3, 11);
    let mut group = criterion.benchmark_group("local 200x6x32x32, 11x11, 3 units");
    group.sample_size(10);
    let fields = Fields::new([channels, side, side], field, 1, field / 2).expect("fields");
    let (locations, numbers) = (fields.grid().iter().product::<usize>(), fields.numbers());
    let (x, delta) = (
        waves(&[rows, channels, side, side]),
        waves(&[rows, units, side, side]),
    );
    // A new `Input` for every pass, because layers cache results by input.
    let x = || Input::of(x.clone()).expect("images");
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let local = LocallyConnected::new(&vars, fields, units, INIT).expect("a layer");
    group.bench_function("forward", |bencher| {
        bencher.iter(|| local.forward(&x()).expect("forward"))
    });
    group.bench_function("gradient", |bencher| {
        bencher.iter(|| local.gradients(&x(), &delta).expect("gradient"))
    });
    let (seen, weight) = (
        waves(&[rows, numbers]),
        waves(&[numbers, units * locations]),
    );
    let (seen_columns, deltas) = (waves(&[numbers, rows]), waves(&[rows, units * locations]));
    group.bench_function("a wide product of as many operations", |bencher| {
        bencher.iter(|| (product(&seen, &weight), product(&seen_columns, &deltas)));
    });
    group.finish();
}

criterion_group!(benches, conv, local, narrow);
criterion_main!(benches);
