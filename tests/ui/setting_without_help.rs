onward::settings! {
    /// The sum of the activities.
    pub struct Sum {
        scale: f64 = 1.;
    }
}

fn main() {}
