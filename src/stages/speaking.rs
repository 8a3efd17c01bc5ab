//! What the stages share that let a model speak: loading a checkpoint or asking
//! a server, and asking many questions such that no finished reply is ever lost.

use crate::base::failure::{Failure, Outcome};
use crate::base::node::Node;
use crate::base::seed::Seed;
use crate::base::spec::Reading;
use crate::engine;
use crate::engine::sample::Sampling;
use crate::engine::tokenizer::{FILES, Files};
use crate::host::chat::{End, Reply};
use crate::inference::local::{Local, Manner, Question, Utterance, open_device};
use crate::inference::voice::{Responder, Voice};
use crate::record::Tokens;
use crate::record::template::Prompt;
use crate::stages::kind::Outlay;
use crate::stages::work::Work;
use crate::store::artifact::Artifact;
use serde::{Deserialize, Serialize};

/// Sequences decoded side by side; on the CPU no result depends on it.
pub(super) const BATCH: usize = 64;

/// A model that keeps what it says.
pub(super) struct Speaker<'a> {
    work: &'a Work<'a>,
    mouth: Mouth<'a>,
}

/// Where a reply comes from.
enum Mouth<'a> {
    Local(Box<Local>),
    Server(&'a Responder),
}

/// How tokens are chosen, in the manifest's numbers.
pub(super) fn sampled_at(temperature: f64, top_k: u64, top_p: f64) -> Sampling {
    Sampling::of_likeliest(temperature, usize::try_from(top_k).unwrap_or(0), top_p)
}

/// A share of nothing, or of more than everything, is a mistake.
pub(super) fn check_sampling(top_p: f64, node: &Node, cx: &mut Reading) {
    if !(top_p > 0.0 && top_p <= 1.0) {
        let at = node.at(["top-p"]).unwrap_or(node);
        cx.error(&at.origin, "`top-p` must be above 0 and at most 1");
    }
}

/// What a server's protocol has no word for is a mistake.
pub(super) fn check_server(
    voice: &Voice,
    top_k: u64,
    logprobs: bool,
    node: &Node,
    cx: &mut Reading,
) {
    if voice.server().is_none() {
        return;
    }
    let mut complain = |field: &str, why: &str| {
        cx.error(&node.at([field]).unwrap_or(node).origin, why);
    };
    if top_k > 0 {
        let why = "`top-k` is not in the protocol of servers; where yours knows it, say so in \
            `extra` of its `[api.X]`: `{\"top_k\": 40}`";
        complain("top-k", why);
    }
    if logprobs {
        complain("logprobs", "`logprobs` is for models of the study; a server's are not asked for");
    }
}

/// What asking may cost besides time.
pub(super) fn outlay(voice: &Voice) -> Outlay {
    voice.server().map_or_else(Outlay::default, |responder| Outlay::of_server(&responder.api))
}

/// What is kept of a reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Said {
    /// The text.
    pub(super) text: String,
    /// Tokens read and written.
    pub(super) tokens: Tokens,
    /// Mean natural logarithm of the probability of a token written, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) logprob: Option<f64>,
    /// Whether it was cut off.
    pub(super) cut: bool,
}

/// Loads a checkpoint onto the device of this work.
fn load(work: &Work, model: &Artifact) -> Outcome<Local> {
    Local::load(
        &model.read("config.json")?,
        &model.file("model.safetensors")?,
        &tokenizer_files(model)?,
        &open_device(work.device())?,
    )
}

/// The files of an artifact that belong to a tokenizer.
pub(super) fn tokenizer_files(artifact: &Artifact) -> Outcome<Files> {
    let there = artifact.files();
    let names = FILES.into_iter().filter(|name| there.contains(name));
    names.map(|name| Ok((name.to_owned(), artifact.read(name)?))).collect()
}

impl<'a> Speaker<'a> {
    /// The model in the input `model`, or the server that stands for it.
    pub(super) fn new(work: &'a Work<'a>, voice: &'a Voice) -> Outcome<Speaker<'a>> {
        let mouth = match voice {
            Voice::Model(_) => Mouth::Local(Box::new(load(work, work.input("model")?)?)),
            Voice::Server(responder) => Mouth::Server(responder),
        };
        Ok(Speaker { work, mouth })
    }

    /// Asks every question under the name `topic`; replies in the order of the
    /// prompts. Question `i` gets the seed `seed.at(i)`. A reply that an earlier
    /// attempt got is not asked for again.
    pub(super) fn ask(
        &self,
        topic: &str,
        prompts: &[Prompt],
        seed: Seed,
        manner: &Manner,
    ) -> Outcome<Vec<Said>> {
        match &self.mouth {
            Mouth::Local(local) => self.ask_local(local, topic, prompts, seed, manner),
            Mouth::Server(responder) => self.ask_server(responder, topic, prompts, seed, manner),
        }
    }

    /// What a server says is kept by what it was asked, for all steps.
    fn ask_server(
        &self,
        responder: &Responder,
        topic: &str,
        prompts: &[Prompt],
        seed: Seed,
        manner: &Manner,
    ) -> Outcome<Vec<Said>> {
        let replies = responder.answer(prompts, seed, manner, self.work)?;
        let count = |test: &dyn Fn(&Reply) -> bool| replies.iter().filter(|r| test(r)).count();
        let refused = |reply: &Reply| reply.end == End::Refused;
        let empty = |reply: &Reply| !refused(reply) && reply.text.is_empty();
        for (what, count) in [("refused", count(&refused)), ("empty", count(&empty))] {
            if count > 0 {
                let of = replies.len();
                self.work.warn(format!("{count} of {of} replies to `{topic}` are {what}"));
            }
        }
        let said = |reply: Reply| Said {
            text: reply.text,
            tokens: Tokens { read: reply.read, written: reply.written },
            logprob: None,
            cut: reply.end == End::CutOff,
        };
        Ok(replies.into_iter().map(said).collect())
    }

    fn ask_local(
        &self,
        local: &Local,
        topic: &str,
        prompts: &[Prompt],
        seed: Seed,
        manner: &Manner,
    ) -> Outcome<Vec<Said>> {
        for warning in local.notes(prompts)?.warnings() {
            self.work.warn(format!("prompts of `{topic}`: {warning}"));
        }
        let mut memo = self.work.memo::<Said>(topic)?;
        let missing: Vec<Question> = prompts
            .iter()
            .enumerate()
            .filter(|(index, _)| memo.get(&index.to_string()).is_none())
            .map(|(index, prompt)| Question {
                index,
                prompt: prompt.clone(),
                seed: seed.at(index as u64),
            })
            .collect();
        let mut finished = prompts.len() - missing.len();
        let mut keep = |utterance: Utterance| -> Outcome<()> {
            let Utterance { index, text, tokens, logprob, cut } = utterance;
            memo.put(&index.to_string(), &Said { text, tokens, logprob, cut })?;
            finished += 1;
            self.work.progress(finished as u64, prompts.len() as u64, "records", topic);
            self.work.check()
        };
        engine::on_threads(self.work.threads(), || local.speak(&missing, manner, &mut keep))?;
        (0..prompts.len())
            .map(|index| {
                let lost = || Failure::bug(format!("question {index} of `{topic}` has no reply"));
                memo.get(&index.to_string()).cloned().ok_or_else(lost)
            })
            .collect()
    }
}

/// Total of tokens read and written.
pub(super) fn total(said: &[Said]) -> Tokens {
    let mut tokens = Tokens::default();
    said.iter().for_each(|s| tokens += s.tokens);
    tokens
}

/// Mean of the replies' mean log-probabilities, where they have any.
pub(super) fn mean_logprob<'a>(said: impl IntoIterator<Item = &'a Option<f64>>) -> Option<f64> {
    let all: Vec<f64> = said.into_iter().copied().flatten().collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}
