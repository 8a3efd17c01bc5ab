//! What a study can tell: intervals of paired differences, and how much more
//! data would show a difference as large as the one found.
//!
//! Pure arithmetic on counts; no random numbers, so that a report made twice
//! says the same.

use super::metric::{Paired, Z95, student};

/// The chance of showing a true difference that a study should have.
pub const POWER: f64 = 0.8;
/// No plan needs more seeds than this; a difference that does is none.
const MOST_SEEDS: u64 = 10_000;

/// The 95 % bootstrap interval (percentiles) of a paired difference, as shares:
/// over all resamples of the items, not over some of them.
///
/// The sum of n draws with replacement of -1, 0 and 1 has a distribution that
/// is worked out term by term; what is left out of its ends is below 1e-15.
///
/// # Source
/// Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
pub fn bootstrap(paired: Paired, n: u64) -> (f64, f64) {
    if n == 0 {
        return (-1.0, 1.0);
    }
    let (up, down) = (paired.only_first as f64 / n as f64, paired.only_second as f64 / n as f64);
    let same = 1.0 - up - down;
    // Chances of the sums `low`, `low + 1`, ...
    let (mut low, mut chances) = (0i64, vec![1.0]);
    for _ in 0..n {
        let mut next = vec![0.0; chances.len() + 2];
        for (at, chance) in chances.iter().enumerate() {
            next[at] += chance * down;
            next[at + 1] += chance * same;
            next[at + 2] += chance * up;
        }
        low -= 1;
        let negligible = |chance: &&f64| **chance < 1e-18;
        let first = next.iter().take_while(negligible).count();
        let last = next.len() - next.iter().rev().take_while(negligible).count();
        (low, chances) = (low + first as i64, next[first..last].to_vec());
    }
    let at = |wanted: f64| {
        let mut sum = 0.0;
        let place = chances.iter().position(|chance| {
            sum += chance;
            sum >= wanted
        });
        (low + place.unwrap_or(chances.len() - 1) as i64) as f64 / n as f64
    };
    (at(0.025), at(0.975))
}

/// Items on which McNemar's test would show, with a chance of 80 %, a difference
/// as large as the one found among pairs that differ as often, at the two-sided
/// level `alpha`; `None` where there is no difference.
///
/// # Source
/// Connor, Sample size for testing differences in proportions for the
/// paired-sample design, Biometrics 43, 1987.
pub fn items_needed(paired: Paired, n: u64, alpha: f64) -> Option<u64> {
    let (first, second) = (paired.only_first as f64, paired.only_second as f64);
    let (apart, difference) = ((first + second) / n as f64, (first - second).abs() / n as f64);
    if difference == 0.0 {
        return None;
    }
    let (level, power) = (quantile(1.0 - alpha / 2.0), quantile(POWER));
    let spread = level * apart.sqrt() + power * (apart - difference * difference).max(0.0).sqrt();
    Some((spread * spread / (difference * difference)).ceil() as u64)
}

/// Seeds with which Student's paired test would show a mean difference with a
/// chance of 80 %, at the two-sided level 0.05, given the deviation over seeds;
/// `None` where none would do, or more than ten thousand.
pub fn seeds_needed(mean: f64, deviation: f64) -> Option<u64> {
    if mean == 0.0 || !mean.is_finite() || !deviation.is_finite() {
        return None;
    }
    let effect = mean.abs() / deviation;
    (2..=MOST_SEEDS).find(|&n| student_power(effect, n) >= POWER)
}

/// The chance that Student's test on n differences, of a mean of `effect`
/// deviations, comes out below 0.05, two-sided.
fn student_power(effect: f64, n: u64) -> f64 {
    if effect.is_infinite() {
        return 1.0;
    }
    let degrees = (n - 1) as f64;
    let (shift, critical) = (effect * (n as f64).sqrt(), student((n - 1) as usize));
    // The sample's deviation over the true one, s, is chi distributed; given s,
    // the rest is normal. Simpson's rule over s.
    let log_scale = degrees / 2.0 * (degrees / 2.0).ln() - ln_gamma(degrees / 2.0);
    let density = |s: f64| {
        let log = log_scale + (degrees - 1.0) * s.ln() - degrees * s * s / 2.0;
        2.0 * log.exp()
    };
    let given = |s: f64| normal(shift - critical * s) + normal(-shift - critical * s);
    let (steps, most) = (2000, 1.0 + 12.0 / degrees.sqrt());
    let width = most / f64::from(steps);
    let term = |i: u32| {
        let s = (f64::from(i) * width).max(1e-12);
        let weight = if i == 0 || i == steps {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        };
        weight * density(s) * given(s)
    };
    (0..=steps).map(term).sum::<f64>() * width / 3.0
}

/// The distribution function of the normal distribution.
///
/// # Source
/// W. J. Cody's rational approximations need three ranges; the series and the
/// continued fraction of Abramowitz and Stegun, 7.1.6 and 7.1.14, need two.
fn normal(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let tail = if x < 2.5 {
        let (mut term, mut sum, mut k) = (x, x, 0.0);
        while term > 1e-17 * sum.max(1e-300) {
            k += 1.0;
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
        }
        1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    } else {
        let fraction = (1..=60).rev().fold(x, |below, k| x + f64::from(k) / 2.0 / below);
        (-x * x).exp() / std::f64::consts::PI.sqrt() / fraction
    };
    if z < 0.0 { tail / 2.0 } else { 1.0 - tail / 2.0 }
}

/// The quantile of the normal distribution, by halving.
fn quantile(p: f64) -> f64 {
    if p == 0.975 {
        return Z95;
    }
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if normal(middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The logarithm of the gamma function, for arguments above 0.
///
/// # Source
/// Stirling's series, Abramowitz and Stegun, 6.1.41, from 10 on; below, the
/// recurrence.
fn ln_gamma(x: f64) -> f64 {
    if x < 10.0 {
        return ln_gamma(x + 1.0) - x.ln();
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::super::metric::{self, holm, mcnemar, share};
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Fixture {
        wilson: Vec<(u64, u64, f64, f64)>,
        mcnemar: Vec<(u64, u64, f64)>,
        holm: Vec<(Vec<f64>, Vec<f64>)>,
        student: Vec<(Vec<f64>, f64, f64)>,
        normal: Vec<(f64, f64)>,
        power: Vec<(f64, u64, f64)>,
        seeds: Vec<(f64, u64)>,
        connor: Vec<(u64, u64, u64, f64, u64)>,
        bootstrap: Vec<(u64, u64, u64, f64, f64)>,
    }

    fn fixture() -> Fixture {
        let text = include_str!("../../tests/fixtures/statistics.json");
        serde_json::from_str(text).expect("the fixture reads")
    }

    fn near(got: f64, want: f64, tolerance: f64) {
        assert!((got - want).abs() <= tolerance, "{got} is not {want}");
    }

    fn paired(only_first: u64, only_second: u64) -> Paired {
        Paired { only_first, only_second, p: 1.0 }
    }

    #[test]
    fn intervals_and_tests_are_those_of_scipy_and_statsmodels() {
        let fixture = fixture();
        for (hits, n, low, high) in fixture.wilson {
            let share = share(hits, n);
            near(share.low, low, 1e-9);
            near(share.high, high, 1e-9);
        }
        for (a, b, p) in fixture.mcnemar {
            let side = |first: bool| {
                let only = |count: u64, is: bool| std::iter::repeat_n(is, count as usize);
                only(a, first).chain(only(b, !first)).collect::<Vec<bool>>()
            };
            let got = mcnemar(&side(true), &side(false));
            assert_eq!((got.only_first, got.only_second), (a, b));
            near(got.p, p, 1e-9);
        }
        for (p, corrected) in fixture.holm {
            holm(&p).into_iter().zip(corrected).for_each(|(got, want)| near(got, want, 1e-12));
        }
        for (values, mean, half) in fixture.student {
            let spread = metric::spread(&values).expect("values");
            near(spread.mean, mean, 1e-12);
            near(spread.half / half, 1.0, 2e-4);
        }
        fixture.normal.into_iter().for_each(|(z, p)| near(normal(z), p, 1e-12));
        near(quantile(0.8), 0.841_621_233_572_914_2, 1e-9);
    }

    #[test]
    fn power_and_the_seeds_it_needs_are_those_of_statsmodels() {
        let fixture = fixture();
        for (effect, n, power) in fixture.power {
            near(student_power(effect, n), power, 2e-4);
        }
        for (effect, n) in fixture.seeds {
            assert_eq!(seeds_needed(-effect, 1.0), Some(n), "{effect}");
        }
        assert_eq!(seeds_needed(0.0, 1.0), None);
        assert_eq!(seeds_needed(1e-9, 1.0), None);
        assert_eq!(seeds_needed(0.1, 0.0), Some(2));
        for (a, b, n, alpha, want) in fixture.connor {
            assert_eq!(items_needed(paired(a, b), n, alpha), Some(want), "{a} {b} {n}");
        }
        assert_eq!(items_needed(paired(4, 4), 100, 0.05), None);
    }

    #[test]
    fn the_bootstrap_over_all_resamples_is_the_limit_of_scipys() {
        for (a, b, n, low, high) in fixture().bootstrap {
            let got = bootstrap(paired(a, b), n);
            // A hundred thousand resamples hit a neighbouring item now and then.
            let item = 1.01 / n as f64;
            near(got.0, low, item);
            near(got.1, high, item);
        }
        assert_eq!(bootstrap(paired(0, 0), 5), (0.0, 0.0));
        assert_eq!(bootstrap(paired(5, 0), 5), (1.0, 1.0));
        let (low, high) = bootstrap(paired(700, 600), 5000);
        assert!(low > 0.0 && high < 0.05 && low < 0.02 && high > 0.02, "{low} {high}");
    }
}
