//! One training step and its parts: batch 100, two views, 1000 units.
//!
//! Run with `cargo bench`. The allocator is that of the program, because it affects the
//! speed.
#![allow(missing_docs)] // criterion's macros make public functions

use criterion::{criterion_group, criterion_main, Criterion};
use onward::candle_core::{DType, Device, Tensor, Var};
use onward::optim::{Algorithm, OptimiserSpec, Schedule, Span};
use onward::{Input, Linear, Optimiser, Run, Step, Vars};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEP: Step = Step::first(1);

fn random(shape: (usize, usize)) -> Tensor {
    Tensor::rand(0f32, 1f32, shape, &Device::Cpu).expect("a tensor on the CPU")
}

/// Forward pass and update of one weight matrix, in closed form and by autograd.
fn layer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer 1000x1000, 200 rows");
    let descent = OptimiserSpec {
        optimiser: Algorithm::Sgd,
        lr: 1e-6,
        weight_decay: 0.001,
        momentum: 0.9,
        schedule: Schedule::Constant,
    };
    let (x, delta) = (random((200, 1000)), random((200, 1000)));
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let init = onward::candle_nn::Init::Randn {
        mean: 0.,
        stdev: 0.03,
    };
    let mut linear = Linear::new(&vars, 1000, 1000, init, true).expect("a layer");
    let mut optimiser = Optimiser::new(vars.clone(), descent, Span::Epochs(0..1));
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
    group.bench_function("autograd", |bencher| {
        bencher.iter(|| {
            let activity = x.matmul(&weight).and_then(|y| y.relu()).expect("forward");
            let loss = (activity * &delta)
                .and_then(|product| product.sum_all())
                .expect("loss");
            optimiser
                .apply(&loss.backward().expect("backward"), &STEP)
                .expect("update");
        });
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

criterion_group!(benches, layer, ten_steps);
criterion_main!(benches);
