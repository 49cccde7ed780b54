//! Sampler `hybrid_images`: negatives without labels, mixed from two images.

use onward_core::candle_core::{Device, Tensor};
use onward_core::flow::random::below;
use onward_core::{
    Batch, BuildContext, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Views,
};
use rand::Rng;

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

/// A mask of smooth random regions, `H·W` values of 0 or 1.
fn mask([height, width]: [usize; 2], blurs: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut mask: Vec<f32> = Vec::with_capacity(height * width + 64);
    while mask.len() < height * width {
        let bits = rng.next_u64();
        mask.extend((0..64).map(|bit| (bits >> bit & 1) as f32));
    }
    mask.truncate(height * width);
    let mut line = vec![0f32; height.max(width)];
    for _ in 0..blurs {
        for row in mask.chunks_exact_mut(width) {
            blur(row, &mut line);
        }
        for column in 0..width {
            let mut values: Vec<f32> = mask[column..].iter().step_by(width).copied().collect();
            blur(&mut values, &mut line);
            mask[column..]
                .iter_mut()
                .step_by(width)
                .zip(values)
                .for_each(|(to, from)| *to = from);
        }
    }
    mask.iter_mut()
        .for_each(|value| *value = if *value > 0.5 { 1. } else { 0. });
    mask
}

/// Blurs with `[¼, ½, ¼]`; the values at the ends are repeated beyond them.
fn blur(line: &mut [f32], copy: &mut [f32]) {
    let copy = &mut copy[..line.len()];
    copy.copy_from_slice(line);
    for (index, value) in line.iter_mut().enumerate() {
        let (before, after) = (
            copy[index.saturating_sub(1)],
            copy[(index + 1).min(copy.len() - 1)],
        );
        *value = 0.25 * before + 0.5 * copy[index] + 0.25 * after;
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
        let masks = (0..size).flat_map(|_| mask(self.size, self.blurs, &mut rng).repeat(channels));
        let masks = Tensor::from_iter(masks, &Device::Cpu)?.reshape(rows.shape())?;
        let masks = masks.to_dtype(rows.dtype())?.to_device(rows.device())?;
        let other = rows.index_select(&Tensor::new(others, rows.device())?, 0)?;
        let hybrids = (&other + ((rows - &other)? * masks)?)?;
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
    use onward_core::candle_core::DType;
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
            let mask = mask([28, 28], blurs, &mut step(0).stream("test"));
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
