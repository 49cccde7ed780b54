//! Loops over the log-probabilities of all tokens, several at a time.

use crate::kernels::exponential::{exp, ln};
use crate::kernels::Loop;

/// Mixes one row.
pub(super) struct Mix<'a> {
    /// The log-probabilities of the network, and then of the mixture.
    pub row: &'a mut [f32],
    pub p: &'a [f64],
    pub weights: [f64; 2],
    pub logs: &'a mut [f64],
}

impl Loop for Mix<'_> {
    #[inline(always)]
    fn run(self) {
        let [alpha, beta] = self.weights;
        let both = self.row.iter().zip(self.p);
        for (log, (net, p)) in self.logs.iter_mut().zip(both) {
            *log = alpha * f64::from(*net) + beta * ln(*p);
        }
        let most = highest(self.logs);
        for (out, log) in self.row.iter_mut().zip(&*self.logs) {
            *out = (log - most) as f32;
        }
        for log in self.logs.iter_mut() {
            *log = exp(*log - most);
        }
        let mut sums = [0.; LANES];
        let (blocks, rest) = self.logs.as_chunks();
        for block in blocks.iter().chain([&padded(rest)]) {
            sums.iter_mut().zip(block).for_each(|(sum, e)| *sum += e);
        }
        let log_sum = sums.iter().sum::<f64>().ln();
        for out in self.row.iter_mut() {
            *out = (f64::from(*out) - log_sum) as f32;
        }
    }
}

/// The sums of a row that are added up side by side: in this order on every processor.
const LANES: usize = 8;

#[inline(always)]
fn highest(logs: &[f64]) -> f64 {
    let mut most = [f64::NEG_INFINITY; LANES];
    let (blocks, rest) = logs.as_chunks::<LANES>();
    for block in blocks {
        for (most, log) in most.iter_mut().zip(block) {
            *most = if *log > *most { *log } else { *most };
        }
    }
    most.iter()
        .chain(rest)
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
}

/// The sums over the tokens of one example that its nats and their derivatives need.
pub(super) struct Moments<'a> {
    /// Of the network and of the n-grams.
    pub logs: [&'a [f32]; 2],
    pub weights: [f64; 2],
    pub logits: &'a mut [f64],
    /// The highest logit; of all `e^(logit − highest)` the sum, and the sums of their
    /// products with `x`, `y`, `x²`, `x·y` and `y²`, for the logs `x` and `y`.
    pub sums: &'a mut [f64; 7],
}

impl Loop for Moments<'_> {
    #[inline(always)]
    fn run(self) {
        let ([net, counts], [alpha, beta]) = (self.logs, self.weights);
        for (logit, (x, y)) in self.logits.iter_mut().zip(net.iter().zip(counts)) {
            *logit = alpha * f64::from(*x) + beta * f64::from(*y);
        }
        let most = highest(self.logits);
        for logit in self.logits.iter_mut() {
            *logit = exp(*logit - most);
        }
        let mut lanes = [[0.; LANES]; 6];
        let (blocks, rest) = self.logits.as_chunks();
        let [(xs, last_x), (ys, last_y)] = [net, counts].map(|logs| logs.as_chunks());
        for (e, (x, y)) in blocks.iter().zip(xs.iter().zip(ys)) {
            add_moments(&mut lanes, e, x, y);
        }
        add_moments(&mut lanes, &padded(rest), &padded(last_x), &padded(last_y));
        self.sums[0] = most;
        for (sum, lanes) in self.sums[1..].iter_mut().zip(lanes) {
            *sum = lanes.iter().sum();
        }
    }
}

/// Adds the terms of the sums of [`Moments`] for some tokens side by side.
#[inline(always)]
fn add_moments(
    lanes: &mut [[f64; LANES]; 6],
    e: &[f64; LANES],
    x: &[f32; LANES],
    y: &[f32; LANES],
) {
    let [sum, of_x, of_y, xx, xy, yy] = lanes;
    for lane in 0..LANES {
        let (e, x, y) = (e[lane], f64::from(x[lane]), f64::from(y[lane]));
        let (ex, ey) = (e * x, e * y);
        sum[lane] += e;
        of_x[lane] += ex;
        of_y[lane] += ey;
        xx[lane] += ex * x;
        xy[lane] += ex * y;
        yy[lane] += ey * y;
    }
}

/// Fewer numbers than there are lanes, and zeros.
#[inline(always)]
fn padded<T: Copy + Default>(numbers: &[T]) -> [T; LANES] {
    let mut padded = [T::default(); LANES];
    padded[..numbers.len()].copy_from_slice(numbers);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows shorter and longer than the lanes, with and without a rest.
    #[test]
    fn rows_of_any_length_have_the_sums_of_a_plain_loop() {
        for length in [1, 3, 8, 19, 64, 101] {
            let net = |i: usize| -((i * 7 % 23) as f32) / 3. - 0.5;
            let p = |i: usize| 1. / (2. + (i * 5 % 17) as f64);
            let (mut row, p): (Vec<f32>, Vec<f64>) = (0..length).map(|i| (net(i), p(i))).unzip();
            let counts: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
            let weights = [0.7, 0.4];
            let logit = |x: f64, y: f64| weights[0] * x + weights[1] * y;

            let (mut logits, mut sums) = (vec![0.; length], [0.; 7]);
            Moments {
                logs: [&row, &counts],
                weights,
                logits: &mut logits,
                sums: &mut sums,
            }
            .wide();
            let mut expected = [0.; 6];
            for (x, y) in row.iter().zip(&counts) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                let e = (logit(x, y) - sums[0]).exp();
                let terms = [e, e * x, e * y, e * x * x, e * x * y, e * y * y];
                expected
                    .iter_mut()
                    .zip(terms)
                    .for_each(|(sum, term)| *sum += term);
            }
            for (found, expected) in sums[1..].iter().zip(expected) {
                assert!(
                    (found / expected - 1.).abs() < 1e-12,
                    "{length}: {found}, {expected}"
                );
            }

            let both = row.iter().zip(&p);
            let mixed: Vec<f64> = both.map(|(x, p)| logit(f64::from(*x), p.ln())).collect();
            let log_sum = mixed.iter().map(|log| log.exp()).sum::<f64>().ln();
            let logs = &mut logits;
            Mix {
                row: &mut row,
                p: &p,
                weights,
                logs,
            }
            .wide();
            for (found, mixed) in row.iter().zip(mixed) {
                let expected = mixed - log_sum;
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-5,
                    "{length}: {found}"
                );
            }
        }
    }
}
