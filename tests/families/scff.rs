//! SCFF: pairs of images, and separate thresholds for positive and negative views.

use onward::candle_core::{DType, Device, Tensor};
use onward::plugin::source::Source;
use onward::run::observe::Event;
use onward::{Batch, BuildContext, NegativeSampler, Prediction, Result, Run, Vars};

use super::{batch, built, error_on_digits, numbers, step, Subject};

// x = numbers(1, 4, 3)
// pairs = [2 * x, x + np.roll(x, -1, 0)]          # (x, x) and (x, the next example)
// W, b = numbers(2, 3, 5), np.zeros(5)
// g = lambda v: (layer(v, W, b) ** 2).mean(1, keepdims=True)      # of one pixel
// def loss():
//     p, n = g(pairs[0]), g(pairs[1])
//     norms = np.sqrt((p ** 2).sum(1))
//     return softplus(.1 - p).mean() + softplus(n - .3).mean() + .01 * norms.mean()
// for step in range(3):
//     dW, db = gradient(loss, W), gradient(loss, b)
//     W -= .5 * dW; b -= .5 * db
// print(W, b)
const WEIGHT: [f64; 15] = [
    0.455714181,
    -0.295083962,
    -0.403276654,
    0.401600367,
    0.280783076,
    -0.441935962,
    -0.201287887,
    0.505008394,
    0.062221770,
    -0.521757117,
    0.074411213,
    0.516456056,
    -0.186780719,
    -0.468619749,
    0.326728664,
];
const BIAS: [f64; 5] = [
    0.010618894,
    0.035357600,
    0.020141958,
    0.025613283,
    0.016945415,
];

// x = numbers(1, 4, 1, 4, 4)
// pairs = [2 * x, x + np.roll(x, -1, 0)]
// W, b = numbers(2, 3, 1, 3, 3), np.zeros((1, 3, 1, 1))
// def convolve(v, K):
//     p = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
//     return sum(np.einsum('bchw,nc->bnhw', p[:, :, i:i + 4, j:j + 4], K[:, :, i, j])
//                for i in range(3) for j in range(3))
// pool = lambda z: z.reshape(4, 3, 2, 2, 2, 2).max((3, 5))
// centred = lambda z: z - z.mean(1, keepdims=True)
// g = lambda v: (np.maximum(centred(pool(convolve(v, W))) + b, 0) ** 2).mean(1).reshape(4, 4)
// and the same loss and steps
const MAP_WEIGHT: [f64; 27] = [
    0.490117601,
    -0.258541791,
    -0.407063857,
    0.404962899,
    0.275561024,
    -0.459562703,
    -0.157958328,
    0.468084976,
    0.043533516,
    -0.513598138,
    0.059073207,
    0.503567652,
    -0.221852117,
    -0.447728850,
    0.343721213,
    0.339058696,
    -0.411258214,
    -0.230807628,
    0.466706869,
    0.130316669,
    -0.491887371,
    -0.003282384,
    0.497836390,
    -0.120847617,
    -0.463486805,
    0.247056918,
    0.401648608,
];
const MAP_BIAS: [f64; 3] = [0.037694536, 0.044607387, 0.023011369];

// std = lambda v: (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5)
// x = std(numbers(1, 4, 3))
// pairs = [2 * x, x + np.roll(x, -1, 0)]
// P = [numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 4), np.zeros(4)]
// relu = lambda v: np.maximum(v, 0)
// sums = [lambda v: v @ P[0] + P[1], lambda v: std(norm(v)) @ P[2] + P[3]]
// passed = lambda u: relu(u - u.mean(1, keepdims=True))
// def loss(views, l):
//     p, n = [(relu(sums[l](v)) ** 2).mean(1) for v in views]
//     return softplus(.1 - p).mean() + softplus(n - .3).mean() + .01 * p.mean()
// for step in range(3):
//     above = [passed(sums[0](v)) for v in pairs]
//     changes = [gradient(lambda: loss([pairs, above][i // 2], i // 2), P[i]) for i in range(4)]
//     for p, d in zip(P, changes): p -= .5 * d
// print(*P)
const LOWER: [f64; 15] = [
    0.451174612,
    -0.208428889,
    -0.404124089,
    0.525436830,
    0.307342344,
    -0.446452001,
    -0.219437192,
    0.419613715,
    -0.014183457,
    -0.555742334,
    0.085016828,
    0.464409731,
    -0.114645960,
    -0.522245529,
    0.350388882,
];
const LOWER_BIAS: [f64; 5] = [
    0.004858120,
    -0.030389235,
    -0.066171091,
    0.001061054,
    -0.013550590,
];
const UPPER: [f64; 20] = [
    0.030816969,
    -0.519804171,
    0.075169800,
    0.477748717,
    -0.153280746,
    -0.415458458,
    0.293709575,
    0.393605812,
    -0.353186985,
    -0.291491073,
    0.425202394,
    0.154565149,
    -0.485945243,
    0.031725247,
    0.509891866,
    -0.119093618,
    -0.502563243,
    0.212512992,
    0.413369030,
    -0.366850891,
];
const UPPER_BIAS: [f64; 4] = [-0.019203213, 0.001573666, 0.006916384, 0.003167362];

const SETTINGS: &str = r#"
    goodness = { name = "two_thresholds", positive = 0.1, negative = 0.3, lambda = 0.01 }
    hidden = [5]
    normalise = "none"
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "pairs", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &BIAS);
    Ok(())
}

/// Less the mean over the channels, before the non-linearity.
#[test]
fn three_steps_of_maps_match_an_independent_program() -> Result<()> {
    let settings = SETTINGS.replace("hidden = [5]", "hidden = [3]");
    let settings = format!("{settings}\nlayer = {{ name = \"conv\", norm = \"units\" }}");
    let mut subject = Subject::on(&[1, 4, 4], 1, "progressive", "pairs", &settings)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 1, 3, 3))?);
    let images = numbers(1., (4, 1, 4, 4))?;
    subject.learn(3, |_| Batch::new(images.clone(), vec![0, 1, 1, 2]))?;
    subject.assert_close("blocks.0.layer.weight", &MAP_WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &MAP_BIAS);
    Ok(())
}

/// The loss is that of the ReLU of linear units; their triangle is passed on, and
/// standardised.
#[test]
fn three_steps_of_two_layers_match_an_independent_program() -> Result<()> {
    let settings = r#"
        goodness = { name = "two_thresholds", positive = 0.1, negative = 0.3, lambda = 0.01 }
        hidden = [5, 4]
        layer = [
            { name = "dense", slope = 1.0, passes = "triangle" },
            { name = "dense", slope = 1.0, passes = "triangle", input_norm = "group" },
        ]
        normalise = "mean_square"
    "#;
    let mut subject = Subject::new("progressive", "pairs", settings)?;
    let context = BuildContext::new(subject.vars.clone(), 1);
    subject.sampler = built("pairs", "standardise = true", &context)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.1.layer.weight", &numbers(3., (5, 4))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &LOWER);
    subject.assert_close("blocks.0.layer.bias", &LOWER_BIAS);
    subject.assert_close("blocks.1.layer.weight", &UPPER);
    subject.assert_close("blocks.1.layer.bias", &UPPER_BIAS);
    Ok(())
}

#[test]
fn the_halves_of_a_pair_are_shifted_apart() -> Result<()> {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let mut context = BuildContext::new(vars, 1);
    context.example = vec![1, 5, 5];
    let sampler = built::<dyn NegativeSampler>("pairs", "shift = 1", &context)?;
    // One pixel in the middle of each image.
    let mut pixels = [0f32; 25];
    pixels[12] = 1.;
    let images = Tensor::from_vec(pixels.repeat(30), (30, 1, 5, 5), &Device::Cpu)?;
    let batch = Batch::unlabelled(images)?;
    let no_prediction = Prediction::new(|| panic!("pairs need no prediction"));
    let views = sampler.views(&batch, &no_prediction, &step(0))?;
    let rows = views.input.join()?.flatten_from(1)?.to_vec2::<f32>()?;
    let apart = |row: &&Vec<f32>| row.iter().filter(|pixel| **pixel == 1.).count() == 2;
    assert!(rows.iter().all(|row| row.iter().sum::<f32>() == 2.));
    for rows in [&rows[..30], &rows[30..]] {
        assert!(rows.iter().filter(apart).count() > 15, "{rows:?}");
    }
    let neutral = sampler.neutral(&batch)?.join()?.flatten_from(1)?;
    assert!(neutral.to_vec2::<f32>()?.iter().all(|row| row[12] == 2.));

    context.example = vec![25];
    let refused = built::<dyn NegativeSampler>("pairs", "shift = 1", &context);
    assert!(refused.is_err_and(|error| error.to_string().contains("shift = 0")));
    Ok(())
}

#[test]
fn tokens_cannot_be_added() {
    let text = ("data", "\"fables\"");
    for sampler in ["\"pairs\"", "{ name = \"pairs\", standardise = true }"] {
        let error = error_on_digits(&[text, ("sampler", sampler)], "nlp").unwrap_err();
        assert!(error.to_string().contains("tokens of a text"), "{error}");
    }
}

/// The loss sees every pixel, the next layer and the head see smaller maps.
#[test]
fn maps_are_pooled_when_they_are_passed_on() -> Result<()> {
    let settings = r#"
        goodness = "two_thresholds"
        hidden = [3, 4]
        layer = [
            { name = "conv", pool = 1, slope = 1.0, passes = "triangle", passed_pool = "max" },
            { name = "conv", pool = 1, input_norm = "group", passed_pool = "mean" },
        ]
        readout_from = 1
    "#;
    let mut subject = Subject::on(&[1, 8, 8], 1, "progressive", "pairs", settings)?;
    let images = numbers(1., (4, 1, 8, 8))?;
    let batch = Batch::new(images, vec![0, 1, 1, 2])?;
    subject.learn(2, |_| Ok(batch.clone()))?;
    let activities = subject
        .net
        .activities(&batch, &*subject.sampler, &step(2))?;
    let shapes: Vec<_> = activities.iter().map(Tensor::dims).collect();
    assert_eq!(shapes, [[4, 3, 8, 8], [4, 4, 4, 4]]);
    let all = subject.vars.all();
    let (_, head) = all.iter().find(|(path, _)| path == "head.weight").unwrap();
    assert_eq!(head.dims(), [3 * 4 * 4 + 4 * 2 * 2, 3]);
    Ok(())
}

/// The loss of the layers falls from epoch to epoch; the epochs of the probe have none.
#[test]
fn it_trains_without_labels() -> Result<()> {
    let data = r#"{ name = "digits", size = 1000 }"#;
    let settings = format!("data = {data}\nepochs = 5\nprobe_epochs = 1\nhidden = [100, 100]");
    let table = settings.parse().expect("settings in TOML");
    let origin = "the case".into();
    let run = Run::builder("progressive").preset("scff");
    let mut losses = Vec::new();
    let mut watch = |event: &Event<'_>| {
        if let Event::EpochEnded { reports, .. } = event {
            let of_layers = reports.iter().filter_map(|(_, report)| report.loss);
            losses.push(of_layers.sum::<f64>());
        }
    };
    let run = run.source(Source { origin, table });
    run.build()?.fit(&mut watch)?;
    let losses = &losses[..5];
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert!(losses[4] < 0.8 * losses[0], "{losses:?}");
    Ok(())
}
