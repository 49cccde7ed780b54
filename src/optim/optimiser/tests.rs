use candle_nn::Init;

use super::*;
use crate::flow::input::Values;
use crate::optim::Schedule;
use crate::optim::{OutputGradient, Product};

fn step(epoch: usize) -> Step {
    Step {
        epoch,
        train: true,
        ..Step::evaluation(1)
    }
}

fn spec(optimiser: Algorithm) -> OptimiserSpec {
    OptimiserSpec {
        optimiser,
        lr: 0.1,
        weight_decay: 0.01,
        momentum: 0.9,
        schedule: Schedule::Constant,
    }
}

fn optimiser(vars: &Vars, algorithm: Algorithm) -> Optimiser {
    Optimiser::new(vars.clone(), spec(algorithm), Span::Epochs(0..1))
}

fn assert_close(found: &[f32], expected: &[f32]) {
    let near = found
        .iter()
        .zip(expected)
        .all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(
        near && found.len() == expected.len(),
        "{found:?} instead of {expected:?}"
    );
}

fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let sum = (a - b)?.abs()?.sum_all()?.to_dtype(DType::F64)?;
    Ok(sum.to_scalar()?)
}

fn two_steps(algorithm: Algorithm, dtype: DType) -> Result<Vec<f32>> {
    let vars = Vars::new(1, dtype, &Device::Cpu);
    let var = vars.get("w", (1, 3), Init::Const(1.))?;
    let mut optimiser = optimiser(&vars, algorithm);
    for gradient in [[[1f64, -2., 0.5]], [[0.5, 1., 0.]]] {
        let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
        optimiser.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
    }
    Ok(var.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

// By hand: v₁ = 0.1·g₁; w₁ = 1 − 0.1·(v₁ + 0.01);
// v₂ = 0.9·v₁ + 0.1·g₂; w₂ = w₁ − 0.1·(v₂ + 0.01·w₁).
#[test]
fn momentum_is_a_running_mean_of_gradients() -> Result<()> {
    let expected = [0.974_011, 1.025_981, 0.988_506];
    assert_close(&two_steps(Algorithm::Sgd, DType::F32)?, &expected);
    assert_close(&two_steps(Algorithm::Sgd, DType::F64)?, &expected);
    Ok(())
}

/// Steps along the weights themselves, along their product with themselves, and along
/// the first moment.
fn steps_along_its_own_values(algorithm: Algorithm, dtype: DType) -> Result<Vec<f32>> {
    let vars = Vars::new(1, dtype, &Device::Cpu);
    let normal = Init::Randn {
        mean: 0.,
        stdev: 1.,
    };
    let var = vars.get("w", (3, 3), normal)?;
    let mut optimiser = optimiser(&vars, algorithm);
    let own = var.as_detached_tensor();
    optimiser.update("w", &var, Gradient::Whole(&own), &step(0))?;
    optimiser.update("w", &var, Gradient::Whole(&own.t()?), &step(0))?;
    let common = own.narrow(0, 1, 1)?;
    let product = Product {
        values: Values::dense(own.clone())?,
        delta: OutputGradient::from(&own).with_common(&common, 2)?,
    };
    optimiser.update("w", &var, Gradient::Products(&[product]), &step(0))?;
    let moment = optimiser.moments["w"].tensors[0].clone();
    optimiser.update("w", &var, Gradient::Whole(&moment), &step(0))?;
    Ok(var.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

#[test]
fn a_gradient_may_be_a_view_of_the_variable() {
    for algorithm in [Algorithm::Sgd, Algorithm::Adam, Algorithm::SparseAdam] {
        let expected = steps_along_its_own_values(algorithm, DType::F64).unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let found = steps_along_its_own_values(algorithm, DType::F32);
            said.send(found.unwrap()).unwrap();
        });
        let found = heard.recv_timeout(std::time::Duration::from_secs(60));
        let found = found.expect("the update waits for itself");
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
        assert!(
            found.iter().zip(&expected).all(near),
            "{found:?}, {expected:?}"
        );
    }
}

/// They would make every later step many times slower.
#[test]
fn no_moment_becomes_subnormal() -> Result<()> {
    for algorithm in [Algorithm::Adam, Algorithm::SparseAdam] {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let var = vars.get("w", (1, 3), Init::Const(1.))?;
        let mut optimiser = optimiser(&vars, algorithm);
        // Without a gradient, a moment becomes smaller in every step.
        let first = [[1f32, 1e-20, 1e-37]];
        for gradient in std::iter::once(first).chain([[[0., 0., 1e-20]]; 1500]) {
            let gradient = Tensor::new(&gradient, &Device::Cpu)?;
            optimiser.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
        }
        for moment in &optimiser.moments["w"].tensors {
            let numbers = moment.flatten_all()?.to_vec1::<f32>()?;
            assert!(!numbers.iter().any(|x| x.is_subnormal()), "{numbers:?}");
        }
    }
    Ok(())
}

#[test]
fn another_algorithm_begins_without_moments() -> Result<()> {
    let all = [
        Algorithm::Sgd,
        Algorithm::Adam,
        Algorithm::SparseAdam,
        Algorithm::Muon,
    ];
    let gradient = Tensor::new(&[[1f32, -2., 0.5], [0.1, 0.2, 0.3]], &Device::Cpu)?;
    let after = |before: Option<Algorithm>, algorithm: Algorithm| -> Result<Tensor> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let var = vars.get("w", (2, 3), Init::Const(1.))?;
        let mut other = optimiser(&vars, algorithm);
        if let Some(before) = before {
            let mut optimiser = optimiser(&vars, before);
            for _ in 0..50 {
                optimiser.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
            }
            other.restore(&optimiser.save()?.into_iter().collect())?;
            var.set(&Tensor::ones((2, 3), DType::F32, &Device::Cpu)?)?;
        }
        other.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
        Ok(var.as_detached_tensor())
    };
    for (before, algorithm) in all.into_iter().flat_map(|a| all.map(|b| (a, b))) {
        let moments = [before, algorithm].map(|algorithm| algorithm.moments(2));
        if moments[0] != moments[1] {
            let apart = difference(&after(Some(before), algorithm)?, &after(None, algorithm)?)?;
            assert_eq!(apart, 0., "{before:?} before {algorithm:?}");
        }
    }
    Ok(())
}

// import torch
// w = torch.nn.Parameter(torch.ones(1, 3))
// o = torch.optim.AdamW([w], lr=0.1, weight_decay=0.01)
// for g in [[[1., -2., 0.5]], [[0.5, 1., 0.]]]:
//     w.grad = torch.tensor(g); o.step()
// print(w)
#[test]
fn adam_agrees_with_pytorch() -> Result<()> {
    let expected = [0.804_883_06, 1.124_534_7, 0.831_095_2];
    assert_close(&two_steps(Algorithm::Adam, DType::F32)?, &expected);
    assert_close(&two_steps(Algorithm::Adam, DType::F64)?, &expected);
    Ok(())
}

// import math
// b1, b2, eps, lr, wd = 0.9, 0.999, 1e-8, 0.1, 0.01
// w, m, v = ([[x] * 2 for _ in range(2)] for x in (1., 0., 0.))
// gradients = [[[1., -2.], [.5, 0.]], [[0., 0.], [.5, 1.]], [[3., 1.], [0., 0.]]]
// for t, g in enumerate(gradients, 1):
//     for r in range(2):
//         for c in range(2) if any(g[r]) else []:
//             m[r][c] = b1 * m[r][c] + (1 - b1) * g[r][c]
//             v[r][c] = b2 * v[r][c] + (1 - b2) * g[r][c]**2
//             root = math.sqrt(v[r][c] / (1 - b2**t)) + eps
//             w[r][c] = (1 - lr * wd) * w[r][c] - lr * m[r][c] / (1 - b1**t) / root
// print(w)
#[test]
fn sparse_adam_leaves_rows_without_a_gradient() -> Result<()> {
    let expected = [0.819_312_9, 1.120_765, 0.798_101, 0.923_587_3];
    for dtype in [DType::F32, DType::F64] {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let var = vars.get("w", (2, 2), Init::Const(1.))?;
        let mut optimiser = optimiser(&vars, Algorithm::SparseAdam);
        for gradient in [
            [[1f64, -2.], [0.5, 0.]],
            [[0., 0.], [0.5, 1.]],
            [[3., 1.], [0., 0.]],
        ] {
            let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
            optimiser.update("w", &var, Gradient::Whole(&gradient), &step(0))?;
        }
        let found = var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        assert_close(&found, &expected);
    }
    Ok(())
}

#[test]
fn rates_are_relative_to_the_span() {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let spec = OptimiserSpec {
        schedule: Schedule::HalfLinear,
        ..spec(Algorithm::Sgd)
    };
    let optimiser = Optimiser::new(vars, spec, Span::Epochs(4..8));
    assert_eq!(optimiser.rate(&step(4)), 0.1);
    assert_eq!(optimiser.rate(&step(7)), 0.025);
}

#[test]
fn a_variable_of_another_block_is_refused_and_does_not_change() -> Result<()> {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let other = vars
        .scope("blocks.1")
        .get("weight", (2, 2), Init::Const(1.))?;
    let own = vars
        .scope("blocks.0")
        .get("weight", (2, 2), Init::Const(1.))?;
    let mut optimiser = optimiser(&vars.scope("blocks.0"), Algorithm::Sgd);
    let gradient = Tensor::ones((2, 2), DType::F32, &Device::Cpu)?;
    let buffer = vars
        .scope("blocks.0")
        .buffer("mean", (2, 2), Init::Const(1.))?;
    // Under its own name, and under the name of one of the optimiser's variables; and one
    // that does not learn.
    for (name, var) in [
        ("blocks.1.weight", &other),
        ("blocks.0.weight", &other),
        ("blocks.0.mean", &buffer),
    ] {
        let error = optimiser.update(name, var, Gradient::Whole(&gradient), &step(0));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("expected a learned variable of this optimiser (blocks.0.*)"),
            "{error}"
        );
    }
    assert_eq!(other.to_vec2::<f32>()?, [[1.; 2]; 2]);
    optimiser.update(
        "blocks.0.weight",
        &own,
        Gradient::Whole(&gradient),
        &step(0),
    )?;
    assert_ne!(own.to_vec2::<f32>()?, [[1.; 2]; 2]);
    Ok(())
}

#[test]
fn a_gradient_given_as_products_is_their_sum() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let whole = vars.get("a", (4, 2), Init::Const(1.))?;
        let parts = vars.get("b", (4, 2), Init::Const(1.))?;
        let x = Tensor::new(&[[1f64, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?;
        let index = Tensor::new(&[[1u32], [0], [1]], &Device::Cpu)?;
        let delta = Tensor::new(&[[1f64, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?;
        let delta = delta.to_dtype(dtype)?;
        // xᵀ·delta, and the rows of delta sorted by index, times 2
        let gradient = [[6f64, 8.], [8., 10.], [0., 2.], [4., 2.]];
        let gradient = Tensor::new(&gradient, &Device::Cpu)?.to_dtype(dtype)?;
        let one_hot = Values::OneHot {
            index,
            classes: 2,
            strength: 2.,
        };
        let products = [Values::dense(x.to_dtype(dtype)?)?, one_hot].map(|values| Product {
            values,
            delta: (&delta).into(),
        });
        let mut optimiser = optimiser(&vars, Algorithm::Sgd);
        for _ in 0..2 {
            optimiser.update("a", &whole, Gradient::Whole(&gradient), &step(0))?;
            optimiser.update("b", &parts, Gradient::Products(&products), &step(0))?;
        }
        assert!(difference(&whole, &parts)? < 1e-6);
    }
    Ok(())
}

#[test]
fn accumulated_gradients_make_one_step_with_their_mean() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let mean = vars.get("a", (3, 2), Init::Const(1.))?;
        let accumulated = vars.get("b", (3, 2), Init::Const(1.))?;
        let tensor = |values: [[f64; 2]; 2]| -> Result<Tensor> {
            Ok(Tensor::new(&values, &Device::Cpu)?.to_dtype(dtype)?)
        };
        let shared = Values::dense(tensor([[1., 2.], [3., 4.]])?)?;
        let label = |index: [[u32; 1]; 2]| -> Result<Values> {
            let index = Tensor::new(&index, &Device::Cpu)?;
            Ok(Values::OneHot {
                index,
                classes: 1,
                strength: 1.,
            })
        };
        // Σ over both lessons of xᵀ·delta, the last row being the sum of the deltas.
        let (first, second) = (tensor([[1., 0.], [0., 2.]])?, tensor([[3., 1.], [0., 0.]])?);
        let sum = Tensor::new(&[[4f64, 7.], [8., 10.], [4., 3.]], &Device::Cpu)?;
        let expected = (sum.to_dtype(dtype)? * 0.5)?;
        let mut optimiser = optimiser(&vars, Algorithm::Sgd);
        for _ in 0..2 {
            optimiser.update("a", &mean, Gradient::Whole(&expected), &step(0))?;
            let before = accumulated.as_tensor().copy()?;
            optimiser.accumulate(2);
            for delta in [&first, &second] {
                let values = [shared.clone(), label([[0], [0]])?];
                let products = values.map(|values| Product {
                    values,
                    delta: delta.into(),
                });
                let gradient = Gradient::Products(&products);
                optimiser.update("b", &accumulated, gradient, &step(0))?;
                assert_eq!(difference(&accumulated, &before)?, 0.);
            }
            optimiser.apply_accumulated(&step(0))?;
        }
        assert!(difference(&mean, &accumulated)? < 1e-6);
    }
    Ok(())
}
