//! What ends a training before its time. Errors of the caller's own type wait outside, so that training is compiled once
//! and not again for every such type.

use super::source::RowSource;
use super::{KMeansState, Step};
use crate::error::Error;

pub(super) enum Stop {
    Error(Error),
    /// The caller's: of what observes.
    Observer,
    /// The caller's: of what reads.
    Reader,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

/// What hears how training goes.
pub(super) type Observe<'a> = dyn FnMut(Step, Option<&KMeansState>) -> Result<(), Stop> + 'a;

/// Runs `train` with `source` and `observe`, and hands back the error of whichever of them ended it.
pub(super) fn with_own_errors<T, E: From<Error> + Send>(
    source: &mut RowSource<'_, E>,
    mut observe: impl FnMut(Step, Option<&KMeansState>) -> Result<(), E>,
    train: impl FnOnce(&mut RowSource<'_, Stop>, &mut Observe<'_>) -> Result<T, Stop>,
) -> Result<T, E> {
    let (mut observed, mut read) = (None, None);
    let trained = train(&mut source.erased(&mut read), &mut |step, state| {
        observe(step, state).map_err(|error| {
            observed = Some(error);
            Stop::Observer
        })
    });
    trained.map_err(|stop| {
        let own = match stop {
            Stop::Error(error) => return E::from(error),
            Stop::Observer => observed,
            Stop::Reader => read,
        };
        own.unwrap_or_else(|| unreachable!("whoever ends it leaves an error"))
    })
}
