//! `predsim`: a loss over pairs of rows of the batch, with two trained maps.

use onward::{Batch, Result};

use super::{error_on_digits, numbers, Subject};

// labels, beta, slope = [0, 1, 1, 2], .7, .1
// Y = np.eye(3)[labels]
// def similarity(v):
//     v = v - v.mean(1, keepdims=True)
//     v = v / np.sqrt((v ** 2).sum(1, keepdims=True) + 1e-8)
//     return v @ v.T
// def standardised(v, over):
//     return (v - v.mean(over, keepdims=True)) / np.sqrt(v.var(over, keepdims=True) + 1e-5)
// leaky = lambda n: np.maximum(n, slope * n)
// def cross_entropy(z):
//     log = z - np.log(np.exp(z).sum(1, keepdims=True))
//     return -log[range(4), labels].mean()
// def train(activity, decode, similar, P, D):
//     def of_layer():
//         h = activity()
//         return (1 - beta) * cross_entropy(decode(h)) + beta * ((similarity(similar(h)) - similarity(Y)) ** 2).mean()
//     of_decoder = lambda: cross_entropy(decode(activity()))
//     for step in range(3):
//         changes = [gradient(of_layer, p) for p in P] + [gradient(of_decoder, p) for p in D]
//         for p, g in zip(P + D, changes): p -= .5 * g
//     for p in P + D: print(p)
//
// print('dense')
// x = numbers(1, 4, 3)
// W, b, D, d, C = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 3), np.zeros(3), numbers(4, 5, 5)
// train(lambda: leaky(standardised(x @ W, 0) + b), lambda h: h @ D + d, lambda h: h @ C, [W, b, C], [D, d])
//
// print('conv')
// def convolve(v, K):
//     p = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
//     h, w = v.shape[2:]
//     return sum(np.einsum('bchw,nc->bnhw', p[:, :, i:i + h, j:j + w], K[:, :, i, j])
//                for i in range(3) for j in range(3))
// pool = lambda z: z.reshape(4, 2, 2, 2, 2, 2).max((3, 5))
// x = numbers(1, 4, 1, 4, 4)
// W, b, D, d, C = numbers(2, 2, 1, 3, 3), np.zeros((1, 2, 1, 1)), numbers(3, 2, 3), np.zeros(3), numbers(4, 2, 2, 3, 3)
// train(lambda: leaky(standardised(pool(convolve(x, W)), (0, 2, 3)) + b),
//       lambda h: h.mean((2, 3)) @ D + d,
//       lambda h: np.sqrt(convolve(h, C).reshape(4, 2, 4).var(2, ddof=1) + 1e-8), [W, b, C], [D, d])
const DENSE_WEIGHT: [f64; 15] = [
    0.432448583,
    -0.218858077,
    -0.694723522,
    0.383707528,
    0.286437513,
    -0.502829725,
    -0.281048772,
    0.504904768,
    -0.018659288,
    -0.499825553,
    0.113368463,
    0.460783672,
    0.104692852,
    -0.429884752,
    0.315422705,
];
const DENSE_BIAS: [f64; 5] = [
    0.062014042,
    -0.189183293,
    0.197355657,
    -0.095968032,
    0.026426866,
];
const DENSE_SIMILARITY: [f64; 25] = [
    -0.409083547,
    -0.252008049,
    0.492970744,
    0.143922415,
    -0.511110468,
    0.013566003,
    0.369339279,
    -0.118964644,
    -0.348907376,
    0.198650257,
    0.514225316,
    -0.414343300,
    -0.463521208,
    0.477720013,
    0.284350423,
    -0.456048241,
    -0.109368141,
    0.473562999,
    -0.023332037,
    -0.478218798,
    0.087609000,
    0.498790346,
    -0.178389328,
    -0.415068928,
    0.323100473,
];
const DENSE_DECODER: [f64; 15] = [
    0.256529362,
    -0.719036613,
    0.091380228,
    0.244840020,
    -0.074113866,
    -0.306746900,
    0.003210710,
    0.721552580,
    -0.456461896,
    0.148000894,
    0.272560949,
    -0.081717187,
    -0.625225872,
    -0.139284385,
    0.752360342,
];
const DENSE_DECODER_BIAS: [f64; 3] = [-0.093037729, 0.199024483, -0.105986753];
const CONV_WEIGHT: [f64; 18] = [
    0.460829875,
    -0.281525777,
    -0.408606787,
    0.357310675,
    0.259295233,
    -0.451370909,
    -0.185699421,
    0.464686155,
    0.049462036,
    -0.496843503,
    0.066838755,
    0.474413610,
    -0.198070927,
    -0.433521656,
    0.301139541,
    0.356437950,
    -0.403306677,
    -0.254765030,
];
const CONV_BIAS: [f64; 2] = [-0.024193846, -0.024198973];
const CONV_SIMILARITY: [f64; 36] = [
    -0.378402962,
    -0.275331798,
    0.449340923,
    0.159546586,
    -0.490447127,
    -0.033186843,
    0.499011909,
    -0.095423993,
    -0.474414763,
    0.217684844,
    0.418327687,
    -0.325487746,
    -0.334451704,
    0.411662673,
    0.228377740,
    -0.470514421,
    -0.107127161,
    0.498121001,
    -0.021231980,
    -0.492657210,
    0.148186888,
    0.454463416,
    -0.265296243,
    -0.386102834,
    0.364787579,
    0.292125301,
    -0.440077152,
    -0.178701751,
    0.486105924,
    0.053436227,
    -0.499876532,
    0.075384862,
    0.480446792,
    -0.199181841,
    -0.429129200,
    0.309767638,
];
const CONV_DECODER: [f64; 6] = [
    0.000676565,
    -0.421270684,
    0.049467097,
    0.422337742,
    -0.093434454,
    -0.464924034,
];
const CONV_DECODER_BIAS: [f64; 3] = [-0.203870640, 0.282095521, -0.078224881];

/// Starts with the numbers of the quoted program and learns for three steps.
fn trained(example: &[usize], layer: &str, shapes: [&[usize]; 3]) -> Result<Subject> {
    let settings = format!(
        r#"
            layer = {{ name = "{layer}", norm = "batch", slope = 0.1 }}
            goodness = {{ name = "predsim", beta = 0.7, inputs = 2 }}
            hidden = [{}]
            normalise = "none"
            loss = "cross_entropy"
            head = false
        "#,
        shapes[1][0]
    );
    let mut subject = Subject::on(example, 1, "progressive", "plain", &settings)?;
    let names = [
        "layer.weight",
        "goodness.decoder.weight",
        "goodness.similarity.weight",
    ];
    for (k, (name, shape)) in (2u8..).zip(names.iter().zip(shapes)) {
        subject.set(&format!("blocks.0.{name}"), &numbers(f64::from(k), shape)?);
    }
    let images = numbers(1., [&[4], example].concat())?;
    subject.learn(3, |_| Batch::new(images.clone(), vec![0, 1, 1, 2]))?;
    Ok(subject)
}

#[test]
fn three_steps_of_units_match_an_independent_program() -> Result<()> {
    let subject = trained(&[3], "dense", [&[3, 5], &[5, 3], &[5, 5]])?;
    subject.assert_close("blocks.0.layer.weight", &DENSE_WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &DENSE_BIAS);
    subject.assert_close("blocks.0.goodness.similarity.weight", &DENSE_SIMILARITY);
    subject.assert_close("blocks.0.goodness.decoder.weight", &DENSE_DECODER);
    subject.assert_close("blocks.0.goodness.decoder.bias", &DENSE_DECODER_BIAS);
    Ok(())
}

#[test]
fn three_steps_of_maps_match_an_independent_program() -> Result<()> {
    let shapes: [&[usize]; 3] = [&[2, 1, 3, 3], &[2, 3], &[2, 2, 3, 3]];
    let subject = trained(&[1, 4, 4], "conv", shapes)?;
    subject.assert_close("blocks.0.layer.weight", &CONV_WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &CONV_BIAS);
    subject.assert_close("blocks.0.goodness.similarity.weight", &CONV_SIMILARITY);
    subject.assert_close("blocks.0.goodness.decoder.weight", &CONV_DECODER);
    subject.assert_close("blocks.0.goodness.decoder.bias", &CONV_DECODER_BIAS);
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let layer = r#"{ name = "dense", norm = "batch", slope = 0.01 }"#;
    let settings = [
        ("goodness", r#""predsim""#),
        ("layer", layer),
        ("hidden", "[50, 50]"),
        ("normalise", r#""none""#),
        ("head", "false"),
        ("lr", "0.005"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}
