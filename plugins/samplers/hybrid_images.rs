//! Sampler `hybrid_images`: negatives without labels, mixed from two images.

use onward_core::candle_core::Tensor;
use onward_core::flow::random::below;
use onward_core::{
    Batch, BuildContext, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Views,
};
use rand::Rng;
use rayon::prelude::*;

onward_core::settings! {
    /// The image itself as the positive view, and a hybrid of two images as the negative
    /// view: large regions of both, so that it looks like an image locally but not
    /// globally. No label is used.
    ///
    /// A mask `m` of random bits, blurred `blurs` times with `[¼, ½, ¼]` in both
    /// directions and thresholded at ½, selects one of the two images for each pixel:
    /// `x⁻ = m·a + (1 − m)·b`, with another image `b` of the batch. All channels share a
    /// mask.
    ///
    /// | tensor   | shape            |                                    |
    /// |----------|------------------|------------------------------------|
    /// | examples | `(B, C, H, W)`   | any size, any number of channels   |
    /// | `m`      | `(B, H, W)`      | 0 or 1                             |
    ///
    /// A batch needs at least two images.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.2
    /// (<https://arxiv.org/abs/2212.13345>), which does not say how often the bits are
    /// blurred.
    pub struct HybridImages {
        /// The number of blurs of the random bits; more blurs give larger regions.
        blurs: usize = 6, in 1..=100;
    }
}

struct Sampler {
    blurs: usize,
    size: [usize; 2],
}

impl Sampler {
    fn new(settings: &HybridImages, context: &BuildContext) -> Result<Self> {
        let size = match context.example[..] {
            [_, height, width] | [height, width]
                if context.tokenizer.is_none() && height * width > 1 =>
            {
                [height, width]
            }
            _ => {
                return Err(Error::unfit(
                    "hybrid_images",
                    format!(
                        "expected images of more than one pixel, found shape {:?}",
                        context.example
                    ),
                ));
            }
        };
        Ok(Self {
            blurs: settings.blurs,
            size,
        })
    }
}

impl Sampler {
    /// A mask of smooth random regions for each example, `H·W` values of 0 or 1 of which
    /// both occur. The bits are drawn one mask after the other.
    fn masks(&self, count: usize, rng: &mut impl Rng) -> Result<Vec<Vec<f32>>> {
        let mut masks: Vec<_> = (0..count).map(|_| bits(self.size, rng)).collect();
        let smooth = |mask: &mut Vec<f32>| smooth(mask, self.size, self.blurs);
        masks.par_iter_mut().for_each(smooth);
        for mask in &mut masks {
            let mut attempts = 0;
            while is_constant(mask) {
                if attempts == ATTEMPTS {
                    return Err(self.too_many_blurs());
                }
                *mask = bits(self.size, rng);
                smooth(mask);
                attempts += 1;
            }
        }
        Ok(masks)
    }

    fn too_many_blurs(&self) -> Error {
        let [height, width] = self.size;
        let problem = format!(
            "`blurs` is {}: after so many, no random mask of {height} by {width} pixels has \
             regions of both images; expected fewer",
            self.blurs
        );
        Error::unfit("hybrid_images", problem)
    }
}

/// How often a constant mask is drawn again. With the most blurs about one of ten masks
/// of 8 by 8 pixels is not constant, and none of 3 by 3 pixels.
const ATTEMPTS: usize = 1000;

/// A constant mask would make a "negative" of one whole image.
fn is_constant(mask: &[f32]) -> bool {
    mask.iter().all(|value| *value == mask[0])
}

/// Random values of 0 or 1.
fn bits([height, width]: [usize; 2], rng: &mut impl Rng) -> Vec<f32> {
    let mut mask: Vec<f32> = Vec::with_capacity(height * width + 64);
    while mask.len() < height * width {
        let bits = rng.next_u64();
        mask.extend((0..64).map(|bit| (bits >> bit & 1) as f32));
    }
    mask.truncate(height * width);
    mask
}

/// Blurs a mask in both directions and thresholds it.
fn smooth(mask: &mut [f32], [_, width]: [usize; 2], blurs: usize) {
    let mut along = vec![0.; mask.len()];
    for _ in 0..blurs {
        for (along, row) in along.chunks_exact_mut(width).zip(mask.chunks_exact(width)) {
            blur_along(along, row);
        }
        blur_down(mask, &along, width);
    }
    mask.iter_mut()
        .for_each(|value| *value = if *value > 0.5 { 1. } else { 0. });
}

/// Blurs with `[¼, ½, ¼]`; the values at the ends are repeated beyond them.
fn blur(before: f32, here: f32, after: f32) -> f32 {
    0.25 * before + 0.5 * here + 0.25 * after
}

/// Blurs a row.
fn blur_along(to: &mut [f32], row: &[f32]) {
    let last = row.len() - 1;
    for (value, near) in to[1..].iter_mut().zip(row.windows(3)) {
        *value = blur(near[0], near[1], near[2]);
    }
    to[last] = blur(row[last.saturating_sub(1)], row[last], row[last]);
    to[0] = blur(row[0], row[0], row[last.min(1)]);
}

/// Blurs all columns, row by row.
fn blur_down(to: &mut [f32], mask: &[f32], width: usize) {
    let last = mask.len() / width - 1;
    let row = |index: usize| &mask[index * width..][..width];
    for (index, values) in to.chunks_exact_mut(width).enumerate() {
        let (before, here) = (row(index.saturating_sub(1)), row(index));
        let after = row((index + 1).min(last));
        let pixels = before.iter().zip(here).zip(after);
        for (value, ((before, here), after)) in values.iter_mut().zip(pixels) {
            *value = blur(*before, *here, *after);
        }
    }
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (rows, size, [height, width]) = (batch.rows(), batch.size(), self.size);
        let mut rng = step.stream("hybrids");
        // The other image of an example is `distance` places after it in the batch.
        let distance = 1 + below(&mut rng, size - 1);
        let others = (0..size).map(|index| ((index + distance) % size) as u32);
        let others: Vec<u32> = others.collect();
        let channels = rows.dim(1)? / (height * width);
        let masks = self.masks(size, &mut rng)?;
        let masks = masks.iter().flat_map(|mask| mask.repeat(channels));
        let is_own: Vec<u8> = masks.map(|value| u8::from(value > 0.5)).collect();
        let is_own = Tensor::from_vec(is_own, rows.shape(), rows.device())?;
        let other = rows.index_select(&Tensor::new(others, rows.device())?, 0)?;
        let hybrids = is_own.where_cond(rows, &other)?;
        let both =
            Tensor::cat(&[rows, &hybrids], 0)?.reshape([&[2 * size], batch.shape()].concat())?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn smallest_batch(&self) -> usize {
        2
    }
}

onward_core::register! {
    dyn NegativeSampler, "hybrid_images",
    "two images mixed through a smooth random mask, no labels \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: HybridImages, context| Ok(Box::new(Sampler::new(&settings, context)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::plugin;
    use onward_core::settings::Pick;
    use onward_core::Vars;

    fn step(index: u64) -> Step {
        Step {
            index,
            ..Step::first(1)
        }
    }

    fn never() -> Prediction<'static> {
        Prediction::new(|| panic!("hybrids need no prediction"))
    }

    #[test]
    fn every_pixel_of_a_hybrid_is_from_one_of_two_images_in_all_channels() -> Result<()> {
        let (count, height, width) = (5, 8, 6);
        // Image i has the value i in the first channel and i + 10 in the second.
        let values = (0..count).flat_map(|image| {
            [0., 10.].map(|channel| vec![image as f32 + channel; height * width])
        });
        let images = Tensor::from_iter(values.flatten(), &Device::Cpu)?
            .reshape((count, 2, height, width))?;
        let sampler = Sampler {
            blurs: 2,
            size: [height, width],
        };
        let views = sampler.views(&Batch::unlabelled(images)?, &never(), &step(3))?;
        let rows = views.input.join()?.flatten_from(1)?.to_vec2::<f32>()?;
        let mut mixed = 0;
        for image in 0..count {
            let (first, second) = rows[count + image].split_at(height * width);
            let own = first.iter().filter(|&&value| value == image as f32).count();
            let others: Vec<f32> = first
                .iter()
                .copied()
                .filter(|&value| value != image as f32)
                .collect();
            assert!(
                others.windows(2).all(|pair| pair[0] == pair[1]),
                "more than two images in a hybrid"
            );
            assert!(first
                .iter()
                .zip(second)
                .all(|(first, second)| second - first == 10.));
            mixed += usize::from(own > 0 && own < height * width);
        }
        assert!(mixed >= 4, "{mixed} of {count} are hybrids");
        Ok(())
    }

    #[test]
    fn blurring_makes_regions_larger() {
        let borders = |blurs: usize| -> usize {
            let mut mask = bits([28, 28], &mut step(0).stream("test"));
            smooth(&mut mask, [28, 28], blurs);
            mask.chunks_exact(28)
                .map(|row| row.windows(2).filter(|pair| pair[0] != pair[1]).count())
                .sum()
        };
        assert!(
            borders(1) > borders(4) && borders(4) > borders(20),
            "{} {} {}",
            borders(1),
            borders(4),
            borders(20)
        );
    }

    /// The definition, pixel by pixel.
    fn blurred_plainly(mask: &[f32], [height, width]: [usize; 2], blurs: usize) -> Vec<f32> {
        let mut values = mask.to_vec();
        for _ in 0..blurs {
            for (rows, columns) in [(0, 1), (1, 0)] {
                let copy = values.clone();
                let at = |row: usize, column: usize| {
                    copy[row.min(height - 1) * width + column.min(width - 1)]
                };
                for (index, value) in values.iter_mut().enumerate() {
                    let (row, column) = (index / width, index % width);
                    let before = at(row.saturating_sub(rows), column.saturating_sub(columns));
                    let after = at(row + rows, column + columns);
                    *value = 0.25 * before + 0.5 * at(row, column) + 0.25 * after;
                }
            }
        }
        let threshold = |value| if value > 0.5 { 1. } else { 0. };
        values.into_iter().map(threshold).collect()
    }

    #[test]
    fn masks_are_those_of_the_definition_drawn_in_order() -> Result<()> {
        for size in [[28, 28], [5, 9], [1, 7], [6, 1]] {
            let sampler = Sampler { blurs: 3, size };
            let found = sampler.masks(4, &mut step(2).stream("test"))?;
            let mut rng = step(2).stream("test");
            let drawn: Vec<_> = (0..4).map(|_| bits(size, &mut rng)).collect();
            for (found, drawn) in found.iter().zip(&drawn) {
                let expected = blurred_plainly(drawn, size, 3);
                assert!(*found == expected || is_constant(&expected), "{size:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_mask_has_regions_of_both_images_or_blurs_are_refused() -> Result<()> {
        let masks = |blurs: usize, size: [usize; 2]| {
            let sampler = Sampler { blurs, size };
            sampler.masks(50, &mut step(1).stream("test"))
        };
        for (blurs, size) in [(1, [1, 2]), (100, [4, 4]), (100, [28, 28])] {
            assert!(!masks(blurs, size)?.iter().any(|mask| is_constant(mask)));
        }
        let error = masks(100, [3, 3]).unwrap_err().to_string();
        assert!(
            error.contains("hybrid_images") && error.contains("`blurs`"),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn one_image_cannot_be_mixed() -> Result<()> {
        let one = Batch::unlabelled(Tensor::zeros((1, 1, 4, 4), DType::F32, &Device::Cpu)?)?;
        let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
        context.example = vec![1, 4, 4];
        let sampler = plugin::build(&Pick::<dyn NegativeSampler>::new("hybrid_images"), &context)?;
        let error = sampler
            .views(&one, &never(), &step(0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("hybrid_images") && error.contains("`batch`"),
            "{error}"
        );
        Ok(())
    }
}
