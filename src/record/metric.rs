//! Statistics: shares with intervals, paired tests, votes, spreads over seeds.
//! Every number in a report comes from here, with its n.
//!
//! Pure arithmetic on counts and outcomes.

/// The 97.5 % quantile of the normal distribution.
pub(super) const Z95: f64 = 1.959_963_984_540_054;

/// A share with its 95 % interval, all in `0..=1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Successes.
    pub hits: u64,
    /// Trials.
    pub n: u64,
    /// `hits / n`; 0 when there is nothing.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A share with Wilson's score interval.
///
/// # Source
/// Wilson, Probable inference, JASA 22, 1927; recommended by Brown, Cai and
/// DasGupta, Statistical Science 16, 2001.
pub fn share(hits: u64, n: u64) -> Share {
    wilson(hits, hits as f64, n)
}

/// A share of outcomes that may be half a success, such as ties: `halves` of
/// `2 n`. The interval is Wilson's for whole successes of the same mean, which
/// vary at least as much, so it is never too narrow. `hits` leaves out a last half.
pub fn share_in_halves(halves: u64, n: u64) -> Share {
    wilson(halves / 2, halves as f64 / 2.0, n)
}

fn wilson(hits: u64, successes: f64, n: u64) -> Share {
    if n == 0 {
        return Share { hits, n, value: 0.0, low: 0.0, high: 1.0 };
    }
    let (p, n_) = (successes / n as f64, n as f64);
    let z2 = Z95 * Z95;
    let centre = (p + z2 / (2.0 * n_)) / (1.0 + z2 / n_);
    let half = Z95 / (1.0 + z2 / n_) * (p * (1.0 - p) / n_ + z2 / (4.0 * n_ * n_)).sqrt();
    Share { hits, n, value: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

/// A paired comparison of two lists of outcomes on the same items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Items only the first got right.
    pub only_first: u64,
    /// Items only the second got right.
    pub only_second: u64,
    /// Two-sided p of no difference.
    pub p: f64,
}

/// McNemar's test, exact: under no difference, the discordant items split like
/// fair coins.
///
/// # Source
/// McNemar, Psychometrika 12, 1947; exact form as in Fay, Two-sided exact
/// tests, The R Journal 2, 2010.
pub fn mcnemar(first: &[bool], second: &[bool]) -> Paired {
    let pairs = || first.iter().zip(second);
    let only_first = pairs().filter(|(a, b)| **a && !**b).count() as u64;
    let only_second = pairs().filter(|(a, b)| !**a && **b).count() as u64;
    Paired { only_first, only_second, p: sign_test(only_first, only_second) }
}

/// Two-sided exact p of a split of `a + b` fair coins at least this uneven.
pub fn sign_test(a: u64, b: u64) -> f64 {
    let (n, k) = (a + b, a.min(b));
    let mut log_choose = 0.0;
    let mut tail = 0.0;
    let log_half = -(n as f64) * std::f64::consts::LN_2;
    for i in 0..=k {
        if i > 0 {
            log_choose += ((n - i + 1) as f64).ln() - (i as f64).ln();
        }
        tail += (log_choose + log_half).exp();
    }
    (2.0 * tail).min(1.0)
}

/// Holm's step-down correction of several p values, in the given order.
///
/// # Source
/// Holm, Scandinavian Journal of Statistics 6, 1979.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let (mut corrected, mut floor) = (vec![0.0; p.len()], 0.0f64);
    for (rank, &index) in order.iter().enumerate() {
        floor = floor.max((p[index] * (p.len() - rank) as f64).min(1.0));
        corrected[index] = floor;
    }
    corrected
}

/// The answer given most often; of several, the one given first. Texts without
/// an answer have no vote.
pub fn majority(answers: &[Option<f64>]) -> Option<f64> {
    most_voted(answers.iter().flatten().copied())
}

/// What is there most often; of several, what was there first.
pub fn most_voted<T: PartialEq>(votes: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, u64)> = Vec::new();
    for vote in votes {
        match counts.iter_mut().find(|(value, _)| *value == vote) {
            Some((_, count)) => *count += 1,
            None => counts.push((vote, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(value, _)| value)
}

/// Mean and spread of one number over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Values.
    pub n: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample; 0 for one value.
    pub deviation: f64,
    /// Half width of the 95 % interval of the mean (Student); infinite for one value.
    pub half: f64,
}

/// Mean, deviation and Student interval; `None` for no values.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    if n == 1 {
        return Some(Spread { n, mean, deviation: 0.0, half: f64::INFINITY });
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let deviation = (squares / (n - 1) as f64).sqrt();
    Some(Spread { n, mean, deviation, half: student(n - 1) * deviation / (n as f64).sqrt() })
}

/// The 97.5 % quantile of Student's t with `degrees` degrees of freedom.
pub fn student(degrees: usize) -> f64 {
    // Table values; beyond it the expansion of Abramowitz and Stegun, 26.7.5.
    const TABLE: [f64; 10] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    if let Some(value) = TABLE.get(degrees.wrapping_sub(1)) {
        return *value;
    }
    let (z, d) = (Z95, degrees as f64);
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
        (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5)
            - 1920.0 * z.powi(3)
            - 945.0 * z)
            / 92160.0,
    ];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) / d) + z
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-4, "{a} is not {b}");
    }

    #[test]
    fn wilson_matches_published_values() {
        // 81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 17, 1998, table I).
        let s = share(81, 263);
        near(s.low, 0.2553);
        near(s.high, 0.3662);
        // 0 of 20: 0 to 0.1611 (same table).
        near(share(0, 20).low, 0.0);
        near(share(0, 20).high, 0.1611);
    }

    #[test]
    fn half_successes_have_the_mean_of_whole_ones() {
        assert_eq!(share_in_halves(2 * 81, 263), share(81, 263));
        let s = share_in_halves(2 * 3 + 5, 10);
        assert_eq!((s.value, s.hits, s.n), (0.55, 5, 10));
        assert!(s.low < share(6, 10).low && s.low > share(5, 10).low);
    }

    #[test]
    fn mcnemar_is_the_binomial_test_on_discordant_pairs() {
        let outcomes = |bits: &str| bits.chars().map(|c| c == '1').collect::<Vec<_>>();
        let paired = mcnemar(&outcomes("1111111100"), &outcomes("0000000010"));
        assert_eq!((paired.only_first, paired.only_second), (8, 1));
        // 2 (1 + 9) / 2^9.
        near(paired.p, 20.0 / 512.0);
        assert_eq!(mcnemar(&outcomes("10"), &outcomes("10")).p, 1.0);
        assert!(sign_test(400, 100) < 1e-40);
    }

    #[test]
    fn holm_keeps_order_and_never_falls() {
        let corrected = holm(&[0.01, 0.04, 0.03]);
        near(corrected[0], 0.03);
        near(corrected[1], 0.06);
        near(corrected[2], 0.06);
    }

    #[test]
    fn votes_break_ties_by_the_first_given() {
        assert_eq!(majority(&[Some(2.0), None, Some(3.0), Some(3.0)]), Some(3.0));
        assert_eq!(majority(&[Some(2.0), Some(3.0)]), Some(2.0));
        assert_eq!(majority(&[None, None]), None);
    }

    #[test]
    fn spread_uses_students_t() {
        let s = spread(&[1.0, 2.0, 3.0]).expect("values");
        near(s.mean, 2.0);
        near(s.deviation, 1.0);
        near(s.half, 4.303 / 3f64.sqrt());
        assert_eq!(spread(&[]), None);
        near(student(11), 2.2010);
        near(student(30), 2.0423);
        near(student(120), 1.9799);
    }
}
