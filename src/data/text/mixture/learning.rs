//! The weights of a mixture, learned by Newton's method.

use std::sync::Arc;

use rayon::prelude::*;

use super::rows::Moments;
use super::{class_of, Mixture, TIMES};
use crate::data::text::ngram::{Counted, KneserNey};
use crate::kernels::exponential::ln;
use crate::kernels::{wide, Loop};

/// The numbers of tokens that the weights of all contexts may count for in those of one
/// class.
const PRIORS: [f64; 5] = [10., 100., 1000., 10_000., 1e9];

/// The parts of the examples that are held out in turn.
const FOLDS: usize = 5;

/// The numbers of log-probabilities that the cross-validation looks at, about: it solves
/// for the weights some twenty times.
const COMPARED: usize = 1 << 21;

/// What the weights of a [`Mixture`] are learned from: some tokens of the validation
/// part.
pub struct Examples {
    ngrams: Arc<KneserNey>,
    examples: Vec<Example>,
}

/// One token with the log-probabilities of all tokens.
struct Example {
    class: usize,
    label: usize,
    /// Of the network and of the n-grams.
    logs: [Vec<f32>; 2],
}

/// The examples of each weight that are added up at a time: in this order at any number
/// of threads.
const CHUNK: usize = 256;

impl Examples {
    /// No examples yet.
    pub fn new(ngrams: Arc<KneserNey>) -> Self {
        Self {
            ngrams,
            examples: Vec::new(),
        }
    }

    /// Adds the log-probabilities of the network and the counts after some contexts, a
    /// row for each, with the next tokens.
    pub fn add(&mut self, counted: &[Counted], labels: &[u32], log_probabilities: &[f32]) {
        let rows = log_probabilities.par_chunks(self.ngrams.vocabulary().max(1));
        let examples = rows.zip(counted).zip(labels);
        let examples = examples.map(|((row, counted), label)| {
            let mut of_counts = vec![0.; row.len()];
            wide(|| {
                let logs = of_counts.iter_mut().zip(&counted.p);
                logs.for_each(|(log, p)| *log = ln(*p) as f32);
            });
            Example {
                class: class_of(counted.known),
                label: *label as usize,
                logs: [row.to_vec(), of_counts],
            }
        });
        self.examples.par_extend(examples);
    }

    /// The mixture with the fewest bits on these examples. How far the weights of a class
    /// of contexts may be from those of all contexts is chosen by cross-validation.
    pub fn fit(self) -> Mixture {
        let all: Vec<&Example> = self.examples.iter().collect();
        let classes = self.ngrams.order() * TIMES;
        let numbers = all.len() * self.ngrams.vocabulary();
        let some = all.iter().step_by(numbers.div_ceil(COMPARED).max(1));
        let some: Vec<&Example> = some.copied().collect();
        let mut held_out = PRIORS.map(|prior| (0., prior));
        for fold in 0..FOLDS {
            let bounds = [fold, fold + 1].map(|fold| some.len() * fold / FOLDS);
            let rest = [&some[..bounds[0]], &some[bounds[1]..]].concat();
            let common = common_weights(&rest);
            for (sum, prior) in &mut held_out {
                let weights = weights_of(&rest, common, classes, *prior);
                let nats = some[bounds[0]..bounds[1]].iter();
                let nats = nats.map(|example| Sums::of(example, weights[example.class]).nats);
                *sum += nats.sum::<f64>();
            }
        }
        let best = held_out.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        let prior = best.map_or(PRIORS[0], |(_, prior)| prior);
        Mixture {
            weights: weights_of(&all, common_weights(&all), classes, prior),
            ngrams: self.ngrams,
        }
    }
}

/// The weights that are best for all contexts together, with the sums there.
fn common_weights(all: &[&Example]) -> ([f64; 2], Sums) {
    let towards_half = Sums {
        curvature: [DRAWN, 0., DRAWN],
        ..Sums::default()
    };
    let prior = |weights| towards_half.around([0.5; 2], weights);
    // One model alone may be far better than half of both, such as that of a network that
    // has diverged.
    let starts = [[0.5; 2], [0., 1.], [1., 0.]];
    let nats = starts.map(|start| summed(all, start).plus(prior(start)).nats);
    let best = (0..starts.len()).min_by(|a, b| nats[*a].total_cmp(&nats[*b]));
    descend(all, starts[best.unwrap_or(0)], prior)
}

/// How much the weights of all contexts are drawn towards ½: the second derivative of the
/// nats of some tens of tokens.
const DRAWN: f64 = 10.;

/// The weights of each class, which the common weights complete as if by `prior` more
/// tokens.
fn weights_of(
    all: &[&Example],
    (common, sums): ([f64; 2], Sums),
    classes: usize,
    prior: f64,
) -> Vec<[f64; 2]> {
    // The curvature of one token, as a weight of the common weights.
    let prior = sums.scaled(prior / all.len().max(1) as f64);
    let weights = (0..classes).map(|class| {
        let here = all.iter().filter(|example| example.class == class);
        let here: Vec<&Example> = here.copied().collect();
        let towards_common = |weights: [f64; 2]| prior.around(common, weights);
        descend(&here, common, towards_common).0
    });
    weights.collect()
}

/// The nats of some examples, their gradient and their second derivatives.
#[derive(Clone, Copy, Default)]
struct Sums {
    nats: f64,
    gradient: [f64; 2],
    /// `∂²/∂α²`, `∂²/∂α∂β`, `∂²/∂β²`.
    curvature: [f64; 3],
}

impl Sums {
    fn of(example: &Example, [alpha, beta]: [f64; 2]) -> Self {
        let [net, counts] = &example.logs;
        let mut sums = [0.; 7];
        let mut logits = vec![0.; net.len()];
        Moments {
            logs: [net, counts],
            weights: [alpha, beta],
            logits: &mut logits,
            sums: &mut sums,
        }
        .wide();
        let [most, sum, of_net, of_counts, xx, xy, yy] = sums;
        let mean = [of_net / sum, of_counts / sum];
        let found = [net, counts].map(|logs| f64::from(logs[example.label]));
        Self {
            nats: most + sum.ln() - (alpha * found[0] + beta * found[1]),
            gradient: [mean[0] - found[0], mean[1] - found[1]],
            curvature: [
                xx / sum - mean[0] * mean[0],
                xy / sum - mean[0] * mean[1],
                yy / sum - mean[1] * mean[1],
            ],
        }
    }

    fn plus(self, other: Self) -> Self {
        let [a, b] = [self, other];
        Self {
            nats: a.nats + b.nats,
            gradient: [0, 1].map(|i| a.gradient[i] + b.gradient[i]),
            curvature: [0, 1, 2].map(|i| a.curvature[i] + b.curvature[i]),
        }
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            nats: factor * self.nats,
            gradient: self.gradient.map(|number| factor * number),
            curvature: self.curvature.map(|number| factor * number),
        }
    }

    /// A parabola with this curvature around `centre`.
    fn around(self, centre: [f64; 2], weights: [f64; 2]) -> Self {
        let [x, y] = [weights[0] - centre[0], weights[1] - centre[1]];
        let [xx, xy, yy] = self.curvature;
        Self {
            nats: 0.5 * (xx * x * x + 2. * xy * x * y + yy * y * y),
            gradient: [xx * x + xy * y, xy * x + yy * y],
            curvature: self.curvature,
        }
    }

    /// Newton's step; `None` where the curvature has no inverse.
    fn step(self) -> Option<[f64; 2]> {
        let ([xx, xy, yy], [x, y]) = (self.curvature, self.gradient);
        // A little of the trace, since two models that are alike have one direction
        // without curvature.
        let little = 1e-9 * (xx + yy);
        let (xx, yy) = (xx + little, yy + little);
        let determinant = xx * yy - xy * xy;
        let step = [
            (xy * y - yy * x) / determinant,
            (xy * x - xx * y) / determinant,
        ];
        step.iter().all(|number| number.is_finite()).then_some(step)
    }
}

/// The sums over some examples.
fn summed(examples: &[&Example], weights: [f64; 2]) -> Sums {
    let chunks = examples.par_chunks(CHUNK).map(|examples| {
        let sums = examples.iter().map(|example| Sums::of(example, weights));
        sums.fold(Sums::default(), Sums::plus)
    });
    let chunks: Vec<Sums> = chunks.collect();
    chunks.into_iter().fold(Sums::default(), Sums::plus)
}

/// The weights of the fewest nats on some examples and `prior`, by Newton's method, with
/// the sums over the examples there.
fn descend(
    examples: &[&Example],
    start: [f64; 2],
    prior: impl Fn([f64; 2]) -> Sums,
) -> ([f64; 2], Sums) {
    let sums = |weights: [f64; 2]| {
        let of_examples = summed(examples, weights);
        (of_examples, of_examples.plus(prior(weights)))
    };
    let mut weights = start;
    let (mut of_examples, mut here) = sums(weights);
    for _ in 0..STEPS {
        let Some(step) = here.step() else { break };
        // A whole step, or as much of it as lowers the nats.
        let shorter = (0..HALVINGS).map(|halvings| 0.5f64.powi(halvings));
        let tried = shorter.map(|share| {
            let weights = [0, 1].map(|i| weights[i] + share * step[i]);
            (weights, sums(weights))
        });
        let Some((lower, found)) = tried
            .into_iter()
            .find(|(_, (_, found))| found.nats < here.nats)
        else {
            break;
        };
        let gained = here.nats - found.1.nats;
        weights = lower;
        (of_examples, here) = found;
        if gained < 1e-9 * here.nats {
            break;
        }
    }
    (weights, of_examples)
}

/// The most steps of Newton's method; it needs about five.
const STEPS: usize = 50;

/// The most halvings of a step. Where the mixture is nearly certain of a token, the
/// curvature is so small that a whole step is far too long.
const HALVINGS: i32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [u32; 12] = [0, 1, 0, 2, 1, 0, 0, 2, 1, 0, 1, 1];

    /// Log-probabilities of a network for the example `i`.
    fn net(i: usize) -> [f64; 3] {
        let logits = [0, 1, 2].map(|token| {
            let right = if LABELS[i] == token { 0.8 } else { 0. };
            (3. * i as f64 + 2. * f64::from(token)).sin() + right
        });
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.map(|logit| logit - log_sum)
    }

    fn counts() -> Arc<KneserNey> {
        let tokens = [[0; 7].as_slice(), &[1; 3], &[2; 2]].concat();
        Arc::new(KneserNey::fit(&[&tokens], 1, 3))
    }

    fn rows() -> (Vec<Counted>, Vec<f32>) {
        let rows = (0..LABELS.len()).flat_map(net).map(|log| log as f32);
        (vec![counts().after(&[]); LABELS.len()], rows.collect())
    }

    // from math import exp, log, sin
    //
    // kn = [5 / 9, 2 / 9, 2 / 9]  # modified Kneser-Ney of the counts 7, 3, 2
    // labels = [0, 1, 0, 2, 1, 0, 0, 2, 1, 0, 1, 1]
    //
    // def net(i):
    //     z = [sin(3 * i + 2 * k) + (0.8 if labels[i] == k else 0) for k in range(3)]
    //     s = log(sum(map(exp, z)))
    //     return [x - s for x in z]
    //
    // def nats(a, b):
    //     t = 0
    //     for i, y in enumerate(labels):
    //         z = [a * n + b * log(k) for n, k in zip(net(i), kn)]
    //         t += log(sum(map(exp, z))) - z[y]
    //     return t
    //
    // def drawn(a, b):
    //     return nats(a, b) + 5 * ((a - .5) ** 2 + (b - .5) ** 2)
    //
    // a, b, s = 0.5, 0.5, 0.25
    // while s > 1e-9:
    //     near = ((a + i * s, b + j * s) for i in (-1, 0, 1) for j in (-1, 0, 1))
    //     best = min(near, key=lambda w: drawn(*w))
    //     if best == (a, b): s /= 2
    //     a, b = best
    // print(a, b, nats(a, b))
    #[test]
    fn the_weights_have_the_fewest_nats() {
        let (counted, mut rows) = rows();
        let mut examples = Examples::new(counts());
        examples.add(&counted, &LABELS, &rows);
        let all: Vec<&Example> = examples.examples.iter().collect();
        let ([alpha, beta], _) = common_weights(&all);
        assert!((alpha - 0.746_128_49).abs() < 1e-6, "{alpha}");
        assert!((beta - 0.467_065_83).abs() < 1e-6, "{beta}");

        let mixture = Mixture::new(counts(), vec![[alpha, beta]; TIMES]).unwrap();
        mixture.mix(&counted, &mut rows);
        let (mut nats, rows) = (0., rows.chunks(3));
        for (row, label) in rows.zip(LABELS) {
            let sum: f64 = row.iter().map(|log| f64::from(*log).exp()).sum();
            assert!((sum - 1.).abs() < 1e-6, "{sum}");
            nats -= f64::from(row[label as usize]);
        }
        assert!((nats - 9.239_816_23).abs() < 1e-5, "{nats}");
    }

    /// A few tokens that the network predicts by chance say little.
    #[test]
    fn few_examples_give_weights_near_equal_shares() {
        let mut examples = Examples::new(counts());
        let sure = [-1e-3f32, -7., -9.];
        examples.add(
            &vec![counts().after(&[]); 3],
            &[0, 0, 0],
            &[sure; 3].concat(),
        );
        let mixture = examples.fit();
        for weight in mixture.weights().as_flattened() {
            assert!((0. ..2.).contains(weight), "{weight}");
        }
    }

    #[test]
    fn a_network_that_has_diverged_has_no_weight() {
        let mut examples = Examples::new(counts());
        let wrong = |label: u32| [0, 1, 2].map(|token| if token == label { -1e5f32 } else { -1. });
        let rows: Vec<f32> = LABELS.iter().flat_map(|label| wrong(*label)).collect();
        let counted = vec![counts().after(&[]); LABELS.len()];
        examples.add(&counted, &LABELS, &rows);
        let mut mixed = rows.clone();
        examples.fit().mix(&counted, &mut mixed);
        let found = mixed.chunks(3).zip(LABELS);
        let nats: f32 = found.map(|(row, label)| -row[label as usize]).sum();
        let of_counts = counted.iter().zip(LABELS);
        let of_counts: f64 = of_counts.map(|(c, label)| -c.p[label as usize].ln()).sum();
        assert!(f64::from(nats) < of_counts + 0.1, "{nats} {of_counts}");
    }

    #[test]
    fn a_class_of_contexts_without_examples_has_the_weights_of_all() {
        let (counted, rows) = rows();
        let mut examples = Examples::new(counts());
        examples.add(&counted, &LABELS, &rows);
        let all: Vec<&Example> = examples.examples.iter().collect();
        let (common, _) = common_weights(&all);
        let mixture = examples.fit();
        let apart = mixture.weights()[0][0] - common[0];
        assert!(apart.abs() < 1e-6, "{apart}");
        assert!(Mixture::new(counts(), vec![[1.; 2]; 3]).is_none());
        assert!(Mixture::new(counts(), vec![[f64::NAN; 2]; TIMES]).is_none());
    }

    #[test]
    fn no_examples_give_equal_shares() {
        let mixture = Examples::new(counts()).fit();
        assert_eq!(mixture.weights(), [[0.5; 2]; TIMES]);
    }
}
