//! How operations fail, for the description: each group is named once and listed among an operation's responses.
//! All are `application/problem+json`.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Content, Ref, RefOr};

use crate::service::http::problem::MEDIA_TYPE;

type Responses = BTreeMap<String, RefOr<Response>>;

/// What the guard in front of every operation answers.
pub(super) enum Guarded {}

/// No such environment, entry, run or approval.
pub(super) enum Absent {}

/// What a request with a body may get.
pub(super) enum Misread {}

/// What reading the repository may end in.
pub(super) enum Unreadable {}

/// The service has just been started.
pub(super) enum Unseen {}

fn problems(list: &[(u16, &str)]) -> Responses {
    let problem = |words: &str| {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        ResponseBuilder::new().description(words).content(MEDIA_TYPE, content).build()
    };
    list.iter().map(|(status, words)| (status.to_string(), RefOr::T(problem(words)))).collect()
}

impl IntoResponses for Guarded {
    fn responses() -> Responses {
        problems(&[(401, "Not signed in"), (403, "Not allowed"), (429, "Too many requests")])
    }
}

impl IntoResponses for Absent {
    fn responses() -> Responses {
        problems(&[(404, "Not found")])
    }
}

impl IntoResponses for Misread {
    fn responses() -> Responses {
        problems(&[(400, "Not understood"), (413, "Too large"), (415, "Not JSON")])
    }
}

impl IntoResponses for Unreadable {
    fn responses() -> Responses {
        problems(&[(500, "Damaged, or a bug"), (503, "The repository is away")])
    }
}

impl IntoResponses for Unseen {
    fn responses() -> Responses {
        problems(&[(503, "Not looked at yet")])
    }
}
