//! Who answers: a model of the study, or one behind a server in its place. Both
//! get the same conversations; a server puts them into its own template.
//!
//! Knows how a conversation becomes messages; not what is asked, and not who
//! keeps what a model of the study says.

use super::annotator::Desk;
use super::api::{Api, Asking, Saying};
use super::local::Manner;
use crate::base::artifact::Model;
use crate::base::failure::Outcome;
use crate::base::node::Node;
use crate::base::seed::Seed;
use crate::base::spec::{Encoder, Field, InputRef, Reading, Ref, Use, spec};
use crate::engine::sample::Sampling;
use crate::host::chat::{End, Reply};
use crate::record::template::Prompt;

/// What a server is told where a model of the study would go on with a reply
/// that has begun; a chat protocol knows whole messages only.
const GO_ON: &str = "Go on exactly where you stopped: write what comes next, and nothing else.";

spec! {
    /// A model behind a server, which answers in place of a model of the study: GPT-3.5 beside one's
    /// own, with the same questions, limits and temperature. Its own chat template writes the
    /// conversation down.
    pub struct Responder {
        /// The model. Temperature and limit are those of the step, not of this table.
        api: Use<Api>,
        /// What it is told to go on with a reply that has begun: where a protocol without `turns`
        /// asks for the refined reply behind the feedback.
        go_on: String = GO_ON.to_owned(),
    }
}

/// Who answers in a step.
#[derive(Clone, Debug, PartialEq)]
// There are a few of them in a manifest: no size is worth a box.
#[allow(clippy::large_enum_variant)]
pub enum Voice {
    /// A model of the study.
    Model(Ref<Model>),
    /// A model behind a server.
    Server(Responder),
}

impl Voice {
    /// The model behind a server, if it is one.
    pub fn server(&self) -> Option<&Responder> {
        match self {
            Voice::Model(_) => None,
            Voice::Server(responder) => Some(responder),
        }
    }
}

impl Field for Voice {
    fn parse(node: &Node, cx: &mut Reading) -> Option<Voice> {
        match node.table().is_some_and(|table| table.get("api").is_some()) {
            true => Responder::parse(node, cx).map(Voice::Server),
            false => Ref::parse(node, cx).map(Voice::Model),
        }
    }

    fn encode(&self, out: &mut Encoder) {
        match self {
            Voice::Model(model) => model.encode(out),
            Voice::Server(responder) => responder.encode(out),
        }
    }

    fn schema() -> serde_json::Value {
        let mut schema = <Ref<Model> as Field>::schema();
        if let Some(cases) = schema["anyOf"].as_array_mut() {
            cases.push(Responder::schema());
        }
        schema
    }

    fn type_name() -> String {
        format!("{}, or a table with `api`", <Ref<Model> as Field>::type_name())
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Voice::Model(model) => model.json(),
            Voice::Server(responder) => responder.json(),
        }
    }

    fn inputs(&self, role: &str, out: &mut Vec<InputRef>) {
        match self {
            Voice::Model(model) => model.inputs(role, out),
            Voice::Server(responder) => responder.inputs(role, out),
        }
    }

    fn spread(node: &Node, cx: &Reading) -> Option<Vec<Node>> {
        <Ref<Model> as Field>::spread(node, cx)
    }
}

impl Responder {
    /// Asks every prompt; replies in their order. Question `i` is the draw that
    /// the seed `seed.at(i)` names, where replies are drawn. A reply that is
    /// refused or empty is asked for again, as often as the table says.
    ///
    /// # Errors
    /// As [`Api::converse`].
    pub fn answer(
        &self,
        prompts: &[Prompt],
        seed: Seed,
        manner: &Manner,
        desk: &dyn Desk,
    ) -> Outcome<Vec<Reply>> {
        let ask = |(index, prompt): (usize, &Prompt)| {
            self.asking(prompt, saying(manner, seed.at(index as u64)))
        };
        let questions: Vec<Asking> = prompts.iter().enumerate().map(ask).collect();
        let usable = |reply: &Reply| match reply.end {
            End::Refused => Err("refused"),
            _ if reply.text.trim().is_empty() => Err("empty"),
            End::Whole | End::CutOff => Ok(()),
        };
        let mut replies = self.api.converse(&questions, &usable, desk)?;
        for reply in &mut replies {
            // Some servers leave in what ends a reply.
            let end = manner.stop.as_ref().and_then(|stop| reply.text.find(stop.as_str()));
            reply.text = reply.text[..end.unwrap_or(reply.text.len())].trim().to_owned();
        }
        Ok(replies)
    }

    /// A conversation in messages.
    fn asking(&self, prompt: &Prompt, manner: Saying) -> Asking {
        let turns = prompt.form.turns.iter();
        let mut before: Vec<(String, String)> =
            turns.map(|turn| (turn.user.clone(), turn.reply.clone())).collect();
        let mut question = prompt.text.clone();
        if !prompt.form.begun.is_empty() {
            before.push((question, prompt.form.begun.clone()));
            question = self.go_on.clone();
        }
        Asking { before, question, manner: Some(manner) }
    }
}

/// How a server is to reply, in its protocol's terms.
fn saying(manner: &Manner, seed: Seed) -> Saying {
    let (temperature, top_p) = match manner.sampling {
        Sampling::Greedy => (0.0, 1.0),
        Sampling::Temperature(temperature) => (temperature, 1.0),
        Sampling::Likeliest { temperature, top_p, .. } => (temperature, top_p),
    };
    let drawn = manner.sampling != Sampling::Greedy;
    Saying {
        // The manifest's own digits: 0.7 is not 0.699999988.
        temperature: temperature.to_string().parse().unwrap_or(f64::from(temperature)),
        top_p,
        max_tokens: manner.max_tokens as u64,
        stop: manner.stop.clone(),
        draw: drawn.then_some(seed.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::template::{Form, Turn};

    fn manner(sampling: Sampling) -> Manner {
        Manner { sampling, max_tokens: 9, stop: Some("End".into()), logprob: false, batch: 1 }
    }

    #[test]
    fn a_manner_is_told_in_the_protocols_terms() {
        let greedy = saying(&manner(Sampling::Greedy), Seed(3));
        assert_eq!((greedy.temperature, greedy.draw, greedy.max_tokens), (0.0, None, 9));
        let drawn = saying(&manner(Sampling::of_likeliest(0.7, 0, 0.9)), Seed(3));
        assert_eq!((drawn.temperature, drawn.top_p, drawn.draw), (0.7, 0.9, Some(3)));
        assert_eq!(drawn.stop.as_deref(), Some("End"));
    }

    #[test]
    fn a_reply_that_has_begun_becomes_a_message_and_a_call_to_go_on() {
        let api = Use { name: None, value: Api::of("m") };
        let responder = Responder { api, go_on: "Go on.".into() };
        let turn = Turn { user: "2 + 2?".into(), reply: "5".into(), learnt: false };
        let form = Form { turns: vec![turn], ..Form::default() };
        let mut prompt = Prompt { form, text: "Is it right?".into() };
        let saying = || saying(&manner(Sampling::Greedy), Seed(1));
        let asked = responder.asking(&prompt, saying());
        let before = vec![("2 + 2?".to_owned(), "5".to_owned())];
        assert_eq!((&asked.before, asked.question.as_str()), (&before, "Is it right?"));
        prompt.form.begun = "No. Refined:".into();
        let asked = responder.asking(&prompt, saying());
        assert_eq!(asked.before[1], ("Is it right?".to_owned(), "No. Refined:".to_owned()));
        assert_eq!(asked.question, "Go on.");
    }
}
