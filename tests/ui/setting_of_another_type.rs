onward::settings! {
    /// The sum of the activities.
    pub struct Sum {
        /// What the sum is multiplied by.
        scale: (f64, f64) = (1., 1.);
    }
}

fn main() {}
