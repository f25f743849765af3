//! Durations counted by size, for quantiles of any number of them in a few kilobytes.

use std::time::Duration;

/// Counts durations in steps of 1/16 of an octave, so a quantile is off by 6 % at most.
///
/// ```
/// use std::time::Duration;
/// use ws_examples::Histogram;
///
/// let mut histogram = Histogram::new();
/// for milliseconds in 1..=100 {
///     histogram.record(Duration::from_millis(milliseconds));
/// }
/// let median = histogram.quantile(0.5).as_secs_f64();
/// assert!((0.050..0.054).contains(&median));
/// ```
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    largest: Duration,
}

impl Histogram {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            counts: vec![0; STEPS * 64],
            count: 0,
            largest: Duration::ZERO,
        }
    }

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(place(nanoseconds)) {
            *count += 1;
        }
        self.count += 1;
        self.largest = self.largest.max(duration);
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.largest = self.largest.max(other.largest);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest.
    pub fn largest(&self) -> Duration {
        self.largest
    }

    /// The duration that `share` of all, from 0 to 1, do not exceed; zero if there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among fewer than 2^52"
        )]
        let rank = (self.count as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut below = 0;
        for (place, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank.max(1) {
                return Duration::from_nanos(end(place)).min(self.largest);
            }
        }
        self.largest
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Steps of an octave.
const STEPS: usize = 16;
const STEP_BITS: u32 = STEPS.ilog2();

/// Octave and step; the numbers below 16 have a place each.
fn place(number: u64) -> usize {
    let octave = number
        .checked_ilog2()
        .unwrap_or(0)
        .saturating_sub(STEP_BITS);
    let step = usize::try_from(number >> octave).unwrap_or(0);
    step + STEPS * octave as usize
}

/// The largest number of a place.
fn end(place: usize) -> u64 {
    let octave = u32::try_from((place / STEPS).saturating_sub(1)).unwrap_or(0);
    let step = (place - STEPS * octave as usize) as u64;
    ((step + 1) << octave).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_a_place_that_ends_little_behind_it() {
        for number in (0..4096).chain([1 << 20, (1 << 20) - 1, 123_456_789_012, u64::MAX]) {
            let end = end(place(number));
            assert!(end >= number, "{number}: {end}");
            assert!(end - number <= number / 16, "{number}: {end}");
        }
        assert!(place(u64::MAX) < STEPS * 64);
    }

    #[test]
    fn quantiles_are_of_all_that_was_counted() {
        let mut half = Histogram::new();
        assert_eq!(half.quantile(0.5), Duration::ZERO);
        half.record(Duration::from_micros(10));
        let mut both = half.clone();
        both.record(Duration::from_millis(10));
        both.merge(&half);
        assert_eq!(
            (both.count(), both.largest()),
            (3, Duration::from_millis(10))
        );
        assert!(both.quantile(0.5) < Duration::from_micros(11));
        assert_eq!(both.quantile(1.0), Duration::from_millis(10));
    }
}
