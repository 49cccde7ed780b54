//! Whether pictures are colour photographs.

use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::DynamicImage;

use super::{open, pictures_in};

/// The pictures that are looked at, from all parts of the folder.
const LOOKED_AT: usize = 24;

/// The standard deviation of the difference of two channels, of 255, from which a picture
/// is colourful. Yellow paper has a large difference, but everywhere the same.
const COLOURFUL: f64 = 8.;

/// Whether most pictures below a folder are colourful; `false` if none can be read.
pub fn are_colourful(dir: &Path) -> bool {
    let files = pictures_in(dir).unwrap_or_default();
    let step = files.len().div_ceil(LOOKED_AT).max(1);
    let looked_at: Vec<PathBuf> = files.into_iter().step_by(step).collect();
    let pictures = looked_at.iter().filter_map(|file| open(file).ok());
    let found: Vec<bool> = pictures.map(|picture| is_colourful(&picture)).collect();
    let colourful = found.iter().filter(|is_one| **is_one).count();
    2 * colourful > found.len()
}

fn is_colourful(picture: &DynamicImage) -> bool {
    if !picture.color().has_color() {
        return false;
    }
    let small = picture.resize_exact(32, 32, FilterType::Triangle).to_rgb8();
    let spread = |one: usize, other: usize| {
        let differences = small
            .pixels()
            .map(|pixel| f64::from(pixel[one]) - f64::from(pixel[other]));
        let differences: Vec<f64> = differences.collect();
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        let squares = differences
            .iter()
            .map(|difference| (difference - mean).powi(2));
        (squares.sum::<f64>() / differences.len() as f64).sqrt()
    };
    spread(0, 1).max(spread(1, 2)).max(spread(0, 2)) > COLOURFUL
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn picture(colour: impl Fn(u32, u32) -> [u8; 3]) -> DynamicImage {
        RgbImage::from_fn(40, 30, |x, y| Rgb(colour(x, y))).into()
    }

    #[test]
    fn a_photograph_has_colours_and_a_scan_has_none() {
        let sky = picture(|_, y| {
            if y < 15 {
                [90, 140, 220]
            } else {
                [60, 120, 40]
            }
        });
        let ink = |x: u32| if x % 10 < 2 { 30 } else { 0 };
        let paper = picture(|x, _| [250 - ink(x), 240 - ink(x), 215 - ink(x)]);
        let grey = picture(|x, y| [(x * 5 + y) as u8; 3]);
        assert!(is_colourful(&sky) && !is_colourful(&paper) && !is_colourful(&grey));
        assert!(!is_colourful(&DynamicImage::ImageLuma8(sky.to_luma8())));
    }

    #[test]
    fn most_of_the_pictures_decide() {
        let folder = tempfile::tempdir().unwrap();
        let sky = picture(|x, y| [(6 * x) as u8, (8 * y) as u8, 90]);
        let grey = picture(|x, _| [x as u8; 3]);
        for number in 0..4 {
            let path = |name: &str| folder.path().join(format!("{name}{number}.png"));
            sky.save(path("sky")).unwrap();
            if number < 3 {
                grey.save(path("grey")).unwrap();
            }
        }
        assert!(are_colourful(folder.path()));
        std::fs::remove_file(folder.path().join("sky0.png")).unwrap();
        assert!(!are_colourful(folder.path()));
        assert!(!are_colourful(&folder.path().join("nowhere")));
    }
}
