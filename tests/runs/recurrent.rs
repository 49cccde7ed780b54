//! The architecture `recurrent`: one step compared with an independent program, and the
//! effect of top-down input.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use onward::candle_core::{DType, Device, Tensor};
use onward::data::images::Images;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::export::{Table, Value};
use onward::flow::examples::{Augment, Examples, Split};
use onward::plugin;
use onward::plugin::registry;
use onward::settings::Pick;
use onward::{
    Architecture, Batch, BuildContext, Error, Input, NegativeSampler, Prediction, Result, Run,
    RunBuilder, Step, Vars, Views,
};

use crate::recurrent_maps::of_four_pixels;

// import numpy as np
// x = np.array([[.2, .8, .4], [.5, .1, .9]])
// W1 = np.array([[.5, -.3], [.4, .6], [-.2, .3],
//                [.2, .1], [-.3, .4], [.1, .5]])          # 3 pixels | 3 units above
// W2 = np.array([[.3, -.2, .5], [.7, .4, -.1],
//                [.6, .1, -.4], [-.2, .5, .3]])           # 2 units below | 2 classes
// b1, b2, Wh = np.array([.1, 0]), np.array([0, .2, .1]), np.zeros((5, 2))
// true, wrong, T, damp = [0, 1], [1, 0], 3, .25
// squares = lambda v: np.maximum((v ** 2).sum(1, keepdims=True), 1e-16)
// norm = lambda v: v * np.sqrt(v.shape[1] / squares(v))
// relu = lambda v: np.maximum(v, 0)
// label = lambda c: norm(np.eye(2)[c]) * np.sqrt(2 / 2)   # the norm of the bottom-up input
// hear1 = lambda s: np.hstack([norm(x), norm(s[1])])
// hear2 = lambda s, c: np.hstack([norm(s[0]), label(c)])
// def start():
//     s1 = relu(np.hstack([norm(x), np.zeros((2, 3))]) @ W1 + b1)
//     return s1, relu(np.hstack([norm(s1), np.zeros((2, 2))]) @ W2 + b2)
// def search():
//     out = np.zeros((2, 2))
//     for c in range(2):
//         s = start()
//         for t in range(1, 4):
//             a = relu(hear1(s) @ W1 + b1), relu(hear2(s, [c, c]) @ W2 + b2)
//             if t >= 2: out[:, c] += (a[0] ** 2).sum(1) + (a[1] ** 2).sum(1)
//             s = damp * s[0] + (1 - damp) * a[0], damp * s[1] + (1 - damp) * a[1]
//     return out
// print(search())
// s = start()
// f = np.hstack([norm(s[0]), norm(s[1])])
// p = np.exp(f @ Wh); p /= p.sum(1, keepdims=True)
// gh = f.T @ (np.eye(2)[true] - p) / 2
// g1, g2, gb1, gb2 = 0, 0, 0, 0
// for c, positive in [(true, True), (wrong, False)]:
//     s = start()
//     for t in range(T):
//         i1, i2 = hear1(s), hear2(s, c)
//         a1, a2 = relu(i1 @ W1 + b1), relu(i2 @ W2 + b2)
//         for a, N, i, l in [(a1, 2, i1, 1), (a2, 3, i2, 2)]:
//             q = 1 / (1 + np.exp(-((a ** 2).sum(1, keepdims=True) - N) / 2))  # temperature 2
//             d = ((1 - q) if positive else -q) * a / T / 2
//             if l == 1: g1, gb1 = g1 + i.T @ d, gb1 + d.sum(0)
//             else: g2, gb2 = g2 + i.T @ d, gb2 + d.sum(0)
//         s = damp * s[0] + (1 - damp) * a1, damp * s[1] + (1 - damp) * a2
// W1 += .5 * g1; W2 += .5 * g2; b1 += .5 * gb1; b2 += .5 * gb2; Wh += .1 * gh
// print(W1, b1, W2, b2, Wh, search(), sep="\n")
const WEIGHTS: [(&str, &[usize], &[f64]); 5] = [
    (
        "blocks.0.layer.weight",
        &[6, 2],
        &[
            0.5, -0.3, 0.4, 0.6, -0.2, 0.3, 0.2, 0.1, -0.3, 0.4, 0.1, 0.5,
        ],
    ),
    ("blocks.0.layer.bias", &[2], &[0.1, 0.]),
    (
        "blocks.1.layer.weight",
        &[4, 3],
        &[
            0.3, -0.2, 0.5, 0.7, 0.4, -0.1, 0.6, 0.1, -0.4, -0.2, 0.5, 0.3,
        ],
    ),
    ("blocks.1.layer.bias", &[3], &[0., 0.2, 0.1]),
    ("head.weight", &[5, 2], &[0.; 10]),
];
const AFTER: [&[f64]; 5] = [
    &[
        0.47729869,
        -0.31036717,
        0.31738972,
        0.27552213,
        -0.2449713,
        0.26437044,
        0.15689857,
        -0.0141678,
        -0.37842201,
        0.2201732,
        0.03735299,
        0.37036481,
    ],
    &[0.04306785, -0.13551759],
    &[
        0.20545375,
        -0.22651782,
        0.5080355,
        0.56869162,
        0.37348558,
        -0.09181454,
        0.42506423,
        0.04069786,
        -0.4,
        -0.18681987,
        0.52648297,
        0.31347714,
    ],
    &[-0.11437851, 0.17679334, 0.10952978],
    &[
        -0.00345326,
        0.00345326,
        0.00286476,
        -0.00286476,
        0.00043813,
        -0.00043813,
        0.00220872,
        -0.00220872,
        -0.00328573,
        0.00328573,
    ],
];
const SEARCH: [f64; 4] = [14.117025226, 14.470959328, 9.823305298, 9.107753160];
const SEARCH_AFTER: [f64; 4] = [4.904381568, 6.975172688, 4.136933667, 5.911774264];

pub fn assert_close(what: &str, found: &Tensor, expected: &[f64], tolerance: f64) -> Result<()> {
    let found = found
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1::<f64>()?;
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!(
            (a - b).abs() < tolerance,
            "{what}: expected {expected:?}, found {found:?}"
        );
    }
    Ok(())
}

#[test]
fn a_step_of_two_layers_matches_an_independent_program() -> Result<()> {
    for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-7)] {
        let vars = Vars::new(1, dtype, &Device::Cpu);
        let mut context = BuildContext::new(vars.clone(), 1);
        (context.example, context.classes, context.hypotheses) = (vec![1, 1, 3], 2, true);
        let mut pick = Pick::<dyn NegativeSampler>::new("label_concat");
        // With two classes, there is only one wrong label.
        pick.settings.insert("negatives".into(), "uniform".into());
        let sampler = plugin::build(&pick, &context)?;
        (context.input, context.label) = (vec![5], 2);
        let settings: Table = r#"
            hidden = [2, 3]
            steps = 3
            window = [2, 3]
            damping = 0.25
            temperature = 2.0
            lr = 0.5
            weight_decay = 0.0
            momentum = 0.0
            schedule = "constant"
            head_weight_decay = 0.0
            layer = { name = "dense", peer = 0.0 }
        "#
        .parse()
        .expect("these settings are TOML");
        let mut net =
            (registry::named::<dyn Architecture>("recurrent")?.build)(&settings, &context)?;
        let weights = WEIGHTS.iter().map(|(name, shape, values)| -> Result<_> {
            Ok((
                name.to_string(),
                Tensor::from_slice(values, *shape, &Device::Cpu)?.to_dtype(dtype)?,
            ))
        });
        vars.restore(&weights.collect::<Result<HashMap<_, _>>>()?)?;
        let pixels = Tensor::new(&[[[[0.2f64, 0.8, 0.4]]], [[[0.5, 0.1, 0.9]]]], &Device::Cpu)?
            .to_dtype(dtype)?;
        let batch = Batch::new(pixels, vec![0, 1])?;
        let step = Step::first(1);
        let search = |net: &dyn Architecture, sampler: &dyn NegativeSampler| {
            let readout = net.net().readout("search")?;
            net.scores(&batch.hidden(), sampler, readout, &Step::evaluation(1))
        };
        assert_close(
            "search before",
            &search(&*net, &*sampler)?,
            &SEARCH,
            10. * tolerance,
        )?;
        let reports = net.learn(&batch, &*sampler, &step)?;
        assert_eq!(reports.len(), 2);
        for ((name, _, _), expected) in WEIGHTS.iter().zip(AFTER) {
            let var = vars
                .all()
                .into_iter()
                .find(|(known, _)| known == name)
                .expect("a variable of this name");
            assert_close(name, &var.1, expected, tolerance)?;
        }
        assert_close(
            "search after",
            &search(&*net, &*sampler)?,
            &SEARCH_AFTER,
            10. * tolerance,
        )?;
    }
    Ok(())
}

/// A sampler that records the network's prediction at every call of `views`.
struct Listener(Box<dyn NegativeSampler>, Mutex<Vec<Vec<f32>>>);

impl NegativeSampler for Listener {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        let log = prediction.log_probabilities()?;
        let heard = log.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.1.lock().unwrap().push(heard);
        self.0.views(batch, prediction, step)
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.0.neutral(batch)
    }
}

#[test]
fn redraw_draws_wrong_labels_from_the_current_states() -> Result<()> {
    let step = Step::first(1);
    let heard = |settings: &str| -> Result<Vec<Vec<f32>>> {
        let (mut net, sampler, _, batch) = of_four_pixels(&format!(
            "hidden = [4, 4]\nsteps = 3\nwindow = [2, 3]\n{settings}"
        ))?;
        let listener = Listener(sampler, Mutex::default());
        // The weights of the head start at 0; its first prediction is uniform.
        net.learn(&batch, &listener, &step)?;
        listener.1.lock().unwrap().clear();
        net.learn(&batch, &listener, &step)?;
        Ok(listener.1.into_inner().unwrap())
    };
    assert_eq!(heard("")?.len(), 1);
    let predictions = heard("redraw = true")?;
    assert_eq!(predictions.len(), 3);
    assert!(
        predictions[0] != predictions[1] && predictions[1] != predictions[2],
        "{predictions:?}"
    );
    Ok(())
}

pub fn small() -> RunBuilder {
    let data = Table::from_iter([
        ("name".to_string(), Value::from("digits")),
        ("size".to_string(), 2000.into()),
    ]);
    Run::builder("recurrent")
        .set("data", data)
        .set("hidden", vec![100, 100])
        .set("epochs", 4)
        .set("batch", 50)
}

#[test]
fn top_down_input_lowers_the_error() -> Result<()> {
    let mut run = small()
        .set("hidden", vec![100; 3])
        .set("epochs", 10)
        .build()?;
    run.fit(&mut ())?;
    let wrong = |run: &Run| -> Result<usize> {
        Ok(run.evaluate(Split::Test, None)?.readouts["search"].wrong)
    };
    let whole = wrong(&run)?;
    // Remove the top-down input of the first two layers. The third layer still sees the
    // label.
    let mut cut: HashMap<String, Tensor> = run
        .vars()
        .all()
        .into_iter()
        .map(|(name, var)| Ok((name, var.as_tensor().copy()?)))
        .collect::<Result<_>>()?;
    for (layer, below) in [(0, 784), (1, 100)] {
        let weight = cut
            .get_mut(&format!("blocks.{layer}.layer.weight"))
            .expect("a dense layer has a weight");
        assert_eq!(weight.dims(), [below + 100, 100]);
        *weight = Tensor::cat(
            &[
                weight.narrow(0, 0, below)?,
                (weight.narrow(0, below, 100)? * 0.)?,
            ],
            0,
        )?;
    }
    run.vars().restore(&cut)?;
    let deaf = wrong(&run)?;
    assert!(
        whole < 80 && 4 * deaf > 5 * whole,
        "{whole} of 400 digits are wrong, and {deaf} without top-down input"
    );
    Ok(())
}

/// Random videos. If `still` is set, all frames are the first one.
fn video(still: bool) -> Result<DataSet> {
    struct Video(Images, bool);

    impl Examples for Video {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
            let still = self.0.batch(indices, augment)?;
            let frames: Vec<Tensor> = (0..3)
                .map(|frame| Ok(still.examples().roll(if self.1 { 0 } else { frame }, 3)?))
                .collect::<Result<_>>()?;
            Batch::new(Tensor::stack(&frames, 1)?, still.labels()?.to_vec())
        }
    }

    let part = |first: usize| -> Result<Arc<dyn Examples>> {
        let pixels = (first..first + 40 * 16)
            .map(|i| (i * 7919 % 251) as u8)
            .collect();
        let labels = (0..40).map(|i| (i % 2) as u8).collect();
        Ok(Arc::new(Video(
            Images::new(pixels, labels, [1, 4, 4])?,
            still,
        )))
    };
    let classes = ["a", "b"].map(String::from).to_vec();
    let spec = ExampleSpec::new(&[3, 1, 4, 4], classes, Content::Picture(Framing::Whole));
    Ok(DataSet {
        spec,
        train: part(0)?,
        validation: part(1)?,
        test: part(2)?,
        text: None,
    })
}

onward::settings! {
    /// Random videos of three frames.
    struct Videos {
        /// Whether all frames are the same.
        still: bool = false;
    }
}

onward::register! {
    DataSet, "videos", "random videos of three frames (for these tests, 2026)",
    |settings: Videos, _context| Ok(Box::new(video(settings.still)?))
}

#[test]
fn examples_with_a_time_axis_are_videos() -> Result<()> {
    let trained = |still: bool| -> Result<f64> {
        let data = Table::from_iter([
            ("name".to_string(), Value::from("videos")),
            ("still".to_string(), still.into()),
        ]);
        let builder = Run::builder("recurrent")
            .set("data", data)
            .set("hidden", vec![20, 20])
            .set("epochs", 1);
        let builder = builder.set("batch", 20).set("window", vec![2, 3]);
        let error = builder
            .clone()
            .build()
            .err()
            .expect("an error for 8 steps and 3 frames")
            .to_string();
        assert!(error.contains("steps = 3"), "{error}");
        let mut run = builder.set("steps", 3).build()?;
        run.fit(&mut ())?;
        let weight = run.vars().all().remove(1).1;
        Ok(weight.to_dtype(DType::F64)?.sum_all()?.to_scalar()?)
    };
    let moving = trained(false)?;
    assert!(moving.is_finite());
    assert_ne!(moving, trained(true)?);
    Ok(())
}

#[test]
fn variants_train_and_are_repeatable() -> Result<()> {
    for (key, value) in [
        ("redraw", Value::from(true)),
        ("label_units", 30.into()),
        ("jitter", 1.into()),
    ] {
        let variant = || small().set(key, value.clone()).set("epochs", 1);
        let error = variant().build()?.fit(&mut ())?.test.error;
        assert!(error < 0.85, "{key}: {error}");
        let trained = |seed| -> Result<Vec<f32>> {
            let mut run = variant().set("data.size", 400).seed(seed).build()?;
            run.fit(&mut ())?;
            let bias = run.vars().all().remove(0).1;
            Ok(bias.to_vec1()?)
        };
        let first = trained(1)?;
        assert_eq!(first, trained(1)?, "{key}");
        assert_ne!(first, trained(2)?, "{key}");
    }
    Ok(())
}

#[test]
fn invalid_settings_are_refused_by_key() {
    let window = |first: i64, last: i64| Value::Array(vec![first.into(), last.into()]);
    let cases = [
        ("steps", Value::from(0)),
        ("window", Value::Array(Vec::new())),
        ("window", window(5, 3)),
        ("window", window(3, 9)),
        ("window", window(0, 3)),
        ("window", Value::Array(vec![3.into()])),
        ("damping", 1.0.into()),
        ("damping", (-0.1).into()),
        ("damping", f64::NAN.into()),
        ("hidden", Value::Array(Vec::new())),
    ];
    for (key, value) in cases {
        let error = small()
            .set(key, value.clone())
            .build()
            .err()
            .unwrap_or_else(|| panic!("{key} = {value}"));
        assert!(error.is_usage(), "{error}");
        let Error::Setting {
            key: found,
            expected,
            ..
        } = innermost(&error)
        else {
            panic!("{error}")
        };
        assert!(found == key && !expected.is_empty(), "{error}");
    }
}

fn innermost(error: &Error) -> &Error {
    match error {
        Error::At { source, .. } => innermost(source),
        other => other,
    }
}
