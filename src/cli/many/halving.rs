//! Successive halving: all methods train for a few epochs, only the best ones for more.

use super::entry::Entry;
use super::table;

/// The epochs after which the worse methods are given up. At each of them one method in
/// `factor` is kept, and each is `factor` times the one before; `count` methods begin,
/// and the last ones train for all `epochs`.
///
/// # Reference
/// Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
/// Optimization", 2016 (<https://arxiv.org/abs/1502.07943>).
pub(super) fn stages(epochs: u32, count: usize, factor: u32) -> Vec<u32> {
    let mut stages = Vec::new();
    let (mut left, mut at) = (count, epochs / factor);
    while left >= factor as usize && at > 0 {
        stages.push(at);
        left = left.div_ceil(factor as usize);
        at /= factor;
    }
    stages.reverse();
    stages
}

/// The methods that are kept, each with its data set: of each data set one in `factor`,
/// by the mean validation result of all seeds.
pub(super) fn kept(entries: &[Entry], factor: u32) -> Vec<(String, String)> {
    let rows = table::rows(entries);
    let mut kept = Vec::new();
    let mut data: Vec<&str> = rows.iter().map(|row| row.data).collect();
    data.dedup();
    for data in data {
        // They are sorted by validation.
        let of_data = rows.iter().filter(|row| row.data == data);
        let count = of_data.clone().count().div_ceil(factor as usize);
        let best = of_data.filter(|row| row.is_complete()).take(count);
        kept.extend(best.map(|row| (data.into(), row.method.into())));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_longer_and_has_fewer_methods() {
        assert_eq!(stages(27, 27, 3), [1, 3, 9]);
        assert_eq!(stages(10, 6, 3), [3]);
        assert_eq!(stages(100, 16, 2), [6, 12, 25, 50]);
        // Too few epochs for all stages, too few methods for one.
        assert_eq!(stages(5, 27, 3), [1]);
        assert!(stages(100, 2, 3).is_empty());
    }
}
