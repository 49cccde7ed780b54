//! SoftHebb: units that compete and learn by Hebb's rule.

use onward::candle_core::Tensor;
use onward::{Batch, Result, Step};

use super::{error_on_digits, numbers, Subject};

// x, W, t, rate = numbers(1, 2, 1, 4, 4), 3 * numbers(2, 3, 1, 3, 3), 2, .1
// mean, variance = 0, 1
// def patches(n):                                  # (B, H, W, 9), zeros beside the image
//     p = np.pad(n[:, 0], ((0, 0), (1, 1), (1, 1)))
//     return np.stack([p[:, i:i + 4, j:j + 4] for i in range(3) for j in range(3)], 3)
// for step in range(3):
//     n = patches((x - x.mean()) / np.sqrt(x.var() + 1e-5))
//     w = W.reshape(3, 9)
//     u = n @ w.T                                  # (B, H, W, N)
//     p = np.exp(t * u) / np.exp(t * u).sum(3, keepdims=True)
//     y = np.where(u == u.max(3, keepdims=True), p, -p)
//     d = np.einsum('bhwn,bhwk->nk', y, n) - (y * u).sum((0, 1, 2))[:, None] * w
//     r = rate * np.sqrt(np.abs(np.linalg.norm(w, axis=1) - 1)) / np.abs(d).max()
//     W = (w + r[:, None] * d).reshape(W.shape)
//     mean, variance = .99 * mean + .01 * x.mean(), .99 * variance + .01 * x.var()
// print(W.ravel())
// u = patches((x - mean) / np.sqrt(variance + 1e-5)) @ W.reshape(3, 9).T
// a = np.maximum(u - u.mean(3, keepdims=True), 0) ** 1.5
// a = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
// a = np.stack([[a[:, 2 * i:2 * i + 4, 2 * j:2 * j + 4].max((1, 2)) for j in range(2)] for i in range(2)])
// print(a.transpose(2, 3, 0, 1).ravel())           # (B, N, 2, 2)
const WEIGHT: [f64; 27] = [
    1.099507466,
    -0.565996548,
    -0.932158108,
    0.919677675,
    0.652502991,
    -1.080508452,
    -0.323332367,
    1.045219952,
    0.054733803,
    -1.106117623,
    0.061034585,
    1.064251876,
    -0.500935551,
    -0.998953186,
    0.739448776,
    0.656428740,
    -0.879977197,
    -0.438541581,
    1.074803189,
    0.355068063,
    -1.213506005,
    -0.082143352,
    1.286037047,
    -0.308807760,
    -1.199196388,
    0.674921162,
    0.987840789,
];
const ACTIVITY: [f64; 24] = [
    1.198790897,
    1.198790897,
    1.198790897,
    1.198790897,
    0.777770879,
    0.777770879,
    2.585231727,
    2.585231727,
    0.423212215,
    0.376049528,
    0.637984960,
    0.354618123,
    0.203715583,
    0.340766806,
    0.149540980,
    0.522539045,
    0.906294740,
    0.906294740,
    2.875949600,
    2.875949600,
    0.896154728,
    0.896154728,
    0.275744721,
    0.275744721,
];

fn images() -> Result<Batch> {
    Batch::new(numbers(1., (2, 1, 4, 4))?, vec![0, 2])
}

#[test]
fn three_steps_and_an_evaluation_match_an_independent_program() -> Result<()> {
    let settings = r#"
        layer = { name = "softhebb", norm = "batch", sharpness = 2.0, power = 1.5, rate = 0.1 }
        loss = "none"
        hidden = [3]
        normalise = "none"
        probe_epochs = 1
    "#;
    let mut subject = Subject::on(&[1, 4, 4], 1, "progressive", "plain", settings)?;
    let start = (numbers(2., (3, 1, 3, 3))? * 3.)?;
    subject.set("blocks.0.layer.weight", &start);
    subject.learn(3, |_| images())?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    let (net, sampler) = (&subject.net, &*subject.sampler);
    let activities = net.activities(&images()?, sampler, &Step::evaluation(1))?;
    let found: &Tensor = &activities[0];
    assert_eq!(found.dims(), [2, 3, 2, 2]);
    super::assert_close("activity", found, &ACTIVITY);
    Ok(())
}

#[test]
fn an_exponent_that_would_overflow_is_refused() {
    let layer = r#"{ name = "softhebb", power = 60.0 }"#;
    let error = error_on_digits(&[("layer", layer)], "progressive").unwrap_err();
    assert!(error.to_string().contains("at most 10"), "{error}");
}

#[test]
fn a_probe_reads_classes_off_it() -> Result<()> {
    let settings = [
        ("preset", r#""softhebb""#),
        ("hidden", "[16, 32, 64]"),
        ("epochs", "1"),
        ("batch", "10"),
        ("probe_epochs", "4"),
        ("head_lr", "0.01"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.3, "{error}");
    Ok(())
}

#[test]
fn what_would_always_be_zero_is_refused() {
    for (settings, expected) in [
        (
            "layer = { name = \"softhebb\", norm = \"units\" }\nhidden = [3]",
            "single channel",
        ),
        ("layer = \"softhebb\"\nhidden = [1]", "single unit"),
        (
            "layer = { name = \"conv\", passes = \"triangle\" }\nhidden = [1]",
            "single unit",
        ),
        (
            "layer = { name = \"dense\", passes = \"triangle\" }\nhidden = [1]",
            "single unit",
        ),
    ] {
        let net = Subject::on(&[1, 4, 4], 1, "progressive", "plain", settings);
        let error = net.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{settings}: {error}");
    }
}

/// Its weights would be lost, and the loss of the head be said to have diverged.
#[test]
fn weights_that_are_not_finite_end_a_run() -> Result<()> {
    let settings = "layer = \"softhebb\"\nloss = \"none\"\nhidden = [3]";
    let subject = || Subject::on(&[1, 4, 4], 1, "progressive", "plain", settings);
    let said = |mut subject: Subject, batch: Batch| {
        let learned = subject.learn(1, |_| Ok(batch.clone()));
        learned.unwrap_err().to_string()
    };
    let broken = (numbers(1., (2, 1, 4, 4))? * f64::NAN)?;
    let of_input = said(subject()?, Batch::new(broken, vec![0, 2])?);
    let large = subject()?;
    large.set(
        "blocks.0.layer.weight",
        &(numbers(2., (3, 1, 3, 3))? * 1e308)?,
    );
    for said in [of_input, said(large, images()?)] {
        let expected = "block 1: blocks.0.layer.weight: the change became";
        assert!(said.starts_with(expected), "{said}");
    }
    Ok(())
}

/// It would learn several times from a batch, with other weights at each time step.
#[test]
fn it_is_refused_where_all_time_steps_see_the_same_weights() {
    let layer = "layer = { name = \"softhebb\", pool = \"none\" }";
    let settings = &format!("{layer}\nmaps = true\nhidden = [2, 3]");
    let net = Subject::on(&[1, 4, 4], 1, "recurrent", "plain", settings);
    let error = net.map(|_| ()).unwrap_err();
    let said = error.to_string();
    assert!(
        error.is_unfit() && said.contains("at every time step"),
        "{said}"
    );
}

/// A goodness that is solved for at the end of an epoch would have seen no example.
#[test]
fn its_goodness_without_a_loss_is_not_solved_for() -> Result<()> {
    let builder = onward::Run::builder("progressive")
        .data("digits")
        .set("data.size", 100)
        .set("hidden", vec![6])
        .set("layer", "softhebb")
        .set("goodness", "cafo")
        .set("loss", "none")
        .set("sampler", "plain")
        .set("head", true)
        .set("epochs", 1);
    builder.build()?.fit(&mut ())?;
    Ok(())
}
