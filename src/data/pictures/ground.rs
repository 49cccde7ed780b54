//! The ground of an image, and the brightness from which something differs from it.

use super::object::Grey;

/// The brightness of the ground at every pixel, and the standard deviation of its grain:
/// a plane through the border that leaves out what does not lie on it.
pub(super) fn ground(image: &Grey) -> (Vec<f32>, f32) {
    let (width, height) = image.dimensions();
    let ring = (width.min(height) / 24).max(1);
    let in_ring = |x: u32, y: u32| x < ring || y < ring || x + ring >= width || y + ring >= height;
    // Positions from −1 to 1 keep the sums well conditioned.
    let position = |at: u32, side: u32| 2. * (f64::from(at) + 0.5) / f64::from(side) - 1.;
    let border: Vec<[f64; 3]> = image
        .enumerate_pixels()
        .filter(|&(x, y, _)| in_ring(x, y))
        .map(|(x, y, pixel)| [position(x, width), position(y, height), pixel.0[0].into()])
        .collect();
    // Starts at the median, which a few dark corners do not move.
    let mut plane = [median(border.iter().map(|[_, _, value]| *value)), 0., 0.];
    let mut spread = f64::INFINITY;
    for _ in 0..8 {
        let off = |[x, y, value]: &[f64; 3]| value - plane[0] - plane[1] * x - plane[2] * y;
        spread = 1.4826 * median(border.iter().map(|pixel| off(pixel).abs()));
        let limit = (2.5 * spread).max(0.02);
        let inside = border.iter().filter(|pixel| off(pixel).abs() <= limit);
        let Some(fitted) = fit(inside) else { break };
        plane = fitted;
    }
    let of_pixel = |x: u32, y: u32| {
        (plane[0] + plane[1] * position(x, width) + plane[2] * position(y, height)) as f32
    };
    let values = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    (values.map(|(x, y)| of_pixel(x, y)).collect(), spread as f32)
}

/// The plane `a + b·x + c·y` with the least squared distance to the points `[x, y,
/// value]`.
fn fit<'a>(points: impl Iterator<Item = &'a [f64; 3]>) -> Option<[f64; 3]> {
    let mut sums = [[0f64; 4]; 3];
    for &[x, y, value] in points {
        let row = [1., x, y];
        for (sums, left) in sums.iter_mut().zip(row) {
            for (sum, right) in sums.iter_mut().zip([1., x, y, value]) {
                *sum += left * right;
            }
        }
    }
    // A little is added to the slopes: a border of one line has none.
    sums[1][1] += 1e-6;
    sums[2][2] += 1e-6;
    for column in 0..3 {
        let pivot = sums[column];
        if pivot[column].abs() < 1e-12 {
            return None;
        }
        for (_, sums) in sums
            .iter_mut()
            .enumerate()
            .filter(|(row, _)| *row != column)
        {
            let factor = sums[column] / pivot[column];
            for (sum, pivot) in sums.iter_mut().zip(pivot) {
                *sum -= factor * pivot;
            }
        }
    }
    Some([0, 1, 2].map(|row| sums[row][3] / sums[row][row]))
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    if values.is_empty() {
        return 0.;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Otsu's threshold of the distances from the ground: the one that divides them into the
/// two groups with the least spread within each.
pub(super) fn otsu(off: &[f32]) -> f32 {
    const BINS: usize = 256;
    let most = off.iter().fold(0f32, |most, off| most.max(off.abs()));
    if most <= 0. {
        return 0.;
    }
    let mut counts = [0f64; BINS];
    for off in off {
        counts[((off.abs() / most * BINS as f32) as usize).min(BINS - 1)] += 1.;
    }
    let all: f64 = counts.iter().sum();
    let total: f64 = counts
        .iter()
        .enumerate()
        .map(|(bin, n)| bin as f64 * n)
        .sum();
    let (mut below, mut sum, mut best) = (0., 0., (0., 0));
    for (bin, count) in counts.iter().enumerate() {
        below += count;
        sum += bin as f64 * count;
        if below == 0. || below == all {
            continue;
        }
        let apart = sum / below - (total - sum) / (all - below);
        let between = below * (all - below) * apart * apart;
        if between > best.0 {
            best = (between, bin + 1);
        }
    }
    most * best.1 as f32 / BINS as f32
}
