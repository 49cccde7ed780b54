//! Adds a rule without negative views.
//!
//! The units of a layer are divided among the classes. In every layer, the units of the
//! true class learn to be the most active.
//!
//! ```text
//! $ cargo run --release --example 06_without_negatives
//! test error 8.0% (goodness)
//! ```

use onward::candle_core::Tensor;
use onward::{BuildContext, Error, GoodnessFn, Result, Run};

onward::settings! {
    /// Goodness of each class as the mean of the squared activities of its units.
    ///
    /// `g[b, c] = (1/M)·Σⱼ a[b, c·M + j]²` with `M = ⌊N / C⌋` units for each of the `C`
    /// classes: `(B, …)` to `(B, C)`. The remaining units belong to no class.
    ///
    /// # Reference
    /// The class groups of Papachristodoulou et al., "Convolutional
    /// Channel-wise Competitive Learning for the Forward-Forward Algorithm", 2023
    /// (<https://arxiv.org/abs/2312.12668>).
    pub struct Groups {}
}

struct Goodness {
    classes: usize,
}

impl Goodness {
    fn new(context: &BuildContext) -> Result<Self> {
        let (classes, numbers) = (context.classes, context.input.iter().product::<usize>());
        if classes == 0 || numbers < classes {
            return Err(Error::unfit(
                "groups",
                format!(
                "expected a unit for each of {classes} classes, found {numbers}; choose a wider layer"
            ),
            ));
        }
        Ok(Self { classes })
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let rows = activity.flatten_from(1)?;
        let own = rows.dim(1)? / self.classes;
        let groups =
            rows.narrow(1, 0, self.classes * own)?
                .reshape((rows.dim(0)?, self.classes, own))?;
        Ok(groups.sqr()?.mean(2)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }
}

onward::register! {
    dyn GoodnessFn, "groups", "mean of squares of the units of each class (an example; CwComp 2023, arXiv 2312.12668)",
    |_settings: Groups, context| Ok(Box::new(Goodness::new(context)?))
}

fn main() -> Result<()> {
    // One positive view without a label. The loss compares the goodness of the classes.
    let builder = Run::builder("progressive")
        .set("sampler", "plain")
        .set("loss", "cross_entropy");
    let builder = builder
        .set("goodness", "groups")
        .set("hidden", vec![500, 500])
        .set("head", false);
    let mut run = builder
        .set("optimiser", "adam")
        .set("lr", 0.001)
        .set("epochs", 10)
        .build()?;
    let summary = run.fit(&mut ())?;
    println!(
        "test error {:.1}% ({})",
        100. * summary.test.error,
        summary.test.readout
    );
    Ok(())
}
