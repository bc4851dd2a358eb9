//! A request that was understood, and one that cannot be served.

use taskscope_proto::filter::{Filter, ParseError, Parts};
use taskscope_proto::top::{Direction, Place};
use taskscope_proto::v1::{self, SortKey};

const MAX_ROWS: usize = 5_000;
const DEFAULT_ROWS: usize = 100;
const MAX_KEPT: usize = 256;
const MAX_STANDING: usize = 64;
const DEFAULT_INTERVAL_NS: u64 = 1_000_000_000;
const MIN_INTERVAL_NS: u64 = 50_000_000;

/// What a watcher wants to see.
pub(crate) struct Ask {
    pub(super) request_id: u64,
    pub(crate) interval_ns: u64,
    pub(super) tasks: Option<Tasks>,
    pub(super) keep: Vec<u64>,
    pub(super) groups: Option<v1::GroupQuery>,
    /// Of groups, since the probe began.
    pub(super) histograms_total: bool,
    pub(super) standing: Vec<Standing>,
    pub(super) history_seconds: u32,
    pub(crate) once: bool,
    pub(super) stacks: Option<v1::StackQuery>,
}

/// The rows wanted.
#[derive(PartialEq)]
pub(super) struct Tasks {
    pub(super) filter: Parts,
    pub(super) sort: SortKey,
    pub(super) direction: Direction,
    pub(super) after: Option<Place>,
    pub(super) limit: usize,
    pub(super) with_ended: bool,
}

#[derive(PartialEq)]
pub(super) struct Standing {
    pub(super) query: v1::StandingQuery,
    pub(super) filter: Parts,
}

/// A request that cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error(transparent)]
    Filter(#[from] ParseError),
    #[error("{asked} {what} were asked for\nhint: at most {most} are served")]
    TooMany { what: &'static str, asked: usize, most: usize },
    #[error("stacks are taken for one frame only\nhint: set `once`, and ask again for the next ones")]
    StacksAgain,
}

impl TryFrom<v1::WatchRequest> for Ask {
    type Error = BadRequest;

    fn try_from(request: v1::WatchRequest) -> Result<Self, BadRequest> {
        let too_many = |what, asked, most| {
            if asked > most { Err(BadRequest::TooMany { what, asked, most }) } else { Ok(()) }
        };
        too_many("kept ids", request.keep_task_ids.len(), MAX_KEPT)?;
        too_many("standing queries", request.standing.len(), MAX_STANDING)?;
        let stacks = request.stacks;
        let of_tasks = stacks.as_ref().map_or(0, |query| query.task_ids.len());
        too_many("tasks to take the stacks of", of_tasks, MAX_KEPT)?;
        if stacks.is_some() && !request.once {
            return Err(BadRequest::StacksAgain);
        }
        let standing = request
            .standing
            .into_iter()
            .map(|query| Ok(Standing { filter: query.filter.parse::<Filter>()?.into_parts(), query }))
            .collect::<Result<_, ParseError>>()?;
        let interval_ns = if request.interval_ns == 0 { DEFAULT_INTERVAL_NS } else { request.interval_ns };
        let mut keep = request.keep_task_ids;
        keep.sort_unstable();
        keep.dedup();
        Ok(Self {
            request_id: request.request_id,
            interval_ns: interval_ns.max(MIN_INTERVAL_NS),
            tasks: request.tasks.map(Tasks::try_from).transpose()?,
            keep,
            groups: request.groups,
            histograms_total: request.histograms_total,
            standing,
            history_seconds: request.history_seconds,
            once: request.once,
            stacks,
        })
    }
}

impl TryFrom<v1::TaskQuery> for Tasks {
    type Error = ParseError;

    fn try_from(query: v1::TaskQuery) -> Result<Self, ParseError> {
        let filter: Filter = query.filter.parse()?;
        Ok(Self {
            with_ended: query.include_ended || filter.asks_for_ended(),
            filter: filter.into_parts(),
            sort: query.sort(),
            direction: if query.ascending { Direction::Ascending } else { Direction::Descending },
            after: query.after.as_ref().map(Place::from),
            limit: if query.limit == 0 { DEFAULT_ROWS } else { (query.limit as usize).min(MAX_ROWS) },
        })
    }
}
