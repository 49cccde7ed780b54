use onward::candle_core::Tensor;
use onward::{GoodnessFn, Result};

onward::settings! {
    /// The sum of the activities.
    pub struct Sum {}
}

impl GoodnessFn for Sum {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.sum(1)?)
    }
}

onward::register! {
    dyn onward::LocalLayer, "sum", "the sum of the activities",
    |settings: Sum, _context| Ok(Box::new(settings))
}

fn main() {}
