//! Deep supervision: backpropagation with a classifier for each layer, as a baseline.

use onward::Result;

use super::{error_on_digits, numbers, Subject};

// x, labels = numbers(1, 4, 3), [0, 1, 1, 2]
// W1, b1, H1 = numbers(2, 3, 4), np.zeros(4), np.zeros((4, 3))
// W2, b2, H2 = numbers(3, 4, 2), np.zeros(2), np.zeros((2, 3))
// cross = lambda z: (np.log(np.exp(z).sum(1)) - z[range(4), labels]).mean()
// def loss():
//     one = norm(layer(norm(x), W1, b1)); two = norm(layer(one, W2, b2))
//     return (cross(one @ H1) + cross(two @ H2)) / 2
// for step in range(3):
//     changes = [gradient(loss, p) for p in (W1, b1, H1, W2, b2, H2)]
//     for p, d in zip((W1, b1, H1, W2, b2, H2), changes): p -= .5 * d
const WEIGHT_1: [f64; 12] = [
    0.464606822,
    -0.270209723,
    -0.356660991,
    0.286723757,
    0.253122362,
    -0.444421483,
    -0.188048007,
    0.502009574,
    0.054055232,
    -0.493416996,
    0.047519382,
    0.554212601,
];
const BIAS_1: [f64; 4] = [-0.021568430, -0.000001156, -0.024204286, 0.012530944];
const HEAD_1: [f64; 12] = [
    0.177246654,
    -0.019611979,
    -0.157634675,
    0.005211200,
    -0.049693505,
    0.044482305,
    -0.192651793,
    0.063313972,
    0.129337821,
    -0.141848822,
    0.314184636,
    -0.172335814,
];
const WEIGHT_2: [f64; 8] = [
    0.069756164,
    -0.497635286,
    0.058274602,
    0.484944905,
    -0.183239565,
    -0.437726087,
    0.294394622,
    0.366134505,
];
const BIAS_2: [f64; 2] = [-0.000914497, 0.002620385];
const HEAD_2: [f64; 6] = [
    0.054427197,
    0.129972934,
    -0.184400131,
    -0.027907360,
    0.052543702,
    -0.024636341,
];

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let settings = "hidden = [4, 2]\nclassifiers = \"each\"\noptimiser = \"sgd\"";
    let mut subject = Subject::new("backprop", "plain", settings)?;
    subject.set("net.0.weight", &numbers(2., (3, 4))?);
    subject.set("net.1.weight", &numbers(3., (4, 2))?);
    subject.learn(3, |_| super::batch(1.))?;
    for (name, expected) in [
        ("net.0.weight", &WEIGHT_1[..]),
        ("net.0.bias", &BIAS_1),
        ("net.0.head.weight", &HEAD_1),
        ("net.1.weight", &WEIGHT_2),
        ("net.1.bias", &BIAS_2),
        ("net.1.head.weight", &HEAD_2),
    ] {
        subject.assert_close(name, expected);
    }
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let settings = [("classifiers", r#""each""#), ("lr", "0.001")];
    let error = error_on_digits(&settings, "backprop")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}
