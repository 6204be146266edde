//! What n random drills say about all the seconds that were not drilled: the upper bound of the share
//! that could not be restored, with 95 % confidence (one-sided Clopper–Pearson; without any failure
//! that is 1 − 0.05^(1/n)).

/// How often such a bound holds.
pub const CONFIDENCE: f64 = 0.95;

/// The largest share of bad seconds with which `failures` or fewer of `drills` random ones would still
/// be seen in 5 of 100 cases. Without a drill nothing is known: 1.
pub fn upper_bound(drills: u64, failures: u64) -> f64 {
    if failures >= drills {
        return 1.0;
    }
    if failures == 0 {
        return 1.0 - (1.0 - CONFIDENCE).powf(1.0 / drills as f64);
    }
    // The probability of so few failures falls with the share: halving finds where it is 5 %.
    let (mut low, mut high) = (failures as f64 / drills as f64, 1.0);
    while high - low > 1e-12 {
        let middle = f64::midpoint(low, high);
        if at_most(failures, drills, middle) > 1.0 - CONFIDENCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Probability of at most `failures` in `drills` when each fails with probability `share`, 0 < `share` < 1.
fn at_most(failures: u64, drills: u64, share: f64) -> f64 {
    // Terms of the binomial distribution, as logarithms: with many drills the first ones are below every float.
    let odds = (share / (1.0 - share)).ln();
    let mut term = drills as f64 * (1.0 - share).ln();
    let mut sum = term.exp();
    for n in 0..failures {
        term += ((drills - n) as f64 / (n + 1) as f64).ln() + odds;
        sum += term.exp();
    }
    sum
}

/// Drills needed to claim, with 95 % confidence and nothing assumed (Wilks), that `share` of all restores
/// take no longer than the longest that was measured.
pub fn needed_for_percentile(share: f64) -> u64 {
    ((1.0 - CONFIDENCE).ln() / share.ln()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(drills: u64, failures: u64) -> f64 {
        (upper_bound(drills, failures) * 10_000.0).round() / 100.0
    }

    #[test]
    fn bounds_are_those_of_the_tables() {
        assert_eq!((percent(12, 0).round(), percent(30, 0)), (22.0, 9.5));
        assert_eq!((percent(52, 0), percent(90, 0)), (5.6, 3.27));
        assert!(upper_bound(58, 0) > 0.05 && upper_bound(59, 0) < 0.05);
        assert_eq!((percent(299, 0), percent(365, 0)), (1.0, 0.82));
        // R: binom.test(k, n, alternative = "less")$conf.int[2]
        assert_eq!((percent(10, 1), percent(20, 2), percent(100, 5)), (39.42, 28.26, 10.23));
        assert_eq!((percent(0, 0), percent(3, 3)), (100.0, 100.0));
    }

    #[test]
    fn the_bound_tightens_with_drills_and_loosens_with_failures() {
        for drills in [2, 7, 40, 1000, 100_000] {
            assert!(upper_bound(drills + 1, 1) < upper_bound(drills, 1));
            assert!(upper_bound(drills, 0) < upper_bound(drills, 1));
            // With one failure the general way gives what the short one would have: no step between the two.
            assert!((at_most(0, drills, upper_bound(drills, 0)) - 0.05).abs() < 1e-9);
            assert!((at_most(1, drills, upper_bound(drills, 1)) - 0.05).abs() < 1e-6);
        }
    }

    #[test]
    fn the_bound_holds_in_at_least_95_of_100_estates() {
        // A share of 3 % is bad; campaigns of 40 drills with fixed pseudo-random numbers.
        let mut state = 42_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let held = (0..4000)
            .filter(|_| {
                let failures = (0..40).filter(|_| next() < 0.03).count() as u64;
                upper_bound(40, failures) >= 0.03
            })
            .count();
        assert!(held >= 3800, "{held} of 4000");
    }

    #[test]
    fn percentiles_need_as_many_drills_as_wilks_says() {
        assert_eq!([0.9, 0.95, 0.99].map(needed_for_percentile), [29, 59, 299]);
    }
}
