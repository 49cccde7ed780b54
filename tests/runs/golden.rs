//! One block compared with an independent program.

use std::collections::HashMap;

use onward::candle_core::{DType, Device, Tensor};
use onward::contract::goodness::Polarity;
use onward::optim::{Algorithm, Optimiser, OptimiserSpec, Schedule, Span};
use onward::plugin;
use onward::settings::Pick;
use onward::{
    Batch, Block, BuildContext, GoodnessFn, Input, LocalLayer, NegativeSampler, Normalise,
    Objective, Prediction, Result, Role, Step, Targets, Values, Vars,
};

// import numpy as np
// x = np.array([[9, 9, .2, .8], [9, 9, .5, .1]])   # pixels; the label covers the first two
// true, wrong = [0, 1], [1, 0]
// W = np.array([[.5, -.3, .2], [-.4, .6, .1], [.3, .2, -.5], [.7, -.1, .4]])
// b, m = np.array([.1, 0, -.1]), np.full(3, .5)
// vW, vb, B, N = np.zeros((4, 3)), np.zeros(3), 2, 3
// def view(labels):
//     v = x.copy(); v[:, :2] = np.eye(2)[labels]
//     return v / np.sqrt((v ** 2).mean(1, keepdims=True))
// for step in range(2):
//     gW, gb = 0, 0
//     for labels, positive in [(true, True), (wrong, False)]:
//         v = view(labels); h = np.maximum(v @ W + b, 0)
//         p = 1 / (1 + np.exp(-((h ** 2).sum(1, keepdims=True) - N)))
//         if positive:
//             m = .9 * m + .1 * h.mean(0)
//             d = (1 - p) * h + .03 * (m.mean() - m)
//         else:
//             d = -p * h
//         gW, gb = gW + v.T @ d, gb + d.sum(0)
//     vW, vb = .9 * vW + .1 * gW / B, .9 * vb + .1 * gb / B
//     W, b = W + .5 * (vW - .001 * W), b + .5 * vb
// print(W, b, m, sep="\n")
const WEIGHT: [[f64; 3]; 4] = [
    [0.52188627, -0.29970938, 0.22057279],
    [-0.40663825, 0.71635788, 0.09397824],
    [0.28894543, 0.26242595, -0.49647941],
    [0.74383514, -0.09789245, 0.41136296],
];
const BIAS: [f64; 3] = [0.11395041, 0.06444671, -0.09038836];
const MEANS: [f64; 3] = [0.58053039, 0.52743721, 0.45807237];

/// Compares two updates with Hinton's program.
///
/// They include label overlay, normalised input, ReLU, logistic loss of the sum of
/// squares, peer normalisation, momentum and weight decay.
#[test]
fn a_full_update_of_one_layer_matches_hintons_program() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let tensor = |values: &[f64], shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
        };
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let context = BuildContext::new(vars.clone(), 1)
            .with_input(&[4])
            .with_units(3);
        let mut pick = Pick::<dyn LocalLayer>::new("dense");
        pick.settings.insert("peer".into(), 0.03.into());
        let layer = plugin::build(&pick, &context)?;
        let weight = [
            0.5, -0.3, 0.2, -0.4, 0.6, 0.1, 0.3, 0.2, -0.5, 0.7, -0.1, 0.4,
        ];
        vars.restore(&HashMap::from([
            ("weight".to_string(), tensor(&weight, &[4, 3])?),
            ("bias".to_string(), tensor(&[0.1, 0., -0.1], &[3])?),
            ("means".to_string(), tensor(&[0.5; 3], &[3])?),
        ]))?;
        let goodness = plugin::build(&Pick::<dyn GoodnessFn>::new("sum_squares"), &context)?;
        let objective = Objective::default();
        let descent = OptimiserSpec {
            optimiser: Algorithm::Sgd,
            lr: 0.5,
            weight_decay: 0.001,
            momentum: 0.9,
            schedule: Schedule::Constant,
        };
        let optimiser = Optimiser::new(vars.clone(), descent, Span::Epochs(0..1));
        let mut block = Block::new(
            "1",
            layer,
            goodness,
            objective,
            Normalise::MeanSquare,
            optimiser,
        );
        let pixels = tensor(&[9., 9., 0.2, 0.8, 9., 9., 0.5, 0.1], &[2, 4])?;
        let index = Tensor::new(&[[0u32], [1], [1], [0]], &Device::Cpu)?;
        let label = Values::OneHot {
            index,
            classes: 2,
            strength: 1.,
        };
        let parts = vec![
            label,
            Values::Dense {
                matrix: pixels,
                columns: 2..4,
            },
        ];
        let input = Input::new(parts, 2, 2, &[4])?.normalised(Normalise::MeanSquare)?;
        let targets = Targets::new(vec![Role::Positive, Role::Negative])?;
        for index in 0..2 {
            let step = Step {
                index,
                ..Step::first(1)
            };
            let activity = block.forward(&input, &step)?;
            block.learn(&input, &activity, &targets, &step)?;
        }
        let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-8 };
        for (name, var) in vars.all() {
            let found = var.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let expected: Vec<f64> = match name.as_str() {
                "weight" => WEIGHT.concat(),
                "bias" => BIAS.to_vec(),
                _ => MEANS.to_vec(),
            };
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() < tolerance,
                    "{dtype:?} {name}: expected {expected}, found {found}"
                );
            }
        }
    }
    Ok(())
}

/// `positive = "low"` exchanges the roles of positive and negative views in the loss.
#[test]
fn low_polarity_exchanges_the_views_in_the_loss() -> Result<()> {
    let goodness = |positive: &str| {
        let mut pick = Pick::<dyn GoodnessFn>::new("sum_squares");
        pick.settings.insert("positive".into(), positive.into());
        let vars = Vars::new(1, DType::F64, &Device::Cpu);
        plugin::build(&pick, &BuildContext::new(vars, 1).with_input(&[2]))
    };
    // The activities of one example. The second pair is the first with exchanged views.
    let high = Tensor::new(&[[1f64, 2.], [0., 1.]], &Device::Cpu)?;
    let low = Tensor::new(&[[0f64, 1.], [1., 2.]], &Device::Cpu)?;
    let targets = Targets::new(vec![Role::Positive, Role::Negative])?;
    let mut losses = Vec::new();
    for (positive, activity) in [("high", high), ("low", low)] {
        let grade = goodness(positive)?.grade(&activity, &targets, &Objective::default())?;
        losses.push(grade.loss.value()?);
    }
    // ½·[log(1 + e^−(5 − 2)) + log(1 + e^(1 − 2))]
    let expected = 0.5 * ((-3f64).exp().ln_1p() + (-1f64).exp().ln_1p());
    for loss in &losses {
        assert!((loss - expected).abs() < 1e-12, "{losses:?}");
    }
    assert_eq!(Polarity::Low.sign(), -1.);
    Ok(())
}

/// `label_overlay` draws negative labels from the given prediction.
#[test]
fn hard_negatives_follow_the_prediction() -> Result<()> {
    let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
    (context.example, context.classes) = (vec![1, 2, 2], 3);
    let sampler = plugin::build(&Pick::<dyn NegativeSampler>::new("label_overlay"), &context)?;
    let batch = Batch::new(
        Tensor::zeros((2, 1, 2, 2), DType::F32, &Device::Cpu)?,
        vec![0, 1],
    )?;
    // Class 2 has nearly all of the probability of the wrong classes.
    let log = Tensor::new(&[[-0.1f32, -30., -2.], [-30., -0.1, -2.]], &Device::Cpu)?;
    let step = Step::first(1);
    let views = sampler.views(&batch, &Prediction::of(log), &step)?;
    let rows = views.input.join()?.flatten_from(1)?.to_vec2::<f32>()?;
    assert_eq!(rows[2][..3], [0., 0., 1.]);
    assert_eq!(rows[3][..3], [0., 0., 1.]);
    Ok(())
}
