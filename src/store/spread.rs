//! How long a step probably takes, from how long it and its like took before.
//!
//! Logarithms of times are taken to scatter like a normal distribution, with one
//! variance for all steps that were repeated. A range is then the 95 % interval
//! that prediction from such samples has: it is wide where little is known, and
//! narrows with every run.
//!
//! # Source
//! The prediction interval of a one-way layout with common variance, as in any
//! textbook on analysis of variance.

use crate::record::metric::student;

/// A number that is not certain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    /// The low end.
    pub low: f64,
    /// The likeliest.
    pub middle: f64,
    /// The high end.
    pub high: f64,
}

impl Range {
    /// A number that is certain.
    pub fn exact(value: f64) -> Range {
        Range { low: value, middle: value, high: value }
    }

    /// The sum, as if all were low, likely or high together.
    pub fn plus(self, other: Range) -> Range {
        Range {
            low: self.low + other.low,
            middle: self.middle + other.middle,
            high: self.high + other.high,
        }
    }

    /// So many of them.
    pub fn times(self, factor: f64) -> Range {
        self.by(Range::exact(factor))
    }

    /// The product of two numbers that are not negative, as if both were low, likely or high
    /// together.
    pub fn by(self, other: Range) -> Range {
        Range {
            low: self.low * other.low,
            middle: self.middle * other.middle,
            high: self.high * other.high,
        }
    }
}

/// How far logarithms of repeated measurements scatter.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scatter {
    squares: f64,
    degrees: usize,
}

/// With one measurement and no repetition of anything, this factor either way.
const NOTHING_KNOWN: f64 = 2.0;
/// No time is shorter, in seconds: what is below was not measured.
const TICK: f64 = 1e-3;

impl Scatter {
    /// Adds repeated measurements of one thing.
    pub fn add(&mut self, samples: &[f64]) {
        if samples.len() > 1 {
            let (_, squares) = moments(samples);
            self.squares += squares;
            self.degrees += samples.len() - 1;
        }
    }

    /// What a measurement will be after these of the same thing; none after none.
    pub fn predict(&self, samples: &[f64]) -> Option<Range> {
        if samples.is_empty() {
            return None;
        }
        let (mean, _) = moments(samples);
        let reach = match self.degrees {
            0 => NOTHING_KNOWN.ln(),
            degrees => {
                let deviation = (self.squares / degrees as f64).sqrt();
                student(degrees) * deviation * (1.0 + 1.0 / samples.len() as f64).sqrt()
            }
        };
        let at = |by: f64| (mean + by).exp();
        Some(Range { low: at(-reach), middle: at(0.0), high: at(reach) })
    }
}

/// Mean of the logarithms, and the sum of their squared distances from it.
fn moments(samples: &[f64]) -> (f64, f64) {
    let logs = samples.iter().map(|sample| sample.max(TICK).ln());
    let mean = logs.clone().sum::<f64>() / samples.len() as f64;
    (mean, logs.map(|log| (log - mean).powi(2)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_next_measurement_as_often_as_it_says() {
        // Twenty steps, four measurements each with a deviation of 0.3; the fifth
        // falls into its range about 19 times of 20.
        let mut rng = crate::base::seed::Seed(5).rng();
        let mut measure = |step: f64| (step + 0.3 * rng.normal()).exp();
        let (mut inside, mut all) = (0, 0);
        for _ in 0..100 {
            let samples: Vec<Vec<f64>> =
                (0..20).map(|step| (0..4).map(|_| measure(f64::from(step))).collect()).collect();
            let mut scatter = Scatter::default();
            samples.iter().for_each(|of_one| scatter.add(of_one));
            for (step, of_one) in samples.iter().enumerate() {
                let range = scatter.predict(of_one).unwrap();
                let next = measure(step as f64);
                inside += u32::from(range.low <= next && next <= range.high);
                all += 1;
            }
        }
        let share = f64::from(inside) / f64::from(all);
        assert!((0.93..0.97).contains(&share), "{share}");
    }

    #[test]
    fn little_knowledge_makes_wide_ranges() {
        let nothing = Scatter::default();
        assert_eq!(nothing.predict(&[]), None);
        let range = nothing.predict(&[10.0]).unwrap();
        assert!((range.low - 5.0).abs() < 1e-9 && (range.high - 20.0).abs() < 1e-9, "{range:?}");
        let mut scatter = Scatter::default();
        scatter.add(&[10.0, 11.0]);
        let (one, four) = (scatter.predict(&[10.0]).unwrap(), scatter.predict(&[10.0; 4]).unwrap());
        assert!(four.high < one.high && one.low < four.low, "{one:?} {four:?}");
    }
}
