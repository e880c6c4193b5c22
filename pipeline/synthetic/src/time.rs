//! When things happen and when they are delivered. The stream is made in frames of equal numbers of events. Within a
//! frame each source is on or off: on-times are Pareto with shape 1.5, events fall evenly into them (so that gaps are
//! exponential), and the day's rate swings by a factor of three. Delivery is event time plus measured lateness.

use event::Micros;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::SECOND;
use crate::random::{draw, ln, pow, quantile};
use crate::stream::{Options, Stream};

/// Events of one frame: a multiple of the events per pod of every stream.
pub const FRAME: u64 = 7_680;

/// CloudTrail's seconds from event to delivery, as measured.
const LATENESS_SECONDS: [(f64, f64); 6] =
    [(0.0, 4.0), (0.01, 11.0), (0.5, 191.0), (0.95, 455.0), (0.99, 542.0), (1.0, 608.0)];

pub fn lateness(rng: &mut SmallRng, options: &Options) -> Micros {
    let seconds = quantile(rng, &LATENESS_SECONDS) * options.cloudtrail_delay * options.stream.disorder();
    (seconds * SECOND as f64) as Micros
}

/// Maps even (nominal) time since the start to event time.
pub struct Clock {
    start: Micros,
    gap: Micros,
    burst: bool,
}

const HALF_DAY: i64 = 43_200 * SECOND;
const MINUTE: i64 = 60 * SECOND;
/// The night is deepest at two.
const TROUGH: i64 = 2 * 3_600 * SECOND;

impl Clock {
    pub fn new(options: &Options) -> Clock {
        Clock { start: options.start, gap: options.gap.max(1), burst: options.stream == Stream::Burst }
    }

    fn frame_length(&self) -> Micros {
        FRAME as i64 * self.gap
    }

    /// When event `number` would happen if all came evenly.
    pub fn of_number(&self, number: u64) -> Micros {
        self.at(number as i64 * self.gap)
    }

    pub fn frame_start(&self, frame: i64) -> Micros {
        self.at(frame * self.frame_length())
    }

    /// The event time `share` of the way through a frame.
    pub fn within(&self, frame: u64, share: f64) -> Micros {
        let length = self.frame_length();
        let inside = ((share * length as f64) as i64).clamp(0, length - 1);
        self.at(frame as i64 * length + inside)
    }

    fn at(&self, nominal: i64) -> Micros {
        if self.burst {
            return self.start + burst(nominal);
        }
        until(since(self.start) + nominal)
    }
}

/// Ten times the rate in the first five seconds of each minute.
fn burst(nominal: i64) -> i64 {
    let (minute, inside) = (nominal.div_euclid(MINUTE), nominal.rem_euclid(MINUTE) as f64);
    let rate = 60.0 / 105.0;
    let loud = 50.0 * rate * SECOND as f64;
    let real = match inside < loud {
        true => inside / (10.0 * rate),
        false => 5.0 * SECOND as f64 + (inside - loud) / rate,
    };
    minute * MINUTE + (real as i64).min(MINUTE - 1)
}

/// Even time at an event time: the rate rises in a line from a half at two in the night to one and a half at two in
/// the afternoon, and falls likewise; a half day holds as much of both.
fn since(time: Micros) -> i64 {
    let (half, inside) = ((time - TROUGH).div_euclid(HALF_DAY), (time - TROUGH).rem_euclid(HALF_DAY));
    let x = inside as f64 / HALF_DAY as f64;
    let rising = |x: f64| 0.5 * x + 0.5 * x * x;
    let share = if half.rem_euclid(2) == 0 { rising(x) } else { 1.0 - rising(1.0 - x) };
    half * HALF_DAY + (share * HALF_DAY as f64) as i64
}

fn until(nominal: i64) -> Micros {
    let (half, inside) = (nominal.div_euclid(HALF_DAY), nominal.rem_euclid(HALF_DAY));
    let share = inside as f64 / HALF_DAY as f64;
    let rising = |share: f64| (0.25 + 2.0 * share).sqrt() - 0.5;
    let x = if half.rem_euclid(2) == 0 { rising(share) } else { 1.0 - rising(1.0 - share) };
    half * HALF_DAY + TROUGH + ((x * HALF_DAY as f64) as i64).min(HALF_DAY - 1)
}

/// When a source is on within one frame.
pub struct Rhythm {
    /// Start of each on-time and on-time before it, as shares of the frame and of all on-time.
    pieces: Vec<(f64, f64)>,
    on: f64,
}

impl Rhythm {
    pub fn new(seed: u64, frame: u64, on: f64) -> Rhythm {
        let mut rng = draw(seed ^ 0x0F0F_11AA, frame);
        let count = rng.random_range(4..12);
        let lengths: Vec<f64> = (0..count).map(|_| pow(1.0 - rng.random::<f64>(), -1.0 / 1.5).min(50.0)).collect();
        let gaps: Vec<f64> = (0..=count).map(|_| -ln(1.0 - rng.random::<f64>())).collect();
        let (all_on, all_off) = (lengths.iter().sum::<f64>(), gaps.iter().sum::<f64>().max(1e-9));
        let (mut at, mut before) = (0.0, 0.0);
        let mut pieces = Vec::with_capacity(count);
        for (length, gap) in lengths.iter().zip(&gaps) {
            at += gap / all_off * (1.0 - on);
            pieces.push((at, before));
            at += length / all_on * on;
            before += length / all_on;
        }
        Rhythm { pieces, on }
    }

    /// Always on.
    pub fn even() -> Rhythm {
        Rhythm { pieces: vec![(0.0, 0.0)], on: 1.0 }
    }

    /// Where in the frame an event falls.
    pub fn place(&self, rng: &mut SmallRng) -> f64 {
        let u = rng.random::<f64>();
        let (start, before) = self.pieces[self.pieces.partition_point(|(_, before)| *before <= u).max(1) - 1];
        start + (u - before) * self.on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_time_rises_with_even_time_and_a_day_stays_a_day() {
        for stream in [Stream::Steady, Stream::Burst] {
            let clock = Clock::new(&Options { stream, gap: 1_000, ..Options::default() });
            let times: Vec<Micros> = (0..200_000).map(|n| clock.at(n * 997_000)).collect();
            assert!(times.is_sorted(), "{stream:?}");
            assert!((clock.at(2 * HALF_DAY) - clock.at(0) - 2 * HALF_DAY).abs() < 10);
        }
    }

    #[test]
    fn the_rate_is_three_times_higher_in_the_afternoon() {
        let clock = Clock::new(&Options { start: TROUGH, ..Options::default() });
        let slow = clock.at(60 * SECOND) - clock.at(0);
        let fast = clock.at(HALF_DAY) - clock.at(HALF_DAY - 60 * SECOND);
        assert!((slow as f64 / fast as f64 - 3.0).abs() < 0.05, "{slow} {fast}");
    }

    #[test]
    fn bursts_have_ten_times_the_rate() {
        let clock = Clock::new(&Options { stream: Stream::Burst, start: 0, gap: 1_000, ..Options::default() });
        let loud = (0..600_000).filter(|n| clock.of_number(*n).rem_euclid(MINUTE) < 5 * SECOND).count() as f64;
        assert!((loud / 5.0 / ((600_000.0 - loud) / 55.0) - 10.0).abs() < 0.1);
    }

    #[test]
    fn lateness_has_the_measured_quantiles() {
        let (options, mut rng) = (Options::default(), draw(1, 2));
        let mut seconds: Vec<i64> = (0..50_000).map(|_| lateness(&mut rng, &options) / SECOND).collect();
        seconds.sort_unstable();
        for (share, wanted) in [(0.01, 11), (0.5, 191), (0.95, 455), (0.99, 542)] {
            let got = seconds[(share * 50_000.0) as usize];
            assert!((got - wanted).abs() <= 1 + wanted / 20, "{share}: {got}");
        }
        assert!(seconds[49_999] <= 608);
    }

    #[test]
    fn a_source_is_on_for_its_share_of_the_frame() {
        let mut rng = draw(3, 4);
        let rhythm = Rhythm::new(1, 1, 0.2);
        let mut seen = [false; 1_000];
        (0..100_000).for_each(|_| seen[(rhythm.place(&mut rng) * 1_000.0) as usize] = true);
        let on = seen.iter().filter(|seen| **seen).count();
        assert!((190..240).contains(&on), "{on}");
    }
}
