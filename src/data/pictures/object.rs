//! The object in an image: a digit on paper, a chalk stroke on a board, a piece of
//! clothing.
//!
//! Nothing is known about the brightness of the ground, so no fixed level decides. The
//! ground is what the border of the image shows: a plane through its brightness, which
//! follows a shadow. The object is what differs from it, whether darker or lighter, by
//! more than Otsu's threshold (1979) and more than the grain of the ground.

use std::fmt;

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageBuffer, Luma};

use super::ground::{ground, median, otsu};
use super::pieces::{Piece, Pieces, NOWHERE};

/// Brightness of the pixels, from 0 to 1.
pub type Grey = ImageBuffer<Luma<f32>, Vec<f32>>;

/// The longest side of the image in which the object is searched. Grain is averaged away
/// in a larger one.
const LONGEST: u32 = 320;
/// The difference in brightness from which anything is an object, as a share of the full
/// range.
const VISIBLE: f32 = 0.06;
/// The difference from which something with sharp edges is an object: four levels of 255.
const FAINT: f32 = 4. / 255.;
/// Objects stand out from the grain of the ground by this many of its standard
/// deviations.
const ABOVE_GRAIN: f32 = 4.;
/// Something faint has to stand out by this many: of many pixels a few are far from the
/// ground.
const FAINT_ABOVE_GRAIN: f32 = 6.;
/// On a ground with grain, a piece of at most this part of the longest side, in pixels,
/// is grain too.
const LONE: u32 = 40;
/// What was found in an image.
pub enum Found {
    /// An object, framed, and the number of objects that are framed together in it.
    Object(GrayImage, usize),
    /// Nothing.
    Nothing(Contrast),
}

/// How much of an image differs from its ground, in levels of 255.
#[derive(Clone, Copy, Debug)]
pub struct Contrast {
    /// The most that something differs.
    pub most: f32,
    /// From which on something is an object.
    pub least: f32,
}

impl fmt::Display for Contrast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { most, least } = self;
        if *most < 0.5 {
            f.write_str("everything has the same brightness")
        } else if *least >= 255. {
            f.write_str("no object stands out from the grain and the shades of the ground")
        } else if most < least {
            write!(
                f,
                "the contrast is too low: {most:.0} of 255 levels, expected {least:.0} or more \
                 above the grain and the shades of the ground"
            )
        } else {
            f.write_str("there are only specks")
        }
    }
}

/// Frames the object in an image: light on black, within a margin, with its centre of
/// mass in the middle.
pub fn framed(mut image: Grey, width: u32, height: u32, margin: u32) -> Found {
    let longest = image.width().max(image.height());
    if longest > LONGEST {
        let side = |side: u32| (side * LONGEST / longest).max(1);
        let (width, height) = (side(image.width()), side(image.height()));
        image = imageops::resize(&image, width, height, FilterType::Triangle);
    }
    // Only writing has sheets around it; a bag with straight sides is no sheet.
    match cut_out(&image, if margin > 0 { 2 } else { 0 }) {
        Ok(cut) => Found::Object(placed(&cut.ink, width, height, margin), cut.objects),
        Err(contrast) => Found::Nothing(contrast),
    }
}

/// The object in the middle of an image of this size.
fn placed(ink: &Grey, width: u32, height: u32, margin: u32) -> GrayImage {
    let room = |side: u32| f64::from(side.saturating_sub(2 * margin).max(1));
    let scale = (room(width) / f64::from(ink.width())).min(room(height) / f64::from(ink.height()));
    let side = |length: u32, most: u32| ((f64::from(length) * scale).round() as u32).clamp(1, most);
    let (wide, tall) = (side(ink.width(), width), side(ink.height(), height));
    let small = imageops::resize(ink, wide, tall, FilterType::Triangle);
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
    let bytes = GrayImage::from_fn(small.width(), small.height(), |x, y| {
        Luma([(small.get_pixel(x, y).0[0] * 255.).round() as u8])
    });
    imageops::overlay(&mut canvas, &bytes, x, y);
    canvas
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

/// An object that is cut out.
struct Cut {
    /// From 0 for the ground to 1, of the object's size.
    ink: Grey,
    /// The number of objects in it.
    objects: usize,
}

/// Cuts out the object. Up to `frames` frames around a sheet with the object are removed.
fn cut_out(image: &Grey, frames: u32) -> Result<Cut, Contrast> {
    let (width, height) = image.dimensions();
    let (ground, grain) = ground(image);
    let mut off: Vec<f32> = image
        .pixels()
        .zip(&ground)
        .map(|(pixel, ground)| pixel.0[0] - ground)
        .collect();
    let threshold = otsu(&off).max(ABOVE_GRAIN * grain).max(FAINT / 2.);
    // The sign in which more of the image differs; a frame around it does not count.
    let weight = |sign: f32| -> f32 {
        let above = off.iter().map(|off| sign * off);
        above.filter(|off| *off > threshold).sum()
    };
    if weight(1.) < weight(-1.) {
        off.iter_mut().for_each(|off| *off = -*off);
    }
    let mask: Vec<bool> = off.iter().map(|off| *off > threshold).collect();
    let pieces = Pieces::of(&mask, width);
    let kept = pieces.kept(width, height);
    let above_grain = FAINT.max(FAINT_ABOVE_GRAIN * grain);
    let nothing = |most: f32, least: f32| Contrast {
        most: 255. * most,
        least: 255. * least.min(1.),
    };
    let most = off.iter().fold(0f32, |most, off| most.max(off.abs()));
    let Some(largest) = kept.first().map(|&piece| &pieces.found[piece]) else {
        return Err(nothing(most, above_grain));
    };
    // Of many pixels of grain a few are far from the ground, alone or in twos.
    let is_grainy = ABOVE_GRAIN * grain > FAINT / 2.;
    if is_grainy && largest.pixels <= (width.max(height) / LONE).max(1) {
        return Err(nothing(most, above_grain));
    }
    if frames > 0 && largest.is_sheet(width, height) {
        return cut_out(&sheet(image, largest), frames - 1);
    }
    let mut peaks: Vec<f32> = (0..mask.len())
        .filter(|&at| kept.contains(&pieces.of_pixel[at]))
        .map(|at| off[at])
        .collect();
    peaks.sort_by(f32::total_cmp);
    let peak = peaks[peaks.len() * 9 / 10];
    let least = above_grain.min(VISIBLE);
    if peak < least {
        return Err(nothing(peak, least));
    }
    // A shade of the paper has no edges, unlike a stroke.
    if peak < VISIBLE && edge(&off, &mask, width) < peak / 2. {
        return Err(nothing(peak, VISIBLE));
    }
    // Soft edges are below the threshold, so the ramp begins at half of it.
    let foot = threshold / 2.;
    let [left, top, right, bottom] = pieces.sides(&kept);
    let ink = Grey::from_fn(right - left, bottom - top, |x, y| {
        let at = ((top + y) * width + left + x) as usize;
        let is_kept = match pieces.of_pixel[at] {
            NOWHERE => true, // an edge, or ground, which is below the ramp
            piece => kept.contains(&piece),
        };
        let value = ((off[at] - foot) / (peak - foot)).clamp(0., 1.);
        Luma([if is_kept { value } else { 0. }])
    });
    let objects = pieces.objects(&kept, width);
    Ok(Cut { ink, objects })
}

/// The inside of a sheet, such as paper on a scanner's lid: the object is on it.
fn sheet(image: &Grey, found: &Piece) -> Grey {
    let [left, top, right, bottom] = found.sides;
    let edge = 1 + (right - left).min(bottom - top) / 40;
    let (left, top) = (left + edge, top + edge);
    let right = right.saturating_sub(edge).max(left + 1);
    let bottom = bottom.saturating_sub(edge).max(top + 1);
    imageops::crop_imm(image, left, top, right - left, bottom - top).to_image()
}

/// The mean height of the edges of a mask: the largest difference within [`EDGE`] pixels.
fn edge(off: &[f32], mask: &[bool], width: u32) -> f32 {
    let width = width as usize;
    let height = mask.len() / width;
    let around = |at: usize, by: usize| {
        let (x, y) = (at % width, at / width);
        let columns = x.saturating_sub(by)..(x + by + 1).min(width);
        let rows = y.saturating_sub(by)..(y + by + 1).min(height);
        rows.flat_map(move |y| columns.clone().map(move |x| y * width + x))
    };
    let on_edge = |at: &usize| mask[*at] && around(*at, 1).any(|beside| !mask[beside]);
    let (mut sum, mut count) = (0., 0.);
    for at in (0..mask.len()).filter(on_edge) {
        let values = || around(at, EDGE).map(|at| off[at]);
        sum += values().fold(f32::MIN, f32::max) - values().fold(f32::MAX, f32::min);
        count += 1.;
    }
    if count > 0. {
        sum / count
    } else {
        0.
    }
}

/// The width of a soft edge, in pixels of the image in which the object is searched.
const EDGE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(image: Grey, margin: u32) -> Option<GrayImage> {
        match framed(image, 28, 28, margin) {
            Found::Object(image, _) => Some(image),
            Found::Nothing(_) => None,
        }
    }

    /// A bar of brightness `ink` on `paper(x, y)`.
    fn bar(paper: impl Fn(u32, u32) -> f32, ink: f32) -> Grey {
        let inside = |x: u32, y: u32| (60..80).contains(&x) && (40..140).contains(&y);
        Grey::from_fn(200, 180, |x, y| {
            Luma([if inside(x, y) { ink } else { paper(x, y) }])
        })
    }

    fn is_the_bar(image: &Grey) {
        let found = found(image.clone(), 4).expect("the bar is to be seen");
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
            assert!(found(bar(|_, _| value, value), 4).is_none());
        }
        let mut rng = crate::flow::random::stream(1, "test", 0);
        let grain = Grey::from_fn(100, 100, |_, _| {
            Luma([0.9 + 0.05 * (crate::flow::random::unit(&mut rng) as f32 - 0.5)])
        });
        assert!(found(grain, 4).is_none());
        assert!(found(Grey::from_pixel(1, 1, Luma([1.])), 4).is_none());
        // Normal grain has numbers far from its mean.
        for (side, deviation) in [(100, 0.02), (100, 0.08), (320, 0.02), (320, 0.08)] {
            for _ in 0..5 {
                let page = Grey::from_fn(side, side, |_, _| {
                    let mut unit = || crate::flow::random::unit(&mut rng) as f32;
                    let normal = (0..12).map(|_| unit()).sum::<f32>() - 6.;
                    Luma([(0.7 + deviation * normal).clamp(0., 1.)])
                });
                assert!(found(page, 4).is_none(), "{side} {deviation}");
            }
        }
    }

    /// The brightness of paper with normal grain of this deviation.
    fn grainy(side: u32, paper: f32, deviation: f32, mark: impl Fn(u32, u32) -> f32) -> Grey {
        let mut rng = crate::flow::random::stream(1, "test", u64::from(side));
        Grey::from_fn(side, side, |x, y| {
            let mut unit = || crate::flow::random::unit(&mut rng) as f32;
            let normal = (0..12).map(|_| unit()).sum::<f32>() - 6.;
            let level = 255. * (paper + deviation * normal - mark(x, y));
            Luma([level.round() / 255.])
        })
    }

    #[test]
    fn a_faint_object_is_found_where_no_grain_hides_it() {
        let levels = |count: f32| count / 255.;
        for faint in [5., 8., 12.] {
            is_the_bar(&bar(|_, _| 0.9, 0.9 - levels(faint)));
            is_the_bar(&bar(|_, _| 0.1, 0.1 + levels(faint)));
        }
        let stroke = |depth: f32| {
            move |x: u32, y: u32| match (60..70).contains(&x) && (40..120).contains(&y) {
                true => levels(depth),
                false => 0.,
            }
        };
        let slight = grainy(160, 0.8, levels(0.8), stroke(10.));
        assert!(found(slight, 4).is_some());
        let hidden = grainy(160, 0.8, levels(3.), stroke(6.));
        let Found::Nothing(contrast) = framed(hidden, 28, 28, 4) else {
            panic!("it is in the grain");
        };
        assert!(contrast.most < contrast.least, "{contrast:?}");
        let said = contrast.to_string();
        assert!(said.starts_with("the contrast is too low: "), "{said}");
    }

    #[test]
    fn a_shade_of_the_paper_is_no_faint_object() {
        // Lighter in the middle, as under a lamp.
        let lamp = Grey::from_fn(200, 200, |x, y| {
            let far = (f32::from(x as u16) - 100.).hypot(f32::from(y as u16) - 100.) / 100.;
            Luma([((0.8 - 0.02 * far * far) * 255.).round() / 255.])
        });
        assert!(found(lamp, 4).is_none());
        let Found::Nothing(blank) = framed(bar(|_, _| 0.5, 0.5), 28, 28, 4) else {
            panic!("it is blank");
        };
        assert_eq!(blank.to_string(), "everything has the same brightness");
    }

    #[test]
    fn a_large_object_is_an_object() {
        // A shirt fills most of the image, and touches its border.
        let shirt = Grey::from_fn(28, 28, |x, y| {
            let inside = (6..22).contains(&x) || (4..10).contains(&y);
            Luma([if inside { 0.8 } else { 0. }])
        });
        let found = found(shirt, 0).expect("it is to be seen");
        assert!(found.get_pixel(14, 14).0[0] > 200 && found.get_pixel(2, 20).0[0] == 0);
    }
}
