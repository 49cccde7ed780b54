onward::settings! {
    /// The sum of the activities.
    pub struct Sum {
        /// The factor of the sum.
        scale: (f64, f64) = (1., 1.);
    }
}

fn main() {}
