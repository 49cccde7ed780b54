//! Adds a sampler of negative views without labels, and trains layers with it.
//!
//! A softmax on top of the layers learns the labels. The layers never see them.
//!
//! ```text
//! $ cargo run --release --example 03_a_new_sampler
//! hybrid_images: test error 3.5%
//! patches: test error 3.8%
//! ```

use onward::candle_core::{Device, Tensor};
use onward::flow::random::below;
use onward::{
    Batch, BuildContext, Error, Input, NegativeSampler, Prediction, Result, Role, Run, Step, Views,
};

onward::settings! {
    /// Negative views: the image with a patch of the next image of the batch.
    ///
    /// The positive view is the image itself. The patch has half the height and half the
    /// width of the image, and a random position: `(B, C, H, W)` to `(B, C, H, W)`.
    pub struct Patches {}
}

struct Sampler([usize; 2]);

impl Sampler {
    fn new(context: &BuildContext) -> Result<Self> {
        match context.example[..] {
            [_, height, width] if context.tokenizer.is_none() => Ok(Self([height, width])),
            _ => {
                let found = &context.example;
                let problem = format!("expected images (channels, height, width), found {found:?}");
                Err(Error::unfit("patches", problem))
            }
        }
    }
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (images, size, [height, width]) = (batch.examples(), batch.size(), self.0);
        // The step seeds the generator, so that a repeated or resumed run draws the same
        // numbers.
        let mut rng = step.stream("patches");
        let mut mask = vec![0f32; size * height * width];
        for image in mask.chunks_exact_mut(height * width) {
            let (top, left) = (
                below(&mut rng, height / 2 + 1),
                below(&mut rng, width / 2 + 1),
            );
            for row in top..top + height / 2 {
                image[row * width + left..][..width / 2].fill(1.);
            }
        }
        let mask = Tensor::from_vec(mask, (size, 1, height, width), &Device::Cpu)?;
        let mask = mask.to_dtype(images.dtype())?.to_device(images.device())?;
        let next = Tensor::cat(
            &[images.narrow(0, 1, size - 1)?, images.narrow(0, 0, 1)?],
            0,
        )?;
        let negative = (images + (next - images)?.broadcast_mul(&mask)?)?;
        let both = Tensor::cat(&[images, &negative], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    /// The run hides the labels from a sampler that does not use them.
    fn uses_labels(&self) -> bool {
        false
    }

    /// A single image has no next image.
    fn smallest_batch(&self) -> usize {
        2
    }
}

onward::register! {
    dyn NegativeSampler, "patches", "an image with a patch of another image, no labels (an example, 2026)",
    |_settings: Patches, context| Ok(Box::new(Sampler::new(context)?))
}

fn main() -> Result<()> {
    for sampler in ["hybrid_images", "patches"] {
        let builder = Run::builder("progressive")
            .set("sampler", sampler)
            .set("hidden", vec![500, 500]);
        let summary = builder
            .set("readout_from", 1)
            .set("epochs", 5)
            .build()?
            .fit(&mut ())?;
        assert!(!summary.labels.blocks); // no layer has seen a label
        println!("{sampler}: test error {:.1}%", 100. * summary.test.error);
    }
    Ok(())
}
