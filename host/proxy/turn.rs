//! Calls wait for their turn where instances are full.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, Run};
use super::failure::CallFailure;
use super::pick::{Excluded, Question};
use crate::registry::{Instance, Line, Place, Takers};

/// Whether all the room is for those who were called: who waits is before who comes.
pub(super) fn is_taken(line: &Line, room: impl Fn() -> u32) -> bool {
    let called = line.called();
    called > 0 && room() <= called
}

impl Run<'_> {
    /// Waits until an instance that could take the call is not full any more.
    pub(super) async fn wait<'l>(
        &'l self,
        question: &Question<'_>,
        tried: &Excluded,
        place: &mut Option<Place<'l>>,
    ) -> Result<(), CallFailure> {
        let service = self.target.service();
        let (mut places, mut latency_us, mut count) = (0_u32, 0_u64, 0_u64);
        for live in question.takers(tried).map(|instance| &instance.core.live) {
            places = places.saturating_add(live.limit());
            latency_us += u64::from(live.ewma_us());
            count += 1;
        }
        let pace = (places, Duration::from_micros(latency_us / count.max(1)));
        let for_whom = (question.waits_for(tried), pace);
        self.stand(&service.core.line, place, for_whom, || question.openings(tried)).await
    }

    /// Takes a place at the one instance that can take the call, once there is one.
    pub(super) async fn enter_at(&self, instance: &Arc<Instance>) -> Result<Attempt, CallFailure> {
        let (live, line) = (&instance.core.live, &instance.core.line);
        let room = || if live.is_full() { 0 } else { live.limit().saturating_sub(live.in_flight()).max(1) };
        let mut place: Option<Place<'_>> = None;
        loop {
            if (place.is_some() || !is_taken(line, room))
                && let Some(attempt) = Attempt::try_begin(instance, false)
            {
                if let Some(place) = place {
                    place.enter(room);
                }
                return Ok(attempt);
            }
            let pace = (live.limit(), Duration::from_micros(live.ewma_us().into()));
            self.stand(line, &mut place, (Takers::from_iter([instance.slot]), pace), room).await?;
        }
    }

    /// Waits for its turn in the line, in its place there or else at the end.
    async fn stand<'l>(
        &self,
        line: &'l Line,
        place: &mut Option<Place<'l>>,
        (takers, pace): (Takers, (u32, Duration)),
        room: impl Fn() -> u32,
    ) -> Result<(), CallFailure> {
        let waited = async {
            let place = match place {
                Some(place) => place,
                None => place.insert(line.join(takers, pace, self.times.deadline, &self.limits)?),
            };
            place.turn(room).await
        };
        let service = &self.target.service().name;
        waited.await.map_err(|shed| CallFailure::Shed { service: service.to_string(), shed })
    }
}
