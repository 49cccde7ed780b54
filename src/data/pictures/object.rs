//! The object in an image: a digit on paper, a chalk stroke on a board, a piece of
//! clothing.
//!
//! Nothing is known about the brightness of the ground, so no fixed level decides. The
//! ground is what the border of the image shows: a plane through its brightness, which
//! follows a shadow. The object is what differs from it, whether darker or lighter, by
//! more than Otsu's threshold (1979) and more than the grain of the ground.

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageBuffer, Luma};

/// Brightness of the pixels, from 0 to 1.
pub type Grey = ImageBuffer<Luma<f32>, Vec<f32>>;

/// The longest side of the image in which the object is searched. Grain is averaged away
/// in a larger one.
const LONGEST: u32 = 320;
/// The smallest difference in brightness that can be seen, as a share of the full range.
const VISIBLE: f32 = 0.06;
/// Objects stand out from the grain of the ground by this many of its standard
/// deviations.
const ABOVE_GRAIN: f32 = 4.;
/// On a ground with grain, a piece of at most this part of the longest side, in pixels, is
/// grain too.
const LONE: u32 = 40;
/// A piece with less than this share of the largest piece's pixels is a speck.
const SPECK: f32 = 0.02;

/// Frames the object in an image: light on black, within a margin, with its centre of
/// mass in the middle. `None` if nothing can be seen.
pub fn framed(image: &Grey, width: u32, height: u32, margin: u32) -> Option<GrayImage> {
    let (longest, mut image) = (image.width().max(image.height()), image.clone());
    if longest > LONGEST {
        let side = |side: u32| (side * LONGEST / longest).max(1);
        let (width, height) = (side(image.width()), side(image.height()));
        image = imageops::resize(&image, width, height, FilterType::Triangle);
    }
    // Only writing has sheets around it; a bag with straight sides is no sheet.
    let ink = cut_out(&image, if margin > 0 { 2 } else { 0 })?;
    let room = |side: u32| f64::from(side.saturating_sub(2 * margin).max(1));
    let scale = (room(width) / f64::from(ink.width())).min(room(height) / f64::from(ink.height()));
    let side = |length: u32, most: u32| ((f64::from(length) * scale).round() as u32).clamp(1, most);
    let (wide, tall) = (side(ink.width(), width), side(ink.height(), height));
    let small = imageops::resize(&ink, wide, tall, FilterType::Triangle);
    let (mut mass, mut x_sum, mut y_sum) = (0., 0., 0.);
    for (x, y, &Luma([value])) in small.enumerate_pixels() {
        let value = f64::from(value);
        mass += value;
        x_sum += value * (f64::from(x) + 0.5);
        y_sum += value * (f64::from(y) + 0.5);
    }
    let place = |side: u32, length: u32, centre: f64| {
        let free = f64::from(side - length);
        (f64::from(side) / 2. - centre).round().clamp(0., free) as i64
    };
    let x = place(width, small.width(), x_sum / mass);
    let y = place(height, small.height(), y_sum / mass);
    let mut canvas = GrayImage::new(width, height);
    let bytes = small
        .pixels()
        .map(|pixel| (pixel.0[0] * 255.).round() as u8);
    let bytes = GrayImage::from_vec(small.width(), small.height(), bytes.collect())?;
    imageops::overlay(&mut canvas, &bytes, x, y);
    Some(canvas)
}

/// Whether an image is framed already, as [`framed`] does it: light on black, the longest
/// side of the object within the margin and, if there is one, the centre of mass in the
/// middle.
pub fn is_framed(pixels: &[u8], width: usize, height: usize, margin: usize) -> bool {
    let at = |x: usize, y: usize| f64::from(pixels[y * width + x]);
    let places = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let is_border =
        |&(x, y): &(usize, usize)| x == 0 || y == 0 || x + 1 == width || y + 1 == height;
    let border = median(places().filter(is_border).map(|(x, y)| at(x, y)));
    let (mut box_x, mut box_y) = ((width, 0), (height, 0));
    let (mut mass, mut sums) = (0., [0., 0.]);
    for (x, y) in places() {
        let value = at(x, y);
        if value > LIGHT {
            box_x = (box_x.0.min(x), box_x.1.max(x + 1));
            box_y = (box_y.0.min(y), box_y.1.max(y + 1));
        }
        mass += value;
        sums[0] += value * (x as f64 + 0.5);
        sums[1] += value * (y as f64 + 0.5);
    }
    if border > LIGHT || box_x.0 >= box_x.1 {
        return false;
    }
    let is_near = |side: usize, (first, end): (usize, usize)| {
        (end - first).abs_diff(side.saturating_sub(2 * margin)) <= 1
    };
    let is_centred = |side: usize, sum: f64| (sum / mass - side as f64 / 2.).abs() <= 1.5;
    let is_in_the_middle = is_centred(width, sums[0]) && is_centred(height, sums[1]);
    (is_near(width, box_x) || is_near(height, box_y)) && (margin == 0 || is_in_the_middle)
}

/// A pixel of an object has more than this, of 255.
const LIGHT: f64 = 40.;

/// The object alone, from 0 for the ground to 1, cut to its size. Up to `frames` frames
/// around a sheet with the object are removed.
fn cut_out(image: &Grey, frames: u32) -> Option<Grey> {
    let (width, height) = image.dimensions();
    let (ground, grain) = ground(image);
    let off: Vec<f32> = image
        .pixels()
        .zip(&ground)
        .map(|(pixel, ground)| pixel.0[0] - ground)
        .collect();
    let threshold = otsu(&off).max(ABOVE_GRAIN * grain).max(VISIBLE / 2.);
    // The sign in which more of the image differs; a frame around it does not count.
    let weight = |sign: f32| -> f32 {
        let above = off.iter().map(|off| sign * off);
        above.filter(|off| *off > threshold).sum()
    };
    let sign = if weight(1.) >= weight(-1.) { 1. } else { -1. };
    let mask: Vec<bool> = off.iter().map(|off| sign * off > threshold).collect();
    let pieces = Pieces::of(&mask, width);
    let kept = pieces.kept(width, height);
    let largest = kept.first().map(|&piece| &pieces.found[piece])?;
    // Of many pixels of grain a few are far from the ground, alone or in twos.
    let is_grainy = ABOVE_GRAIN * grain > VISIBLE / 2.;
    if is_grainy && largest.pixels <= (width.max(height) / LONE).max(1) {
        return None;
    }
    if frames > 0 && largest.is_sheet(width, height) {
        // Paper on a scanner's lid: the object is on it.
        let [left, top, right, bottom] = largest.sides;
        let edge = 1 + (right - left).min(bottom - top) / 40;
        let (left, top) = (left + edge, top + edge);
        let (right, bottom) = (
            right.saturating_sub(edge).max(left + 1),
            bottom.saturating_sub(edge).max(top + 1),
        );
        let sheet = imageops::crop_imm(image, left, top, right - left, bottom - top).to_image();
        return cut_out(&sheet, frames - 1);
    }
    let mut peaks: Vec<f32> = (0..mask.len())
        .filter(|&at| kept.contains(&pieces.of_pixel[at]))
        .map(|at| sign * off[at])
        .collect();
    peaks.sort_by(f32::total_cmp);
    let peak = peaks[peaks.len() * 9 / 10];
    if peak < VISIBLE {
        return None;
    }
    // Soft edges are below the threshold, so the ramp begins at half of it.
    let foot = threshold / 2.;
    let [left, top, right, bottom] =
        kept.iter()
            .map(|&piece| pieces.found[piece].sides)
            .reduce(|a, b| {
                [
                    a[0].min(b[0]),
                    a[1].min(b[1]),
                    a[2].max(b[2]),
                    a[3].max(b[3]),
                ]
            })?;
    Some(Grey::from_fn(right - left, bottom - top, |x, y| {
        let at = ((top + y) * width + left + x) as usize;
        let is_kept = match pieces.of_pixel[at] {
            NOWHERE => true, // an edge, or ground, which is below the ramp
            piece => kept.contains(&piece),
        };
        let value = ((sign * off[at] - foot) / (peak - foot)).clamp(0., 1.);
        Luma([if is_kept { value } else { 0. }])
    }))
}

/// The brightness of the ground at every pixel, and the standard deviation of its grain:
/// a plane through the border that leaves out what does not lie on it.
fn ground(image: &Grey) -> (Vec<f32>, f32) {
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
        for (row, sums) in sums
            .iter_mut()
            .enumerate()
            .filter(|(row, _)| *row != column)
        {
            debug_assert!(row != column);
            let factor = sums[column] / pivot[column];
            for (sum, pivot) in sums.iter_mut().zip(pivot) {
                *sum -= factor * pivot;
            }
        }
    }
    Some([0, 1, 2].map(|row| sums[row][3] / sums[row][row]))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    if values.is_empty() {
        return 0.;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Otsu's threshold of the distances from the ground: the one that divides them into the
/// two groups with the least spread within each.
fn otsu(off: &[f32]) -> f32 {
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

/// The mark of a pixel that belongs to no piece.
const NOWHERE: usize = usize::MAX;

/// The connected pieces of a mask.
struct Pieces {
    /// The piece of each pixel.
    of_pixel: Vec<usize>,
    found: Vec<Piece>,
}

struct Piece {
    pixels: u32,
    /// Left and top, and the first column and row after it.
    sides: [u32; 4],
}

impl Pieces {
    /// Pixels that touch at a side or a corner are connected.
    fn of(mask: &[bool], width: u32) -> Self {
        let (width, mut of_pixel) = (width as usize, vec![NOWHERE; mask.len()]);
        let height = mask.len() / width.max(1);
        let (mut found, mut stack) = (Vec::new(), Vec::new());
        for start in 0..mask.len() {
            if !mask[start] || of_pixel[start] != NOWHERE {
                continue;
            }
            let number = found.len();
            let mut piece = Piece {
                pixels: 0,
                sides: [u32::MAX, u32::MAX, 0, 0],
            };
            of_pixel[start] = number;
            stack.push(start);
            while let Some(at) = stack.pop() {
                let (x, y) = (at % width, at / width);
                piece.add(x as u32, y as u32);
                for y in y.saturating_sub(1)..(y + 2).min(height) {
                    for x in x.saturating_sub(1)..(x + 2).min(width) {
                        let beside = y * width + x;
                        if mask[beside] && of_pixel[beside] == NOWHERE {
                            of_pixel[beside] = number;
                            stack.push(beside);
                        }
                    }
                }
            }
            found.push(piece);
        }
        Self { of_pixel, found }
    }

    /// The pieces of the object, the largest first: no specks, and nothing that comes in
    /// from the border if something else is there.
    fn kept(&self, width: u32, height: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by_key(|&piece| std::cmp::Reverse(self.found[piece].pixels));
        let touches = |&piece: &usize| {
            let [left, top, right, bottom] = self.found[piece].sides;
            left == 0 || top == 0 || right == width || bottom == height
        };
        let free = order.iter().copied().find(|piece| !touches(piece));
        let Some(&first) = order.first() else {
            return order;
        };
        if let Some(free) = free {
            // An object that is cut off by the border stays; a shadow in a corner does not.
            if touches(&first) && self.found[free].pixels * 8 >= self.found[first].pixels {
                order.retain(|piece| !touches(piece));
            }
        }
        let largest = order.first().map_or(0, |&piece| self.found[piece].pixels);
        let least = (SPECK * largest as f32).max(1.);
        order.retain(|&piece| self.found[piece].pixels as f32 >= least);
        order
    }
}

impl Piece {
    fn add(&mut self, x: u32, y: u32) {
        self.pixels += 1;
        let [left, top, right, bottom] = self.sides;
        self.sides = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
    }

    /// Whether this is a sheet with straight sides that fills much of the image, rather
    /// than an object.
    fn is_sheet(&self, width: u32, height: u32) -> bool {
        let [left, top, right, bottom] = self.sides;
        let area = (right - left) * (bottom - top);
        // What is written on it is missing from its pixels.
        width.min(height) >= 32
            && area as f32 >= 0.4 * (width * height) as f32
            && self.pixels as f32 >= 0.75 * area as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bar of brightness `ink` on `paper(x, y)`.
    fn bar(paper: impl Fn(u32, u32) -> f32, ink: f32) -> Grey {
        let inside = |x: u32, y: u32| (60..80).contains(&x) && (40..140).contains(&y);
        Grey::from_fn(200, 180, |x, y| {
            Luma([if inside(x, y) { ink } else { paper(x, y) }])
        })
    }

    fn is_the_bar(image: &Grey) {
        let found = framed(image, 28, 28, 4).expect("the bar is to be seen");
        let rows = (0..28).filter(|&y| (0..28).any(|x| found.get_pixel(x, y).0[0] > 128));
        let columns = (0..28).filter(|&x| (0..28).any(|y| found.get_pixel(x, y).0[0] > 128));
        assert_eq!((rows.count(), columns.count()), (20, 4));
        assert_eq!(found.get_pixel(2, 2).0[0], 0);
    }

    #[test]
    fn ink_is_found_on_any_ground() {
        is_the_bar(&bar(|_, _| 0.98, 0.04)); // white paper
        is_the_bar(&bar(|_, _| 0.35, 0.04)); // in a dark room
        is_the_bar(&bar(|_, _| 0.2, 0.9)); // chalk
        is_the_bar(&bar(|_, _| 0.5, 0.62)); // pencil the other way round
        is_the_bar(&bar(|x, _| 0.86 - 0.002 * x as f32, 0.08)); // a shadow
        is_the_bar(&bar(|x, y| 0.8 - 0.001 * x as f32 - 0.002 * y as f32, 0.1));
    }

    #[test]
    fn grain_and_specks_are_not_the_object() {
        let mut rng = crate::flow::random::stream(1, "test", 0);
        let mut grainy = bar(|_, _| 0.8, 0.2);
        for pixel in grainy.pixels_mut() {
            pixel.0[0] += 0.1 * (crate::flow::random::unit(&mut rng) as f32 - 0.5);
        }
        is_the_bar(&grainy);
        let mut dirty = bar(|_, _| 0.9, 0.1);
        for (x, y) in [(10, 10), (150, 20), (30, 160), (180, 170)] {
            dirty.put_pixel(x, y, Luma([0.1]));
        }
        is_the_bar(&dirty);
    }

    #[test]
    fn the_frame_around_a_sheet_is_removed() {
        let frame = |x: u32, y: u32| x < 8 || y < 8 || x >= 192 || y >= 172;
        is_the_bar(&bar(|x, y| if frame(x, y) { 0. } else { 1. }, 0.05));
        is_the_bar(&bar(|x, y| if frame(x, y) { 1. } else { 0.1 }, 0.9));
    }

    #[test]
    fn on_a_blank_page_there_is_nothing() {
        for value in [0., 0.5, 1.] {
            assert!(framed(&bar(|_, _| value, value), 28, 28, 4).is_none());
        }
        let mut rng = crate::flow::random::stream(1, "test", 0);
        let grain = Grey::from_fn(100, 100, |_, _| {
            Luma([0.9 + 0.05 * (crate::flow::random::unit(&mut rng) as f32 - 0.5)])
        });
        assert!(framed(&grain, 28, 28, 4).is_none());
        assert!(framed(&Grey::from_pixel(1, 1, Luma([1.])), 28, 28, 4).is_none());
        // Normal grain has numbers far from its mean.
        for (side, deviation) in [(100, 0.02), (100, 0.08), (320, 0.02), (320, 0.08)] {
            for _ in 0..5 {
                let page = Grey::from_fn(side, side, |_, _| {
                    let mut unit = || crate::flow::random::unit(&mut rng) as f32;
                    let normal = (0..12).map(|_| unit()).sum::<f32>() - 6.;
                    Luma([(0.7 + deviation * normal).clamp(0., 1.)])
                });
                assert!(framed(&page, 28, 28, 4).is_none(), "{side} {deviation}");
            }
        }
    }

    #[test]
    fn a_large_object_is_an_object() {
        // A shirt fills most of the image, and touches its border.
        let shirt = Grey::from_fn(28, 28, |x, y| {
            let inside = (6..22).contains(&x) || (4..10).contains(&y);
            Luma([if inside { 0.8 } else { 0. }])
        });
        let found = framed(&shirt, 28, 28, 0).expect("it is to be seen");
        assert!(found.get_pixel(14, 14).0[0] > 200 && found.get_pixel(2, 20).0[0] == 0);
    }
}
