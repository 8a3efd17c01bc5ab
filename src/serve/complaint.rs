//! What a client hears that asks for what cannot be had, in the words and the
//! shape of OpenAI's errors.
//!
//! Knows nothing of how it came to that.

use crate::base::failure::Failure;
use crate::host::server::Whole;
use serde_json::{Value, json};

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Complaint {
    status: u16,
    kind: &'static str,
    message: String,
    /// The parameter it is about.
    param: Option<String>,
    code: Option<&'static str>,
    headers: Vec<(&'static str, String)>,
}

impl Complaint {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Complaint {
        let message = message.into();
        Complaint { status, kind, message, param: None, code: None, headers: Vec::new() }
    }

    /// The request is wrong; 400.
    pub(super) fn wrong(message: impl Into<String>) -> Complaint {
        Complaint::new(400, "invalid_request_error", message)
    }

    /// A parameter is wrong; 400.
    pub(super) fn about(param: &str, message: impl Into<String>) -> Complaint {
        Complaint { param: Some(param.to_owned()), ..Complaint::wrong(message) }
    }

    /// What a template or a tokenizer refuses; 400.
    pub(super) fn refused(param: &str, failure: &Failure) -> Complaint {
        Complaint::about(param, failure.chain().join(": "))
    }

    /// The key is not the right one; 401.
    pub(super) fn unknown_key() -> Complaint {
        let message = "the header `Authorization: Bearer KEY` is missing, or its key is another";
        let headers = vec![("www-authenticate", "Bearer".to_owned())];
        let complaint = Complaint::new(401, "invalid_request_error", message);
        Complaint { headers, ..complaint.coded("invalid_api_key") }
    }

    /// There is nothing at this path; 404.
    pub(super) fn no_path(path: &str, known: &str) -> Complaint {
        let path: String = path.chars().take(80).collect();
        let message = format!("there is nothing at `{path}`; there are {known}");
        Complaint::new(404, "invalid_request_error", message)
    }

    /// The path wants another method; 405.
    pub(super) fn wrong_method(path: &str, wanted: &'static str) -> Complaint {
        let message = format!("`{path}` is asked with {wanted}");
        let headers = vec![("allow", wanted.to_owned())];
        Complaint { headers, ..Complaint::new(405, "invalid_request_error", message) }
    }

    /// There is no such model; 404.
    pub(super) fn no_model(asked: &str, served: &str) -> Complaint {
        let asked: String = asked.chars().take(80).collect();
        let message =
            format!("there is no model `{asked}` here; the one that is served is `{served}`");
        let complaint = Complaint::new(404, "invalid_request_error", message);
        Complaint { param: Some("model".into()), ..complaint.coded("model_not_found") }
    }

    /// It did not come in time; 408.
    pub(super) fn too_slow() -> Complaint {
        Complaint::new(408, "invalid_request_error", "the request did not come in time")
    }

    /// The body is too large; 413.
    pub(super) fn too_large(most: u64) -> Complaint {
        let message = format!("a request has at most {most} bytes");
        Complaint::new(413, "invalid_request_error", message)
    }

    /// There is no room, and will be in so many seconds; 429.
    pub(super) fn busy(message: impl Into<String>, seconds: u64) -> Complaint {
        let headers = vec![("retry-after", seconds.to_string())];
        let complaint = Complaint::new(429, "rate_limit_error", message);
        Complaint { headers, ..complaint.coded("server_busy") }
    }

    /// The server failed; 500.
    pub(super) fn failed(message: impl Into<String>) -> Complaint {
        Complaint::new(500, "server_error", message)
    }

    /// The server is about to end; 503.
    pub(super) fn closing() -> Complaint {
        let message = "the server finishes what it has and takes nothing new";
        let headers = vec![("retry-after", "10".to_owned())];
        Complaint { headers, ..Complaint::new(503, "server_error", message) }
    }

    /// The same with a word that programs know.
    pub(super) fn coded(self, code: &'static str) -> Complaint {
        Complaint { code: Some(code), ..self }
    }

    /// As an error object.
    pub(super) fn json(&self) -> Value {
        let Complaint { kind, message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }

    /// As an answer.
    pub(super) fn answer(&self) -> Whole {
        Whole {
            status: self.status,
            content_type: "application/json",
            headers: self.headers.clone(),
            body: self.json().to_string().into_bytes(),
        }
    }

    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }
}
