//! SigProp: one pattern for each class goes forward through the same layers as a second
//! stream.

use onward::candle_core::{Device, Tensor};
use onward::{Batch, BuildContext, Error, Result, Step};

use super::{batch, built, error_on_digits, numbers, Subject};

// x, labels = numbers(1, 4, 3), [0, 1, 1, 2]
// both = np.vstack([x, numbers(4, 3, 3)])
// W1, b1, W2, b2 = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 4), np.zeros(4)
// unit = lambda v: v / np.sqrt((v ** 2).sum(1, keepdims=True))
// def loss(h):
//     z = 2 * unit(h[:4]) @ unit(h[4:]).T
//     return (np.log(np.exp(z).sum(1)) - z[range(4), labels]).mean()
// for step in range(3):
//     h1 = layer(norm(both), W1, b1); h2 = layer(norm(h1), W2, b2)
//     one = [gradient(lambda: loss(layer(norm(both), W1, b1)), p) for p in (W1, b1)]
//     two = [gradient(lambda: loss(layer(norm(h1), W2, b2)), p) for p in (W2, b2)]
//     for p, d in zip((W1, b1, W2, b2), one + two): p -= .5 * d
// h1 = layer(norm(both), W1, b1); h2 = layer(norm(h1), W2, b2)
// print(W1, b1, W2, b2, sum(2 * unit(h[:4]) @ unit(h[4:]).T for h in (h1, h2)))
const WEIGHT_1: [f64; 15] = [
    0.147985176,
    0.136168437,
    -0.186659315,
    0.133115768,
    0.566667512,
    -0.840784386,
    -0.260281325,
    0.745878214,
    0.144289287,
    -0.632287667,
    0.484919064,
    0.100405615,
    -0.465467558,
    -0.221283045,
    0.069326734,
];
const BIAS_1: [f64; 5] = [
    0.260285955,
    -0.189703326,
    0.078322689,
    -0.272959647,
    0.387143122,
];
const WEIGHT_2: [f64; 20] = [
    0.070560004,
    -0.499961629,
    0.180874199,
    0.427381663,
    -0.183239565,
    -0.437726087,
    0.465517512,
    0.123085317,
    -0.389176039,
    -0.261154295,
    0.430853615,
    0.253886131,
    -0.493457779,
    -0.016367690,
    0.501608544,
    -0.048353995,
    -0.468845870,
    0.232694238,
    0.533241241,
    -0.388203943,
];
const BIAS_2: [f64; 4] = [0.000000000, 0.000000000, 0.110711461, -0.051541198];
const SCORES: [f64; 12] = [
    1.865034006,
    2.768489728,
    3.354011804,
    1.954315055,
    1.817334745,
    2.133697285,
    3.767148723,
    2.559058005,
    1.424418309,
    3.931966251,
    3.662888064,
    2.654526256,
];

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let settings = "hidden = [5, 4]\nscale = 2.0";
    let mut subject = Subject::new("sigprop", "plain", settings)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.1.layer.weight", &numbers(3., (5, 4))?);
    subject.set("streams.patterns", &numbers(4., (3, 3))?);
    subject.learn(3, |_| batch(1.))?;
    for (name, expected) in [
        ("blocks.0.layer.weight", &WEIGHT_1[..]),
        ("blocks.0.layer.bias", &BIAS_1),
        ("blocks.1.layer.weight", &WEIGHT_2),
        ("blocks.1.layer.bias", &BIAS_2),
    ] {
        subject.assert_close(name, expected);
    }
    super::assert_close("scores", &scores(&subject, &batch(1.)?)?, &SCORES);
    Ok(())
}

fn scores(subject: &Subject, batch: &Batch) -> Result<Tensor> {
    let readout = subject.net.net().readouts[0];
    let step = Step::evaluation(1);
    subject
        .net
        .scores(batch, &*subject.sampler, &readout, &step)
}

#[test]
fn it_trains() -> Result<()> {
    let error = error_on_digits(&[("preset", r#""dense""#)], "sigprop")?;
    assert!(error < 0.2, "{error}");
    Ok(())
}

/// Dropout, the moments of a batch and the weights before a step are of training alone:
/// the patterns pass through the layers as the examples do, within an epoch too.
#[test]
fn scores_compare_examples_with_patterns_of_the_same_weights() -> Result<()> {
    let layer = "layer = { name = \"dense\", dropout = 0.5, norm = \"batch\" }";
    let settings = format!("hidden = [6]\nscale = 2.0\n{layer}");
    let mut subject = Subject::new("sigprop", "plain", &settings)?;
    for steps in 1..4 {
        subject.learn(steps, |_| batch(1.))?;
        let examples = batch(1.)?;
        let patterns = subject.vars.all().into_iter();
        let mut patterns = patterns.filter(|(name, _)| name.ends_with("patterns"));
        let patterns = patterns.next().expect("the second stream").1;
        let patterns = Batch::unlabelled(patterns.as_detached_tensor())?;
        let directions = |batch: &Batch| -> Result<Tensor> {
            let now = Step::evaluation(1);
            let activities = subject.net.activities(batch, &*subject.sampler, &now)?;
            let lengths = activities[0].sqr()?.sum_keepdim(1)?.sqrt()?;
            Ok(activities[0].broadcast_div(&lengths.maximum(1e-12)?)?)
        };
        let (a, t) = (directions(&examples)?, directions(&patterns)?);
        let cosines = (a.matmul(&t.t()?)? * 2.)?;
        let expected = cosines.flatten_all()?.to_vec1::<f64>()?;
        super::assert_close("scores", &scores(&subject, &examples)?, &expected);
    }
    Ok(())
}

/// The scores of a saved run are computed from its variables alone.
#[test]
fn a_run_saved_within_an_epoch_has_the_scores_of_its_weights() -> Result<()> {
    let settings = "hidden = [6]\nlayer = { name = \"dense\", dropout = 0.5 }";
    let (mut stopped, opened) = (
        Subject::new("sigprop", "plain", settings)?,
        Subject::new("sigprop", "plain", settings)?,
    );
    stopped.learn(3, |_| batch(1.))?;
    let saved = stopped.vars.model().into_iter();
    let saved = saved.map(|(name, var)| Ok::<_, Error>((name, var.as_tensor().copy()?)));
    opened.vars.restore(&saved.collect::<Result<_>>()?)?;
    let of = |subject: &Subject| -> Result<Vec<Vec<f64>>> {
        Ok(scores(subject, &batch(1.)?)?.to_vec2()?)
    };
    assert_eq!(of(&stopped)?, of(&opened)?);
    Ok(())
}

/// Standardised pairs are twice as long as what is normalised, in learning as in scoring.
#[test]
fn inputs_that_are_final_keep_their_lengths() -> Result<()> {
    let patterns = [[1f64, 1., 1.], [1., -1., 1.], [1., 1., -1.]];
    let learned = |normalise: &str| -> Result<Vec<f64>> {
        let settings = format!("hidden = [5]\nnormalise = \"{normalise}\"");
        let mut subject = Subject::new("sigprop", "pairs", &settings)?;
        subject.set("streams.patterns", &Tensor::new(&patterns, &Device::Cpu)?);
        let mut context = BuildContext::new(subject.vars.clone(), 1).with_input(&[3]);
        context.example = vec![3];
        subject.sampler = built("pairs", "standardise = true", &context)?;
        subject.learn(1, |_| batch(1.))?;
        let all = subject.vars.all();
        let mut weights = all
            .iter()
            .filter(|(name, _)| name.ends_with("layer.weight"));
        let (_, weight) = weights.next().expect("a dense layer");
        Ok(weight.flatten_all()?.to_vec1()?)
    };
    // The patterns are normalised already.
    let (with, without) = (learned("mean_square")?, learned("none")?);
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
    assert!(with.iter().zip(&without).all(near), "{with:?} {without:?}");
    Ok(())
}

/// Neither stream would teach it anything, and it would be solved for beside others.
#[test]
fn layers_with_a_rule_of_their_own_are_refused() {
    for layer in ["forward_projection", "softhebb"] {
        let settings = format!("layer = \"{layer}\"\nhidden = [5, 4]");
        let net = Subject::on(&[1, 4, 4], 1, "sigprop", "plain", &settings);
        let error = net.map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("in layer 1; choose another layer"),
            "{error}"
        );
    }
}
