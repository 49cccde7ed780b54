//! Adds a rule that knows no negative views: the units of a layer are divided among the
//! classes, and in every layer those of the right class have to be the most active.
//! Nothing is compared with anything that is wrong.
//!
//! ```text
//! $ cargo run --release --example 06_without_negatives
//! by goodness: 8.0% of the test part wrong
//! ```

use onward::candle_core::Tensor;
use onward::{BuildContext, Error, GoodnessFn, Result, Run};

onward::settings! {
    /// A goodness for each class: the mean of the squares of the activities that are
    /// its own.
    ///
    /// `g[b, c] = (1/M)·Σⱼ a[b, c·M + j]²`, `M = ⌊N / C⌋` numbers for each of the `C`
    /// classes, the rest being nobody's: `(B, …)` to `(B, C)`.
    ///
    /// # Reference
    /// After the class groups of Papachristodoulou and others, "Convolutional
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
                "{numbers} numbers cannot be divided among {classes} classes; choose a wider layer"
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
    dyn GoodnessFn, "groups", "mean of squares for each class's own units (an example; CwComp 2023, arXiv 2312.12668)",
    |_settings: Groups, context| Ok(Box::new(Goodness::new(context)?))
}

fn main() -> Result<()> {
    // One positive view, without a label in it; the loss compares the goodness of the
    // classes.
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
        "by {}: {:.1}% of the test part wrong",
        summary.test.readout,
        100. * summary.test.error
    );
    Ok(())
}
