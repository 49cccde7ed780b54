//! Data set `digits`: digits drawn from strokes.

use std::sync::Arc;

use onward_core::data::images::Images;
use onward_core::data::{Content, DataSet, ExampleSpec, Framing};
use onward_core::flow::random::{stream, unit};
use onward_core::plugin::preset::Preset;
use rand::Rng;
use rayon::prelude::*;

onward_core::settings! {
    /// Digits of 28×28 grey pixels, drawn from strokes by the program, so that no files
    /// are needed.
    ///
    /// Every digit consists of a few curves, in one of several styles. The curves are
    /// bent by a smooth random displacement, then rotated, sheared, scaled and shifted,
    /// and drawn with a pen of random width. The images do not depend on the seed of the
    /// run.
    ///
    /// This is not MNIST: it is easier, and results on it do not transfer to MNIST.
    pub struct Digits {
        /// The number of training examples; validation and test part have a fifth of it
        /// each.
        size: usize = 10_000, in 100..=1_000_000;
    }
}

const SIDE: usize = 28;

/// Points of a stroke, `x` to the right and `y` down, in a square from 0 to 1.
type Stroke = Vec<(f64, f64)>;

/// A part of an ellipse about `(x, y)`, angles in turns, clockwise from the right.
fn arc(x: f64, y: f64, across: f64, down: f64, from: f64, to: f64) -> Stroke {
    let point = |i: usize| {
        let angle = std::f64::consts::TAU * (from + (to - from) * i as f64 / 24.);
        (x + across * angle.cos(), y + down * angle.sin())
    };
    (0..=24).map(point).collect()
}

/// Straight lines from point to point.
fn line(points: &[(f64, f64)]) -> Stroke {
    let mut stroke = vec![points[0]];
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        stroke.extend((1..=8).map(|i| {
            let t = f64::from(i) / 8.;
            (x0 + t * (x1 - x0), y0 + t * (y1 - y0))
        }));
    }
    stroke
}

/// The styles of a digit.
fn glyphs(digit: usize) -> Vec<Vec<Stroke>> {
    match digit {
        0 => vec![
            vec![arc(0.5, 0.5, 0.26, 0.4, 0., 1.)],
            vec![arc(0.5, 0.5, 0.34, 0.38, 0.05, 1.02)],
        ],
        1 => vec![
            vec![line(&[(0.5, 0.1), (0.5, 0.9)])],
            vec![line(&[(0.33, 0.27), (0.53, 0.1), (0.53, 0.9)])],
            vec![
                line(&[(0.35, 0.25), (0.52, 0.1), (0.52, 0.88)]),
                line(&[(0.32, 0.9), (0.7, 0.9)]),
            ],
        ],
        2 => vec![
            vec![
                arc(0.5, 0.32, 0.25, 0.22, 0.5, 1.1),
                line(&[(0.7, 0.45), (0.24, 0.88), (0.78, 0.88)]),
            ],
            vec![
                arc(0.48, 0.32, 0.25, 0.22, 0.55, 1.15),
                line(&[(0.63, 0.5), (0.3, 0.84)]),
                arc(0.38, 0.82, 0.1, 0.07, 0., 1.),
                line(&[(0.45, 0.86), (0.8, 0.88)]),
            ],
        ],
        3 => vec![
            vec![
                arc(0.46, 0.3, 0.24, 0.19, 0.55, 1.25),
                arc(0.46, 0.68, 0.28, 0.21, 0.75, 1.45),
            ],
            vec![
                line(&[(0.25, 0.12), (0.7, 0.12), (0.45, 0.42)]),
                arc(0.44, 0.66, 0.28, 0.24, 0.75, 1.43),
            ],
        ],
        4 => vec![
            vec![
                line(&[(0.58, 0.1), (0.22, 0.6), (0.8, 0.6)]),
                line(&[(0.6, 0.1), (0.6, 0.92)]),
            ],
            vec![
                line(&[(0.28, 0.1), (0.26, 0.5), (0.72, 0.5)]),
                line(&[(0.7, 0.12), (0.66, 0.92)]),
            ],
        ],
        5 => vec![
            vec![
                line(&[(0.72, 0.12), (0.32, 0.12), (0.3, 0.45)]),
                arc(0.46, 0.64, 0.27, 0.24, 0.65, 1.42),
            ],
            vec![
                line(&[(0.75, 0.1), (0.34, 0.14), (0.28, 0.5), (0.5, 0.46)]),
                arc(0.48, 0.68, 0.24, 0.22, 0.75, 1.45),
            ],
        ],
        6 => vec![
            vec![
                arc(0.68, 0.62, 0.42, 0.52, 0.72, 0.5),
                arc(0.5, 0.67, 0.23, 0.21, 0., 1.),
            ],
            vec![
                line(&[(0.6, 0.1), (0.34, 0.45), (0.28, 0.68)]),
                arc(0.5, 0.7, 0.22, 0.19, 0.5, 1.5),
            ],
        ],
        7 => vec![
            vec![line(&[(0.24, 0.13), (0.76, 0.13), (0.42, 0.9)])],
            vec![
                line(&[(0.24, 0.13), (0.76, 0.13), (0.45, 0.9)]),
                line(&[(0.38, 0.5), (0.7, 0.5)]),
            ],
        ],
        8 => vec![
            vec![
                arc(0.5, 0.3, 0.2, 0.19, 0., 1.),
                arc(0.5, 0.69, 0.25, 0.21, 0., 1.),
            ],
            vec![
                arc(0.5, 0.29, 0.23, 0.19, 0.1, 0.75),
                line(&[(0.5, 0.1), (0.68, 0.2)]),
                line(&[(0.3, 0.4), (0.7, 0.6)]),
                line(&[(0.68, 0.4), (0.3, 0.6)]),
                arc(0.5, 0.71, 0.23, 0.19, 0.9, 1.6),
            ],
        ],
        _ => vec![
            vec![
                arc(0.48, 0.32, 0.23, 0.21, 0., 1.),
                line(&[(0.71, 0.32), (0.66, 0.9)]),
            ],
            vec![
                arc(0.48, 0.32, 0.23, 0.21, 0., 1.),
                arc(0.3, 0.38, 0.41, 0.52, 0., 0.22),
            ],
        ],
    }
}

/// A random number, roughly normal with mean 0 and this standard deviation.
fn around(rng: &mut impl Rng, deviation: f64) -> f64 {
    (0..4).map(|_| unit(rng) - 0.5).sum::<f64>() * deviation * 3f64.sqrt()
}

/// One image of a digit.
fn draw(digit: usize, rng: &mut impl Rng) -> [u8; SIDE * SIDE] {
    let mut ways = glyphs(digit);
    let way = ((unit(rng) * ways.len() as f64) as usize).min(ways.len() - 1);
    let mut strokes = ways.swap_remove(way);
    // Elastic: a sum of slow waves in both directions.
    let waves: Vec<[f64; 4]> = (0..6)
        .map(|_| {
            [
                around(rng, 0.022),
                1. + 1.6 * unit(rng),
                1. + 1.6 * unit(rng),
                std::f64::consts::TAU * unit(rng),
            ]
        })
        .collect();
    // Affine: rotated, sheared, scaled, shifted.
    let (turn, slant) = (around(rng, 0.13), around(rng, 0.16));
    let (wide, high) = (
        0.72 * (1. + around(rng, 0.1)),
        0.74 * (1. + around(rng, 0.08)),
    );
    let (right, down) = (around(rng, 0.035), around(rng, 0.035));
    let pen = 0.034 + 0.022 * unit(rng);
    for (x, y) in strokes.iter_mut().flatten() {
        let (mut u, mut v) = (*x - 0.5, *y - 0.5);
        for (index, [size, fx, fy, phase]) in waves.iter().enumerate() {
            let wave = size * (std::f64::consts::TAU * (fx * *x + fy * *y) / 2. + phase).sin();
            *(if index % 2 == 0 { &mut u } else { &mut v }) += wave;
        }
        u -= slant * v;
        *x = 0.5 + right + wide * (u * turn.cos() - v * turn.sin());
        *y = 0.5 + down + high * (u * turn.sin() + v * turn.cos());
    }
    render(&strokes, pen)
}

/// Draws strokes: the ink depends on the distance to the nearest stroke and fades over
/// one pixel.
fn render(strokes: &[Stroke], pen: f64) -> [u8; SIDE * SIDE] {
    let mut ink = [0f64; SIDE * SIDE];
    let side = SIDE as f64;
    for pair in strokes.iter().flat_map(|stroke| stroke.windows(2)) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let (dx, dy) = (x1 - x0, y1 - y0);
        let length = (dx * dx + dy * dy).max(1e-12);
        let reach = pen + 1. / side;
        let range = |a: f64, b: f64| {
            let first = ((a.min(b) - reach) * side).floor().clamp(0., side) as usize;
            first..((a.max(b) + reach) * side).ceil().clamp(0., side) as usize
        };
        for row in range(y0, y1) {
            for column in range(x0, x1) {
                let (x, y) = ((column as f64 + 0.5) / side, (row as f64 + 0.5) / side);
                let along = (((x - x0) * dx + (y - y0) * dy) / length).clamp(0., 1.);
                let (right, down) = (x - x0 - along * dx, y - y0 - along * dy);
                let pixel = &mut ink[row * SIDE + column];
                // Most pixels have no ink of this stroke, or all of another one already.
                if *pixel < 1. && right * right + down * down < reach * reach {
                    let value = ((pen - right.hypot(down)) * side + 0.5).clamp(0., 1.);
                    *pixel = pixel.max(value);
                }
            }
        }
    }
    ink.map(|value| (255. * value).round() as u8)
}

/// `count` images starting at index `first`; the classes alternate.
fn images(first: usize, count: usize) -> onward_core::Result<Images> {
    let mut pixels = vec![0u8; count * SIDE * SIDE];
    pixels
        .par_chunks_exact_mut(SIDE * SIDE)
        .enumerate()
        .for_each(|(index, pixels)| {
            let index = first + index;
            pixels.copy_from_slice(&draw(index % 10, &mut stream(0, "digits", index as u64)));
        });
    let labels = (first..first + count)
        .map(|index| (index % 10) as u8)
        .collect();
    Images::new(pixels, labels, [1, SIDE, SIDE])
}

fn data_set(size: usize) -> onward_core::Result<DataSet> {
    let part = size / 5;
    // Each part has its own range of indices, so that images do not change with `size`.
    Ok(DataSet {
        spec: ExampleSpec::new(
            &[1, SIDE, SIDE],
            (0..10).map(|digit| digit.to_string()).collect(),
            Content::Picture(Framing::Object(4)),
        ),
        test: Arc::new(images(0, part)?),
        validation: Arc::new(images(1_000_000, part)?),
        train: Arc::new(images(2_000_000, size)?),
        text: None,
    })
}

const PRESETS: &[Preset] = &[Preset {
    name: "digits",
    about: "a short first run, within two minutes",
    settings: "epochs = 12",
}];

onward_core::register! {
    DataSet, "digits",
    "digits drawn from distorted strokes, 28×28 grey, built in, not MNIST (onward, 2026)",
    |settings: Digits, _context| Ok(Box::new(data_set(settings.size)?)),
    .presets(PRESETS)
}
