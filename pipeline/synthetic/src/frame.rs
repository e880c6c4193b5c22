//! One frame of a stream: everything that begins within it, with the time of its delivery. A frame depends on the
//! options and its number only, so that frames can be made side by side.

use event::{Micros, Source};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::attack::{Planted, plant};
use crate::kubernetes::Life;
use crate::random::{chance, draw};
use crate::stream::{Options, Stream};
use crate::time::{Clock, FRAME, Rhythm, lateness};
use crate::world::{Population, Sizes};
use crate::{Event, SECOND, cloudtrail, falco, kubernetes};

/// An event on its way.
pub struct Due {
    pub at: Micros,
    /// When it happens; for a step of an attack, when the attack begins.
    pub begun: Micros,
    pub event: Event,
}

#[derive(Default)]
pub struct Frame {
    pub dues: Vec<Due>,
    /// Attacks and when they begin.
    pub planted: Vec<(Micros, Vec<Planted>)>,
}

/// Shares of what happens, in thousandths; CloudTrail's repeats and the ends of watches come on top and make it
/// Kubernetes 80, CloudTrail 18, Falco 2 of what is delivered.
const KUBERNETES_BELOW: u32 = 815;
const CLOUDTRAIL_BELOW: u32 = 977;
/// CloudTrail delivers about one record in five twice; others hardly ever repeat themselves.
const REPEATED_PERCENT: f64 = 20.0;
const OTHERS_REPEATED_PERCENT: f64 = 0.1;
/// A repeat comes in another file: the largest has 370 records, one of six events is of CloudTrail.
const REPEAT_DISTANCE: u64 = 2_100;
/// Share of time that a source is on.
const ON: [f64; 3] = [0.45, 0.2, 0.15];

/// What all frames of a stream share.
pub struct Maker {
    pub options: Options,
    clock: Clock,
    sizes: Sizes,
}

impl Maker {
    pub fn new(options: Options) -> Maker {
        Maker { clock: Clock::new(&options), sizes: Sizes::of(options.world_gb), options }
    }

    pub fn frame_start(&self, frame: u64) -> Micros {
        self.clock.frame_start(frame as i64)
    }

    pub fn frame(&self, frame: u64) -> Frame {
        let Options { seed, stream, .. } = self.options;
        let mut made = Frame { dues: Vec::with_capacity(FRAME as usize * 5 / 4), ..Frame::default() };
        let rhythms: Vec<Rhythm> = (0..3)
            .map(|n| match stream {
                Stream::Burst => Rhythm::even(),
                _ => Rhythm::new(seed ^ (n << 40), frame, ON[n as usize]),
            })
            .collect();
        let every = stream.events_per_pod();
        let population = Population::at(frame, FRAME / every, stream == Stream::HighCardinality);
        for n in 0..FRAME {
            let number = frame * FRAME + n;
            self.plant(number, &mut made);
            let mut rng = draw(seed, number);
            let life = match n % every {
                0 => Some((Life::Created, n / every)),
                half if half == every / 2 => Some((Life::Deleted, n / every)),
                _ => None,
            };
            let source = match rng.random_range(0..1000) {
                _ if life.is_some() || stream == Stream::Bulk => Source::Kubernetes,
                0..KUBERNETES_BELOW => Source::Kubernetes,
                KUBERNETES_BELOW..CLOUDTRAIL_BELOW => Source::CloudTrail,
                _ => Source::Falco,
            };
            let rhythm = match source {
                Source::Kubernetes => &rhythms[0],
                Source::CloudTrail => &rhythms[1],
                Source::Falco => &rhythms[2],
            };
            let at = self.clock.within(frame, rhythm.place(&mut rng));
            self.background(rng, source, (frame, number), at, population, life, &mut made);
        }
        made
    }

    fn plant(&self, number: u64, made: &mut Frame) {
        let Options { seed, attack_every, .. } = self.options;
        if attack_every == 0 || number % attack_every != attack_every / 2 {
            return;
        }
        let begun = self.clock.of_number(number) + SECOND;
        let (truth, events) = plant(seed, number / attack_every, begun, self.options.spacing);
        for (n, event) in events.into_iter().enumerate() {
            let mut rng = draw(seed ^ 0xDE1A_F001, number.wrapping_mul(1 << 20) + n as u64);
            let late = if event.source == Source::CloudTrail { lateness(&mut rng, &self.options) } else { 0 };
            made.dues.push(Due { at: event.time + late, begun, event });
        }
        made.planted.push((begun, truth));
    }

    #[expect(clippy::too_many_arguments, reason = "one event's circumstances, used in this one place")]
    fn background(
        &self,
        mut rng: SmallRng,
        source: Source,
        (frame, number): (u64, u64),
        at: Micros,
        population: Population,
        life: Option<(Life, u64)>,
        made: &mut Frame,
    ) {
        let Options { seed, stream, data_events, .. } = self.options;
        let sizes = &self.sizes;
        match source {
            Source::Kubernetes => {
                let bulk = stream == Stream::Bulk;
                let of = kubernetes::Background { sizes, population, epoch: frame, number, bulk, life };
                for told in kubernetes::background(&mut rng, at, &of) {
                    let (cluster, time, bytes) = (Some(told.cluster), told.at, told.bytes);
                    self.deliver(number, 0, Event { source, cluster, time, bytes }, time, made);
                }
            }
            Source::CloudTrail => {
                let of = cloudtrail::Background {
                    sizes,
                    epoch: frame,
                    begun: [frame as i64, frame as i64 - 1].map(|frame| self.clock.frame_start(frame)),
                    data_events,
                    hot_percent: stream.hot_percent(data_events),
                    new_address: (stream == Stream::HighCardinality).then_some(number / stream.events_per_pod()),
                };
                let time = at - at.rem_euclid(SECOND);
                let bytes = cloudtrail::background(&mut rng, time, &of);
                let late = lateness(&mut draw(seed ^ 0xDE1A_F000, number), &self.options);
                self.deliver(number, late, Event { source, cluster: None, time, bytes }, at, made);
            }
            Source::Falco => {
                let of = falco::Background { sizes, population };
                let (cluster, bytes) = falco::background(&mut rng, at, &of);
                self.deliver(number, 0, Event { source, cluster: Some(cluster), time: at, bytes }, at, made);
            }
        }
    }

    /// Sends an event on its way, and perhaps its repeat, byte for byte, in a later file.
    fn deliver(&self, number: u64, late: Micros, event: Event, begun: Micros, made: &mut Frame) {
        let Options { seed, gap, stream, .. } = self.options;
        let mut rng = draw(seed ^ 0x5EC0_0D00, number);
        let percent = match event.source {
            Source::CloudTrail => REPEATED_PERCENT,
            _ => OTHERS_REPEATED_PERCENT,
        };
        let at = begun + late;
        if chance(&mut rng, percent * stream.disorder()) {
            let distance = rng.random_range(REPEAT_DISTANCE..3 * REPEAT_DISTANCE) as i64 * gap;
            made.dues.push(Due { at: at + distance, begun, event: event.clone() });
        }
        made.dues.push(Due { at, begun, event });
    }
}
