//! One training step and its parts: batch 100, two views, 1000 units.
//!
//! Run with `cargo bench`. The allocator is that of the program, because it affects the
//! speed.
#![allow(missing_docs)] // criterion's macros make public functions

use criterion::{criterion_group, criterion_main, Criterion};
use onward::candle_core::{DType, Device, Shape, Tensor, Var};
use onward::kernels::{self, Allocator, Gate};
use onward::modules::conv::conv2d;
use onward::optim::{Algorithm, OptimiserSpec, Schedule, Span};
use onward::{Conv, Input, Linear, Optimiser, Result, Run, Step, Vars};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const STEP: Step = Step::first(1);

const DESCENT: OptimiserSpec = OptimiserSpec {
    optimiser: Algorithm::Sgd,
    lr: 1e-6,
    weight_decay: 0.001,
    momentum: 0.9,
    schedule: Schedule::Constant,
};

fn waves(shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let numbers = (0..shape.elem_count()).map(|at| (at as f32).sin().abs());
    let numbers = Tensor::from_iter(numbers, &Device::Cpu).and_then(|x| x.reshape(shape));
    numbers.expect("a tensor on the CPU")
}

/// Forward pass and update of one weight matrix, in closed form and by autograd.
fn layer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer 1000x1000, 200 rows");
    let (x, delta) = (waves((200, 1000)), waves((200, 1000)));
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let init = onward::candle_nn::Init::Randn {
        mean: 0.,
        stdev: 0.03,
    };
    let mut linear = Linear::new(&vars, 1000, 1000, init, true).expect("a layer");
    let mut optimiser = Optimiser::new(vars.clone(), DESCENT, Span::Epochs(0..1));
    let input = Input::stacked(x.clone(), 2).expect("two views");
    group.bench_function("closed form", |bencher| {
        bencher.iter(|| {
            linear.forward(&input, true).expect("forward");
            linear
                .update(&input, &delta, &mut optimiser, &STEP)
                .expect("update");
        });
    });
    // Late in training, the gradient of about nine examples in ten is zero.
    let open: Vec<f32> = (0..200)
        .map(|row| if row % 10 == 0 { 1. } else { 0. })
        .collect();
    let open = Tensor::from_vec(open, (200, 1), &Device::Cpu).expect("a tensor on the CPU");
    let decided = delta.broadcast_mul(&open).expect("rows of zeros");
    group.bench_function("closed form, a tenth of the rows not zero", |bencher| {
        bencher.iter(|| {
            linear.forward(&input, true).expect("forward");
            linear
                .update(&input, &decided, &mut optimiser, &STEP)
                .expect("update");
        });
    });
    let weight: Var = vars
        .get("weight", (1000, 1000), init)
        .expect("the same variable");
    let mut by_autograd = |name: &str, forward: &dyn Fn() -> Result<Tensor>| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let activity = forward().expect("forward");
                let gradients = kernels::backward(&activity, &delta).expect("backward");
                optimiser.apply(&gradients, &STEP).expect("update");
            });
        });
    };
    by_autograd("autograd", &|| {
        kernels::leaky_relu(&kernels::matmul(&x, &weight)?, 0.)
    });
    by_autograd("autograd, candle's own operations", &|| {
        Ok(x.matmul(&weight)?.relu()?)
    });
    group.finish();
}

/// Forward pass and update of 32 kernels, in closed form and by autograd: through the
/// convolution of this library, and through candle's own.
fn convolution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("32 kernels 3x3, pool 2, 200 images 28x28");
    let x = waves((200, 1, 28, 28));
    let delta = waves((200, 32, 14, 14));
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let init = onward::candle_nn::Init::Const(0.01);
    let mut conv = Conv::new(&vars, 1, 32, 3, 2, init).expect("kernels");
    let kernels = conv.weight().clone();
    let mut optimiser = Optimiser::new(vars, DESCENT, Span::Epochs(0..1));
    group.bench_function("closed form", |bencher| {
        bencher.iter(|| {
            let made = conv.forward(&x).expect("forward");
            let activity = kernels::leaky_relu(&made.output, 0.).expect("forward");
            let delta = kernels::gate(&delta, &activity, Gate::default()).expect("backward");
            conv.update(&x, &made, &delta, &mut optimiser, &STEP)
                .expect("update");
        });
    });
    let mut by_autograd = |name: &str, forward: &dyn Fn(&Tensor) -> Result<Tensor>| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let activity = forward(&x).expect("forward");
                let gradients = kernels::backward(&activity, &delta).expect("backward");
                optimiser.apply(&gradients, &STEP).expect("update");
            });
        });
    };
    by_autograd("autograd", &|x| {
        kernels::leaky_relu(&conv2d(x, &kernels, 2)?, 0.)
    });
    by_autograd("autograd, candle's own operations", &|x| {
        let sums = x.conv2d(&kernels, 1, 1, 1, 1)?;
        Ok(sums.max_pool2d(2)?.relu()?)
    });
    group.finish();
}

/// An epoch of the default network on 1000 digits: ten steps.
///
/// A step is the neutral pass, the head, the hard negatives and three layers.
fn ten_steps(criterion: &mut Criterion) {
    let size = onward::export::Value::Integer(1000);
    let data = [
        ("name".to_string(), "digits".into()),
        ("size".to_string(), size),
    ];
    let data = onward::export::Table::from_iter(data);
    let builder = Run::builder("progressive")
        .set("data", data)
        .set("evaluate_every", 1_000_000);
    let mut run = builder
        .set("epochs", 1_000_000)
        .build()
        .expect("the default network");
    criterion.bench_function("10 steps 3x1000, batch 100", |bencher| {
        bencher.iter(|| run.train_until(run.epoch() + 1, &mut ()).expect("an epoch"));
    });
}

criterion_group!(benches, layer, convolution, ten_steps);
criterion_main!(benches);
