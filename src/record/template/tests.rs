//! Templates against FastChat's strings and transformers' renderings
//! (`tests/fixtures/templates.py`), and what is done with bad templates.

use super::*;
use serde_json::Value;

const SPEECH: Speech = Speech { begin: Some("<s>"), end: "</s>", chat_template: None };

fn fixture() -> Value {
    let text = include_str!("../../../tests/fixtures/templates.json");
    serde_json::from_str(text).unwrap()
}

/// A prompt and its reply, out of turns as `[[message, reply], ..]`.
fn conversation(turns: &Value, template: Template, jinja: Option<&str>) -> (Prompt, String) {
    let mut turns: Vec<Turn> = turns
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| Turn {
            user: turn[0].as_str().unwrap().to_owned(),
            reply: turn[1].as_str().unwrap().to_owned(),
            learnt: true,
        })
        .collect();
    let last = turns.pop().unwrap();
    let chat_template = jinja.map(str::to_owned);
    let form = Form { template, chat_template, turns, begun: String::new() };
    (Prompt { form, text: last.user }, last.reply)
}

fn written(parts: &[Part]) -> String {
    let part = |part: &Part| match &part.body {
        Body::Begin => String::new(),
        Body::End => "</s>".to_owned(),
        Body::Text(text) => text.clone(),
    };
    parts.iter().map(part).collect()
}

fn learnt(parts: &[Part]) -> Vec<String> {
    let learnt = parts.iter().filter(|part| part.learnt);
    learnt.map(|part| written(std::slice::from_ref(part))).collect()
}

#[test]
fn vicuna_is_written_as_fastchat_writes_it() {
    let fixture = fixture();
    let cases = fixture["vicuna"].as_array().unwrap();
    assert!(cases.len() >= 50);
    for case in cases {
        let (prompt, reply) = conversation(&case["turns"], Template::Vicuna, None);
        assert_eq!(written(&render(&prompt, None, &SPEECH).unwrap()), case["open"]);
        let parts = render(&prompt, Some(&reply), &SPEECH).unwrap();
        assert_eq!(written(&parts), case["closed"]);
        assert_eq!(parts.iter().filter(|part| part.body == Body::Begin).count(), 1);
    }
}

#[test]
fn jinja_is_rendered_as_transformers_renders_it() {
    let fixture = fixture();
    for case in fixture["jinja"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let source = fixture["templates"][name].as_str().unwrap();
        let (prompt, reply) = conversation(&case["turns"], Template::Model, Some(source));
        let open = render(&prompt, None, &SPEECH).unwrap_or_else(|f| panic!("{name}: {f}"));
        assert_eq!(written(&open), case["open"], "{name}");
        let parts = render(&prompt, Some(&reply), &SPEECH).unwrap();
        let closed = case["closed"].as_str().unwrap();
        // What a template writes behind the last end mark is never said.
        let said = &closed[..closed.rfind("</s>").unwrap() + 4];
        assert_eq!(written(&parts), said, "{name}");
        let learnt = learnt(&parts);
        assert_eq!(learnt.len(), prompt.form.turns.len() + 1, "{name}");
        assert!(learnt.iter().all(|text| text.ends_with("</s>")), "{name}: {learnt:?}");
    }
}

#[test]
fn a_reply_that_has_begun_is_context() {
    let source = fixture()["templates"]["inst"].as_str().unwrap().to_owned();
    for (template, jinja, open) in [
        (Template::Vicuna, None, "USER: judge ASSISTANT: it is wrong refined:"),
        (Template::Plain, None, "judge it is wrong refined:"),
        (Template::Model, Some(source), "<s>[INST] judge [/INST] it is wrong refined:"),
    ] {
        let form = Form {
            template,
            chat_template: jinja,
            turns: Vec::new(),
            begun: "it is wrong refined:".into(),
        };
        let prompt = Prompt { form, text: "judge".into() };
        let before = written(&render(&prompt, None, &SPEECH).unwrap());
        assert!(before.ends_with(open), "{before}");
        let parts = render(&prompt, Some("answer 3"), &SPEECH).unwrap();
        assert!(written(&parts).starts_with(&before));
        assert_eq!(learnt(&parts).concat().replace(" </s>", "</s>"), " answer 3</s>");
    }
}

#[test]
fn bad_templates_are_told_with_their_line() {
    let refused = |source: &str| {
        let form = Form {
            template: Template::Model,
            chat_template: Some(source.to_owned()),
            ..Form::default()
        };
        let prompt = Prompt { form, text: "hi".into() };
        render(&prompt, Some("ho"), &SPEECH).expect_err("refused").what
    };
    let raised = refused("{{ bos_token }}\n{{ raise_exception('only after noon') }}");
    assert!(raised.contains("only after noon") && raised.contains("line 2"), "{raised}");
    assert!(refused("a\nb {% if x %}").contains("line 2"));
    let day = refused("{{ strftime_now('%d %b %Y') }}");
    assert!(day.contains("asks for the date"), "{day}");
    let turned = "{% if add_generation_prompt %}think: {% endif %}{{ messages[-1].content }}";
    assert!(refused(turned).contains("otherwise than the prompt"));
    assert!(complaint("{{ messages }}").is_none());
    assert!(complaint("x\n{% endfor %}").unwrap().contains("at line 2: `{% endfor %}`"));
    let prompt =
        Prompt { form: Form { template: Template::Model, ..Form::default() }, text: String::new() };
    assert!(render(&prompt, None, &SPEECH).expect_err("refused").what.contains("brings no chat"));
}

#[test]
fn without_an_end_of_its_own_a_reply_gets_one() {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                  {% if add_generation_prompt %}assistant:{% endif %}";
    let form = Form {
        template: Template::Model,
        chat_template: Some(source.to_owned()),
        ..Form::default()
    };
    let prompt = Prompt { form, text: "hi".into() };
    let parts = render(&prompt, Some("ho"), &SPEECH).unwrap();
    assert_eq!(parts.last(), Some(&Part { body: Body::End, learnt: true }));
}
