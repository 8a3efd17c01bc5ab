//! Kind `fetch-replies`: the published replies of some model, and the problems
//! they answer -> dialogues, in the order of the problems. Nothing is random.

use crate::base::artifact::{ArtifactKind, Problems};
use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::spec::{Reading, Ref, choice, spec};
use crate::record::{Dialogue, Problem};
use crate::stages::fetching::Source;
use crate::stages::foresight::{Extent, Foreseen, Given};
use crate::stages::formats;
use crate::stages::kind::{Kind, Stage};
use crate::stages::work::Work;
use crate::store::spread::Range;

choice! {
    /// How a file holds its replies.
    pub enum ReplyFormat {
        /// Answers of FastChat's judge, one JSON value a line with `question_id` and `choices`; the
        /// first turn of the first choice is the reply.
        FastchatAnswers = "fastchat-answers",
    }
}

spec! {
    /// Gets replies that somebody published, such as GPT-4's reference answers or another model's,
    /// as dialogues on problems that are already there. Problems without a reply are left out and
    /// counted, and so are replies to other problems.
    #[check(sensible)]
    pub struct FetchReplies {
        /// The problems they answer.
        problems: Ref<Problems>,
        /// Address of the file, of a fixed version.
        #[exec]
        url: String,
        /// SHA-256 of the file, 64 hexadecimal digits.
        sha256: Option<String>,
        /// In its place: the file's blob in git, 40 hexadecimal digits.
        git_blob: Option<String>,
        /// How the file holds its replies.
        format: ReplyFormat = ReplyFormat::FastchatAnswers,
        /// Path of the file inside a mirror folder.
        #[exec]
        mirror_path: Option<String>,
        /// Mirror folder; without it the environment's REKINDLE_MIRROR.
        #[exec]
        mirror: Option<String>,
        /// Most bytes the file may have.
        #[exec]
        limit: u64 = 1 << 30,
    }
}

/// This kind's row in the table.
pub const KIND: Kind = Kind::of::<FetchReplies>("fetch-replies", "dataset", 1, false);

fn sensible(fetch: &FetchReplies, node: &Node, cx: &mut Reading) {
    fetch.source().check(node, cx);
}

impl Stage for FetchReplies {
    fn outputs(&self) -> Vec<(String, ArtifactKind)> {
        vec![("dialogues".into(), ArtifactKind::Dialogues)]
    }

    fn foresee(&self, given: &Given) -> Option<Foreseen> {
        let problems = given.one("problems")?;
        // Of whole paragraphs, as these judged sets have them.
        let reply = Range { low: 50.0, middle: 250.0, high: 800.0 };
        Some(Foreseen::of("dialogues", Extent { reply, ..problems }))
    }

    fn run(&self, work: &Work) -> Outcome<()> {
        let problems: Vec<Problem> = work.input("problems")?.rows("problems.jsonl")?;
        let (text, place) = self.source().text(work)?;
        let mut replies = match self.format {
            ReplyFormat::FastchatAnswers => formats::fastchat_answers(&text),
        }
        .map_err(|mut failure| {
            failure.what = format!("{place}, {}", failure.what);
            failure
        })?;
        let asked = problems.len();
        let dialogues: Vec<Dialogue> = problems
            .into_iter()
            .filter_map(|problem| {
                let reply = replies.remove(&problem.id)?;
                Some(Dialogue::of(problem, reply))
            })
            .collect();
        work.metric("problems-without-reply", (asked - dialogues.len()) as f64);
        work.metric("replies-to-other-problems", replies.len() as f64);
        if dialogues.is_empty() {
            return Err(Failure::input(format!("{place} has no reply to any of the problems"))
                .hint("replies are told by the `question_id` of their question"));
        }
        work.output("dialogues").write_rows("dialogues.jsonl", &dialogues)
    }
}

impl FetchReplies {
    fn source(&self) -> Source<'_> {
        Source {
            url: &self.url,
            sha256: self.sha256.as_deref(),
            git_blob: self.git_blob.as_deref(),
            mirror_path: self.mirror_path.as_deref(),
            mirror: self.mirror.as_deref(),
            limit: self.limit,
        }
    }
}
