//! What is measured, as it is reported.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Times in nanoseconds, up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    // The bounds are good ones: only bad ones are an error.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!())
}

/// Round trips, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) min_us: f64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Processor time of this program for each.
    pub(crate) cpu_us: f64,
}

impl Times {
    pub(crate) fn of(histogram: &Histogram<u64>, cpu_us: u64) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            min_us: histogram.min() as f64 / 1000.0,
            mean_us: histogram.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1000.0,
            cpu_us: cpu_us as f64 / histogram.len().max(1) as f64,
        }
    }

    pub(crate) const HEAD: &'static str =
        "            count      min     mean      p50      p90      p99    p99.9      max  CPU (us)";

    pub(crate) fn line(&self, name: &str) -> String {
        format!(
            "{name:<6} {:>10} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>9.1}",
            self.count,
            self.min_us,
            self.mean_us,
            self.p50_us,
            self.p90_us,
            self.p99_us,
            self.p999_us,
            self.max_us,
            self.cpu_us
        )
    }
}

/// One round of moving octets.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Round {
    pub(crate) octets: u64,
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) client_cpu_us: u64,
    pub(crate) server_cpu_us: u64,
}

/// All of them. The rate is the median of the rounds'.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) bytes_per_second: f64,
    pub(crate) operations_per_second: f64,
    pub(crate) client_cpu_ns_per_byte: f64,
    pub(crate) server_cpu_ns_per_byte: f64,
    pub(crate) rounds: Vec<Round>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Rate {
    pub(crate) fn of(rounds: Vec<Round>) -> Self {
        let rate = |of: fn(&Round) -> u64| {
            median(rounds.iter().map(|round| of(round) as f64 / round.seconds).collect())
        };
        let octets = rounds.iter().map(|round| round.octets).sum::<u64>().max(1) as f64;
        let cpu = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>() as f64 * 1000.0 / octets;
        Self {
            bytes_per_second: rate(|round| round.octets),
            operations_per_second: rate(|round| round.operations),
            client_cpu_ns_per_byte: cpu(|round| round.client_cpu_us),
            server_cpu_ns_per_byte: cpu(|round| round.server_cpu_us),
            rounds,
        }
    }

    pub(crate) const HEAD: &'static str =
        "             MB/s      op/s  CPU ns/B here  there   slowest  fastest round";

    pub(crate) fn line(&self, name: &str) -> String {
        let rates = self.rounds.iter().map(|round| round.octets as f64 / round.seconds / 1e6);
        let (slowest, fastest) =
            rates.fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(rate), high.max(rate)));
        format!(
            "{name:<6} {:>10.1} {:>9.0} {:>14.3} {:>6.3} {slowest:>9.1} {fastest:>8.1}",
            self.bytes_per_second / 1e6,
            self.operations_per_second,
            self.client_cpu_ns_per_byte,
            self.server_cpu_ns_per_byte
        )
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn percentiles_of_a_known_set() {
        let mut all = histogram();
        (1..=1000).for_each(|us| all.record(us * 1000).unwrap());
        let times = Times::of(&all, 2000);
        assert_eq!((times.count, times.min_us, times.cpu_us), (1000, 1.0, 2.0));
        for (value, want) in [(times.p50_us, 500.0), (times.p99_us, 990.0), (times.max_us, 1000.0)] {
            assert!((value - want).abs() < want * 0.002, "{value} {want}");
        }
    }

    #[test]
    fn the_median_round_and_the_sum_of_cpu() {
        let round =
            |octets| Round { octets, operations: 1, seconds: 2.0, client_cpu_us: 100, server_cpu_us: 0 };
        let rate = Rate::of(vec![round(100), round(4000), round(200)]);
        assert_eq!(rate.bytes_per_second, 100.0);
        assert!((rate.client_cpu_ns_per_byte - 300_000.0 / 4300.0).abs() < 1e-9);
    }
}
